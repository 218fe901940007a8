package indicator

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// tableName is the name of our table, of the family inet. Other tables stay as
// they are; a packet passes only if all accept it.
const tableName = "bulwark_indicators"

// nameTime is how long the addresses of a blocked name stay blocked after they
// were last told.
const nameTime = time.Hour

// chunk is how many elements go to the kernel in one message.
const chunk = 500

// firewall is the kernel's packet filter.
type firewall struct {
	// netns is a descriptor of the network namespace; 0 for the process's own.
	netns int
	table *nftables.Table
	// block and names by family: 4, 6.
	block, names [2]*nftables.Set
}

func (f *firewall) conn() (*nftables.Conn, error) {
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

// remove takes our table away; that there is none is no error.
func (f *firewall) remove() error {
	c, err := f.conn()
	if err != nil {
		return err
	}
	tables, err := c.ListTablesOfFamily(nftables.TableFamilyINet)
	if err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	f.table = nil
	for _, t := range tables {
		if t.Name == tableName {
			c.DelTable(t)
			if err := c.Flush(); err != nil && !errors.Is(err, unix.ENOENT) {
				return fmt.Errorf("nftables: remove table %s: %w", tableName, err)
			}
		}
	}
	return nil
}

// apply makes our table with the ranges, anew.
func (f *firewall) apply(ranges []span) error {
	if err := f.remove(); err != nil {
		return err
	}
	err := f.build(true)
	if err != nil { // a kernel without the module for rejections
		if err = f.build(false); err != nil {
			return err
		}
	}
	for family := range 2 {
		var elements []nftables.SetElement
		for _, r := range ranges {
			if r.from.Is4() != (family == 0) {
				continue
			}
			elements = append(elements, nftables.SetElement{Key: r.from.AsSlice()})
			if end := r.to.Next(); end.IsValid() {
				elements = append(elements, nftables.SetElement{Key: end.AsSlice(), IntervalEnd: true})
			}
		}
		if err := f.add(f.block[family], elements); err != nil {
			return errors.Join(err, f.remove())
		}
	}
	return nil
}

func (f *firewall) add(set *nftables.Set, elements []nftables.SetElement) error {
	c, err := f.conn()
	if err != nil {
		return err
	}
	for len(elements) > 0 {
		n := min(chunk, len(elements))
		if err := c.SetAddElements(set, elements[:n]); err != nil {
			return fmt.Errorf("nftables: elements of %s: %w", set.Name, err)
		}
		if err := c.Flush(); err != nil {
			return fmt.Errorf("nftables: elements of %s: %w", set.Name, err)
		}
		elements = elements[n:]
	}
	return nil
}

// addName blocks an address that a blocked name has.
func (f *firewall) addName(a netip.Addr) error {
	if f.table == nil || a.IsLoopback() || a.IsUnspecified() {
		return nil
	}
	set := f.names[0]
	if a.Is6() {
		set = f.names[1]
	}
	return f.add(set, []nftables.SetElement{{Key: a.AsSlice(), Timeout: nameTime}})
}

// build makes the table with empty sets.
func (f *firewall) build(reject bool) error {
	c, err := f.conn()
	if err != nil {
		return err
	}
	t := c.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: tableName})
	for family, kind := range []nftables.SetDatatype{nftables.TypeIPAddr, nftables.TypeIP6Addr} {
		n := fmt.Sprint([2]int{4, 6}[family])
		f.block[family] = &nftables.Set{Table: t, Name: "block" + n, KeyType: kind, Interval: true}
		f.names[family] = &nftables.Set{Table: t, Name: "names" + n, KeyType: kind, HasTimeout: true, Timeout: nameTime}
		for _, s := range []*nftables.Set{f.block[family], f.names[family]} {
			if err := c.AddSet(s, nil); err != nil {
				return fmt.Errorf("nftables: set %s: %w", s.Name, err)
			}
		}
	}
	accept := nftables.ChainPolicyAccept
	for _, hook := range []struct {
		name string
		hook *nftables.ChainHook
		to   []bool // compare the destination, the source
	}{
		{"output", nftables.ChainHookOutput, []bool{true}},
		{"input", nftables.ChainHookInput, []bool{false}},
		{"forward", nftables.ChainHookForward, []bool{true, false}},
	} {
		chain := c.AddChain(&nftables.Chain{Name: hook.name, Table: t, Type: nftables.ChainTypeFilter, Hooknum: hook.hook, Priority: nftables.ChainPriorityFilter, Policy: &accept})
		for _, destination := range hook.to {
			for family := range 2 {
				for _, set := range []*nftables.Set{f.block[family], f.names[family]} {
					c.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: f.rule(set, family, destination, reject && destination)})
				}
			}
		}
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("nftables: table %s: %w", tableName, err)
	}
	f.table = t
	return nil
}

func (f *firewall) rule(set *nftables.Set, family int, destination, reject bool) []expr.Any {
	proto, offset, size := byte(unix.NFPROTO_IPV4), uint32(12), uint32(4)
	if family == 1 {
		proto, offset, size = unix.NFPROTO_IPV6, 8, 16
	}
	if destination {
		offset += size
	}
	out := []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{proto}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: size},
		&expr.Lookup{SourceRegister: 1, SetName: set.Name, SetID: set.ID},
		&expr.Counter{},
	}
	if reject {
		const icmpx, prohibited = 2, 3 // NFT_REJECT_ICMPX_UNREACH, NFT_REJECT_ICMPX_ADMIN_PROHIBITED
		return append(out, &expr.Reject{Type: icmpx, Code: prohibited})
	}
	return append(out, &expr.Verdict{Kind: expr.VerdictDrop})
}
