package onaccess

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bulwarkhq/bulwark/agent/onaccess/guard"
	"github.com/bulwarkhq/bulwark/engine/verdict"
	"github.com/bulwarkhq/bulwark/test/fuseserver"
	"github.com/bulwarkhq/bulwark/test/need"
)

// helperEnv makes the test binary another process: the watcher allows its own
// process everything, so accesses that count come from here.
const helperEnv = "BULWARK_ONACCESS_HELPER"

func TestMain(m *testing.M) {
	switch os.Getenv(helperEnv) {
	case "accessor":
		accessor()
		return
	case "daemon":
		helperDaemon()
		return
	case "guard":
		os.Exit(guard.Main())
	case "starter":
		helperStarter()
		return
	case "fuse":
		if err := fuseserver.Serve(os.Args[1], os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// bad is what the tests' scanner finds.
const bad = "this content is what the test's scanner looks for"

// request is one thing the accessor is to do.
type request struct {
	Op   string // open, exec, write, hold, ...
	Path string
	To   string
	Data string
	Off  int64
	N    int
	Flag int
}

type reply struct {
	Errno   int
	Err     string
	Took    time.Duration
	Content string
}

// accessor executes requests, one JSON object per line.
func accessor() {
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(nil, 1<<20)
	out := json.NewEncoder(os.Stdout)
	held := map[string]*holder{}
	for in.Scan() {
		var q request
		if err := json.Unmarshal(in.Bytes(), &q); err != nil {
			panic(err)
		}
		start := time.Now()
		content, err := perform(q, held)
		r := reply{Took: time.Since(start), Content: content}
		if err != nil {
			r.Err = err.Error()
			var no syscall.Errno
			if errors.As(err, &no) {
				r.Errno = int(no)
			}
		}
		if err := out.Encode(r); err != nil {
			return
		}
	}
}

// holder is a file that the accessor keeps open and mapped.
type holder struct {
	f   *os.File
	mem []byte
}

func perform(q request, held map[string]*holder) (string, error) {
	switch q.Op {
	case "read":
		b, err := os.ReadFile(q.Path)
		return string(b), err
	case "open":
		f, err := os.OpenFile(q.Path, q.Flag, 0o644)
		if err != nil {
			return "", err
		}
		return "", f.Close()
	case "exec":
		out, err := exec.Command(q.Path).Output()
		return string(out), err
	case "write": // create or overwrite
		return "", os.WriteFile(q.Path, []byte(q.Data), 0o755)
	case "patch":
		f, err := os.OpenFile(q.Path, os.O_WRONLY, 0)
		if err != nil {
			return "", err
		}
		_, err = f.WriteAt([]byte(q.Data), q.Off)
		return "", errors.Join(err, f.Close())
	case "truncate":
		return "", os.Truncate(q.Path, q.Off)
	case "punch":
		f, err := os.OpenFile(q.Path, os.O_WRONLY, 0)
		if err != nil {
			return "", err
		}
		err = unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, q.Off, int64(q.N))
		return "", errors.Join(err, f.Close())
	case "clone":
		src, err := os.Open(q.Path)
		if err != nil {
			return "", err
		}
		defer src.Close()
		dst, err := os.OpenFile(q.To, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
		if err != nil {
			return "", err
		}
		err = unix.IoctlFileClone(int(dst.Fd()), int(src.Fd()))
		return "", errors.Join(err, dst.Close())
	case "copyrange":
		src, err := os.Open(q.Path)
		if err != nil {
			return "", err
		}
		defer src.Close()
		dst, err := os.OpenFile(q.To, os.O_WRONLY, 0o644)
		if err != nil {
			return "", err
		}
		_, err = unix.CopyFileRange(int(src.Fd()), nil, int(dst.Fd()), nil, 1<<20, 0)
		return "", errors.Join(err, dst.Close())
	case "splice":
		pr, pw, err := os.Pipe()
		if err != nil {
			return "", err
		}
		defer pr.Close()
		if _, err := io.WriteString(pw, q.Data); err != nil {
			return "", err
		}
		pw.Close()
		dst, err := os.OpenFile(q.Path, os.O_WRONLY, 0)
		if err != nil {
			return "", err
		}
		off := q.Off
		_, err = unix.Splice(int(pr.Fd()), nil, int(dst.Fd()), &off, len(q.Data), 0)
		return "", errors.Join(err, dst.Close())
	case "uringwrite":
		f, err := os.OpenFile(q.Path, os.O_WRONLY, 0)
		if err != nil {
			return "", err
		}
		return "", errors.Join(uringWrite(f, []byte(q.Data), q.Off), f.Close())
	case "direct": // write the whole page q.Off, aligned as direct I/O wants it
		f, err := os.OpenFile(q.Path, os.O_WRONLY|unix.O_DIRECT, 0)
		if err != nil {
			return "", err
		}
		page, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
		if err != nil {
			return "", errors.Join(err, f.Close())
		}
		copy(page, q.Data)
		_, err = f.WriteAt(page, q.Off)
		return "", errors.Join(err, f.Close(), unix.Munmap(page))
	case "attributes": // change them, and them only
		return "", errors.Join(os.Chmod(q.Path, os.FileMode(q.N)), os.Chtimes(q.Path, time.Unix(q.Off, 0), time.Unix(q.Off, 0)))
	case "namespace": // overwrite in a mount namespace of its own
		script := `printf %s "$2" | dd of="$1" bs=1 seek="$3" conv=notrunc status=none`
		out, err := exec.Command("unshare", "-m", "sh", "-c", script, "sh", q.Path, q.Data, fmt.Sprint(q.Off)).CombinedOutput()
		if err != nil {
			err = fmt.Errorf("%w: %s", err, out)
		}
		return "", err
	case "rename":
		return "", os.Rename(q.Path, q.To)
	case "remove":
		return "", os.Remove(q.Path)
	case "map": // open and map shared, keep both
		f, err := os.OpenFile(q.Path, os.O_RDWR, 0)
		if err != nil {
			return "", err
		}
		mem, err := unix.Mmap(int(f.Fd()), 0, q.N, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		if err != nil {
			return "", errors.Join(err, f.Close())
		}
		held[q.Path] = &holder{f: f, mem: mem}
		return "", nil
	case "closefd": // the mapping stays
		return "", held[q.Path].f.Close()
	case "store":
		copy(held[q.Path].mem[q.Off:], q.Data)
		return "", nil
	case "keep": // open for writing until "unkeep"
		f, err := os.OpenFile(q.Path, os.O_RDWR, 0)
		if err == nil {
			held[q.Path] = &holder{f: f}
		}
		return "", err
	case "patchkept":
		_, err := held[q.Path].f.WriteAt([]byte(q.Data), q.Off)
		return "", err
	case "unkeep":
		h := held[q.Path]
		delete(held, q.Path)
		return "", h.f.Close()
	case "unmap":
		h := held[q.Path]
		delete(held, q.Path)
		err := unix.Munmap(h.mem)
		h.f.Close()
		return "", err
	case "loop": // q.N opens and closes; the median in ns
		var best []time.Duration
		const batch = 100
		for range max(1, q.N/batch) {
			t := time.Now()
			for range batch {
				fd, err := unix.Open(q.Path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
				if err != nil {
					return "", err
				}
				unix.Close(fd)
			}
			best = append(best, time.Since(t)/batch)
		}
		return fmt.Sprint(median(best).Nanoseconds()), nil
	case "uring":
		return openUring(q.Path)
	case "chroot":
		return "", openChroot(q.To, q.Path)
	case "memfd":
		return runMemoryFile(q.Data)
	case "openeach": // q.N files, numbered from 0
		for i := range q.N {
			fd, err := unix.Open(q.Path+strconv.Itoa(i), unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				return "", err
			}
			unix.Close(fd)
		}
		return "", nil
	case "hammer":
		return hammer(q)
	case "pid":
		return fmt.Sprint(os.Getpid()), nil
	}
	return "", fmt.Errorf("unknown operation %q", q.Op)
}

func median(d []time.Duration) time.Duration {
	for i := range d { // few values: insertion sort
		for j := i; j > 0 && d[j] < d[j-1]; j-- {
			d[j], d[j-1] = d[j-1], d[j]
		}
	}
	return d[len(d)/2]
}

// startDaemon runs a watcher over dir in a process of its own and returns when
// it is ready. It is killed with the test, or after helperLife.
func startDaemon(t testing.TB, dir string, env ...string) *exec.Cmd {
	t.Helper()
	cmd, _ := startTalkingDaemon(t, dir, env...)
	return cmd
}

// startTalkingDaemon also returns what the daemon prints.
func startTalkingDaemon(t testing.TB, dirs string, env ...string) (*exec.Cmd, *bufio.Reader) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = slices.Concat(os.Environ(), []string{helperEnv + "=daemon", "BULWARK_ONACCESS_DIR=" + dirs}, env)
	cmd.Stderr = os.Stderr
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	out := bufio.NewReader(pipe)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	deadman := time.AfterFunc(helperLife, func() { cmd.Process.Kill() })
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		deadman.Stop()
	})
	if _, err := out.ReadByte(); err != nil {
		t.Fatalf("the daemon does not get ready: %v", err)
	}
	return cmd, out
}

// process is a running accessor.
type process struct {
	t   testing.TB
	cmd *exec.Cmd
	mu  sync.Mutex
	in  *json.Encoder
	out *json.Decoder
}

func startAccessor(t testing.TB) *process {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), helperEnv+"=accessor", "GORACE=atexit_sleep_ms=0")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		timer := time.AfterFunc(patience, func() { cmd.Process.Kill() })
		defer timer.Stop()
		cmd.Wait()
	})
	return &process{t: t, cmd: cmd, in: json.NewEncoder(in), out: json.NewDecoder(out)}
}

