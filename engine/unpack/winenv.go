package unpack

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"

	"github.com/bulwarkhq/bulwark/engine/verdict"
)

// Where things are in the memory of an emulated program.
const (
	tebAt   = 0x7ffde000 // thread and process blocks
	pebAt   = tebAt + 0x1000
	apiAt   = 0x7fe00000 // the one library there is
	apiSize = 1 << 17
	apiCode = 0x8000 // where its functions begin: 16 bytes each
	stackAt = 0x7f000000
	stack   = 1 << 20
	heapAt  = 0x20000000
)

// Bounds of emulation.
const (
	maxImage = 32 << 20
	maxHeap  = 32 << 20
	// maxSteps is the number of instructions for one scanned file, whatever it
	// contains.
	maxSteps = 80_000_000
	// minUnpacked is how many bytes must have been written for the image to be
	// worth a look.
	minUnpacked = 256
	maxNested   = 16 // exceptions in handlers of exceptions
)

const ownFile = 0x100 // its handle

// Numbers of the functions that end handlers and threads.
const (
	apiExit = iota
	apiHandled
	apiFirst
)

// windows is an emulated program with as much of Windows as the code of packers
// asks for.
type windows struct {
	c        x86
	w        *Walker
	p        *peFile
	o        Object
	at       uint32 // where the program reads in its own file
	base     uint32
	names    []string // of the functions given so far
	byName   map[string]uint32
	heap     uint32
	contexts []uint32
	oep      uint32
}

// section is the index of the section of an address, -1 for none.
func (p *peFile) section(rva uint32) int {
	for i, s := range p.sections {
		if rva >= s.addr && rva-s.addr < max(s.size, s.rawLength) {
			return i
		}
	}
	return -1
}

const (
	sectionExecute = 0x20000000
	sectionWrite   = 0x80000000
)

// packed reports whether a program looks as if its code were unpacked when it
// runs: by where it starts, or by room for code that the file does not have.
func (p *peFile) packed() bool {
	if p.machine != 0x14c || p.plus || p.image == 0 || p.image > maxImage {
		return false
	}
	i := p.section(p.entry)
	if i < 0 || i > 0 && p.entry != 0 && i == len(p.sections)-1 {
		return true
	}
	if p.sections[i].flags&sectionWrite != 0 {
		return true
	}
	for _, s := range p.sections {
		if s.rawLength == 0 && s.size >= 0x1000 && s.flags&sectionExecute != 0 {
			return true
		}
	}
	return false
}

// unpackPE runs a packed program until it asks the system for something that
// unpacking does not need, and gives its memory as a program.
func (w *Walker) unpackPE(o Object, p *peFile) error {
	if _, done := o.Data.(*unpacked); done || !p.packed() || w.budget.steps >= maxSteps || w.budget.MaxHeld-w.budget.held < 2*int64(p.image) {
		return nil
	}
	held := int64(p.image)
	w.budget.held += held
	defer func() { w.budget.held -= held }()
	e := newWindows(w, o, p)
	if err := e.run(); err != nil {
		return err
	}
	if e.c.written < minUnpacked {
		return nil
	}
	image := e.c.regions[0].data
	// Packers destroy the headers in memory.
	copy(image, o.piece(0, int(min(p.headers, p.image))))
	e.header(image)
	if err := w.member(); err != nil {
		return err
	}
	size := int64(len(image))
	if size > w.budget.Bytes {
		w.note(verdict.LimitBytes)
		return errLimit
	}
	w.budget.Bytes -= size
	w.budget.extracted += size
	return w.give(Object{Name: "unpacked.exe", Data: &unpacked{bytes.NewReader(image)}, Size: size})
}

// unpacked is the memory of a program that has unpacked itself, all its layers
// at once; it is not run again.
type unpacked struct{ io.ReaderAt }

