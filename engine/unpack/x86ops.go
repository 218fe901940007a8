package unpack

// execute does one instruction, its prefixes are done.
func (c *x86) execute(op byte) {
	size := c.size
	if op&1 == 0 {
		size = 1 // in most instructions the lowest bit says so
	}
	switch {
	case op < 0x40 && op&7 < 6:
		c.arithmetic(op, size)
	case op == 0x0f:
		c.extended(byte(c.fetch(1)))
	case op >= 0x40 && op < 0x50:
		r := op & 7
		carry := c.cf
		v := aluAdd
		if op >= 0x48 {
			v = aluSub
		}
		c.setReg(r, c.alu(byte(v), c.reg(r, c.size), 1, c.size), c.size)
		c.cf = carry
	case op >= 0x50 && op < 0x58:
		c.push(c.reg(op&7, c.size), c.size)
	case op >= 0x58 && op < 0x60:
		v := c.pop(c.size)
		c.setReg(op&7, v, c.size)
	case op >= 0x70 && op < 0x80:
		to := c.fetchSigned()
		if c.condition(op & 15) {
			c.eip += to
		}
	case op >= 0x91 && op < 0x98:
		a, b := c.reg(eax, c.size), c.reg(op&7, c.size)
		c.setReg(eax, b, c.size)
		c.setReg(op&7, a, c.size)
	case op >= 0xa4 && op <= 0xaf && op != 0xa8 && op != 0xa9:
		c.str(op, size)
	case op >= 0xb0 && op < 0xb8:
		c.setReg(op&7, c.fetch(1), 1)
	case op >= 0xb8 && op < 0xc0:
		c.setReg(op&7, c.fetch(c.size), c.size)
	case op >= 0xd8 && op < 0xe0:
		c.float(op)
	default:
		c.other(op, size)
	}
}

// arithmetic does the first four rows of the opcode table.
func (c *x86) arithmetic(op byte, size int) {
	kind := op >> 3
	var a, b, v uint32
	switch op & 7 {
	case 0, 1:
		c.operand()
		a, b = c.get(size), c.reg(c.middle(), size)
		if v = c.alu(kind, a, b, size); kind != aluCmp {
			c.set(v, size)
		}
	case 2, 3:
		c.operand()
		a, b = c.reg(c.middle(), size), c.get(size)
		if v = c.alu(kind, a, b, size); kind != aluCmp {
			c.setReg(c.middle(), v, size)
		}
	default:
		if v = c.alu(kind, c.reg(eax, size), c.fetch(size), size); kind != aluCmp {
			c.setReg(eax, v, size)
		}
	}
}

