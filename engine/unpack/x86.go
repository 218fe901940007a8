package unpack

import (
	"encoding/binary"
	"math/bits"
)

// x86 emulates the integer instructions of a 32-bit x86 processor (Intel's
// Software Developer's Manual, volume 2) on memory of its own. It is there to let
// the code that a packer puts in front of a program unpack it, whatever packer it
// was; it knows as much of the processor as such code needs. Nothing of what runs
// in it can touch anything but its memory.
type x86 struct {
	regs    [8]uint32
	eip     uint32
	start   uint32 // of the instruction being executed
	regions []region

	cf, pf, af, zf, sf, of, df, tf bool

	fault   uint32 // exception of the instruction being executed
	written int    // bytes written into the image
	fpuIP   uint32 // of the last instruction for the floating point unit

	// of the instruction being executed
	size    int // of operands
	rep     byte
	segment uint32
	short   bool // 16-bit addresses
	modrm   byte
	ea      uint32
}

// region is a piece of memory; image is the first.
type region struct {
	at   uint32
	data []byte
}

// Registers.
const (
	eax = iota
	ecx
	edx
	ebx
	esp
	ebp
	esi
	edi
)

// Exceptions, by the numbers that Windows gives them.
const (
	excAccess     = 0xc0000005
	excIllegal    = 0xc000001d
	excPrivileged = 0xc0000096
	excDivide     = 0xc0000094
	excBreakpoint = 0x80000003
	excStep       = 0x80000004
)

// mem is n bytes at an address, nil (and an exception) where there are none.
func (c *x86) mem(at uint32, n int) []byte {
	for i := range c.regions {
		r := &c.regions[i]
		if off := at - r.at; uint64(off)+uint64(n) <= uint64(len(r.data)) {
			return r.data[off : off+uint32(n)]
		}
	}
	if c.fault == 0 {
		c.fault = excAccess
	}
	return nil
}

func (c *x86) read(at uint32, size int) uint32 {
	b := c.mem(at, size)
	switch {
	case b == nil:
		return 0
	case size == 1:
		return uint32(b[0])
	case size == 2:
		return uint32(binary.LittleEndian.Uint16(b))
	}
	return binary.LittleEndian.Uint32(b)
}

func (c *x86) write(at uint32, v uint32, size int) {
	b := c.mem(at, size)
	if b == nil || c.fault != 0 {
		return
	}
	if at-c.regions[0].at < uint32(len(c.regions[0].data)) {
		c.written += size
	}
	switch size {
	case 1:
		b[0] = byte(v)
	case 2:
		binary.LittleEndian.PutUint16(b, uint16(v))
	default:
		binary.LittleEndian.PutUint32(b, v)
	}
}

func mask(size int) uint32 { return uint32(1)<<(8*size-1)<<1 - 1 }

func sign(size int) uint32 { return uint32(1) << (8*size - 1) }

// extend takes a value of size bytes as signed.
func extend(v uint32, size int) uint32 {
	switch size {
	case 1:
		return uint32(int32(int8(v)))
	case 2:
		return uint32(int32(int16(v)))
	}
	return v
}

// reg reads a register; the registers 4 to 7 of one byte are the second bytes of
// the first four.
func (c *x86) reg(r byte, size int) uint32 {
	if size == 1 {
		return c.regs[r&3] >> (8 * (r >> 2)) & 0xff
	}
	return c.regs[r] & mask(size)
}

func (c *x86) setReg(r byte, v uint32, size int) {
	switch size {
	case 1:
		shift := 8 * (r >> 2)
		c.regs[r&3] = c.regs[r&3]&^(0xff<<shift) | v&0xff<<shift
	case 2:
		c.regs[r] = c.regs[r]&^0xffff | v&0xffff
	default:
		c.regs[r] = v
	}
}

// fetch reads an immediate value.
func (c *x86) fetch(size int) uint32 {
	v := c.read(c.eip, size)
	c.eip += uint32(size)
	return v
}