func newWindows(w *Walker, o Object, p *peFile) *windows {
	e := &windows{w: w, p: p, o: o, base: uint32(p.base), byName: map[string]uint32{}, names: make([]string, apiFirst)}
	size := (p.image + 0xfff) &^ 0xfff
	if p.base > heapAt-maxImage || p.base < 0x10000 {
		e.base = 0x400000
	}
	image := make([]byte, size)
	copy(image, o.piece(0, int(min(p.headers, size))))
	for _, s := range p.sections {
		at := int64(s.rawAt)
		if p.alignment >= 0x1000 {
			at &^= 0x1ff
		}
		if s.addr < size {
			copy(image[s.addr:], o.piece(at, int(min(s.rawLength, size-s.addr))))
		}
	}
	teb := make([]byte, 0x2000)
	e.c.regions = []region{{e.base, image}, {stackAt, make([]byte, stack)}, {apiAt, e.library()}, {tebAt, teb}, {heapAt, nil}}
	le := binary.LittleEndian
	top := uint32(stackAt + stack - 0x1000)
	le.PutUint32(teb[0:], top+0x100) // the list of handlers
	le.PutUint32(teb[4:], stackAt+stack)
	le.PutUint32(teb[8:], stackAt)
	le.PutUint32(teb[0x18:], tebAt)
	le.PutUint32(teb[0x30:], pebAt)
	le.PutUint32(teb[0x1008:], e.base)
	e.c.write(top+0x100, 0xffffffff, 4)
	e.c.write(top+0x104, apiAt+apiCode, 4)
	e.c.write(top, apiAt+apiCode, 4) // where the program returns to
	e.modules(teb[0x1000:])
	e.c.regs[esp] = top
	e.c.regs[ebx] = pebAt
	e.c.regs[eax] = e.base + p.entry
	e.c.eip = e.base + p.entry
	e.imports()
	e.c.written = 0
	return e
}

// modules fills the process block's lists of loaded modules: the program, then
// the library, in all three orders.
func (e *windows) modules(peb []byte) {
	le := binary.LittleEndian
	const lists, program, library = 0x200, 0x300, 0x400
	le.PutUint32(peb[12:], pebAt+lists)
	for i := range uint32(3) {
		head, first, second := lists+12+8*i, program+8*i, library+8*i
		for _, l := range [][3]uint32{{head, first, second}, {first, second, head}, {second, head, first}} {
			le.PutUint32(peb[l[0]:], pebAt+l[1])
			le.PutUint32(peb[l[0]+4:], pebAt+l[2])
		}
	}
	for at, v := range map[int][3]uint32{program: {e.base, e.base + e.p.entry, e.p.image}, library: {apiAt, 0, apiSize}} {
		for i, x := range v {
			le.PutUint32(peb[at+0x18+4*i:], x)
		}
	}
}

// function is the address of a function of the system.
func (e *windows) function(name string) uint32 {
	if at, ok := e.byName[name]; ok {
		return at
	}
	if len(e.names) >= (apiSize-apiCode)/16 {
		return 0
	}
	at := apiAt + apiCode + uint32(16*len(e.names))
	e.names = append(e.names, name)
	e.byName[name] = at
	return at
}

// text reads a string of the program.
func (e *windows) text(at uint32) string {
	var b []byte
	for len(b) < 256 {
		c := e.c.read(at, 1)
		if c == 0 {
			break
		}
		b = append(b, byte(c))
		at++
	}
	return string(b)
}

// imports fills the import tables.
func (e *windows) imports() {
	at := e.p.imageImport[0]
	if at == 0 {
		return
	}
	at += e.base
	for n := 0; n < 4096; at += 20 {
		lookup, name, table := e.c.read(at, 4), e.c.read(at+12, 4), e.c.read(at+16, 4)
		if table == 0 || name == 0 || e.c.fault != 0 {
			break
		}
		if lookup == 0 || e.c.read(e.base+lookup, 4) == 0 {
			lookup = table
		}
		for ; n < 4096; n++ {
			v := e.c.read(e.base+lookup, 4)
			if v == 0 || e.c.fault != 0 {
				break
			}
			f := "#"
			if v&0x80000000 == 0 {
				f = e.text(e.base + v + 2)
			}
			e.c.write(e.base+table, e.function(f), 4)
			lookup += 4
			table += 4
		}
	}
	e.c.fault = 0
}

// errDone ends the emulation.
var errDone = errors.New("done")

func (e *windows) run() error {
	entry := e.p.section(e.p.entry)
	image := uint32(len(e.c.regions[0].data))
	for n := int64(1); ; n++ {
		if n&0xffff == 0 {
			if err := e.w.check(); err != nil {
				return err
			}
			if w := e.w.budget; w.steps+n > maxSteps {
				w.steps += n
				return nil
			}
		}
		if off := e.c.eip - apiAt - apiCode; off < apiSize-apiCode {
			if e.call(off/16) != nil {
				e.w.budget.steps += n
				return nil //nolint:nilerr // errDone: what there is to see is in memory
			}
			continue
		}
		before := e.c.written
		e.c.step()
		if e.c.fault != 0 {
			if !e.raise(e.c.fault) {
				e.w.budget.steps += n
				return nil
			}
			continue
		}
		// The first jump into another section, to what was written there, is
		// taken for the program's own start.
		if off := e.c.eip - e.base; e.oep == 0 && off < image && before > minUnpacked && e.p.section(off) != entry {
			e.oep = off
		}
	}
}