func (p *process) do(q request) reply {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.in.Encode(q); err != nil {
		p.t.Fatalf("accessor: %v", err)
	}
	var r reply
	if err := p.out.Decode(&r); err != nil {
		p.t.Fatalf("accessor: %v", err)
	}
	return r
}

// must fails the test when the request failed.
func (p *process) must(q request) reply {
	p.t.Helper()
	r := p.do(q)
	if r.Err != "" {
		p.t.Fatalf("%s %s: %s", q.Op, q.Path, r.Err)
	}
	return r
}

// tmpfs mounts a file system of the test's own.
func tmpfs(t testing.TB) string {
	t.Helper()
	need.Root(t)
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=256m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
	return dir
}

// rootsTmpfs mounts one where nobody but root may move anything, so that folders
// of it may be ignored.
func rootsTmpfs(t testing.TB) string {
	t.Helper()
	need.Root(t)
	dir, err := os.MkdirTemp("/var/lib", "bulwark-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=16m,mode=755"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// bind mounts a folder in another one; both are made where they are not there.
func bind(t testing.TB, from, to string) {
	t.Helper()
	for _, dir := range []string{from, to} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mount(from, to, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(to, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
}

// scanner is the tests' scan function: a search for bad.
type scanner struct {
	scans atomic.Int64
	turn  atomic.Int64 // of now
	// before, when set, is called first.
	before atomic.Pointer[func(ctx context.Context, a Access) error]
}

func (s *scanner) scan(ctx context.Context, f *os.File, a Access) (verdict.Verdict, error) {
	s.scans.Add(1)
	if b := s.before.Load(); b != nil {
		if err := (*b)(ctx, a); err != nil {
			return verdict.Verdict{}, err
		}
	}
	data, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<20))
	if err != nil {
		return verdict.Verdict{}, err
	}
	v := verdict.Verdict{Size: int64(len(data))}
	if bytes.Contains(data, []byte(bad)) {
		v.Matches = []verdict.Match{{Threat: "Test:Bad", Type: verdict.Test, Signature: "bad"}}
	}
	return v, nil
}

// now is a Config.ScanNow: verdicts at once, rests of scans and refusals in turn.
// Without a descriptor of its own it reads the event's, as the kernel hands it over.
func (s *scanner) now(fd int, a Access) (verdict.Verdict, Rest, error) {
	turn := s.turn.Add(1)
	if s.before.Load() != nil || turn%3 == 0 {
		return verdict.Verdict{}, nil, errors.New("not now")
	}
	own, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return verdict.Verdict{}, nil, err
	}
	f := os.NewFile(uintptr(own), a.Path)
	scan := func(ctx context.Context) (verdict.Verdict, error) {
		defer f.Close()
		return s.scan(ctx, f, a)
	}
	if turn%3 == 1 {
		return verdict.Verdict{}, scan, nil
	}
	v, err := scan(context.Background())
	return v, nil, err
}

func (s *scanner) setBefore(f func(ctx context.Context, a Access) error) {
	if f == nil {
		s.before.Store(nil)
		return
	}
	s.before.Store(&f)
}

// bench is a watcher on file systems of its own, with an accessor.
type rig struct {
	*Watcher
	dir        string
	scanner    *scanner
	accessor   *process
	detections chan Detection
	log        *lockedBuffer
}

type lockedBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// newRig starts a watcher on a tmpfs. change adapts the configuration.
func newRig(t testing.TB, change func(*Config)) *rig {
	t.Helper()
	return newRigOn(t, tmpfs(t), change)
}

func newRigOn(t testing.TB, dir string, change func(*Config)) *rig {
	t.Helper()
	r := &rig{dir: dir, scanner: &scanner{}, detections: make(chan Detection, 1000), log: &lockedBuffer{}}
	r.accessor = startAccessor(t)
	cfg := Config{
		Log:        slog.New(slog.NewTextHandler(r.log, nil)),
		Scan:       r.scanner.scan,
		ScanNow:    r.scanner.now,
		OnlyMounts: []string{dir},
		// Long, so that a busy machine does not change what a test sees.
		Deadline: MaxDeadline, ExecDeadline: MaxDeadline,
		OnDetection: func(d Detection) {
			d.File.Close()
			select {
			case r.detections <- d:
			default:
			}
		},
	}
	if change != nil {
		change(&cfg)
	}
	w, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	r.Watcher = w
	if !w.Capabilities().Available {
		need.Missing(t, "needs fanotify: %s", w.Capabilities().Reason)
	}
	run(t, w)
	return r
}

// run runs a watcher until the test ends, with a deadman: should the test
// hang, its groups are closed and the kernel lets everybody go.
func run(t testing.TB, w *Watcher) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	deadman := time.AfterFunc(8*time.Minute+10*faultTime, func() {
		for _, g := range w.groups {
			g.close()
		}
		panic("deadman: the test held accesses for too long")
	})
	go func() { done <- w.Run(ctx) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				t.Errorf("Run: %v", err)
			}
			deadman.Stop()
		})
	}
	t.Cleanup(stop)
	<-w.Ready()
	return stop
}

