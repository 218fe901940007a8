package pattern

import "encoding/binary"

// Anchor returns, for a checked program, the bytes that stand at the place at
// which Match is to be called and behind it, up to maxAround, with their masks
// (nil: every bit counts). A program without an atom has none.
func Anchor(p []byte) (value, mask []byte) {
	a := int(binary.LittleEndian.Uint32(p[4:]))
	b := int(binary.LittleEndian.Uint32(p[8:]))
	switch binary.LittleEndian.Uint32(p) & 0xffff {
	case progLiteral:
		return p[progHeader+b : progHeader+min(a, b+maxAround)], nil
	case progMasked:
		n := min(a, b+maxAround)
		return p[progHeader+b : progHeader+n], p[progHeader+a+b : progHeader+a+n]
	}
	around := int(binary.LittleEndian.Uint32(p[20:]))
	d := around & 0xffff
	from := min(around>>16, d)
	n := min(d, from+maxAround)
	return p[progHeader+from : progHeader+n], p[progHeader+d+from : progHeader+d+n]
}

// PrefixLen is how many bytes Prefix looks at.
const PrefixLen = 4

// Prefix returns, for a checked program, which bytes can stand at the place at
// which Match is to be called and behind it: those of the atom or, without one,
// of the beginning of a match. Places behind the end of the shortest match or of
// the atom hold any byte.
func Prefix(p []byte) (sets [PrefixLen]Set) {
	full := Set{}.Not()
	for i := range sets {
		sets[i] = full
	}
	a := int(binary.LittleEndian.Uint32(p[4:]))
	b := int(binary.LittleEndian.Uint32(p[8:]))
	if values, masks := Anchor(p); len(values) > 0 {
		for i := range min(len(values), PrefixLen) {
			m := byte(0xff)
			if masks != nil {
				m = masks[i]
			}
			sets[i] = Set{}
			for c := range 256 {
				if byte(c)&m == values[i] {
					sets[i].Add(byte(c))
				}
			}
		}
		return sets
	}
	code := p[progHeader:]
	classes := code[(a+b)*instBytes:]
	var cur, next states
	cur.reset(a)
	next.reset(a)
	var stack []uint32
	matched := false
	follow := func(set *states, pc uint32) {
		stack = append(stack[:0], pc)
		for len(stack) > 0 {
			pc := stack[len(stack)-1]
			stack = stack[:len(stack)-1]
			if !set.add(pc) {
				continue
			}
			in := code[pc*instBytes:]
			switch in[0] {
			case opSplit:
				stack = append(stack, binary.LittleEndian.Uint32(in[8:]), binary.LittleEndian.Uint32(in[4:]))
			case opJump:
				stack = append(stack, binary.LittleEndian.Uint32(in[4:]))
			case opAssert:
				stack = append(stack, pc+1) // it may hold
			case opMatch:
				matched = true
			}
		}
	}
	follow(&cur, 0)
	for i := range sets {
		if matched {
			return sets
		}
		set := Set{}
		next.dense = next.dense[:0]
		for _, pc := range cur.dense {
			in := code[pc*instBytes:]
			switch in[0] {
			case opByte:
				for c := range 256 {
					if byte(c)&in[2] == in[1] {
						set.Add(byte(c))
					}
				}
			case opClass:
				x := binary.LittleEndian.Uint32(in[4:])
				for k := range set {
					set[k] |= binary.LittleEndian.Uint64(classes[x*32+uint32(8*k):])
				}
			default:
				continue
			}
			follow(&next, pc+1)
		}
		sets[i] = set
		cur, next = next, cur
	}
	return sets
}
