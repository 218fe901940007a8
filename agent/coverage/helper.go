package coverage

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bulwarkhq/bulwark/agent/onaccess"
)

// Operations of the helper.
const (
	opProbe = "probe"
	opSweep = "sweep"
)

// order is one request to the helper, answer what it says: JSON lines.
type order struct {
	Op    string
	Dir   string // the mount point
	Mount int    // mount id that Dir must have
	Token string
}

type answer struct {
	// Opened or Refused: the probe was written, and then opened or not.
	Opened, Refused bool
	Gone, NotFolder bool
	Error           string
	Removed         int
}

// maxLine bounds a line of either direction: a path has at most 4096 bytes,
// each of at most six in JSON.
const maxLine = 64 << 10

// Helper is the helper process: it writes, opens and removes probe files for
// the daemon, one order per line of in, until in ends.
func Helper(in io.Reader, out io.Writer) error {
	lines := bufio.NewScanner(in)
	lines.Buffer(make([]byte, 0, 8192), maxLine)
	enc := json.NewEncoder(out)
	// A probe stays until the next order, so that an access that is looked at
	// after the fact (audit) still finds it, and never longer than this process.
	undo := func() {}
	defer func() { undo() }()
	for lines.Scan() {
		undo()
		undo = func() {}
		var o order
		if err := json.Unmarshal(lines.Bytes(), &o); err != nil {
			return fmt.Errorf("coverage helper: order: %w", err)
		}
		var a answer
		switch o.Op {
		case opProbe:
			a, undo = o.probe()
		case opSweep:
			a = o.sweep()
		default:
			a.Error = fmt.Sprintf("unknown operation %q", o.Op)
		}
		if err := enc.Encode(a); err != nil {
			return fmt.Errorf("coverage helper: answer: %w", err)
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("coverage helper: %w", err)
	}
	return nil
}

// open opens the folder that the mount is seen as, and makes sure that it is
// that mount and not what lies below or above it.
func (o order) open() (int, answer) {
	fd, err := unix.Open(o.Dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	switch {
	case errors.Is(err, unix.ENOTDIR):
		return -1, answer{NotFolder: true}
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ESRCH):
		return -1, answer{Gone: true}
	case err != nil:
		return -1, answer{Error: err.Error()}
	}
	if id, err := mountID(fd); err != nil || id != o.Mount {
		unix.Close(fd)
		// Mounted over or unmounted: nobody reaches this mount by its path.
		return -1, answer{Gone: true}
	}
	return fd, answer{}
}

func mountID(fd int) (int, error) {
	info, err := os.ReadFile("/proc/self/fdinfo/" + strconv.Itoa(fd))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(info)) {
		if v, ok := strings.CutPrefix(line, "mnt_id:"); ok {
			return strconv.Atoi(strings.TrimSpace(v))
		}
	}
	return 0, errors.New("no mnt_id in fdinfo")
}

