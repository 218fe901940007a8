package ondemand

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bulwarkhq/bulwark/agent/scan"
	"github.com/bulwarkhq/bulwark/api/control"
	"github.com/bulwarkhq/bulwark/engine/verdict"
	"github.com/bulwarkhq/bulwark/test/need"
)

// unread is a scanner that finds everything clean without a look: what remains
// is the cost of finding the files.
type unread struct{}

func (unread) Scan(context.Context, scan.Request) (verdict.Verdict, error) {
	return verdict.Verdict{Engine: "1", Definitions: "1"}, nil
}

func benchManager(tb testing.TB, root string) *Manager {
	tb.Helper()
	dir := tb.TempDir()
	m, err := Open(Config{
		Scanner: unread{}, History: filepath.Join(dir, "scans.db"), Known: filepath.Join(dir, "known"), Root: root,
		Found:       func(context.Context, Finding) Outcome { return Outcome{} },
		Definitions: func() string { return "1 1" }, proc: tb.TempDir(),
	})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := m.Close(); err != nil {
			tb.Error(err)
		}
	})
	return m
}

func benchScan(tb testing.TB, m *Manager) control.Scan {
	tb.Helper()
	started, err := m.Start(context.Background(), Spec{Type: control.ScanFull, Threads: 2})
	if err != nil {
		tb.Fatal(err)
	}
	var last control.Scan
	if err := m.Follow(context.Background(), started.ID, 100*time.Millisecond, func(p control.ScanProgress) error {
		last = p.Scan
		return nil
	}); err != nil || last.State != control.ScanSucceeded {
		tb.Fatalf("%+v, %v", last, err)
	}
	return last
}

func cpuTime(tb testing.TB) time.Duration {
	tb.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		tb.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkSecondFullScan is a full scan of BENCH_ROOT (default /usr) of which
// every file is known. Its scanner is never asked, so this is what the daemon
// needs. CPU time, user and system, is the figure to compare.
func BenchmarkSecondFullScan(b *testing.B) {
	root := os.Getenv("BENCH_ROOT")
	if root == "" {
		root = "/usr"
	}
	m := benchManager(b, root)
	first := benchScan(b, m)
	var second control.Scan
	before := cpuTime(b)
	for b.Loop() {
		second = benchScan(b, m)
	}
	b.ReportMetric((cpuTime(b)-before).Seconds()/float64(b.N), "cpu-s/scan")
	b.ReportMetric(float64(first.Files), "files")
	b.ReportMetric(float64(second.Unchanged), "unchanged")
	b.ReportMetric(float64(m.known.Size())/float64(first.Files), "store-B/file")
}

// The memory of a walk does not grow with the number of files, most in one
// folder: 100,000 of them, or BENCH_FILES.
func TestMemoryOfManyFiles(t *testing.T) {
	need.Root(t)
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64m,nr_inodes=0"); err != nil {
		need.Missing(t, "cannot mount: %v", err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	n := 100_000
	if s := os.Getenv("BENCH_FILES"); s != "" {
		var err error
		if n, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	n -= n % 300
	fill := func(folder string, n int) {
		t.Helper()
		if err := os.MkdirAll(folder, 0o755); err != nil {
			t.Fatal(err)
		}
		fd, err := unix.Open(folder, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		for i := range n {
			// Names of one file: a walk visits each, and ten million of them
			// fit into the memory of the test.
			name := fmt.Sprintf("file-%07d", i)
			err := unix.Linkat(fd, "file-0000000", fd, name, 0)
			if i == 0 {
				err = unix.Mknodat(fd, name, unix.S_IFREG|0o600, 0)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	fill(filepath.Join(dir, "big"), n*2/3)
	for i := range 100 {
		fill(filepath.Join(dir, fmt.Sprint("a/", i%10, "/", i)), n/300)
	}
	m := benchManager(t, dir)
	runtime.GC()
	var before runtime.MemStats
	runtime.ReadMemStats(&before)
	started, err := m.Start(t.Context(), Spec{Type: control.ScanFull, Threads: 2})
	if err != nil {
		t.Fatal(err)
	}
	var most uint64
	var last control.ScanProgress
	if err := m.Follow(t.Context(), started.ID, 20*time.Millisecond, func(p control.ScanProgress) error {
		last = p
		var now runtime.MemStats
		runtime.ReadMemStats(&now)
		most = max(most, now.HeapInuse)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if last.Scan.State != control.ScanSucceeded || last.Scan.Files != int64(n) {
		t.Errorf("%+v", last.Scan)
	}
	grown := int64(most) - int64(before.HeapInuse)
	t.Logf("%d files: the heap grew by %.1f MB at most; %.1f s of CPU for scan and preparation", n, float64(grown)/1e6, cpuTime(t).Seconds())
	if grown > 8<<20 { // 100,000 names alone are more
		t.Errorf("the heap grew by %d bytes", grown)
	}
}
