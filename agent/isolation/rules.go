package isolation

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/bulwarkhq/bulwark/api/response"
)

// tableName is the name of our table, of the family inet. Nothing else is in it,
// and nothing of it is in other tables: what administrators and firewalls have
// stays as it is. A packet passes only if all tables accept it, so ours need not
// be the first.
const tableName = "bulwark_isolation"

// plan is what an isolated host may still do.
type plan struct {
	channel   []netip.AddrPort // the portal or the proxy before it: TCP, of root's processes
	resolvers []netip.Addr     // DNS
	peers     []response.Peer  // whatever the order allows
}

func (p plan) equal(q plan) bool {
	return slices.Equal(p.channel, q.channel) && slices.Equal(p.resolvers, q.resolvers) && slices.Equal(p.peers, q.peers)
}

// direction is the side of a rule.
type direction bool

const (
	incoming direction = false
	outgoing direction = true
)

// rulesOf returns the rules of the chains. Everything that no rule accepts is
// dropped, what was connected before too: the rules look at addresses and not at
// the state of connections, which other modules keep.
func (p plan) rulesOf(d direction) [][]expr.Any {
	rules := [][]expr.Any{loopback(d)}
	add := func(parts ...[]expr.Any) {
		rules = append(rules, append(slices.Concat(parts...), accept()...))
	}
	for _, c := range p.channel {
		far := slices.Concat(address(d, netip.PrefixFrom(c.Addr(), c.Addr().BitLen())), protocol(unix.IPPROTO_TCP), port(farPort(d), c.Port()))
		if d == outgoing {
			add(far, root())
		} else {
			add(far, answering())
		}
	}
	for _, r := range p.resolvers {
		far := address(d, netip.PrefixFrom(r, r.BitLen()))
		add(far, protocol(unix.IPPROTO_UDP), port(farPort(d), 53))
		if d == outgoing {
			add(far, protocol(unix.IPPROTO_TCP), port(farPort(d), 53))
		} else {
			add(far, protocol(unix.IPPROTO_TCP), port(farPort(d), 53), answering())
		}
	}
	// The host keeps its address (DHCP) and its neighbours (IPv6 neighbour
	// discovery and the reports that switches want for it; ARP is no IP).
	for _, dhcp := range []struct {
		family      byte
		server, own uint16
	}{{unix.NFPROTO_IPV4, 67, 68}, {unix.NFPROTO_IPV6, 547, 546}} {
		add(family(dhcp.family), protocol(unix.IPPROTO_UDP), port(farPort(d), dhcp.server), port(nearPort(d), dhcp.own))
	}
	for _, kind := range []byte{133, 134, 135, 136, 143} {
		add(family(unix.NFPROTO_IPV6), protocol(unix.IPPROTO_ICMPV6), transport(0, []byte{kind}))
	}
	for _, peer := range p.peers {
		far := address(d, peer.Network)
		if peer.Port == 0 {
			add(far)
			continue
		}
		for _, proto := range []byte{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
			add(far, protocol(proto), port(farPort(d), peer.Port))
			add(far, protocol(proto), port(nearPort(d), peer.Port))
		}
	}
	return rules
}

// Offsets of the ports in the header of TCP and UDP.
const sourcePort, destinationPort = 0, 2

func farPort(d direction) uint32 {
	if d == outgoing {
		return destinationPort
	}
	return sourcePort
}

func nearPort(d direction) uint32 {
	if d == outgoing {
		return sourcePort
	}
	return destinationPort
}

func accept() []expr.Any { return []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}} }

func equals(data []byte) expr.Any { return &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: data} }

func loopback(d direction) []expr.Any {
	key := expr.MetaKeyIIFNAME
	if d == outgoing {
		key = expr.MetaKeyOIFNAME
	}
	name := make([]byte, unix.IFNAMSIZ)
	copy(name, "lo")
	return []expr.Any{&expr.Meta{Key: key, Register: 1}, equals(name), &expr.Verdict{Kind: expr.VerdictAccept}}
}

func family(f byte) []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1}, equals([]byte{f})}
}

func protocol(p byte) []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, equals([]byte{p})}
}

// root matches packets of sockets of root.
func root() []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeySKUID, Register: 1}, equals(binaryutil.NativeEndian.PutUint32(0))}
}

func transport(offset uint32, data []byte) []expr.Any {
	return []expr.Any{&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: offset, Len: uint32(len(data))}, equals(data)}
}

func port(offset uint32, n uint16) []expr.Any {
	return transport(offset, binary.BigEndian.AppendUint16(nil, n))
}

