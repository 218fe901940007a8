//go:build !amd64

package match

import "unsafe"

const (
	vector    = false
	bestLanes = 1
)

var pack [256][16]byte

func sieveLongVector(unsafe.Pointer, int, unsafe.Pointer, uint32, uint32, *[256][16]byte, unsafe.Pointer) int {
	return 0
}

func sieveShortVector(unsafe.Pointer, int, unsafe.Pointer, uint32, uint32, *[256][16]byte, unsafe.Pointer) int {
	return 0
}

func sieveLongWide(unsafe.Pointer, int, unsafe.Pointer, uint32, uint32, unsafe.Pointer) int {
	return 0
}

func sieveShortWide(unsafe.Pointer, int, unsafe.Pointer, uint32, uint32, unsafe.Pointer) int {
	return 0
}

func findPairVector(unsafe.Pointer, unsafe.Pointer, int, uint32) int { return 0 }
