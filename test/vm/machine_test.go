//go:build vm

package vm

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/test/need"
	"github.com/bulwarkhq/bulwark/test/vm/report"
)

const (
	// lifetime is how long a machine may run. It is far above what a run takes:
	// only one that hangs reaches it.
	lifetime = 45 * time.Minute
	// silence is how much CPU time a machine may use without saying anything: on
	// a busy machine time says nothing.
	silence = 4 * time.Minute
	// lineLimit is how long a message may be, in bytes.
	lineLimit = 4 << 20
)

// kernelParameters boot without looking for hardware: udev would start a program
// for each of the devices, and we know what there is.
const kernelParameters = "root=/dev/vda rw console=ttyS0 loglevel=5 systemd.show_status=no mitigations=off panic=-1 audit=0" +
	" systemd.mask=systemd-udevd.service systemd.mask=systemd-udevd-kernel.socket systemd.mask=systemd-udevd-control.socket"

// withoutSystemd lets the test program be the first process. Half of what an
// emulated processor does is systemd's otherwise.
const withoutSystemd = " init=/usr/local/sbin/vm-init"

// run boots a machine with a second disk made of the folder payload, lets its
// guest program do the scenario and returns the rows that it reported. Checks
// that do not hold fail the test. parameters are more of the kernel's.
func run(t *testing.T, img image, scenario, parameters, payload string) []report.Row {
	t.Helper()
	qemu := need.Command(t, "qemu-system-x86_64")
	dir := t.TempDir()
	disk := payloadDisk(t, dir, payload)
	messages, console := filepath.Join(dir, "messages"), filepath.Join(dir, "console")
	// QEMU opens it again for each writer; it must be there for the reader.
	if err := os.WriteFile(messages, nil, 0o600); err != nil {
		t.Fatal(err)
	}

	// Its own copy of the disk, which outlasts a reboot.
	own := filepath.Join(dir, "disk")
	if out, err := exec.CommandContext(t.Context(), "cp", "--sparse=always", "--reflink=auto", img.disk, own).CombinedOutput(); err != nil {
		t.Fatalf("disk of the machine: %v\n%s", err, out)
	}
	ctx, cancel := context.WithTimeout(t.Context(), lifetime)
	defer cancel()
	start := time.Now()
	var used time.Duration
	f := &follower{t: t, path: messages, start: start}
	for boots := 0; boots == 0 || f.reboot && boots < 3; boots++ {
		f.reboot = false
		used += boot(ctx, f, qemu,
			"-machine", "q35,accel=tcg", "-cpu", "qemu64,-svm", "-smp", "1", "-m", "1280",
			"-nodefaults", "-display", "none",
			// A reboot ends the program and starts another: what it has translated of
			// the memory before slows the next boot to less than half.
			"-no-reboot",
			"-kernel", img.kernel, "-initrd", img.initrd,
			"-append", kernelParameters+parameters+" vm.scenario="+scenario,
			"-drive", "file="+own+",if=virtio,format=raw,cache=unsafe",
			"-drive", "file="+disk+",if=virtio,format=raw,readonly=on",
			"-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net,romfile=",
			"-device", "virtio-rng-pci",
			"-serial", "file:"+console,
			"-device", "virtio-serial-pci", "-chardev", "file,id=report,append=on,path="+messages,
			"-device", "virtserialport,chardev=report,name=bulwark.report")
	}
	t.Logf("the machine ran for %v and used %.0f s of CPU time", time.Since(start).Round(time.Second), used.Seconds())
	if !f.done {
		t.Errorf("the machine ended before its program was done")
	}
	if t.Failed() {
		b, _ := os.ReadFile(console)
		t.Logf("console:\n%s", tail(b, 60))
		// Once more, where the end of a long log shows it.
		t.Logf("what failed:\n%s", strings.Join(f.failed, "\n"))
	}
	return f.rows
}

