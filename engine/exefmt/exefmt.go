// Package exefmt reads as much of PE, ELF and Mach-O programs as signatures
// refer to: the entry point, the sections, and of PE the imports and the version
// information. Offsets are those of the file. What is damaged is left out, as
// the loaders of those systems read only what they need; nothing is allocated
// from a length in the file without bound.
package exefmt

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// ErrFormat is wrapped by the errors for files that are not programs, or whose
// headers are damaged.
var ErrFormat = errors.New("not a readable program")

const (
	maxSections = 4096
	maxHeader   = 1 << 20 // bytes of headers that are read
)

// Section is a section of a program (a segment, where ELF has no sections).
type Section struct {
	// Offset and Size are the section's bytes in the file.
	Offset, Size int64
	// Address and MemSize are its place in memory: relative to the image base
	// in PE, absolute in ELF and Mach-O.
	Address, MemSize uint64
}

// Layout is the structure of a program.
type Layout struct {
	// Entry is the file offset of the entry point, -1 where there is none.
	Entry    int64
	Sections []Section
	pe       *peHeaders
	texts    []int64
	haveText bool
}

// Read reads the layout of the program in the first size bytes of r; fileType
// is "pe", "elf" or "macho".
func Read(r io.ReaderAt, size int64, fileType string) (*Layout, error) {
	f := file{r, size}
	switch fileType {
	case "pe":
		return f.pe()
	case "elf":
		return f.elf()
	case "macho":
		return f.macho()
	}
	return nil, fmt.Errorf("%w: type %q", ErrFormat, fileType)
}

// file is a program with bounded reads.
type file struct {
	r    io.ReaderAt
	size int64
}

// at reads n bytes at off, fewer at the end of the file.
func (f file) at(off int64, n int) []byte {
	if off < 0 || off >= f.size || n <= 0 || n > maxHeader {
		return nil
	}
	b := make([]byte, min(int64(n), f.size-off))
	k, err := f.r.ReadAt(b, off)
	if err != nil && err != io.EOF {
		return nil
	}
	return b[:k]
}

// fields reads fixed-width numbers from a piece of a header; numbers outside of
// it are 0.
type fields struct {
	b     []byte
	order binary.ByteOrder
}

func (f fields) u8(at int) byte {
	if at < 0 || at >= len(f.b) {
		return 0
	}
	return f.b[at]
}

func (f fields) u16(at int) uint16 {
	if at < 0 || at+2 > len(f.b) {
		return 0
	}
	return f.order.Uint16(f.b[at:])
}

func (f fields) u32(at int) uint32 {
	if at < 0 || at+4 > len(f.b) {
		return 0
	}
	return f.order.Uint32(f.b[at:])
}

func (f fields) u64(at int) uint64 {
	if at < 0 || at+8 > len(f.b) {
		return 0
	}
	return f.order.Uint64(f.b[at:])
}

// word is a 64-bit number where wide, else a 32-bit one.
func (f fields) word(at int, wide bool) uint64 {
	if wide {
		return f.u64(at)
	}
	return uint64(f.u32(at))
}

// clip bounds a section's bytes by the file.
func (f file) clip(off, size uint64) (int64, int64) {
	if off > uint64(f.size) {
		return f.size, 0
	}
	return int64(off), int64(min(size, uint64(f.size)-off))
}
