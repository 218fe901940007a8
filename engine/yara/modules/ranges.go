package modules

import (
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"hash/crc32"
	"math"
	"strconv"
	"strings"
	"time"
)

// piece is how many bytes of a range are read at a time.
const piece = 16 << 10

// each calls f with the pieces of the range, which is cut at the object's end.
// It reports whether the range begins inside the object, as libyara demands,
// and was read to its end.
func each(in Input, off, n int64, f func(b []byte)) bool {
	if off < 0 || n < 0 || off >= in.Size() {
		return false
	}
	end := in.Size()
	if n < end-off {
		end = off + n
	}
	for off < end {
		b := in.Slice(off, int(min(piece, end-off)))
		if len(b) == 0 || in.Stop() {
			return false
		}
		in.Spend(len(b))
		f(b)
		off += int64(len(b))
	}
	return true
}

// over calls f with the bytes that the arguments name: a text, or an offset and
// a length.
func over(in Input, args []any, f func(b []byte)) bool {
	if s, ok := args[0].(string); ok {
		in.Spend(len(s))
		f([]byte(s))
		return true
	}
	return each(in, args[0].(int64), args[1].(int64), f)
}

// memo remembers results by range, because rules ask for the same ones.
type memo struct {
	values map[[2]int64]any
}

const maxMemo = 256

func (m *memo) get(args []any, compute func() any) any {
	off, ok := args[0].(int64)
	if !ok {
		return compute()
	}
	key := [2]int64{off, args[1].(int64)}
	if v, ok := m.values[key]; ok {
		return v
	}
	v := compute()
	if m.values == nil || len(m.values) >= maxMemo {
		m.values = map[[2]int64]any{}
	}
	m.values[key] = v
	return v
}

func hashType() *Type {
	return structOf("md5:s/s/ii sha1:s/s/ii sha256:s/s/ii checksum32:i/s/ii crc32:i/s/ii")
}

func openHash(in Input) Object {
	digest := func(newHash func() hash.Hash) Func {
		m := &memo{}
		return func(args []any) any {
			return m.get(args, func() any {
				h := newHash()
				if !over(in, args, func(b []byte) { _, _ = h.Write(b) }) {
					return nil
				}
				return hex.EncodeToString(h.Sum(nil))
			})
		}
	}
	sum := func(add func(sum uint32, b []byte) uint32) Func {
		m := &memo{}
		return func(args []any) any {
			return m.get(args, func() any {
				v := uint32(0)
				if !over(in, args, func(b []byte) { v = add(v, b) }) {
					return nil
				}
				return int64(v)
			})
		}
	}
	return Object{
		"md5": digest(md5.New), "sha1": digest(sha1.New), "sha256": digest(sha256.New),
		"crc32": sum(func(v uint32, b []byte) uint32 { return crc32.Update(v, crc32.IEEETable, b) }),
		"checksum32": sum(func(v uint32, b []byte) uint32 {
			for _, c := range b {
				v += uint32(c)
			}
			return v
		}),
	}
}

const meanBytes = 127.5

func mathType() *Type {
	return structOf(`MEAN_BYTES:f in_range:i/fff deviation:f/iif/sf mean:f/ii/s serial_correlation:f/ii/s
		monte_carlo_pi:f/ii/s entropy:f/ii/s min:i/ii max:i/ii to_number:i/b abs:i/i count:i/iii/i
		percentage:f/iii/i mode:i/ii/- to_string:s/i/ii`)
}

// histogram is how often every byte stands in a range.
type histogram struct {
	counts [256]int64
	total  int64
}

func (h *histogram) add(b []byte) {
	for _, c := range b {
		h.counts[c]++
	}
	h.total += int64(len(b))
}

func (h *histogram) entropy() float64 {
	e := 0.0
	for _, n := range h.counts {
		if n > 0 {
			x := float64(n) / float64(h.total)
			e -= x * math.Log2(x)
		}
	}
	return e
}

func (h *histogram) mean() float64 {
	sum := 0.0
	for b, n := range h.counts {
		sum += float64(b) * float64(n)
	}
	return sum / float64(h.total)
}

func (h *histogram) deviation(mean float64) float64 {
	sum := 0.0
	for b, n := range h.counts {
		sum += math.Abs(float64(b)-mean) * float64(n)
	}
	return sum / float64(h.total)
}

func (h *histogram) mode() int64 {
	best := 0
	for b, n := range h.counts {
		if n > h.counts[best] {
			best = b
		}
	}
	return int64(best)
}

// serialCorrelation is how far each byte depends on the one before it.
func serialCorrelation(in Input, args []any) any {
	var n, last, t1, t2, t3 float64
	if !over(in, args, func(b []byte) {
		n += float64(len(b))
		for _, c := range b {
			x := float64(c)
			t1 += last * x
			t2 += x
			t3 += x * x
			last = x
		}
	}) {
		return nil
	}
	t1 += last * last
	t2 *= t2
	d := n*t3 - t2
	if d == 0 {
		return -100000.0
	}
	return (n*t1 - t2) / d
}

