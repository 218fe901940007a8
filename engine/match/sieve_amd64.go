package match

import (
	"unsafe"

	"golang.org/x/sys/cpu"
)

// vector says that the processor has what the loops of eight lanes use: AVX2, POPCNT.
var vector = cpu.X86.HasAVX2 && cpu.X86.HasPOPCNT

// bestLanes is how many grams the filters look at a time on this processor.
//
// Those of sixteen use AVX-512 with VBMI2, and the gather instruction. That is slow
// where microcode closes "Gather Data Sampling": Intel's processors up to Ice, Tiger
// and Rocket Lake. All processors that have BF16 and VBMI2 are later ones or AMD's.
var bestLanes = func() int {
	x := &cpu.X86
	switch {
	case vector && x.HasAVX512F && x.HasAVX512BW && x.HasAVX512VL && x.HasAVX512VBMI && x.HasAVX512VBMI2 && x.HasAVX512BF16:
		return 16
	case vector:
		return 8
	}
	return 1
}()

// pack[m] are the byte numbers that move those of eight 16-bit words whose bit
// is set in m to the front.
var pack = func() (p [256][16]byte) {
	for m := range p {
		n := 0
		for i := range 8 {
			if m>>i&1 != 0 {
				p[m][n], p[m][n+1] = byte(2*i), byte(2*i+1)
				n += 2
			}
		}
	}
	return p
}()

// sieveLongVector is sieveLong for groups of eight grams. It writes up to eight
// numbers behind those that it returns.
//
//go:noescape
func sieveLongVector(data unsafe.Pointer, groups int, first unsafe.Pointer, mask, salt uint32, pack *[256][16]byte, list unsafe.Pointer) int

// sieveShortVector is sieveShort in the same way.
//
//go:noescape
func sieveShortVector(data unsafe.Pointer, groups int, first unsafe.Pointer, mask, salt uint32, pack *[256][16]byte, list unsafe.Pointer) int

// sieveLongWide is sieveLongVector for groups of sixteen grams. It writes up to
// sixteen numbers behind those that it returns.
//
//go:noescape
func sieveLongWide(data unsafe.Pointer, groups int, first unsafe.Pointer, mask, salt uint32, list unsafe.Pointer) int

// sieveShortWide is sieveShortVector in the same way. It reads 64 bytes for a group.
//
//go:noescape
func sieveShortWide(data unsafe.Pointer, groups int, first unsafe.Pointer, mask, salt uint32, list unsafe.Pointer) int

// findPairVector is the first of blocks*32 places at which the byte at first,
// in the bits of mask byte 1 of pair, is byte 0, and that at second in those of
// byte 3 is byte 2; blocks*32 if there is none.
//
//go:noescape
func findPairVector(first, second unsafe.Pointer, blocks int, pair uint32) int