// fetchSigned reads a signed byte.
func (c *x86) fetchSigned() uint32 { return extend(c.fetch(1), 1) }

func (c *x86) push(v uint32, size int) {
	c.write(c.regs[esp]-uint32(size), v, size)
	if c.fault == 0 {
		c.regs[esp] -= uint32(size)
	}
}

func (c *x86) pop(size int) uint32 {
	v := c.read(c.regs[esp], size)
	if c.fault == 0 {
		c.regs[esp] += uint32(size)
	}
	return v
}

// operand decodes a ModR/M byte with what follows it.
func (c *x86) operand() {
	c.modrm = byte(c.fetch(1))
	mod, rm := c.modrm>>6, c.modrm&7
	if mod == 3 {
		return
	}
	if c.short {
		c.ea = c.address16(mod, rm) + c.segment
		return
	}
	var at uint32
	switch {
	case rm == 4:
		sib := byte(c.fetch(1))
		base, index := sib&7, sib>>3&7
		if base == 5 && mod == 0 {
			at = c.fetch(4)
		} else {
			at = c.regs[base]
		}
		if index != 4 {
			at += c.regs[index] << (sib >> 6)
		}
	case rm == 5 && mod == 0:
		at = c.fetch(4)
	default:
		at = c.regs[rm]
	}
	switch mod {
	case 1:
		at += c.fetchSigned()
	case 2:
		at += c.fetch(4)
	}
	c.ea = at + c.segment
}

func (c *x86) address16(mod, rm byte) uint32 {
	r := &c.regs
	at := [8]uint32{r[ebx] + r[esi], r[ebx] + r[edi], r[ebp] + r[esi], r[ebp] + r[edi], r[esi], r[edi], r[ebp], r[ebx]}[rm]
	switch {
	case mod == 0 && rm == 6:
		at = c.fetch(2)
	case mod == 1:
		at += c.fetchSigned()
	case mod == 2:
		at += c.fetch(2)
	}
	return at & 0xffff
}

func (c *x86) isReg() bool { return c.modrm >= 0xc0 }

// get and set use the operand that operand decoded.
func (c *x86) get(size int) uint32 {
	if c.isReg() {
		return c.reg(c.modrm&7, size)
	}
	return c.read(c.ea, size)
}

func (c *x86) set(v uint32, size int) {
	if c.isReg() {
		c.setReg(c.modrm&7, v, size)
	} else {
		c.write(c.ea, v, size)
	}
}

func (c *x86) middle() byte { return c.modrm >> 3 & 7 }

// result sets the flags that depend on a result only.
func (c *x86) result(v uint32, size int) uint32 {
	v &= mask(size)
	c.zf = v == 0
	c.sf = v&sign(size) != 0
	c.pf = bits.OnesCount8(uint8(v))&1 == 0
	return v
}

// The operations of the first eight rows of the opcode table.
const (
	aluAdd = iota
	aluOr
	aluAdc
	aluSbb
	aluAnd
	aluSub
	aluXor
	aluCmp
)

func (c *x86) alu(op byte, a, b uint32, size int) uint32 {
	m := mask(size)
	a, b = a&m, b&m
	carry := uint32(0)
	if c.cf && (op == aluAdc || op == aluSbb) {
		carry = 1
	}
	switch op {
	case aluAdd, aluAdc:
		full := uint64(a) + uint64(b) + uint64(carry)
		v := uint32(full) & m
		c.cf = full > uint64(m)
		c.af = (a^b^v)&16 != 0
		c.of = (a^v)&(b^v)&sign(size) != 0
		return c.result(v, size)
	case aluSub, aluSbb, aluCmp:
		v := (a - b - carry) & m
		c.cf = uint64(a) < uint64(b)+uint64(carry)
		c.af = (a^b^v)&16 != 0
		c.of = (a^b)&(a^v)&sign(size) != 0
		return c.result(v, size)
	}
	var v uint32
	switch op {
	case aluOr:
		v = a | b
	case aluAnd:
		v = a & b
	default:
		v = a ^ b
	}
	c.cf, c.of, c.af = false, false, false
	return c.result(v, size)
}

