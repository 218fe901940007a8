package modules

import (
	"encoding/hex"
	"math"
	"slices"
	"strings"
)

// pearson is the permutation of TLSH (Oliver, Cheng, Chen: "TLSH - A Locality
// Sensitive Hash", 2013): a hash of a few bytes by one look-up for each.
var pearson = [256]byte{
	1, 87, 49, 12, 176, 178, 102, 166, 121, 193, 6, 84, 249, 230, 44, 163,
	14, 197, 213, 181, 161, 85, 218, 80, 64, 239, 24, 226, 236, 142, 38, 200,
	110, 177, 104, 103, 141, 253, 255, 50, 77, 101, 81, 18, 45, 96, 31, 222,
	25, 107, 190, 70, 86, 237, 240, 34, 72, 242, 20, 214, 244, 227, 149, 235,
	97, 234, 57, 22, 60, 250, 82, 175, 208, 5, 127, 199, 111, 62, 135, 248,
	174, 169, 211, 58, 66, 154, 106, 195, 245, 171, 17, 187, 182, 179, 0, 243,
	132, 56, 148, 75, 128, 133, 158, 100, 130, 126, 91, 13, 153, 246, 216, 219,
	119, 68, 223, 78, 83, 88, 201, 99, 122, 11, 92, 32, 136, 114, 52, 10,
	138, 30, 48, 183, 156, 35, 61, 26, 143, 74, 251, 94, 129, 162, 63, 152,
	170, 7, 115, 167, 241, 206, 3, 150, 55, 59, 151, 220, 90, 53, 23, 131,
	125, 173, 15, 238, 79, 95, 89, 16, 105, 137, 225, 224, 217, 160, 37, 123,
	118, 73, 2, 157, 46, 116, 9, 145, 134, 228, 207, 212, 202, 215, 69, 229,
	27, 188, 67, 124, 168, 252, 42, 4, 29, 108, 21, 247, 19, 205, 39, 203,
	233, 40, 186, 147, 198, 192, 155, 33, 164, 191, 98, 204, 165, 180, 117, 76,
	140, 36, 210, 172, 41, 54, 159, 8, 185, 232, 113, 196, 231, 47, 146, 120,
	51, 65, 28, 144, 254, 221, 93, 189, 194, 139, 112, 43, 71, 109, 184, 209,
}

const (
	tlshBuckets = 128 // of 256 hash values, those that the digest tells of
	tlshShort   = 50  // bytes below which there is no digest
)

// tlsh is the TLSH digest of a text, with its version: T1, a checksum, the
// length, two ratios and two bits for each bucket, as 70 hexadecimal digits. It
// is "" for texts that are too short or too uniform.
func tlsh(text []byte) string {
	if len(text) < tlshShort {
		return ""
	}
	hash := func(salt, a, b, c byte) byte { return pearson[pearson[pearson[salt^a]^b]^c] }
	var counts [256]uint32
	var checksum byte
	for i := 4; i < len(text); i++ {
		a, b, c, d, e := text[i], text[i-1], text[i-2], text[i-3], text[i-4]
		checksum = hash(1, a, b, checksum)
		counts[hash(49, a, b, c)]++
		counts[hash(12, a, b, d)]++
		counts[hash(178, a, c, d)]++
		counts[hash(166, a, c, e)]++
		counts[hash(84, a, b, e)]++
		counts[hash(230, a, d, e)]++
	}
	buckets := counts[:tlshBuckets]
	order := slices.Sorted(slices.Values(buckets))
	q1, q2, q3 := order[tlshBuckets/4-1], order[tlshBuckets/2-1], order[3*tlshBuckets/4-1]
	if empty, _ := slices.BinarySearch(order, 1); q3 == 0 || empty >= tlshBuckets/2 {
		return ""
	}
	ratio := func(q uint32) byte { return byte(uint32(float32(q*100)/float32(q3)) & 15) }
	nibbles := func(b byte) byte { return b<<4 | b>>4 }
	out := []byte{nibbles(checksum), nibbles(tlshLength(len(text))), ratio(q1)<<4 | ratio(q2)}
	for i := tlshBuckets - 4; i >= 0; i -= 4 {
		var code byte
		for j, n := range buckets[i : i+4] {
			switch {
			case n > q3:
				code |= 3 << (2 * j)
			case n > q2:
				code |= 2 << (2 * j)
			case n > q1:
				code |= 1 << (2 * j)
			}
		}
		out = append(out, code)
	}
	return "T1" + strings.ToUpper(hex.EncodeToString(out))
}

// tlshLength is the logarithm of a length: to base 1.5 of short ones, to base
// 1.3 of longer and to base 1.1 of long ones.
func tlshLength(n int) byte {
	l := math.Log(float64(n))
	switch {
	case n <= 656:
		l /= math.Log(1.5)
	case n <= 3199:
		l = l/math.Log(1.3) - 8.72777
	default:
		l = l/math.Log(1.1) - 62.5472
	}
	return byte(int(l))
}
