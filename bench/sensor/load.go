package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// load is what is done: programs started, or files opened.
type load struct {
	kind     string // "exec" or "open"
	rate     int    // a second
	duration time.Duration
}

func (l load) String() string { return fmt.Sprintf("%d %s/s", l.rate, l.kind) }

// createEvery is how many opens come to one that creates a file: the others
// are of a file that exists, to read, which is no event for anybody here.
const createEvery = 1000

// loadResult is what a load did.
type loadResult struct {
	Units   uint64        // execs or opens
	Made    uint64        // events: execs, or files created
	Elapsed time.Duration // less than asked for is a load that fell short
	CPU     time.Duration // of the load and the programs that it started
}

func (r *loadResult) perUnit() time.Duration {
	if r.Units == 0 {
		return 0
	}
	return r.CPU / time.Duration(r.Units)
}

// run runs the load in a process of its own.
func (l load) run(ctx context.Context, dir, mark string) (r loadResult, err error) {
	self, err := os.Executable()
	if err != nil {
		return r, err
	}
	cmd := exec.CommandContext(ctx, self, "load", "-kind", l.kind, "-rate", strconv.Itoa(l.rate), "-duration", l.duration.String(), "-dir", dir, "-mark", mark)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return r, fmt.Errorf("the load: %w", err)
	}
	return r, json.Unmarshal(out, &r)
}

func loadMain(args []string, out io.Writer) error {
	fs := flag.NewFlagSet("load", flag.ContinueOnError)
	kind, rate, duration := fs.String("kind", "exec", ""), fs.Int("rate", 1, ""), fs.Duration("duration", time.Second, "")
	dir, mark := fs.String("dir", "", ""), fs.String("mark", "", "")
	if err := fs.Parse(args); err != nil {
		return err
	}
	runtime.LockOSThread() // children are those of this thread
	l := load{kind: *kind, rate: *rate, duration: *duration}
	do, err := l.prepare(*dir, *mark)
	if err != nil {
		return err
	}
	r, err := l.pace(do)
	if err != nil {
		return err
	}
	for _, who := range []int{unix.RUSAGE_SELF, unix.RUSAGE_CHILDREN} {
		var ru unix.Rusage
		if err := unix.Getrusage(who, &ru); err != nil {
			return err
		}
		r.CPU += time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
	}
	return json.NewEncoder(out).Encode(r)
}

// pace does one thing after the other, as many a second as asked for. What does
// not fit into its time is left out.
func (l load) pace(do func(i uint64) (made bool, err error)) (r loadResult, err error) {
	begin := time.Now()
	skipped := uint64(0)
	for {
		since := time.Since(begin)
		if since >= l.duration {
			r.Elapsed = since
			return r, nil
		}
		due := uint64(since.Seconds() * float64(l.rate))
		if r.Units+skipped >= due {
			time.Sleep(time.Millisecond)
			continue
		}
		if behind := due - r.Units - skipped; behind > uint64(l.rate)/10+1 {
			skipped += behind - 1
		}
		// Not too many between two looks at the clock.
		for n := min(due-r.Units-skipped, 64); n > 0; n-- {
			made, err := do(r.Units)
			if err != nil {
				return r, err
			}
			r.Units++
			if made {
				r.Made++
			}
		}
	}
}

func (l load) prepare(dir, mark string) (func(uint64) (bool, error), error) {
	switch l.kind {
	case "exec":
		program := filepath.Join(dir, "nothing")
		image, err := smallProgram()
		if err != nil {
			return nil, err
		}
		if err := os.WriteFile(program, image, 0o755); err != nil {
			return nil, err
		}
		return func(i uint64) (bool, error) {
			pid, err := syscall.ForkExec(program, []string{program, mark + "-" + strconv.FormatUint(i, 10)}, &syscall.ProcAttr{})
			if err != nil {
				return false, fmt.Errorf("start %s: %w", program, err)
			}
			_, err = syscall.Wait4(pid, nil, 0, nil)
			return true, err
		}, nil
	case "open":
		name := filepath.Join(dir, "read")
		if err := os.WriteFile(name, []byte("nothing\n"), 0o644); err != nil {
			return nil, err
		}
		return func(i uint64) (bool, error) {
			if i%createEvery != 0 {
				fd, err := unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
				if err != nil {
					return false, err
				}
				return false, unix.Close(fd)
			}
			f, err := os.OpenFile(filepath.Join(dir, mark+"-"+strconv.FormatUint(i, 10)), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
			if err != nil {
				return false, err
			}
			_, err = f.WriteString(mark)
			return true, errors.Join(err, f.Close())
		}, nil
	}
	return nil, fmt.Errorf("no load is called %q", l.kind)
}

// smallProgram is an executable that ends at once, so that what is measured is
// the watching and not the program's own start.
func smallProgram() ([]byte, error) {
	var machine byte
	var code []byte
	switch runtime.GOARCH {
	case "amd64":
		machine, code = 62, []byte{0xb8, 0xe7, 0, 0, 0, 0x31, 0xff, 0x0f, 0x05} // mov eax, 231 (exit_group); xor edi, edi; syscall
	case "arm64":
		machine, code = 183, []byte{0xa8, 0x0b, 0x80, 0xd2, 0, 0, 0x80, 0xd2, 0x01, 0, 0, 0xd4} // mov x8, 94; mov x0, 0; svc 0
	default:
		return nil, fmt.Errorf("no program for %s", runtime.GOARCH)
	}
	const base, head = 0x400000, 64 + 56
	b := make([]byte, head, head+len(code))
	put := func(at, size int, v uint64) {
		for i := range size {
			b[at+i] = byte(v >> (8 * i))
		}
	}
	// The header of the file and of its one segment (elf(5)).
	copy(b, "\x7fELF\x02\x01\x01")
	put(16, 2, 2) // ET_EXEC
	put(18, 2, uint64(machine))
	put(20, 4, 1)
	put(24, 8, base+head) // entry
	put(32, 8, 64)        // where the segments are described
	put(52, 2, 64)
	put(54, 2, 56)
	put(56, 2, 1)
	put(64, 4, 1) // PT_LOAD
	put(68, 4, 5) // readable, executable
	put(80, 8, base)
	put(88, 8, base)
	put(96, 8, uint64(head+len(code)))
	put(104, 8, uint64(head+len(code)))
	put(112, 8, 0x1000)
	return append(b, code...), nil
}
