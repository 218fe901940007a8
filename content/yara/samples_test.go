package yara

import (
	"encoding/binary"
	"encoding/hex"
	"slices"
	"strings"
	"testing"
)

// sample is a pair of files for one rule: what it finds, and something near that
// it leaves alone.
type sample struct {
	rule               string
	positive, negative []byte
}

func samples() []sample {
	return slices.Concat(
		botnetSamples(), minerSamples(), rootkitSamples(), backdoorSamples(), reverseShellSamples(),
		webShellSamples(), ransomwareSamples(), packerSamples(), credentialSamples(), dropperSamples(),
		toolSamples(),
	)
}

// mark stands inside the words of the samples wherever the source of this test
// would be found by the rules itself. It is taken out when a sample is made.
const mark = "¦"

func unmarked(s string) string { return strings.ReplaceAll(s, mark, "") }

func text(parts ...string) []byte { return []byte(unmarked(strings.Join(parts, ""))) }

func unhex(s string) string {
	b, err := hex.DecodeString(s)
	if err != nil {
		panic(err) // a mistake in a sample
	}
	return string(b)
}

func xored(s string, key byte) string {
	b := []byte(unmarked(s))
	for i := range b {
		b[i] ^= key
	}
	return string(b)
}

// The kinds of ELF files.
const (
	relocatable = 1
	executable  = 2
	library     = 3
)

func elfModule(parts ...string) []byte  { return elf(relocatable, parts) }
func elfProgram(parts ...string) []byte { return elf(executable, parts) }
func elfLibrary(parts ...string) []byte { return elf(library, parts) }

// elf is a 64-bit file with the given data, each ended by a NUL. It belongs to no
// processor and has no segments: nothing can run or load it.
func elf(kind uint16, parts []string) []byte {
	b := header64(kind)
	for _, p := range parts {
		b = append(append(b, unmarked(p)...), 0)
	}
	return b
}

func header64(kind uint16) []byte {
	b := make([]byte, 64)
	copy(b, "\x7fELF\x02\x01\x01")
	binary.LittleEndian.PutUint16(b[16:], kind)
	binary.LittleEndian.PutUint32(b[20:], 1)
	binary.LittleEndian.PutUint16(b[52:], 64)
	return b
}

// tinyELF is a file of one segment with the given flags. It belongs to no
// processor and holds breakpoints instead of code.
func tinyELF(bits int, flags uint32) []byte {
	code := strings.Repeat("\xcc", 64)
	if bits == 64 {
		b := append(header64(executable), make([]byte, 56)...)
		binary.LittleEndian.PutUint64(b[32:], 64)
		binary.LittleEndian.PutUint16(b[54:], 56)
		binary.LittleEndian.PutUint16(b[56:], 1)
		binary.LittleEndian.PutUint32(b[64:], 1)
		binary.LittleEndian.PutUint32(b[68:], flags)
		return append(b, code...)
	}
	b := make([]byte, 52+32)
	copy(b, "\x7fELF\x01\x01\x01")
	binary.LittleEndian.PutUint16(b[16:], executable)
	binary.LittleEndian.PutUint32(b[20:], 1)
	binary.LittleEndian.PutUint32(b[28:], 52)
	binary.LittleEndian.PutUint16(b[40:], 52)
	binary.LittleEndian.PutUint16(b[42:], 32)
	binary.LittleEndian.PutUint16(b[44:], 1)
	binary.LittleEndian.PutUint32(b[52:], 1)
	binary.LittleEndian.PutUint32(b[76:], flags)
	return slices.Concat(b, []byte(code))
}

// TestSamplesCannotRun: what the tests write must be harmless even where it is
// left lying about.
func TestSamplesCannotRun(t *testing.T) {
	for _, s := range samples() {
		for _, data := range [][]byte{s.positive, s.negative} {
			if !strings.HasPrefix(string(data), "\x7fELF") {
				continue
			}
			if machine := binary.LittleEndian.Uint16(data[18:]); machine != 0 {
				t.Errorf("%s: a sample is a program for machine %d", s.rule, machine)
			}
		}
	}
}