func (o order) probe() (a answer, undo func()) {
	undo = func() {}
	dir, a := o.open()
	if dir < 0 {
		return a, undo
	}
	undo = func() { unix.Close(dir) }
	var random [8]byte
	if _, err := rand.Read(random[:]); err != nil {
		return answer{Error: err.Error()}, undo
	}
	name := Prefix + hex.EncodeToString(random[:])
	fd, err := unix.Openat(dir, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return answer{Error: err.Error()}, undo
	}
	undo = func() {
		_ = unix.Unlinkat(dir, name, 0)
		unix.Close(dir)
	}
	n, err := unix.Write(fd, []byte(o.Token))
	if err = errors.Join(err, unix.Close(fd)); err != nil {
		return answer{Error: err.Error()}, undo
	}
	if n != len(o.Token) {
		return answer{Error: "the file system is full"}, undo
	}
	fd, err = unix.Openat(dir, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	switch {
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return answer{Refused: true, Error: err.Error()}, undo
	case err != nil:
		return answer{Error: err.Error()}, undo
	}
	unix.Close(fd)
	return answer{Opened: true}, undo
}

// sweep removes left-over probes from the root folder of a mount.
func (o order) sweep() answer {
	dir, a := o.open()
	if dir < 0 {
		return a
	}
	f := os.NewFile(uintptr(dir), o.Dir)
	defer f.Close()
	for {
		names, err := f.Readdirnames(1024)
		for _, name := range names {
			if strings.HasPrefix(name, Prefix) && isProbe(dir, name) && unix.Unlinkat(dir, name, 0) == nil {
				a.Removed++
			}
		}
		if err != nil {
			if !errors.Is(err, io.EOF) {
				a.Error = err.Error()
			}
			return a
		}
	}
}

// isProbe reports whether the file is a probe of ours, complete or cut short.
func isProbe(dir int, name string) bool {
	var st unix.Stat_t
	if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil ||
		st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size > onaccess.ProbeSize || st.Uid != 0 {
		return false
	}
	if st.Size == 0 {
		return true // killed between creating and writing it
	}
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	head := make([]byte, len(magic))
	n, err := unix.Pread(fd, head, 0)
	return err == nil && strings.HasPrefix(magic, string(head[:n]))
}

// helpers is the running helper process; one that hangs is given up.
type helpers struct {
	checker *Checker
	cmd     *exec.Cmd
	in      io.WriteCloser
	replies chan answer
	// lost: a helper was killed in the middle of a probe.
	lost bool
}

func (h *helpers) start() error {
	// It ends with its input, or is killed by ask.
	cmd := &exec.Cmd{Path: h.checker.Command, Args: append([]string{h.checker.Command}, h.checker.Args...), Env: h.checker.Env}
	in, err := cmd.StdinPipe()
	if err != nil {
		return fmt.Errorf("coverage helper: %w", err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return fmt.Errorf("coverage helper: %w", err)
	}
	start := h.checker.Start
	if start == nil {
		start = (*exec.Cmd).Start
	}
	if err := start(cmd); err != nil {
		return fmt.Errorf("coverage helper: %w", err)
	}
	replies := make(chan answer, 1)
	go func() {
		defer close(replies)
		lines := bufio.NewScanner(out)
		lines.Buffer(make([]byte, 0, 4096), maxLine)
		for lines.Scan() {
			var a answer
			if json.Unmarshal(lines.Bytes(), &a) != nil {
				return
			}
			replies <- a
		}
	}()
	h.cmd, h.in, h.replies = cmd, in, replies
	return nil
}

// ask gives an order and waits for the answer.
func (h *helpers) ask(ctx context.Context, o order) (answer, error) {
	if h.cmd == nil {
		if err := h.start(); err != nil {
			return answer{}, err
		}
	}
	line, err := json.Marshal(o)
	if err != nil {
		return answer{}, fmt.Errorf("coverage helper: %w", err)
	}
	if _, err := h.in.Write(append(line, '\n')); err != nil {
		h.kill()
		return answer{}, fmt.Errorf("coverage helper: %w", err)
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case a, ok := <-h.replies:
		if !ok {
			h.kill()
			return answer{}, errors.New("the helper process ended unexpectedly")
		}
		return a, nil
	case <-timer.C:
		h.kill()
		return answer{}, fmt.Errorf("the file system did not answer within %v", patience)
	case <-ctx.Done():
		h.kill()
		return answer{}, ctx.Err()
	}
}

// kill gives the helper up. Nobody waits for a process that hangs inside a
// file system: it is reaped whenever that lets it go.
func (h *helpers) kill() {
	h.lost = true
	_ = h.cmd.Process.Kill()
	go func(cmd *exec.Cmd, replies <-chan answer) {
		for range replies {
		}
		_ = cmd.Wait()
	}(h.cmd, h.replies)
	h.cmd = nil
}

// stop ends the helper.
func (h *helpers) stop() {
	if h.cmd == nil {
		return
	}
	h.in.Close()
	for range h.replies {
	}
	_ = h.cmd.Wait()
	h.cmd = nil
}
