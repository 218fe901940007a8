// Command hyperscan measures the engine's matcher alone, by the processor time of
// one thread: on random literals, beside Intel's Hyperscan on the same literals and
// the same system files, and on the literals of real YARA rules as the engine
// groups them. Hyperscan needs cgo, Debian's libhyperscan-dev and the tag hyperscan;
// without them it is left out:
//
//	CGO_ENABLED=1 go run -tags hyperscan ./bench/hyperscan
//
// Of a million literals Hyperscan takes about two minutes of processor time to
// compile; -peer says up to how many it is asked.
package main

import (
	"context"
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

	"github.com/bulwarkhq/bulwark/engine/definitions"
	"github.com/bulwarkhq/bulwark/engine/match"
)

func main() {
	var c config
	flag.StringVar(&c.counts, "literals", "1000,10000,100000,1000000", "numbers of literals")
	flag.IntVar(&c.peer, "peer", 100_000, "the most literals that Hyperscan is given")
	flag.IntVar(&c.bytes, "bytes", 64<<20, "bytes of system files to scan")
	flag.IntVar(&c.rounds, "rounds", 10, "of which the best counts")
	flag.StringVar(&c.rules, "rules", "../shared/testdata/yara", "folder of YARA rules whose literals are looked for, if it is there")
	flag.Parse()
	if err := c.run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench/hyperscan:", err)
		os.Exit(1)
	}
}

type config struct {
	counts, rules       string
	peer, bytes, rounds int
}

func (c *config) run() error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	data := corpus(c.bytes)
	if len(data) == 0 {
		return errors.New("no system files to scan")
	}
	fmt.Printf("%.0f MB of system files; MB per second of processor time, best of %d\n", float64(len(data))/1e6, c.rounds)
	sum := byte(0)
	fmt.Printf("%-24s %8.0f MB/s\n", "reading every line", rate(data, c.rounds, func() {
		for i := 0; i < len(data); i += 64 {
			sum += data[i]
		}
	}))
	runtime.KeepAlive(sum)
	for text := range strings.SplitSeq(c.counts, ",") {
		n, err := strconv.Atoi(text)
		if err != nil || n <= 0 {
			return fmt.Errorf("-literals: %q is no number of literals", text)
		}
		literals := random(n)
		if err := ours(data, literals, c.rounds); err != nil {
			return err
		}
		if n > c.peer {
			continue
		}
		if err := theirs(data, literals, c.rounds); err != nil {
			return err
		}
	}
	return c.real(data)
}

// real measures the matchers of the groups into which the engine divides the
// literals of real rules.
func (c *config) real(data []byte) error {
	if _, err := os.Stat(c.rules); err != nil {
		fmt.Printf("literals of YARA rules: left out, %s is not here\n", c.rules)
		return nil
	}
	out, err := os.CreateTemp("", "bulwark-bench-")
	if err != nil {
		return err
	}
	defer os.Remove(out.Name())
	defer out.Close()
	if _, err := definitions.Compile(context.Background(), out, []definitions.Source{{Path: c.rules}}, definitions.CompileOptions{}); err != nil {
		return err
	}
	set, err := definitions.Open(out)
	if err != nil {
		return err
	}
	defer set.Close()
	for g, m := range set.Matchers {
		if m == nil {
			continue
		}
		found := 0
		r := rate(data, c.rounds, func() {
			found = 0
			m.Scan(data, 0, 0, len(data), func(uint32, int64) { found++ })
		})
		fmt.Printf("%-12s %10d: %8.0f MB/s, %.2f candidates a KB\n", fmt.Sprintf("rules, %d", g), m.Atoms(), r, float64(found)/float64(len(data))*1e3)
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
	rng := rand.New(rand.NewPCG(5, 6)) //nolint:gosec // the same literals every time
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
