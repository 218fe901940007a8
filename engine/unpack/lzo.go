package unpack

import "fmt"

// lzo1x decodes a block of LZO1X: instructions of a byte and more, told apart by
// their first byte's size, each a match and up to three literals behind it. What
// a byte below 16 means depends on how many literals stand before it.
func lzo1x(in []byte, out *sink) error {
	at := 0
	bad := false
	next := func() int {
		if at >= len(in) {
			bad = true
			return 0
		}
		at++
		return int(in[at-1])
	}
	// long is a length of n, or longer where n is zero.
	long := func(n, base int) int {
		if n != 0 {
			return n
		}
		for at < len(in) && in[at] == 0 {
			base += 255
			at++
		}
		return base + next()
	}
	literals := func(n int) error {
		if n > len(in)-at {
			return fmt.Errorf("%w: LZO literals at %d", errDamaged, at)
		}
		_, err := out.Write(in[at : at+n])
		at += n
		return err
	}
	before := 0 // literals before this instruction; 4 stands for more than 3
	if len(in) > 0 && in[0] > 17 {
		n := next() - 17
		if err := literals(n); err != nil {
			return err
		}
		before = min(n, 4)
	}
	for !bad {
		var n, dist, tail int
		switch t := next(); {
		case t < 16 && before == 0:
			if err := literals(long(t, 15) + 3); err != nil {
				return err
			}
			before = 4
			continue
		case t < 16 && before == 4:
			n, dist, tail = 3, 0x801+t>>2+next()<<2, t&3
		case t < 16:
			n, dist, tail = 2, 1+t>>2+next()<<2, t&3
		case t < 32:
			n = long(t&7, 7) + 2
			v := next() | next()<<8
			dist, tail = t&8<<11+v>>2, v&3
			if dist == 0 {
				return nil
			}
			dist += 0x4000
		case t < 64:
			n = long(t&31, 31) + 2
			v := next() | next()<<8
			dist, tail = 1+v>>2, v&3
		default:
			n, dist, tail = t>>5+1, 1+t>>2&7+next()<<3, t&3
		}
		if bad {
			break
		}
		if err := out.copy(int64(dist), n, -1); err != nil {
			return err
		}
		if err := literals(tail); err != nil {
			return err
		}
		before = tail
	}
	return fmt.Errorf("%w: LZO data end at %d", errDamaged, out.size())
}
