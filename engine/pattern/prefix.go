package pattern

import "encoding/binary"

// PrefixLen is how many bytes Prefix looks at.
const PrefixLen = 4

// Prefix returns, for a checked program of a variant without an atom, which
// bytes can stand at each of the first places of a match. Places behind the end
// of the shortest match hold any byte.
func Prefix(p []byte) (sets [PrefixLen]Set) {
	full := Set{}.Not()
	for i := range sets {
		sets[i] = full
	}
	if binary.LittleEndian.Uint32(p)&0xffff != progStates || binary.LittleEndian.Uint32(p[20:])&0xffff != 0 {
		return sets
	}
	a := int(binary.LittleEndian.Uint32(p[4:]))
	b := int(binary.LittleEndian.Uint32(p[8:]))
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
