package unpack

import "encoding/binary"

// branchFilter undoes the translation of the targets of calls from absolute to
// relative for a processor, named by its filter id in .xz files (section 5.3.2);
// start is the address of the first byte. nil where there is none (IA-64 and
// RISC-V).
func branchFilter(id uint64, start uint32) func(b []byte, last bool) int {
	words := func(step int, each func(w []byte, at uint32)) func([]byte, bool) int {
		at := start
		return func(b []byte, _ bool) int {
			i := 0
			for ; i+4 <= len(b); i += step {
				each(b[i:i+4], at)
				at += uint32(step)
			}
			return i
		}
	}
	le, be := binary.LittleEndian, binary.BigEndian
	switch id {
	case xzX86:
		return (&x86Filter{at: start}).convert
	case 0x05: // PowerPC: bl
		return words(4, func(w []byte, at uint32) {
			if v := be.Uint32(w); v&0xfc000003 == 0x48000001 {
				be.PutUint32(w, 0x48000001|(v&0x03fffffc-at)&0x03fffffc)
			}
		})
	case 0x07: // ARM: bl
		return words(4, func(w []byte, at uint32) {
			if w[3] == 0xeb {
				v := (le.Uint32(w)&0xffffff<<2 - (at + 8)) >> 2
				le.PutUint32(w, 0xeb000000|v&0xffffff)
			}
		})
	case 0x08: // ARM Thumb: bl, two halves
		skip := false
		return words(2, func(w []byte, at uint32) {
			hi, lo := uint32(le.Uint16(w)), uint32(le.Uint16(w[2:]))
			if skip {
				skip = false
				return
			}
			if hi&0xf800 == 0xf000 && lo&0xf800 == 0xf800 {
				skip = true // the second half begins nothing
				v := ((hi&0x7ff<<11|lo&0x7ff)<<1 - (at + 4)) >> 1
				le.PutUint16(w, uint16(0xf000|v>>11&0x7ff))
				le.PutUint16(w[2:], uint16(0xf800|v&0x7ff))
			}
		})
	case 0x09: // SPARC: call
		return words(4, func(w []byte, at uint32) {
			if v := be.Uint32(w); v>>22 == 0x100 || v>>22 == 0x1ff {
				v = (v<<2 - at) >> 2
				be.PutUint32(w, (0-v>>22&1)<<22&0x3fffffff|v&0x3fffff|0x40000000)
			}
		})
	case 0x0a: // ARM64: bl, and adrp within 512 MB
		return words(4, func(w []byte, at uint32) {
			v := le.Uint32(w)
			switch {
			case v>>26 == 0x25:
				le.PutUint32(w, 0x94000000|(v-at>>2)&0x03ffffff)
			case v&0x9f000000 == 0x90000000:
				page := v>>29&3 | v>>3&0x1ffffc
				if (page+0x020000)&0x1c0000 != 0 {
					return
				}
				page -= at >> 12
				le.PutUint32(w, v&0x9000001f|page&3<<29|page&0x3fffc<<3|(0-page&0x020000)&0xe00000)
			}
		})
	}
	return nil
}
