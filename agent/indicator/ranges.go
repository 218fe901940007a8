package indicator

import (
	"net/netip"
	"slices"
	"time"

	api "github.com/bulwarkhq/bulwark/api/indicator"
)

// span is a range of addresses of one family, both ends in it.
type span struct{ from, to netip.Addr }

// last is the last address of a network.
func last(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// blocked gives the addresses to block, without overlaps and in order: what
// indicators block, without what others allow and without the host itself.
func (s *Set) blocked(now time.Time, warn bool) []span {
	var block, allow []span
	for n := range s.all {
		i := &s.all[n]
		if i.Expired(now) {
			continue
		}
		var r span
		switch i.Type {
		case api.IPAddress:
			a, err := netip.ParseAddr(i.Value)
			if err != nil {
				continue
			}
			r = span{a, a}
		case api.IPNetwork:
			p, err := netip.ParsePrefix(i.Value)
			if err != nil {
				continue
			}
			r = span{p.Addr(), last(p)}
		default:
			continue
		}
		switch {
		case i.Action == api.Allow:
			allow = append(allow, r)
		case blocks(i, warn):
			block = append(block, r)
		}
	}
	for _, p := range []string{"127.0.0.0/8", "::1/128"} {
		n := netip.MustParsePrefix(p)
		allow = append(allow, span{n.Addr(), last(n)})
	}
	return without(merge(block), merge(allow))
}

// blocks reports whether an indicator stops what it is about.
func blocks(i *api.Indicator, warn bool) bool {
	return i.Action == api.Block || i.Action == api.Remediate || i.Action == api.Warn && warn
}

// merge sorts ranges and joins those that touch.
func merge(in []span) []span {
	slices.SortFunc(in, func(a, b span) int { return a.from.Compare(b.from) })
	var out []span
	for _, r := range in {
		if n := len(out); n > 0 && out[n-1].from.BitLen() == r.from.BitLen() {
			next := out[n-1].to.Next()
			if !next.IsValid() || r.from.Compare(next) <= 0 {
				if r.to.Compare(out[n-1].to) > 0 {
					out[n-1].to = r.to
				}
				continue
			}
		}
		out = append(out, r)
	}
	return out
}

// without removes ranges from others; both are merged.
func without(block, allow []span) []span {
	var out []span
	for _, b := range block {
		// The first that ends at or after the beginning of b.
		at, _ := slices.BinarySearchFunc(allow, b.from, func(a span, v netip.Addr) int { return a.to.Compare(v) })
		for ; at < len(allow) && allow[at].from.Compare(b.to) <= 0; at++ {
			a := allow[at]
			if a.from.Compare(b.from) > 0 {
				out = append(out, span{b.from, a.from.Prev()})
			}
			if a.to.Compare(b.to) >= 0 {
				b.from = netip.Addr{}
				break
			}
			b.from = a.to.Next()
		}
		if b.from.IsValid() {
			out = append(out, b)
		}
	}
	return out
}