// shift does the operations of the shift group.
func (c *x86) shift(op byte, v uint32, n uint, size int) uint32 {
	n &= 31
	if n == 0 {
		return v
	}
	width := uint(8 * size)
	m := mask(size)
	v &= m
	switch op {
	case 0: // rol
		n %= width
		v = (v<<n | v>>(width-n)) & m
		c.cf = v&1 != 0
		c.of = (v&sign(size) != 0) != c.cf
		return v
	case 1: // ror
		n %= width
		v = (v>>n | v<<(width-n)) & m
		c.cf = v&sign(size) != 0
		c.of = (v^v<<1)&sign(size) != 0
		return v
	case 2, 3: // rcl, rcr
		for range n % (width + 1) {
			in := uint32(0)
			if c.cf {
				in = 1
			}
			if op == 2 {
				c.cf = v&sign(size) != 0
				v = (v<<1 | in) & m
				c.of = (v&sign(size) != 0) != c.cf
			} else {
				c.of = (v&sign(size) != 0) != c.cf
				c.cf = v&1 != 0
				v = v>>1 | in<<(width-1)
			}
		}
		return v
	case 4, 6: // shl
		c.cf = n <= width && v>>(width-n)&1 != 0
		v = uint32(uint64(v)<<n) & m
		c.of = (v&sign(size) != 0) != c.cf
	case 5: // shr
		c.of = v&sign(size) != 0
		c.cf = v>>(n-1)&1 != 0
		v >>= n
	case 7: // sar
		s := int32(extend(v, size))
		c.cf = s>>(n-1)&1 != 0
		v = uint32(s >> n)
		c.of = false
	}
	return c.result(v, size)
}

// condition is one of the sixteen conditions.
func (c *x86) condition(n byte) bool {
	var v bool
	switch n >> 1 & 7 {
	case 0:
		v = c.of
	case 1:
		v = c.cf
	case 2:
		v = c.zf
	case 3:
		v = c.cf || c.zf
	case 4:
		v = c.sf
	case 5:
		v = c.pf
	case 6:
		v = c.sf != c.of
	case 7:
		v = c.zf || c.sf != c.of
	}
	return v != (n&1 == 1)
}

func (c *x86) flags() uint32 {
	v := uint32(0x202)
	for _, f := range []struct {
		on  bool
		bit uint
	}{{c.cf, 0}, {c.pf, 2}, {c.af, 4}, {c.zf, 6}, {c.sf, 7}, {c.tf, 8}, {c.df, 10}, {c.of, 11}} {
		if f.on {
			v |= 1 << f.bit
		}
	}
	return v
}

func (c *x86) setFlags(v uint32) {
	is := func(bit uint) bool { return v>>bit&1 == 1 }
	c.cf, c.pf, c.af, c.zf, c.sf, c.tf, c.df, c.of = is(0), is(2), is(4), is(6), is(7), is(8), is(10), is(11)
}

// step executes one instruction. An exception is left in fault, with the
// registers as they were before.
func (c *x86) step() {
	saved := c.regs
	c.start = c.eip
	c.fault = 0
	c.size, c.rep, c.segment, c.short = 4, 0, 0, false
	trap := c.tf
	for n := 0; ; n++ {
		op := byte(c.fetch(1))
		switch op {
		case 0x66:
			c.size = 2
		case 0x67:
			c.short = true
		case 0xf2, 0xf3:
			c.rep = op
		case 0x64:
			c.segment = tebAt
		case 0x26, 0x2e, 0x36, 0x3e, 0x65, 0xf0:
		default:
			if n > 14 {
				c.fault = excIllegal
			}
			if c.fault == 0 {
				c.execute(op)
			}
			if c.fault != 0 {
				c.regs = saved
				if c.fault != excStep {
					c.eip = c.start
				}
			} else if trap && c.tf {
				c.tf = false
				c.fault = excStep
			}
			return
		}
	}
}