// boot runs the machine until it ends or reboots, and returns the CPU time that it
// used.
func boot(ctx context.Context, f *follower, qemu string, args ...string) time.Duration {
	f.t.Helper()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cmd := exec.CommandContext(ctx, qemu, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		f.t.Fatal(err)
	}
	f.pid, f.last = cmd.Process.Pid, 0
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	var ended bool
	for !ended && !f.done {
		select {
		case err := <-exited:
			ended = true
			if err != nil {
				f.t.Errorf("%s: %v\n%s", filepath.Base(qemu), err, stderr.String())
			}
		case <-time.After(200 * time.Millisecond):
		}
		f.read()
		if cpuTime(f.pid)-f.last > silence {
			f.t.Errorf("the machine has said nothing during %v of CPU time", silence)
			break
		}
	}
	if !ended {
		if !f.done {
			cancel()
		}
		select { // it powers off
		case <-exited:
		case <-time.After(time.Minute):
			cancel()
			<-exited
		}
	}
	return cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
}

// payloadDisk makes a disk with the folder's content.
func payloadDisk(t *testing.T, dir, payload string) string {
	t.Helper()
	var size int64 = 16 << 20
	err := filepath.WalkDir(payload, func(_ string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		size += info.Size() + 4096
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	disk := filepath.Join(dir, "payload")
	if err := errors.Join(os.WriteFile(disk, nil, 0o600), os.Truncate(disk, size*5/4&^0xfff)); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), need.Command(t, "mkfs.ext4"), "-q", "-F", "-O", "^has_journal", "-d", payload, disk).CombinedOutput()
	if err != nil {
		t.Fatalf("make the disk with what is tested: %v\n%s", err, out)
	}
	return disk
}

// follower reads what a machine reports while it is being written.
type follower struct {
	t      *testing.T
	path   string
	start  time.Time
	last   time.Duration // CPU time at the last message, of this boot
	offset int64
	pid    int
	rows   []report.Row
	failed []string
	done   bool
	reboot bool // the machine is about to
}

// read takes the complete lines that came since the last time.
func (f *follower) read() {
	f.t.Helper()
	file, err := os.Open(f.path)
	if err != nil {
		f.t.Fatal(err)
	}
	defer file.Close()
	if _, err := file.Seek(f.offset, 0); err != nil {
		f.t.Fatal(err)
	}
	in := bufio.NewReaderSize(file, lineLimit)
	for {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return // incomplete
		}
		f.offset += int64(len(line))
		f.last = cpuTime(f.pid)
		f.take(line)
	}
}

func (f *follower) take(line []byte) {
	f.t.Helper()
	at := fmt.Sprintf("[%.0f s, CPU %.0f s]", time.Since(f.start).Seconds(), cpuTime(f.pid).Seconds())
	var m report.Message
	if err := json.Unmarshal(line, &m); err != nil {
		f.t.Errorf("message %q: %v", line, err)
		return
	}
	switch {
	case m.Check != nil && m.Check.Failure != "":
		failure := fmt.Sprintf("%s %s: %s", at, m.Check.Name, m.Check.Failure)
		f.failed = append(f.failed, failure)
		f.t.Error(failure)
	case m.Check != nil:
		f.t.Logf("%s %s: ok", at, m.Check.Name)
	case m.Row != nil:
		f.rows = append(f.rows, *m.Row)
	case m.Log != "":
		f.t.Logf("%s %s", at, m.Log)
	}
	f.done = f.done || m.Done
	f.reboot = f.reboot || m.Reboot
}

// cpuTime is what a process has used so far; 0 when it has gone.
func cpuTime(pid int) time.Duration {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	var ticks int
	for i, f := range strings.Fields(rest) {
		if i == 11 || i == 12 { // utime, stime; see proc_pid_stat(5)
			n, _ := strconv.Atoi(f)
			ticks += n
		}
	}
	return time.Duration(ticks) * time.Second / 100
}

func tail(b []byte, lines int) string {
	all := strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
