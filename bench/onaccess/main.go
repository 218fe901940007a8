// Command onaccess measures what on-access protection costs the programs that
// it protects from: it runs workloads on one folder and prints their times, or
// is the kernel's own limit (a fanotify group that allows everything, or that
// ignores every file). run.sh puts it together; see docs/benchmarks.md.
package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench/onaccess:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 4 && (args[0] == "prepare" || args[0] == "work") {
		size, err := strconv.Atoi(args[3])
		if err != nil || size < 1 || size > maxSize {
			return fmt.Errorf("size %q: a number from 1 to %d", args[3], maxSize)
		}
		if args[0] == "prepare" {
			return prepare(args[1], args[2], size)
		}
		return work(args[1], args[2], size)
	}
	if len(args) == 3 && args[0] == "limit" {
		return limit(args[1], args[2])
	}
	return errors.New("usage: onaccess prepare DIR SOURCE.tar SIZE | work DIR LABEL SIZE | limit allow|ignore DIR")
}

// maxSize bounds the factor for the number of cold files and of repetitions.
const maxSize = 10

// sizes of the files of the open and close loops, with how many cold ones.
func sizes(factor int) []fileSize {
	return []fileSize{{"1 KB", 1 << 10, 200 * factor}, {"100 KB", 100 << 10, 100 * factor}, {"10 MB", 10 << 20, 5 * factor}}
}

type fileSize struct {
	name  string
	bytes int
	cold  int
}

func coldFile(dir string, size, n int) string {
	return filepath.Join(dir, "cold", fmt.Sprintf("%d-%d", size, n))
}

// prepare makes the files, before anybody watches.
func prepare(dir, source string, size int) error {
	if err := os.MkdirAll(filepath.Join(dir, "cold"), 0o755); err != nil {
		return err
	}
	for i, s := range sizes(size) {
		for n := range s.cold + 1 { // the last one is the warm one
			data := make([]byte, s.bytes)
			state := uint64(n*7+i) + 1
			for j := range data {
				state = state*6364136223846793005 + 1442695040888963407
				data[j] = "abcdefghijklmnop\n"[state>>33%17]
			}
			if err := os.WriteFile(coldFile(dir, i, n), data, 0o644); err != nil {
				return err
			}
		}
	}
	// Who is not root can change his file at any time: no kernel ignore mark.
	user := filepath.Join(dir, "user-file")
	if err := os.WriteFile(user, []byte("harmless\n"), 0o644); err != nil {
		return err
	}
	if err := os.Chown(user, 65534, 65534); err != nil {
		return err
	}
	data, err := os.ReadFile(source)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "source.tar"), data, 0o644); err != nil {
		return err
	}
	if err := sources(filepath.Join(dir, "c")); err != nil {
		return err
	}
	return makePackage(dir, source)
}

// work runs the workloads and prints "label<TAB>workload<TAB>value".
func work(dir, label string, size int) error {
	report := func(name, format string, args ...any) {
		fmt.Printf("%s\t%s\t%s\n", label, name, fmt.Sprintf(format, args...))
	}
	for i, s := range sizes(size) {
		if !want("first open, " + s.name) {
			continue
		}
		var cold []time.Duration
		for n := range s.cold {
			d, err := openClose(coldFile(dir, i, n), 1)
			if err != nil {
				return err
			}
			cold = append(cold, d)
		}
		slices.Sort(cold)
		report("first open, "+s.name+", median", "%.0f µs", us(cold[len(cold)/2]))
		report("first open, "+s.name+", p99", "%.0f µs", us(cold[(len(cold)*99)/100]))
	}
	known := []struct{ name, path string }{{"a user's file", filepath.Join(dir, "user-file")}}
	for i, s := range sizes(size) {
		known = append(known, struct{ name, path string }{s.name, coldFile(dir, i, s.cold)})
	}
	for _, k := range known {
		path := k.path
		if !want("open+close, known, " + k.name) {
			continue
		}
		if _, err := openClose(path, 2000); err != nil {
			return err
		}
		var batches []time.Duration
		for range 30 {
			d, err := openClose(path, 300)
			if err != nil {
				return err
			}
			batches = append(batches, d)
		}
		slices.Sort(batches)
		report("open+close, known, "+k.name, "%.2f µs", us(batches[len(batches)/2]))
	}
	type step struct {
		name  string
		times int
		argv  []string
	}
	tree := filepath.Join(dir, "tree")
	for _, s := range []step{
		{"unpack a source tree", 2, []string{"tar", "-xf", filepath.Join(dir, "source.tar"), "-C", tree}},
		{"git clone", 1, []string{"git", "clone", "-q", "--no-local", tree, filepath.Join(dir, "clone")}},
		{"git status, first", 1, []string{"git", "-C", tree, "status", "--porcelain"}},
		{"git status, again", 3, []string{"git", "-C", tree, "status", "--porcelain"}},
		{"go build, first", 1, []string{"go", "build", "-C", tree, "-o", filepath.Join(dir, "out"), "./policy"}},
		{"go build, again", 3, []string{"go", "build", "-C", tree, "-o", filepath.Join(dir, "out"), "./policy"}},
		{"delete the source tree", 1, []string{"rm", "-rf", tree}},
	} {
		if !want(s.name) {
			continue
		}
		best := time.Duration(0)
		if s.times > 1 { // once is for what can be done only once
			s.times *= size
		}
		for range s.times {
			if s.argv[0] == "tar" {
				_ = os.RemoveAll(tree)
				if err := os.Mkdir(tree, 0o755); err != nil {
					return err
				}
			}
			d, err := command(dir, s.argv)
			if err != nil {
				return err
			}
			if best == 0 || d < best {
				best = d
			}
		}
		report(s.name, "%.0f ms", float64(best.Microseconds())/1000)
	}
	return programs(dir, report)
}

