// Package respond carries out response actions on the host: it ends processes,
// collects investigation packages and does the commands of live response.
// Isolation is package isolation; what concerns the quarantine and scans is done
// by the daemon itself.
package respond

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bulwarkhq/bulwark/agent/process"
	"github.com/bulwarkhq/bulwark/api/response"
)

// Host is what the package works on.
type Host struct {
	// Proc is /proc.
	Proc string
	// Own are the agent's own programs, which are not ended.
	Own []string
	// Clock converts process start times; nil where they are not checked.
	Clock *process.Clock
}

// startTolerance is by how much the time of a process's creation may differ: the
// portal has it in microseconds, the kernel in ticks, and clocks are adjusted.
const startTolerance = 2 * time.Second

// stopPatience is how long an ended process may take to be gone.
const stopPatience = 5 * time.Second

// StopProcess ends a process with SIGKILL after it made sure that it is the one
// that is meant, and returns what it was.
func (h Host) StopProcess(p response.ProcessParameters) (string, error) {
	pid := int(p.ProcessID)
	if pid <= 1 || pid == os.Getpid() || pid == os.Getppid() && os.Getppid() == 1 {
		return "", fmt.Errorf("process %d is not ended: it is the system's or the agent's", pid)
	}
	// With the descriptor nobody else can get the number meanwhile.
	fd, err := unix.PidfdOpen(pid, 0)
	switch {
	case errors.Is(err, unix.ESRCH):
		return "", fmt.Errorf("there is no process %d (any more)", pid)
	case err == nil:
		defer unix.Close(fd)
	case !errors.Is(err, unix.ENOSYS):
		return "", fmt.Errorf("process %d: %w", pid, err)
	}
	dir := filepath.Join(h.Proc, strconv.Itoa(pid))
	exe, err := os.Readlink(dir + "/exe")
	if err != nil {
		return "", fmt.Errorf("process %d has no program: a kernel thread, or it has ended", pid)
	}
	path := strings.TrimSuffix(exe, " (deleted)")
	if slices.Contains(h.Own, path) {
		return "", fmt.Errorf("process %d is the agent's own (%s)", pid, path)
	}
	if err := h.isMeant(dir, p); err != nil {
		return "", err
	}
	if fd >= 0 {
		err = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
	} else {
		err = unix.Kill(pid, unix.SIGKILL)
	}
	if err != nil {
		return "", fmt.Errorf("end process %d (%s): %w", pid, path, err)
	}
	for end := time.Now().Add(stopPatience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if state, err := processState(dir); err != nil || state == 'Z' || state == 'X' {
			return fmt.Sprintf("process %d (%s) ended", pid, path), nil
		}
	}
	return "", fmt.Errorf("process %d (%s) does not end: it waits in the kernel", pid, path)
}

// isMeant checks the process against what the order says of it.
func (h Host) isMeant(dir string, p response.ProcessParameters) error {
	if p.Started != "" {
		want, err := time.Parse(time.RFC3339Nano, p.Started)
		if err != nil {
			return fmt.Errorf("time of the process's creation: %w", err)
		}
		data, err := os.ReadFile(dir + "/stat")
		if err != nil {
			return fmt.Errorf("process %d: %w", p.ProcessID, err)
		}
		st, err := process.ParseStat(data)
		if err != nil {
			return fmt.Errorf("process %d: %w", p.ProcessID, err)
		}
		if h.Clock != nil {
			if began := h.Clock.Start(st.Start); began.Sub(want).Abs() > startTolerance {
				return fmt.Errorf("process %d is another one by now: it began at %s", p.ProcessID, began.UTC().Format(time.RFC3339))
			}
		}
	}
	if p.SHA256 != "" {
		f, err := os.Open(dir + "/exe")
		if err != nil {
			return fmt.Errorf("program of process %d: %w", p.ProcessID, err)
		}
		defer f.Close() // read-only
		sum := sha256.New()
		if _, err := io.Copy(sum, f); err != nil {
			return fmt.Errorf("program of process %d: %w", p.ProcessID, err)
		}
		if got := hex.EncodeToString(sum.Sum(nil)); got != p.SHA256 {
			return fmt.Errorf("process %d runs another program: its SHA-256 is %s", p.ProcessID, got)
		}
	}
	return nil
}

// processState is the state letter of /proc/PID/stat.
func processState(dir string) (byte, error) {
	data, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return 0, err
	}
	i := strings.LastIndexByte(string(data), ')')
	if i < 0 || i+2 >= len(data) {
		return 0, errors.New("unknown form of /proc/PID/stat")
	}
	return data[i+2], nil
}