func (r *rig) path(name string) string { return filepath.Join(r.dir, name) }

// put writes a file without anybody noticing (our own process) and lets its
// time stamps settle.
func (r *rig) put(t testing.TB, name, content string) string {
	t.Helper()
	p := r.path(name)
	if err := os.WriteFile(p, []byte(content), 0o755); err != nil {
		t.Fatal(err)
	}
	settle()
	return p
}

// events counts the events so far, when all that is in the kernel's queue has
// been read: the test's own files raise some, too.
func (r *rig) events(t testing.TB) uint64 {
	t.Helper()
	last, same := r.Stats(0).Events, 0
	wait(t, "all events are read", func() bool {
		now := r.Stats(0).Events
		queued := 0
		for _, g := range r.groups {
			queued += g.queued()
		}
		if same++; now != last || queued > 0 {
			last, same = now, 0
		}
		return same >= 10
	})
	return last
}

// settle waits until new files' verdicts may be kept.
func settle() { time.Sleep(40 * time.Millisecond) }

// patience is for what must happen; it is no statement about speed.
const patience = 2 * time.Minute

// wait polls until f is true.
func wait(t testing.TB, what string, f func() bool) {
	t.Helper()
	end := time.Now().Add(patience)
	for !f() {
		if time.Now().After(end) {
			t.Fatalf("did not happen within %v: %s", patience, what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// detection waits for the next detection.
func (r *rig) detection(t testing.TB) Detection {
	t.Helper()
	select {
	case d := <-r.detections:
		return d
	case <-time.After(patience):
		t.Fatalf("no detection within %v", patience)
		return Detection{}
	}
}

// refuses wants an access denied.
func (r *rig) refuses(t testing.TB, op, path string) {
	t.Helper()
	if got := r.accessor.do(request{Op: op, Path: path}); got.Errno != int(unix.EPERM) {
		t.Errorf("%s %s: %q, want it refused", op, path, got.Err)
	}
}
