//go:build !amd64

package match

import "unsafe"

const vector = false

var pack [256][16]byte

func sieveLongVector(unsafe.Pointer, int, unsafe.Pointer, uint32, uint32, *[256][16]byte, unsafe.Pointer) int {
	return 0
}

func sieveShortVector(unsafe.Pointer, int, unsafe.Pointer, uint32, uint32, *[256][16]byte, unsafe.Pointer) int {
	return 0
}

func findPairVector(unsafe.Pointer, unsafe.Pointer, int, uint32) int { return 0 }
