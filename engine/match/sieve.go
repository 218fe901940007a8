package match

import "unsafe"

// The first filters. Each goes over a block of data and lists which grams may
// be indexed, without a branch that depends on the data. They are the innermost
// loops of a scan and check no bounds: the callers make sure that slack bytes
// follow the last position, that the list has room for all of a block and sixteen
// more, and Load that masks stay inside the filters.
//
// On amd64 they look at eight or sixteen grams at a time (sieve_amd64.go); the
// results are the same.

const (
	mulA = 0x9E3779B1
	mulB = 0x85EBCA77
)

// list is the numbers of the grams of a block that passed a filter.
type list [block + 16]uint16

// firstHash is the hash of a long gram for the first filter: the places of its
// two bits are in the upper ten bits, the word in the lower ones. The salt is the
// table's own (see salted).
func firstHash(v uint64, salt uint32) uint32 {
	v = fold8(v)
	h := uint32(v)*mulA + uint32(v>>8)*mulB + salt
	return h ^ h>>15
}

// shortHash is the hash of three bytes for the first filter of the short class.
func shortHash(v uint64, salt uint32) uint32 {
	h := fold4(uint32(v))&mask3*mulA + salt
	return h ^ h>>15
}

// firstBits are the bits of a hash in the word that it leads to.
func firstBits(h uint32) uint32 { return 1<<(h>>27) | 1<<(h<<5>>27) }

// sieveLong lists those of count grams at data, stride bytes apart, that the
// filter lets pass, and returns how many.
func sieveLong(lanes int, data unsafe.Pointer, count int, first []uint32, mask, salt uint32, l *list) int {
	p, from, n := unsafe.Pointer(unsafe.SliceData(first)), 0, 0
	switch lanes {
	case 16:
		from = count &^ 15
		n = sieveLongWide(data, count/16, p, mask, salt, unsafe.Pointer(l))
	case 8:
		from = count &^ 7
		n = sieveLongVector(data, count/8, p, mask, salt, &pack, unsafe.Pointer(l))
	}
	// One bit in the long loop, the other for the few that it lets pass.
	k := n
	for i := from; i < count; i++ {
		h := firstHash(*(*uint64)(unsafe.Add(data, i*stride)), salt)
		*(*uint16)(unsafe.Add(unsafe.Pointer(l), k*2)) = uint16(i)
		if *(*uint32)(unsafe.Add(p, uint64(h&mask)*4))&(1<<(h>>27)) != 0 {
			k++
		}
	}
	for _, i := range l[n:k] {
		h := firstHash(*(*uint64)(unsafe.Add(data, int(i)*stride)), salt)
		l[n] = i
		if *(*uint32)(unsafe.Add(p, uint64(h&mask)*4))&(1<<(h<<5>>27)) != 0 {
			n++
		}
	}
	return n
}

// sieveShort is sieveLong for the grams of the short class, shortStride bytes
// apart.
func sieveShort(lanes int, data unsafe.Pointer, count int, first []uint32, mask, salt uint32, l *list) int {
	p, from, n := unsafe.Pointer(unsafe.SliceData(first)), 0, 0
	switch lanes {
	case 16:
		from = count &^ 15
		n = sieveShortWide(data, count/16, p, mask, salt, unsafe.Pointer(l))
	case 8:
		from = count &^ 7
		n = sieveShortVector(data, count/8, p, mask, salt, &pack, unsafe.Pointer(l))
	}
	for i := from; i < count; i++ {
		h := shortHash(uint64(*(*uint32)(unsafe.Add(data, i*shortStride))), salt)
		*(*uint16)(unsafe.Add(unsafe.Pointer(l), n*2)) = uint16(i)
		if b := firstBits(h); *(*uint32)(unsafe.Add(p, uint64(h&mask)*4))&b == b {
			n++
		}
	}
	return n
}