func (c *x86) other(op byte, size int) {
	switch op {
	case 0x06, 0x0e, 0x16, 0x1e: // segment registers: all are flat
		c.push(0x23, c.size)
	case 0x07, 0x17, 0x1f:
		c.pop(c.size)
	case 0x60: // pusha
		sp := c.regs[esp]
		for r := range byte(8) {
			v := c.reg(r, c.size)
			if r == esp {
				v = sp
			}
			c.push(v, c.size)
		}
	case 0x61: // popa
		for r := 7; r >= 0; r-- {
			if v := c.pop(c.size); r != esp {
				c.setReg(byte(r), v, c.size)
			}
		}
	case 0x68:
		c.push(c.fetch(c.size), c.size)
	case 0x6a:
		c.push(c.fetchSigned(), c.size)
	case 0x69, 0x6b:
		c.operand()
		a := c.get(c.size)
		var b uint32
		if op == 0x69 {
			b = c.fetch(c.size)
		} else {
			b = c.fetchSigned()
		}
		c.setReg(c.middle(), c.multiply(a, b), c.size)
	case 0x80, 0x81, 0x82, 0x83:
		c.operand()
		a := c.get(size)
		var b uint32
		if op == 0x81 {
			b = c.fetch(size)
		} else {
			b = c.fetchSigned()
		}
		if v := c.alu(c.middle(), a, b, size); c.middle() != aluCmp {
			c.set(v, size)
		}
	case 0x84, 0x85:
		c.operand()
		c.alu(aluAnd, c.get(size), c.reg(c.middle(), size), size)
	case 0x86, 0x87:
		c.operand()
		a, b := c.get(size), c.reg(c.middle(), size)
		c.set(b, size)
		c.setReg(c.middle(), a, size)
	case 0x88, 0x89:
		c.operand()
		c.set(c.reg(c.middle(), size), size)
	case 0x8a, 0x8b:
		c.operand()
		c.setReg(c.middle(), c.get(size), size)
	case 0x8c:
		c.operand()
		c.set(0x23, 2)
	case 0x8e:
		c.operand()
		c.get(2)
	case 0x8d:
		c.segment = 0
		c.operand()
		if c.isReg() {
			c.fault = excIllegal
			return
		}
		c.setReg(c.middle(), c.ea, c.size)
	case 0x8f:
		v := c.pop(c.size)
		c.operand()
		c.set(v, c.size)
	case 0x90, 0x9b: // nop, wait
	case 0x98:
		c.setReg(eax, extend(c.reg(eax, c.size/2), c.size/2), c.size)
	case 0x99:
		v := uint32(0)
		if c.reg(eax, c.size)&sign(c.size) != 0 {
			v = mask(c.size)
		}
		c.setReg(edx, v, c.size)
	case 0x9c:
		c.push(c.flags(), c.size)
	case 0x9d:
		c.setFlags(c.pop(c.size))
	case 0x9e:
		of, df, tf := c.of, c.df, c.tf
		c.setFlags(c.regs[eax] >> 8 & 0xff)
		c.of, c.df, c.tf = of, df, tf
	case 0x9f:
		c.setReg(4, c.flags(), 1)
	case 0xa0, 0xa1, 0xa2, 0xa3:
		width := 4
		if c.short {
			width = 2
		}
		at := c.fetch(width) + c.segment
		if op < 0xa2 {
			c.setReg(eax, c.read(at, size), size)
		} else {
			c.write(at, c.reg(eax, size), size)
		}
	case 0xa8, 0xa9:
		c.alu(aluAnd, c.reg(eax, size), c.fetch(size), size)
	case 0xc0, 0xc1, 0xd0, 0xd1, 0xd2, 0xd3:
		c.operand()
		v := c.get(size)
		n := uint(1)
		switch op {
		case 0xc0, 0xc1:
			n = uint(c.fetch(1))
		case 0xd2, 0xd3:
			n = uint(c.regs[ecx] & 0xff)
		}
		c.set(c.shift(c.middle(), v, n, size), size)
	case 0xc2, 0xc3:
		n := uint32(0)
		if op == 0xc2 {
			n = c.fetch(2)
		}
		c.eip = c.pop(4)
		c.regs[esp] += n
	case 0xc6, 0xc7:
		c.operand()
		c.set(c.fetch(size), size)
	case 0xc8: // enter
		n, level := c.fetch(2), c.fetch(1)
		if level != 0 {
			c.fault = excIllegal
			return
		}
		c.push(c.regs[ebp], 4)
		c.regs[ebp] = c.regs[esp]
		c.regs[esp] -= n
	case 0xc9:
		c.regs[esp] = c.regs[ebp]
		c.regs[ebp] = c.pop(4)
	case 0xcc:
		c.fault = excBreakpoint
	case 0xcd:
		if c.fetch(1) == 3 {
			c.fault = excBreakpoint
		} else {
			c.fault = excAccess
		}
	case 0xf1:
		c.fault = excStep
	case 0xd4, 0xd5:
		c.adjust(op)
	case 0xd6: // salc
		v := uint32(0)
		if c.cf {
			v = 0xff
		}
		c.setReg(eax, v, 1)
	case 0xd7:
		c.setReg(eax, c.read(c.regs[ebx]+c.regs[eax]&0xff+c.segment, 1), 1)
	case 0xe0, 0xe1, 0xe2, 0xe3:
		to := c.fetchSigned()
		if op == 0xe3 {
			if c.regs[ecx] == 0 {
				c.eip += to
			}
			return
		}
		c.regs[ecx]--
		if c.regs[ecx] != 0 && (op == 0xe2 || c.zf == (op == 0xe1)) {
			c.eip += to
		}
	case 0xe8:
		to := c.fetch(4)
		c.push(c.eip, 4)
		c.eip += to
	case 0xe9:
		to := c.fetch(4)
		c.eip += to
	case 0xeb:
		to := c.fetchSigned()
		c.eip += to
	case 0xf5:
		c.cf = !c.cf
	case 0xf6, 0xf7:
		c.operand()
		c.group3(size)
	case 0xf8, 0xf9:
		c.cf = op == 0xf9
	case 0xfc, 0xfd:
		c.df = op == 0xfd
	case 0xfe, 0xff:
		c.operand()
		c.group5(size)
	case 0xe4, 0xe5, 0xe6, 0xe7, 0xec, 0xed, 0xee, 0xef, 0xf4, 0xfa, 0xfb, 0x6c, 0x6d, 0x6e, 0x6f:
		c.fault = excPrivileged
	default:
		c.fault = excIllegal
	}
}

// adjust does aam and aad.
func (c *x86) adjust(op byte) {
	n := c.fetch(1)
	al, ah := c.regs[eax]&0xff, c.regs[eax]>>8&0xff
	if op == 0xd5 {
		c.setReg(eax, c.result(al+ah*n, 1), 2)
		return
	}
	if n == 0 {
		c.fault = excDivide
		return
	}
	c.setReg(4, al/n, 1)
	c.setReg(eax, c.result(al%n, 1), 1)
}