// programs runs the workloads of other programs, as far as they are installed.
func programs(dir string, report func(name, format string, args ...any)) error {
	ms := func(name string, f func(string) (time.Duration, error)) error {
		if !want(name) {
			return nil
		}
		d, err := f(dir)
		if errors.Is(err, errAbsent) {
			fmt.Fprintln(os.Stderr, "bench/onaccess:", err)
			return nil
		}
		if err == nil {
			report(name, "%.1f ms", float64(d.Microseconds())/1000)
		}
		return err
	}
	err := errors.Join(
		ms("dpkg --unpack of a source tree", unpack),
		ms("ccache, 15 C files, first", compile),
		ms("ccache, 15 C files, again", compile),
		ms("SQLite, one transaction", sqlite),
	)
	if !want("PostgreSQL") {
		return err
	}
	setUp, tps, pgErr := postgres(dir)
	switch {
	case errors.Is(pgErr, errAbsent):
		fmt.Fprintln(os.Stderr, "bench/onaccess:", pgErr)
	case pgErr == nil:
		report("PostgreSQL, initdb and pgbench -i", "%.0f ms", float64(setUp.Microseconds())/1000)
		report("PostgreSQL, pgbench -C", "%s tps", tps)
	default:
		err = errors.Join(err, pgErr)
	}
	return err
}

// want reports whether a workload is asked for: its name has the text of ONLY.
func want(name string) bool { return strings.Contains(name, os.Getenv("ONLY")) }

func us(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1000 }

// openClose is the mean time of one open and close.
func openClose(path string, times int) (time.Duration, error) {
	start := time.Now()
	for range times {
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return 0, fmt.Errorf("open %s: %w", path, err)
		}
		unix.Close(fd)
	}
	return time.Since(start) / time.Duration(times), nil
}

func command(dir string, argv []string) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), "GOCACHE="+filepath.Join(dir, "gocache"), "TMPDIR="+dir, "GOFLAGS=-buildvcs=false", "CGO_ENABLED=0", "GIT_OPTIONAL_LOCKS=0", "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*")
	start := time.Now()
	out, err := cmd.CombinedOutput()
	if err != nil {
		return 0, fmt.Errorf("%v: %w\n%.2000s", argv, err, out)
	}
	return time.Since(start), nil
}

// limit answers every open on a mount with "allow", at once, or puts an ignore
// mark on every file that is opened. It ends by itself after 20 minutes, and
// the kernel lets everybody go.
func limit(kind, dir string) error {
	fd, err := unix.FanotifyInit(unix.FAN_CLASS_CONTENT|unix.FAN_CLOEXEC|unix.FAN_UNLIMITED_QUEUE|unix.FAN_UNLIMITED_MARKS, unix.O_RDONLY|unix.O_LARGEFILE)
	if err != nil {
		return fmt.Errorf("fanotify: %w", err)
	}
	time.AfterFunc(20*time.Minute, func() { os.Exit(3) })
	if err := unix.FanotifyMark(fd, unix.FAN_MARK_ADD|unix.FAN_MARK_MOUNT, unix.FAN_OPEN_PERM, unix.AT_FDCWD, dir); err != nil {
		return fmt.Errorf("mark %s: %w", dir, err)
	}
	fmt.Println("ready")
	self := int32(os.Getpid())
	buf := make([]byte, 4096)
	for {
		n, err := unix.Read(fd, buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("read events: %w", err)
		}
		for at := 0; at+24 <= n; at += int(binary.NativeEndian.Uint32(buf[at:])) {
			event := int32(binary.NativeEndian.Uint32(buf[at+16:]))
			if event < 0 {
				continue
			}
			if kind == "ignore" && int32(binary.NativeEndian.Uint32(buf[at+20:])) != self {
				_ = unix.FanotifyMark(fd, unix.FAN_MARK_ADD|unix.FAN_MARK_IGNORED_MASK, unix.FAN_OPEN_PERM, unix.AT_FDCWD, "/proc/self/fd/"+strconv.Itoa(int(event)))
			}
			var answer [8]byte
			binary.NativeEndian.PutUint32(answer[:], uint32(event))
			binary.NativeEndian.PutUint32(answer[4:], unix.FAN_ALLOW)
			_, _ = unix.Write(fd, answer[:])
			unix.Close(int(event))
		}
	}
}
