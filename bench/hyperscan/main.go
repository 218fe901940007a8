//go:build hyperscan && linux && cgo

// Command hyperscan measures the engine's matcher beside Intel's Hyperscan, on the
// same random literals and the same system files, by the processor time of one
// thread. It is not part of any build: it needs cgo and Debian's libhyperscan-dev,
// and the tag hyperscan:
//
//	CGO_ENABLED=1 go run -tags hyperscan ./bench/hyperscan -literals 1000,10000,100000
//
// Of a million literals Hyperscan takes about a minute to compile.
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
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/bulwarkhq/bulwark/engine/match"
)

func main() {
	counts := flag.String("literals", "1000,10000,100000", "numbers of literals")
	most := flag.Int("bytes", 64<<20, "bytes of system files to scan")
	rounds := flag.Int("rounds", 10, "of which the best counts")
	flag.Parse()
	if err := run(*counts, *most, *rounds); err != nil {
		fmt.Fprintln(os.Stderr, "bench/hyperscan:", err)
		os.Exit(1)
	}
}

func run(counts string, most, rounds int) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	data := corpus(most)
	if len(data) == 0 {
		return errors.New("no system files to scan")
	}
	fmt.Printf("%.0f MB of system files; MB per second of processor time, best of %d\n", float64(len(data))/1e6, rounds)
	sum := byte(0)
	fmt.Printf("%-24s %8.0f MB/s\n", "reading every line", rate(data, rounds, func() {
		for i := 0; i < len(data); i += 64 {
			sum += data[i]
		}
	}))
	runtime.KeepAlive(sum)
	for text := range strings.SplitSeq(counts, ",") {
		n, err := strconv.Atoi(text)
		if err != nil || n <= 0 {
			return fmt.Errorf("-literals: %q is no number of literals", text)
		}
		literals := random(n)
		if err := ours(data, literals, rounds); err != nil {
			return err
		}
		if err := theirs(data, literals, rounds); err != nil {
			return err
		}
	}
	return nil
}

// corpus is the beginnings of the system's programs and libraries.
func corpus(most int) []byte {
	var data []byte
	for _, dir := range []string{"/usr/bin", "/usr/lib/x86_64-linux-gnu"} {
		names, _ := filepath.Glob(filepath.Join(dir, "*"))
		for _, n := range names {
			if f, err := os.ReadFile(n); err == nil {
				data = append(data, f[:min(len(f), 1<<20)]...)
			}
			if len(data) >= most {
				return data[:most]
			}
		}
	}
	return data
}

// random are literals of 8 to 24 bytes.
func random(n int) [][]byte {
	rng := rand.New(rand.NewPCG(5, 6))
	out := make([][]byte, n)
	for i := range out {
		out[i] = make([]byte, 8+rng.IntN(17))
		for k := range out[i] {
			out[i][k] = byte(rng.Uint32())
		}
	}
	return out
}

// rate is the best of some rounds in MB per second of this thread's time.
func rate(data []byte, rounds int, scan func()) float64 {
	now := func() time.Duration {
		var t unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
			return 0
		}
		return time.Duration(t.Nano())
	}
	least := time.Duration(1<<63 - 1)
	for range rounds {
		start := now()
		scan()
		least = min(least, now()-start)
	}
	return float64(len(data)) / 1e6 / least.Seconds()
}

func ours(data []byte, literals [][]byte, rounds int) error {
	atoms := make([]match.Atom, len(literals))
	for i, l := range literals {
		atoms[i] = match.Atom{Bytes: l, ID: uint32(i)}
	}
	start := time.Now()
	table, err := match.Build(atoms)
	if err != nil {
		return err
	}
	built := time.Since(start)
	words := make([]uint64, len(table)/8+1) // for the alignment
	aligned := unsafe.Slice((*byte)(unsafe.Pointer(&words[0])), len(table))
	copy(aligned, table)
	m, err := match.Load(aligned)
	if err != nil {
		return err
	}
	found := 0
	r := rate(data, rounds, func() {
		found = 0
		m.Scan(data, 0, 0, len(data), func(uint32, int64) { found++ })
	})
	fmt.Printf("%-12s %10d: %8.0f MB/s, %4d bytes a literal, built in %.2f s, %d candidates\n", "bulwark", len(literals), r, len(table)/len(literals), built.Seconds(), found)
	return nil
}

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