// raise calls the program's handler of exceptions.
func (e *windows) raise(code uint32) bool {
	c := &e.c
	c.fault = 0
	if len(e.contexts) >= maxNested {
		return false
	}
	return e.handler(c.read(tebAt, 4), code)
}

// Offsets in the structure CONTEXT of Windows.
var contextRegs = [8]uint32{0xb0, 0xac, 0xa8, 0xa4, 0xc4, 0xb4, 0xa0, 0x9c}

// handler calls the handler of a frame of the program, the first from there on.
func (e *windows) handler(frame, code uint32) bool {
	c := &e.c
	to := uint32(apiAt + apiCode)
	// An exception inside a handler passes over the system's own frames.
	for n := 0; ; n++ {
		if frame == 0xffffffff || frame == 0 || n > 2*maxNested {
			return false
		}
		if to = c.read(frame+4, 4); to != apiAt+apiCode || c.read(frame, 4) == 0xffffffff {
			break
		}
		frame = c.read(frame, 4)
	}
	sp := (c.regs[esp] - 0x500) &^ 15
	rec, ctx := sp+0x20, sp+0x80
	c.write(rec, code, 4)
	c.write(rec+4, 0, 4)
	c.write(rec+8, 0, 4)
	c.write(rec+12, c.eip, 4)
	c.write(rec+16, 0, 4)
	for at := ctx; at < ctx+0x2cc; at += 4 {
		c.write(at, 0, 4)
	}
	c.write(ctx, 0x1003f, 4)
	// While a handler runs, one of the system's stands before it.
	c.write(sp+8, c.read(tebAt, 4), 4)
	c.write(sp+12, apiAt+apiCode, 4)
	c.write(tebAt, sp+8, 4)
	for r, off := range contextRegs {
		c.write(ctx+off, c.regs[r], 4)
	}
	c.write(ctx+0xb8, c.eip, 4)
	c.write(ctx+0xc0, c.flags(), 4)
	c.regs[esp] = sp
	for _, v := range []uint32{0, ctx, frame, rec, apiAt + apiCode + 16*apiHandled} {
		c.push(v, 4)
	}
	if c.fault != 0 {
		return false
	}
	e.contexts = append(e.contexts, ctx)
	c.tf = false
	c.eip = to
	return true
}

// handled goes on after a handler has returned.
func (e *windows) handled() error {
	if len(e.contexts) == 0 {
		return errDone
	}
	ctx := e.contexts[len(e.contexts)-1]
	e.contexts = e.contexts[:len(e.contexts)-1]
	c := &e.c
	if c.regs[eax] != 0 { // it wants the next handler to look
		return errDone
	}
	c.write(tebAt, c.read(c.read(tebAt, 4), 4), 4)
	for r, off := range contextRegs {
		c.regs[r] = c.read(ctx+off, 4)
	}
	c.eip = c.read(ctx+0xb8, 4)
	c.setFlags(c.read(ctx+0xc0, 4))
	return nil
}

// header makes the image a file: its sections lie in it as in memory.
func (e *windows) header(image []byte) {
	le := binary.LittleEndian
	at := e.p.at
	if int64(len(image)) < at+24+96 {
		return
	}
	opt := at + 24
	if entry := e.oep; entry != 0 {
		le.PutUint32(image[opt+16:], entry)
	} else if off := e.c.eip - e.base; off < uint32(len(image)) {
		le.PutUint32(image[opt+16:], off)
	}
	for i, s := range e.p.sections {
		h := e.p.tableEnd - int64(len(e.p.sections)-i)*40
		if h+40 > int64(len(image)) || h < 0 {
			return
		}
		size := (max(s.size, s.rawLength) + 0xfff) &^ 0xfff
		le.PutUint32(image[h+8:], size)
		le.PutUint32(image[h+16:], size)
		le.PutUint32(image[h+20:], s.addr)
	}
}
