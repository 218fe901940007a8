//go:build hyperscan && linux && cgo

package main

/*
#cgo pkg-config: libhs
#include <stdlib.h>
#include <hs.h>

static int count(unsigned id, unsigned long long from, unsigned long long to, unsigned flags, void *n) {
	++*(unsigned long long *)n;
	return 0;
}

// scan returns how many matches there are; an error code is negative.
static long long scan(const hs_database_t *db, const char *data, unsigned len, hs_scratch_t *s) {
	unsigned long long n = 0;
	hs_error_t err = hs_scan(db, data, len, 0, s, count, &n);
	return err == HS_SUCCESS ? (long long)n : err;
}
*/
import "C"

import (
	"errors"
	"fmt"
	"strings"
	"time"
	"unsafe"
)

// theirs measures Hyperscan.
func theirs(data []byte, literals [][]byte, rounds int) error {
	n := len(literals)
	texts := make([]*C.char, n)
	flags := make([]C.uint, n)
	ids := make([]C.uint, n)
	defer func() {
		for _, t := range texts {
			C.free(unsafe.Pointer(t))
		}
	}()
	for i, l := range literals {
		var s strings.Builder
		for _, b := range l {
			fmt.Fprintf(&s, "\\x%02x", b)
		}
		texts[i], flags[i], ids[i] = C.CString(s.String()), C.HS_FLAG_SINGLEMATCH, C.uint(i)
	}
	start := time.Now()
	var db *C.hs_database_t
	var fault *C.hs_compile_error_t
	if C.hs_compile_multi(&texts[0], &flags[0], &ids[0], C.uint(n), C.HS_MODE_BLOCK, nil, &db, &fault) != C.HS_SUCCESS {
		defer C.hs_free_compile_error(fault)
		return fmt.Errorf("hyperscan: %s", C.GoString(fault.message))
	}
	defer C.hs_free_database(db)
	built := time.Since(start)
	var size C.size_t
	C.hs_database_size(db, &size)
	var scratch *C.hs_scratch_t
	if C.hs_alloc_scratch(db, &scratch) != C.HS_SUCCESS {
		return errors.New("hyperscan: no memory")
	}
	defer C.hs_free_scratch(scratch)
	found := C.longlong(0)
	r := rate(data, rounds, func() {
		found = C.scan(db, (*C.char)(unsafe.Pointer(&data[0])), C.uint(len(data)), scratch)
	})
	if found < 0 {
		return fmt.Errorf("hyperscan: scanning: error %d", found)
	}
	fmt.Printf("%-12s %10d: %8.0f MB/s, %4d bytes a literal, built in %.2f s, %d matches\n", "hyperscan", n, r, int(size)/n, built.Seconds(), found)
	return nil
}