// monteCarloPi is how far off pi is when groups of six bytes are taken for
// points in a square.
func monteCarloPi(in Input, args []any) any {
	const radius = (256.0*256*256 - 1) * (256.0*256*256 - 1)
	var group [6]float64
	k, points, inside := 0, 0, 0
	if !over(in, args, func(b []byte) {
		for _, c := range b {
			group[k] = float64(c)
			if k++; k < 6 {
				continue
			}
			k = 0
			points++
			x := (group[0]*256+group[1])*256 + group[2]
			y := (group[3]*256+group[4])*256 + group[5]
			if x*x+y*y <= radius {
				inside++
			}
		}
	}) || points == 0 {
		return nil
	}
	pi := 4 * float64(inside) / float64(points)
	return math.Abs((pi - math.Pi) / math.Pi)
}

func openMath(in Input) Object {
	hists := &memo{}
	hist := func(args []any) *histogram {
		h, _ := hists.get(args, func() any {
			h := &histogram{}
			if !over(in, args, h.add) {
				return nil
			}
			return h
		}).(*histogram)
		return h
	}
	// of computes something of the histogram of a range.
	of := func(f func(h *histogram, args []any) any) Func {
		return func(args []any) any {
			if h := hist(args); h != nil {
				return f(h, args)
			}
			return nil
		}
	}
	whole := func(args []any) []any {
		if len(args) >= 2 {
			return args
		}
		return []any{int64(0), in.Size()}
	}
	correlation, pi := &memo{}, &memo{}
	return Object{
		"MEAN_BYTES": meanBytes,
		"entropy":    of(func(h *histogram, _ []any) any { return h.entropy() }),
		"mean":       of(func(h *histogram, _ []any) any { return h.mean() }),
		"deviation":  of(func(h *histogram, args []any) any { return h.deviation(args[len(args)-1].(float64)) }),
		"serial_correlation": Func(func(args []any) any {
			return correlation.get(args, func() any { return serialCorrelation(in, args) })
		}),
		"monte_carlo_pi": Func(func(args []any) any {
			return pi.get(args, func() any { return monteCarloPi(in, args) })
		}),
		"mode": Func(func(args []any) any {
			if h := hist(whole(args)); h != nil {
				return h.mode()
			}
			return nil
		}),
		"count":      Func(func(args []any) any { return share(hist, whole, args, false) }),
		"percentage": Func(func(args []any) any { return share(hist, whole, args, true) }),
		"in_range": Func(func(args []any) any {
			return truth(args[0].(float64) >= args[1].(float64) && args[0].(float64) <= args[2].(float64))
		}),
		// libyara compares as unsigned.
		"min": Func(func(args []any) any { return int64(min(uint64(args[0].(int64)), uint64(args[1].(int64)))) }),
		"max": Func(func(args []any) any { return int64(max(uint64(args[0].(int64)), uint64(args[1].(int64)))) }),
		"abs": Func(func(args []any) any {
			if v := args[0].(int64); v < 0 {
				return -v
			}
			return args[0]
		}),
		"to_number": Func(func(args []any) any { return truth(args[0].(bool)) }),
		"to_string": Func(func(args []any) any {
			if len(args) == 1 {
				return strconv.FormatInt(args[0].(int64), 10)
			}
			v := args[0].(int64)
			switch args[1].(int64) {
			case 10:
				return strconv.FormatInt(v, 10)
			case 8:
				return strconv.FormatUint(uint64(v), 8)
			case 16:
				return strconv.FormatUint(uint64(v), 16)
			}
			return nil
		}),
	}
}

func share(hist func([]any) *histogram, whole func([]any) []any, args []any, relative bool) any {
	b := args[0].(int64)
	if b < 0 || b > 255 {
		return nil
	}
	h := hist(whole(args[1:]))
	if h == nil {
		return nil
	}
	if relative {
		return float64(h.counts[b]) / float64(h.total)
	}
	return h.counts[b]
}

func truth(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

func stringType() *Type { return structOf("to_int:i/s/si length:i/s") }

func openString(Input) Object {
	return Object{
		"length": Func(func(args []any) any { return int64(len(args[0].(string))) }),
		"to_int": Func(func(args []any) any {
			base := 0
			if len(args) > 1 {
				b := args[1].(int64)
				if b != 0 && (b < 2 || b > 36) {
					return nil
				}
				base = int(b)
			}
			s := strings.TrimLeft(args[0].(string), " \t\n\v\f\r")
			sign := ""
			if strings.HasPrefix(s, "-") || strings.HasPrefix(s, "+") {
				sign, s = s[:1], s[1:]
			}
			// Go's prefixes beyond C's are not numbers here.
			if strings.Contains(s, "_") || len(s) > 1 && s[0] == '0' && strings.IndexByte("bBoO", s[1]) >= 0 && base == 0 {
				return nil
			}
			if base == 16 {
				s = strings.TrimPrefix(strings.TrimPrefix(s, "0x"), "0X")
			}
			v, err := strconv.ParseInt(sign+s, base, 64)
			if err != nil {
				return nil
			}
			return v
		}),
	}
}

func timeType() *Type { return structOf("now:i/-") }

func openTime(Input) Object {
	return Object{"now": Func(func([]any) any { return time.Now().Unix() })}
}

func consoleType() *Type {
	return structOf("log:i/s/ss/i/si/f/sf hex:i/i/si")
}

// openConsole is the console without its output, which a scan has no place
// for: its functions are true, as in libyara.
func openConsole(Input) Object {
	yes := Func(func([]any) any { return int64(1) })
	return Object{"log": yes, "hex": yes}
}
