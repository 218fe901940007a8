package unpack

import "math/bits"

// extended does the instructions of two bytes.
func (c *x86) extended(op byte) {
	size := c.size
	if op&1 == 0 {
		size = 1
	}
	switch {
	case op >= 0x80 && op < 0x90:
		to := c.fetch(4)
		if c.condition(op & 15) {
			c.eip += to
		}
	case op >= 0x90 && op < 0xa0:
		c.operand()
		v := uint32(0)
		if c.condition(op & 15) {
			v = 1
		}
		c.set(v, 1)
	case op >= 0x40 && op < 0x50:
		c.operand()
		if v := c.get(c.size); c.condition(op & 15) {
			c.setReg(c.middle(), v, c.size)
		}
	case op >= 0xc8 && op < 0xd0:
		c.regs[op&7] = bits.ReverseBytes32(c.regs[op&7])
	default:
		c.extendedOther(op, size)
	}
}

func (c *x86) extendedOther(op byte, size int) {
	switch op {
	case 0x0d, 0x18, 0x19, 0x1a, 0x1b, 0x1c, 0x1d, 0x1e, 0x1f: // hints
		c.operand()
	case 0x31: // rdtsc: as if nothing took long
		c.regs[eax], c.regs[edx] = c.start&0xff+0x1000, 0
	case 0xa0, 0xa8:
		c.push(0x3b, c.size)
	case 0xa1, 0xa9:
		c.pop(c.size)
	case 0xa2: // cpuid
		c.regs[eax], c.regs[ebx], c.regs[ecx], c.regs[edx] = 1, 0x756e6547, 0x6c65746e, 0x49656e69
	case 0xa3, 0xab, 0xb3, 0xbb:
		c.operand()
		c.bitTest(op>>3&3, c.reg(c.middle(), c.size))
	case 0xba:
		c.operand()
		n := c.fetch(1)
		if c.middle() < 4 {
			c.fault = excIllegal
			return
		}
		c.bitTest(c.middle()&3, n)
	case 0xa4, 0xa5, 0xac, 0xad:
		c.operand()
		n := uint(c.regs[ecx] & 31)
		if op&1 == 0 {
			n = uint(c.fetch(1) & 31)
		}
		c.doubleShift(op >= 0xac, n)
	case 0xaf:
		c.operand()
		c.setReg(c.middle(), c.multiply(c.reg(c.middle(), c.size), c.get(c.size)), c.size)
	case 0xb0, 0xb1: // cmpxchg
		c.operand()
		v := c.get(size)
		c.alu(aluCmp, c.reg(eax, size), v, size)
		if c.zf {
			c.set(c.reg(c.middle(), size), size)
		} else {
			c.setReg(eax, v, size)
		}
	case 0xb6, 0xb7:
		c.operand()
		c.setReg(c.middle(), c.get(1+int(op&1)), c.size)
	case 0xbe, 0xbf:
		c.operand()
		n := 1 + int(op&1)
		c.setReg(c.middle(), extend(c.get(n), n), c.size)
	case 0xbc, 0xbd:
		c.operand()
		v := c.get(c.size)
		if c.zf = v == 0; v == 0 {
			return
		}
		if op == 0xbc {
			c.setReg(c.middle(), uint32(bits.TrailingZeros32(v)), c.size)
		} else {
			c.setReg(c.middle(), uint32(31-bits.LeadingZeros32(v)), c.size)
		}
	case 0xc0, 0xc1: // xadd
		c.operand()
		a, b := c.get(size), c.reg(c.middle(), size)
		v := c.alu(aluAdd, a, b, size)
		c.setReg(c.middle(), a, size)
		c.set(v, size)
	default:
		c.fault = excIllegal
	}
}

// bitTest does bt, bts, btr and btc (kinds 0 to 3).
func (c *x86) bitTest(kind byte, n uint32) {
	width := uint32(8 * c.size)
	if !c.isReg() {
		c.ea += uint32(int32(extend(n, c.size))>>3) &^ uint32(c.size-1)
	}
	v := c.get(c.size)
	bit := uint32(1) << (n % width)
	c.cf = v&bit != 0
	switch kind {
	case 1:
		c.set(v|bit, c.size)
	case 2:
		c.set(v&^bit, c.size)
	case 3:
		c.set(v^bit, c.size)
	}
}

// doubleShift does shld and shrd.
func (c *x86) doubleShift(right bool, n uint) {
	a, b := c.get(c.size), c.reg(c.middle(), c.size)
	width := uint(8 * c.size)
	if n == 0 || n > width {
		return
	}
	var v uint32
	if right {
		c.cf = a>>(n-1)&1 != 0
		v = a>>n | uint32(uint64(b)<<(width-n))
	} else {
		c.cf = a>>(width-n)&1 != 0
		v = uint32(uint64(a)<<n) | b>>(width-n)
	}
	v = c.result(v, c.size)
	c.of = (v^a)&sign(c.size) != 0
	c.set(v, c.size)
}

// float skips the instructions of the floating point unit, which packers have as
// padding; the one that tells where it stands is done, as code finds its own
// address by it.
func (c *x86) float(op byte) {
	c.operand()
	if op == 0xd9 && !c.isReg() && c.middle() == 6 {
		for i := range uint32(7) {
			v := uint32(0)
			if i == 3 {
				v = c.fpuIP
			}
			c.write(c.ea+4*i, v, 4)
		}
		return
	}
	if !c.isReg() {
		c.get(1) // it must be there
	}
	c.fpuIP = c.start
}
