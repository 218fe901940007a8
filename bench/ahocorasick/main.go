// Command ahocorasick measures the engine's matcher beside the Go libraries that
// find many literals with the automaton of Aho and Corasick, on the same random
// literals and the same system files, by the processor time of one thread. It is a
// module of its own, so that nothing else depends on those libraries:
//
//	cd bench/ahocorasick && go run . -literals 1000,10000
//
// cloudflare's and BobuSumisu's libraries need 30 to 70 KB of memory for a literal;
// -most bounds the literals that they are given.
package main

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

	bobusumisu "github.com/BobuSumisu/aho-corasick"
	"github.com/cloudflare/ahocorasick"
	petar "github.com/petar-dambovaliev/aho-corasick"
	"golang.org/x/sys/unix"

	"github.com/bulwarkhq/bulwark/engine/match"
)

func main() {
	counts := flag.String("literals", "1000,10000", "numbers of literals")
	most := flag.Int("most", 10000, "literals that the libraries with large tables are given at most")
	size := flag.Int("bytes", 16<<20, "bytes of system files to scan")
	rounds := flag.Int("rounds", 3, "of which the best counts")
	flag.Parse()
	if err := run(*counts, *most, *size, *rounds); err != nil {
		fmt.Fprintln(os.Stderr, "bench/ahocorasick:", err)
		os.Exit(1)
	}
}

// program makes a scan of literals that says how many places it found.
type program struct {
	name  string
	large bool // its tables are
	build func(literals [][]byte) (scan func(data []byte) int, err error)
}

var programs = []program{
	{"bulwark", false, bulwark},
	{"petar-dambovaliev NFA", false, petarNFA},
	{"cloudflare", true, cloudflare},
	{"BobuSumisu", true, bobu},
}

func run(counts string, most, size, rounds int) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	data := corpus(size)
	if len(data) == 0 {
		return errors.New("no system files to scan")
	}
	fmt.Printf("%.0f MB of system files; MB per second of processor time, best of %d\n", float64(len(data))/1e6, rounds)
	for text := range strings.SplitSeq(counts, ",") {
		n, err := strconv.Atoi(text)
		if err != nil || n <= 0 {
			return fmt.Errorf("-literals: %q is no number of literals", text)
		}
		literals := random(n)
		for _, p := range programs {
			if p.large && n > most {
				fmt.Printf("%-24s %10d: left out (-most)\n", p.name, n)
				continue
			}
			if err := measure(p, data, literals, rounds); err != nil {
				return fmt.Errorf("%s: %w", p.name, err)
			}
		}
	}
	return nil
}

// measure prints a row. What the library keeps is the growth of the heap.
func measure(p program, data []byte, literals [][]byte, rounds int) error {
	before := heap()
	start := now()
	scan, err := p.build(literals)
	if err != nil {
		return err
	}
	built := now() - start
	kept := max(0, int64(heap())-int64(before))
	found, least := 0, time.Duration(1<<63-1)
	for range rounds {
		start := now()
		found = scan(data)
		least = min(least, now()-start)
	}
	fmt.Printf("%-24s %10d: %8.0f MB/s, %6d bytes a literal, built in %.2f s, %d found\n",
		p.name, len(literals), float64(len(data))/1e6/least.Seconds(), kept/int64(len(literals)), built.Seconds(), found)
	runtime.KeepAlive(scan)
	return nil
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// now is this thread's processor time.
func now() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
		return 0
	}
	return time.Duration(t.Nano())
}

// corpus is the beginnings of the system's programs and libraries.
func corpus(most int) []byte {
	var data []byte
	for _, dir := range []string{"/usr/bin", "/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu"} {
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

func bulwark(literals [][]byte) (func([]byte) int, error) {
	atoms := make([]match.Atom, len(literals))
	for i, l := range literals {
		atoms[i] = match.Atom{Bytes: l, ID: uint32(i)}
	}
	table, err := match.Build(atoms)
	if err != nil {
		return nil, err
	}
	words := make([]uint64, len(table)/8+1) // for the alignment
	aligned := unsafe.Slice((*byte)(unsafe.Pointer(&words[0])), len(table))
	copy(aligned, table)
	m, err := match.Load(aligned)
	if err != nil {
		return nil, err
	}
	return func(data []byte) (n int) {
		m.Scan(data, 0, 0, len(data), func(uint32, int64) { n++ })
		return n
	}, nil
}

func petarNFA(literals [][]byte) (func([]byte) int, error) {
	texts := make([]string, len(literals))
	for i, l := range literals {
		texts[i] = string(l)
	}
	b := petar.NewAhoCorasickBuilder(petar.Opts{MatchKind: petar.StandardMatch})
	a := b.Build(texts)
	return func(data []byte) (n int) {
		for it := a.IterOverlappingByte(data); it.Next() != nil; {
			n++
		}
		return n
	}, nil
}

func cloudflare(literals [][]byte) (func([]byte) int, error) {
	m := ahocorasick.NewMatcher(literals)
	return func(data []byte) int { return len(m.Match(data)) }, nil
}

func bobu(literals [][]byte) (func([]byte) int, error) {
	t := bobusumisu.NewTrieBuilder().AddPatterns(literals).Build()
	return func(data []byte) (n int) {
		t.Walk(data, func(_, _, _ int64) bool {
			n++
			return true
		})
		return n
	}, nil
}