// multiply is the signed product with the flags of imul.
func (c *x86) multiply(a, b uint32) uint32 {
	full := int64(int32(extend(a, c.size))) * int64(int32(extend(b, c.size)))
	v := uint32(full) & mask(c.size)
	c.cf = full != int64(int32(extend(v, c.size)))
	c.of = c.cf
	return v
}

// group3 is test, not, neg, and multiplication and division with eax and edx.
func (c *x86) group3(size int) {
	v := c.get(size)
	switch c.middle() {
	case 0, 1:
		c.alu(aluAnd, v, c.fetch(size), size)
	case 2:
		c.set(^v, size)
	case 3:
		c.set(c.alu(aluSub, 0, v, size), size)
	case 4, 5:
		a := c.reg(eax, size)
		var full uint64
		if c.middle() == 4 {
			full = uint64(a) * uint64(v)
			c.cf = full>>(8*size) != 0
		} else {
			s := int64(int32(extend(a, size))) * int64(int32(extend(v, size)))
			full = uint64(s)
			c.cf = s != int64(int32(extend(uint32(s), size)))
		}
		c.of = c.cf
		if size == 1 {
			c.setReg(eax, uint32(full), 2)
			return
		}
		c.setReg(eax, uint32(full), size)
		c.setReg(edx, uint32(full>>(8*size)), size)
	default:
		c.divide(v, size)
	}
}

func (c *x86) divide(v uint32, size int) {
	if v == 0 {
		c.fault = excDivide
		return
	}
	var a uint64
	if size == 1 {
		a = uint64(c.reg(eax, 2))
	} else {
		a = uint64(c.reg(edx, size))<<(8*size) | uint64(c.reg(eax, size))
	}
	var q, r uint64
	if c.middle() == 6 {
		q, r = a/uint64(v), a%uint64(v)
		if q > uint64(mask(size)) {
			c.fault = excDivide
			return
		}
	} else {
		shift := 64 - 16*size
		n, d := int64(a<<shift)>>shift, int64(int32(extend(v, size)))
		if n == -1<<63 && d == -1 {
			c.fault = excDivide
			return
		}
		if s := n / d; s > int64(mask(size)>>1) || s < -int64(mask(size)>>1)-1 {
			c.fault = excDivide
			return
		}
		q, r = uint64(n/d), uint64(n%d)
	}
	c.setReg(eax, uint32(q), size)
	if size == 1 {
		c.setReg(4, uint32(r), 1)
	} else {
		c.setReg(edx, uint32(r), size)
	}
}

// group5 is inc, dec, call, jmp, push.
func (c *x86) group5(size int) {
	switch k := c.middle(); {
	case k < 2:
		carry := c.cf
		op := byte(aluAdd)
		if k == 1 {
			op = aluSub
		}
		c.set(c.alu(op, c.get(size), 1, size), size)
		c.cf = carry
	case size == 1:
		c.fault = excIllegal
	case k == 2:
		to := c.get(4)
		c.push(c.eip, 4)
		c.eip = to
	case k == 4:
		c.eip = c.get(4)
	case k == 6:
		c.push(c.get(c.size), c.size)
	default:
		c.fault = excIllegal
	}
}

// maxRepeat is how many bytes a repeated instruction handles before the others
// have their turn (and the time is checked).
const maxRepeat = 1 << 16

// str does the string instructions with their prefixes.
func (c *x86) str(op byte, size int) {
	step := uint32(size)
	if c.df {
		step = -step
	}
	for n := 0; ; n++ {
		if c.rep != 0 && c.regs[ecx] == 0 {
			return
		}
		if n >= maxRepeat {
			c.eip = c.start // to be continued
			return
		}
		compare := false
		switch op &^ 1 {
		case 0xa4:
			c.write(c.regs[edi], c.read(c.regs[esi]+c.segment, size), size)
			c.regs[esi] += step
			c.regs[edi] += step
		case 0xa6:
			c.alu(aluCmp, c.read(c.regs[esi]+c.segment, size), c.read(c.regs[edi], size), size)
			c.regs[esi] += step
			c.regs[edi] += step
			compare = true
		case 0xaa:
			c.write(c.regs[edi], c.reg(eax, size), size)
			c.regs[edi] += step
		case 0xac:
			c.setReg(eax, c.read(c.regs[esi]+c.segment, size), size)
			c.regs[esi] += step
		case 0xae:
			c.alu(aluCmp, c.reg(eax, size), c.read(c.regs[edi], size), size)
			c.regs[edi] += step
			compare = true
		}
		if c.fault != 0 || c.rep == 0 {
			return
		}
		c.regs[ecx]--
		if compare && c.zf != (c.rep == 0xf3) {
			return
		}
	}
}