// answering matches TCP packets that do not ask for a new connection.
func answering() []expr.Any {
	const flagsOffset, syn, ack = 13, 0x02, 0x10
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: flagsOffset, Len: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 1, Mask: []byte{syn | ack}, Xor: []byte{0}},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: []byte{syn}},
	}
}

// address matches the other side's address.
func address(d direction, network netip.Prefix) []expr.Any {
	a := network.Addr()
	proto, offset, size := byte(unix.NFPROTO_IPV4), uint32(12), uint32(4)
	if a.Is6() {
		proto, offset, size = unix.NFPROTO_IPV6, 8, 16
	}
	if d == outgoing {
		offset += size
	}
	mask := make([]byte, size)
	for i := range network.Bits() {
		mask[i/8] |= 0x80 >> (i % 8)
	}
	return append(family(proto),
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: size},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: size, Mask: mask, Xor: make([]byte, size)},
		equals(a.AsSlice()))
}

// firewall is the kernel's packet filter.
type firewall struct {
	// netns is a descriptor of the network namespace; 0 for the process's own.
	netns int
}

func (f firewall) conn() (*nftables.Conn, error) {
	var opts []nftables.ConnOption
	if f.netns != 0 {
		opts = append(opts, nftables.WithNetNSFd(f.netns))
	}
	c, err := nftables.New(opts...)
	if err != nil {
		return nil, fmt.Errorf("nftables: %w", err)
	}
	return c, nil
}

// apply replaces our table by one of the plan, in one step: there is no moment
// without.
func (f firewall) apply(p plan) error {
	c, err := f.conn()
	if err != nil {
		return err
	}
	table := &nftables.Table{Family: nftables.TableFamilyINet, Name: tableName}
	// Deleting needs something that is there.
	c.AddTable(table)
	c.DelTable(table)
	c.AddTable(table)
	drop := nftables.ChainPolicyDrop
	for _, ch := range []struct {
		name  string
		hook  *nftables.ChainHook
		rules [][]expr.Any
	}{
		{"input", nftables.ChainHookInput, p.rulesOf(incoming)},
		{"output", nftables.ChainHookOutput, p.rulesOf(outgoing)},
		{"forward", nftables.ChainHookForward, nil},
	} {
		chain := c.AddChain(&nftables.Chain{Name: ch.name, Table: table, Type: nftables.ChainTypeFilter, Hooknum: ch.hook, Priority: nftables.ChainPriorityFilter, Policy: &drop})
		for _, r := range ch.rules {
			c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: r})
		}
	}
	if err := c.Flush(); err != nil {
		if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EPROTONOSUPPORT) {
			return fmt.Errorf("this kernel has no nftables, which isolating the host needs: %w", err)
		}
		return fmt.Errorf("nftables: table %s: %w", tableName, err)
	}
	return nil
}

// intact reports whether the table is as apply made it, as far as its chains
// and the number of their rules say.
func (f firewall) intact(p plan) (bool, error) {
	c, err := f.conn()
	if err != nil {
		return false, err
	}
	chains, err := c.ListChainsOfTableFamily(nftables.TableFamilyINet)
	if err != nil {
		return false, fmt.Errorf("nftables: %w", err)
	}
	want := map[string]int{"input": len(p.rulesOf(incoming)), "output": len(p.rulesOf(outgoing)), "forward": 0}
	for _, ch := range chains {
		if ch.Table.Name != tableName {
			continue
		}
		n, ours := want[ch.Name]
		if !ours || ch.Hooknum == nil || ch.Policy == nil || *ch.Policy != nftables.ChainPolicyDrop {
			return false, nil
		}
		rules, err := c.GetRules(ch.Table, ch)
		if err != nil {
			return false, fmt.Errorf("nftables: %w", err)
		}
		if len(rules) != n {
			return false, nil
		}
		delete(want, ch.Name)
	}
	return len(want) == 0, nil
}

// remove deletes our table.
func (f firewall) remove() error {
	c, err := f.conn()
	if err != nil {
		return err
	}
	table := &nftables.Table{Family: nftables.TableFamilyINet, Name: tableName}
	c.AddTable(table)
	c.DelTable(table)
	if err := c.Flush(); err != nil {
		return fmt.Errorf("nftables: delete table %s: %w", tableName, err)
	}
	return nil
}

// present reports whether our table is there.
func (f firewall) present() (bool, error) {
	c, err := f.conn()
	if err != nil {
		return false, err
	}
	tables, err := c.ListTablesOfFamily(nftables.TableFamilyINet)
	if err != nil {
		return false, fmt.Errorf("nftables: %w", err)
	}
	return slices.ContainsFunc(tables, func(t *nftables.Table) bool { return t.Name == tableName }), nil
}
