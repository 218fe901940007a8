package unpack

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"strings"

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

// library makes the image of the one library that a program finds, whatever name
// it asks for: a header and a table of functions, for code that looks for them by
// itself.
func (e *windows) library() []byte {
	le := binary.LittleEndian
	b := make([]byte, apiSize)
	for i := apiCode; i < len(b); i++ {
		b[i] = 0x90
	}
	const (
		pe      = 0x80
		exports = 0x1000
		table   = 0x1100 // addresses, names, ordinals, texts
	)
	copy(b, "MZ")
	le.PutUint32(b[0x3c:], pe)
	copy(b[pe:], "PE\x00\x00")
	le.PutUint16(b[pe+4:], 0x14c)
	le.PutUint16(b[pe+20:], 0xe0)
	opt := b[pe+24:]
	le.PutUint16(opt, 0x10b)
	le.PutUint32(opt[28:], apiAt)
	le.PutUint32(opt[32:], 0x1000)
	le.PutUint32(opt[56:], apiSize)
	le.PutUint32(opt[60:], 0x1000)
	le.PutUint32(opt[92:], 16)
	le.PutUint32(opt[96:], exports)
	le.PutUint32(opt[100:], apiCode-exports)
	n := uint32(len(apiNames))
	dir := b[exports:]
	for off, v := range map[int]uint32{12: table - 16, 16: 1, 20: n, 24: n, 28: table, 32: table + 4*n, 36: table + 8*n} {
		le.PutUint32(dir[off:], v)
	}
	copy(b[table-16:], "KERNEL32.dll")
	text := uint32(table + 10*n)
	for i, name := range apiNames {
		i := uint32(i)
		le.PutUint32(b[table+4*i:], e.function(name)-apiAt)
		le.PutUint32(b[table+4*n+4*i:], text)
		le.PutUint16(b[table+8*n+2*i:], uint16(i))
		copy(b[text:], name)
		text += uint32(len(name)) + 1
	}
	return b
}

// apiNames are the functions in the library's table, sorted as there.
var apiNames = [...]string{
	"CloseHandle", "CompareStringA", "CopyFileA", "CreateDirectoryA", "CreateEventA", "CreateFileA",
	"CreateFileMappingA", "CreateMutexA", "CreateProcessA", "CreateThread", "CreateToolhelp32Snapshot",
	"DebugActiveProcess", "DebugBreak", "DeleteCriticalSection", "DeleteFileA", "DuplicateHandle",
	"EnterCriticalSection", "ExitProcess", "ExitThread", "FindClose", "FindFirstFileA", "FindNextFileA",
	"FindResourceA", "FlushFileBuffers", "FlushInstructionCache", "FormatMessageA", "FreeLibrary", "FreeResource",
	"GetACP", "GetCommandLineA", "GetComputerNameA", "GetCurrentDirectoryA", "GetCurrentProcess", "GetCurrentProcessId",
	"GetCurrentThread", "GetCurrentThreadId", "GetDriveTypeA", "GetEnvironmentVariableA", "GetExitCodeProcess",
	"GetExitCodeThread", "GetFileAttributesA", "GetFileSize", "GetFileTime", "GetFileType", "GetFullPathNameA",
	"GetLastError", "GetLocalTime", "GetModuleFileNameA", "GetModuleHandleA", "GetModuleHandleW", "GetProcAddress",
	"GetProcessHeap", "GetStartupInfoA", "GetStdHandle", "GetSystemDirectoryA", "GetSystemInfo", "GetSystemTime",
	"GetTempFileNameA", "GetTempPathA", "GetThreadContext", "GetTickCount", "GetVersion", "GetVersionExA",
	"GetWindowsDirectoryA", "GlobalAlloc", "GlobalFree", "GlobalLock", "GlobalUnlock", "HeapAlloc", "HeapCreate",
	"HeapDestroy", "HeapFree", "HeapReAlloc", "InitializeCriticalSection", "InterlockedDecrement",
	"InterlockedExchange", "InterlockedIncrement", "IsBadReadPtr", "IsDebuggerPresent", "LeaveCriticalSection",
	"LoadLibraryA", "LoadLibraryExA", "LoadLibraryW", "LoadResource", "LocalAlloc", "LocalFree", "LockResource",
	"MapViewOfFile", "MoveFileA", "MultiByteToWideChar", "OpenMutexA", "OpenProcess", "OutputDebugStringA",
	"Process32First", "Process32Next", "QueryPerformanceCounter", "RaiseException", "ReadFile", "ReadProcessMemory",
	"ReleaseMutex", "ResumeThread", "RtlUnwind", "SetCurrentDirectoryA", "SetEndOfFile", "SetEvent",
	"SetFileAttributesA", "SetFilePointer", "SetFileTime", "SetLastError", "SetThreadContext", "SetThreadPriority",
	"SetUnhandledExceptionFilter", "SizeofResource", "Sleep", "SuspendThread", "TerminateProcess", "TerminateThread",
	"TlsAlloc", "TlsGetValue", "TlsSetValue", "UnhandledExceptionFilter", "UnmapViewOfFile", "VirtualAlloc",
	"VirtualAllocEx", "VirtualFree", "VirtualProtect", "VirtualProtectEx", "VirtualQuery", "WaitForSingleObject",
	"WideCharToMultiByte", "WinExec", "WriteFile", "WriteProcessMemory", "lstrcatA", "lstrcmpA", "lstrcpyA", "lstrlenA",
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
				return nil
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
	frame := c.read(tebAt, 4)
	if len(e.contexts) >= maxNested {
		return false
	}
	return e.handler(frame, code)
}

// Offsets in the structure CONTEXT of Windows.
var contextRegs = [8]uint32{0xb0, 0xac, 0xa8, 0xa4, 0xc4, 0xb4, 0xa0, 0x9c}

func (e *windows) handler(frame, code uint32) bool {
	c := &e.c
	if frame == 0xffffffff || frame == 0 {
		return false
	}
	to := c.read(frame+4, 4)
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
	c.write(sp+8, frame, 4)
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

// call does a function of the system: what unpacking needs. Anything else ends
// the emulation.
func (e *windows) call(n uint32) error {
	if n == apiHandled {
		return e.handled()
	}
	if n < apiFirst || int(n) >= len(e.names) {
		return errDone
	}
	c := &e.c
	arg := func(i uint32) uint32 { return c.read(c.regs[esp]+4*i, 4) }
	args, result := uint32(0), uint32(0)
	switch name := e.names[n]; name {
	case "LoadLibraryA", "LoadLibraryW", "GetModuleHandleA", "GetModuleHandleW":
		args, result = 1, apiAt
		if arg(1) == 0 {
			result = e.base
		}
	case "LoadLibraryExA":
		args, result = 3, apiAt
	case "GetProcAddress":
		args = 2
		f := "#"
		if arg(2) > 0xffff {
			f = e.text(arg(2))
		}
		result = e.function(f)
	case "VirtualAlloc":
		args, result = 4, e.allocate(arg(1), arg(2))
	case "VirtualAllocEx":
		args, result = 5, e.allocate(arg(2), arg(3))
	case "GlobalAlloc", "LocalAlloc":
		args, result = 2, e.allocate(0, arg(2))
	case "HeapAlloc", "RtlAllocateHeap":
		args, result = 3, e.allocate(0, arg(3))
	case "GetProcessHeap", "GetCurrentProcess", "GetCurrentThread":
		result = 1
	case "HeapCreate":
		args, result = 3, 1
	case "VirtualFree", "HeapFree":
		args, result = 3, 1
	case "VirtualProtect":
		args, result = 4, 1
		c.write(arg(4), 4, 4)
	case "GlobalFree", "LocalFree", "FreeLibrary", "GlobalLock", "GlobalUnlock", "SetUnhandledExceptionFilter", "CloseHandle":
		args, result = 1, 1
		if name == "GlobalLock" {
			result = arg(1)
		}
	case "GetTickCount", "GetCurrentProcessId", "GetCurrentThreadId", "GetLastError":
		result = 0x1000
	case "IsDebuggerPresent":
	case "GetVersion":
		result = 0x0a280105 // Windows XP
	case "GetCommandLineA":
		result = tebAt + 0x1800
	case "GetModuleFileNameA":
		const name = "C:\\A.EXE"
		args, result = 3, uint32(len(name))
		for i := range len(name) + 1 {
			c.write(arg(2)+uint32(i), uint32((name + "\x00")[i]), 1)
		}
	// The one file there is is the program's own.
	case "CreateFileA":
		args, result = 7, ownFile
		if strings.HasPrefix(e.text(arg(1)), `\\`) { // a device, of a debugger
			result = 0xffffffff
		}
	case "GetFileSize":
		args, result = 2, uint32(min(e.o.Size, 1<<31))
	case "CreateFileMappingA":
		args, result = 6, ownFile
	case "MapViewOfFile":
		args = 5
		if result = e.allocate(0, uint32(min(e.o.Size, maxHeap))); result != 0 {
			_, _ = e.o.Data.ReadAt(c.mem(result, int(min(e.o.Size, maxHeap))), 0)
		}
	case "SetFilePointer":
		args = 4
		e.at = arg(2)
		result = e.at
	case "ReadFile":
		args, result = 5, 1
		if b := c.mem(arg(2), int(min(arg(3), maxHeap))); b != nil {
			n, _ := e.o.Data.ReadAt(b, int64(e.at))
			e.at += uint32(n)
			if arg(4) != 0 {
				c.write(arg(4), uint32(n), 4)
			}
		}
	case "UnmapViewOfFile":
		args, result = 1, 1
	case "Sleep", "SetLastError":
		args = 1
	default:
		return errDone
	}
	if c.fault != 0 {
		return errDone
	}
	to := c.pop(4)
	c.regs[esp] += 4 * args
	c.regs[eax] = result
	c.regs[ecx], c.regs[edx] = 0, 0
	c.eip = to
	if c.fault != 0 || strings.HasPrefix(e.names[n], "#") {
		return errDone
	}
	return nil
}

// allocate gives memory: inside the image when that was asked for, else new.
func (e *windows) allocate(at, size uint32) uint32 {
	if at != 0 {
		if off := at - e.base; uint64(off)+uint64(size) <= uint64(len(e.c.regions[0].data)) {
			return at
		}
		return 0
	}
	size = (size + 0xfff) &^ 0xfff
	if size == 0 || size > maxHeap-e.heap {
		return 0
	}
	at = heapAt + e.heap
	e.heap += size
	h := &e.c.regions[4]
	h.data = append(h.data, make([]byte, size)...)
	return at
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
