package ebpf

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/bulwarkhq/bulwark/agent/sensor/sensortest"
	"github.com/bulwarkhq/bulwark/event"
	"github.com/bulwarkhq/bulwark/test/need"
)

// stimulus does something and says which event it must give.
type stimulus struct {
	name   string
	do     func(t *testing.T)
	action string
	match  func(e *event.Event) bool
}

func (st *stimulus) check(t *testing.T, sink *sensortest.Sink) {
	t.Run(st.name, func(t *testing.T) {
		st.do(t)
		got := sink.Wait(t, 1, st.name, func(e *event.Event) bool { return e.Action == st.action && st.match(e) })
		e := got[0]
		if e.Time.IsZero() || e.Initiating.PID == 0 || e.Initiating.StartTime.IsZero() || e.Initiating.FolderPath == "" {
			t.Errorf("who did it: %+v", e.Initiating)
		}
		if len(got) > 1 {
			t.Errorf("%d events for one act: %+v", len(got), got)
		}
	})
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func mine(e *event.Event) bool { return e.Initiating.PID == int64(os.Getpid()) }

func file(name string) func(*event.Event) bool {
	return func(e *event.Event) bool { return e.File.FolderPath == name }
}

// sleeper is a child that waits.
func sleeper(t *testing.T) int {
	cmd := exec.Command("/bin/sleep", "600")
	must(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return cmd.Process.Pid
}

func TestActivities(t *testing.T) {
	buffers(t, func(t *testing.T, opts ...Option) {
		s := New(sensortest.Table(t), sensortest.Log(t), append(opts, WithOwnFiles())...)
		sink := sensortest.Start(t, s)
		if u := s.Unavailable(); len(u) > 0 {
			t.Fatalf("not on this kernel: %v", u)
		}
		dir := t.TempDir()
		in := func(name string) string { return filepath.Join(dir, name) }
		var all []stimulus
		all = append(all, fileStimuli(dir, in)...)
		all = append(all, processStimuli(t, in)...)
		all = append(all, kernelStimuli(in)...)
		for i := range all {
			all[i].check(t, sink)
		}
		var lost uint64
		for _, c := range event.Categories() {
			lost += sink.LostOf(c)
		}
		if st := s.Stats(); lost != 0 || st.Malformed != 0 {
			t.Errorf("%d lost, %+v", lost, st)
		}
	})
}

func fileStimuli(dir string, in func(string) string) []stimulus {
	write := func(t *testing.T, name string, flags int, text string) {
		f, err := os.OpenFile(in(name), flags, 0o644)
		must(t, err)
		_, err = f.WriteString(text)
		must(t, err)
		_, err = f.WriteString(text) // the second write is no second event
		must(t, err)
		must(t, f.Close())
	}
	return []stimulus{
		{"created", func(t *testing.T) { write(t, "created", os.O_CREATE|os.O_WRONLY, "x") }, event.FileCreated, file(in("created"))},
		{"created by a shell's redirection", func(t *testing.T) {
			cmd := exec.Command("/bin/sh", "-c", "echo x > by-shell")
			cmd.Dir = dir
			must(t, cmd.Run())
		}, event.FileCreated, func(e *event.Event) bool {
			return e.File.FolderPath == in("by-shell") && e.Initiating.CommandLine == "/bin/sh -c echo x > by-shell"
		}},
		{"modified", func(t *testing.T) { write(t, "created", os.O_APPEND|os.O_WRONLY, "y") }, event.FileModified, file(in("created"))},
		{"modified by a shell's redirection", func(t *testing.T) {
			must(t, exec.Command("/bin/sh", "-c", "echo y >> "+in("by-shell")).Run())
		}, event.FileModified, file(in("by-shell"))},
		{"modified through a shared mapping", func(t *testing.T) {
			f, err := os.OpenFile(in("mapped"), os.O_CREATE|os.O_RDWR, 0o600)
			must(t, err)
			must(t, f.Truncate(4096))
			must(t, f.Close())
			f, err = os.OpenFile(in("mapped"), os.O_RDWR, 0)
			must(t, err)
			defer f.Close()
			m, err := unix.Mmap(int(f.Fd()), 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
			must(t, err)
			m[0] = 1
			must(t, unix.Munmap(m))
		}, event.FileModified, file(in("mapped"))},
		{"renamed, relative", func(t *testing.T) {
			cmd := exec.Command("/bin/mv", "created", "./x/../renamed")
			must(t, os.Mkdir(in("x"), 0o755))
			cmd.Dir = dir
			must(t, cmd.Run())
		}, event.FileRenamed, func(e *event.Event) bool {
			return e.File.FolderPath == in("renamed") && e.File.PreviousFolderPath == in("created") && e.File.PreviousFileName == "created" && e.Initiating.FileName == "mv"
		}},
		{"permissions", func(t *testing.T) { must(t, os.Chmod(in("renamed"), 0o4755|os.ModeSetuid)) }, event.FilePermissionsChanged, func(e *event.Event) bool {
			return e.File.FolderPath == in("renamed") && e.Additional["Mode"] == "4755"
		}},
		{"owner", func(t *testing.T) { must(t, os.Chown(in("renamed"), 12, -1)) }, event.FileOwnerChanged, func(e *event.Event) bool {
			return e.File.FolderPath == in("renamed") && e.Additional["Owner"] == "12" && e.Additional["Group"] == ""
		}},
		{"symbolic link", func(t *testing.T) { must(t, os.Symlink("renamed", in("link"))) }, event.FileCreated, func(e *event.Event) bool {
			return e.File.FolderPath == in("link") && e.Additional["LinkTarget"] == "renamed"
		}},
		{"hard link", func(t *testing.T) { must(t, os.Link(in("renamed"), in("hard"))) }, event.FileCreated, func(e *event.Event) bool {
			return e.File.FolderPath == in("hard") && e.Additional["LinkTarget"] == in("renamed")
		}},
		{"deleted", func(t *testing.T) { must(t, os.Remove(in("renamed"))) }, event.FileDeleted, file(in("renamed"))},
		{"image", func(t *testing.T) {
			data, err := os.ReadFile("/bin/true")
			must(t, err)
			must(t, os.WriteFile(in("lib.so"), data, 0o755))
			f, err := os.Open(in("lib.so"))
			must(t, err)
			defer f.Close()
			for range 2 { // the second is left out
				m, err := unix.Mmap(int(f.Fd()), 0, 4096, unix.PROT_READ|unix.PROT_EXEC, unix.MAP_PRIVATE)
				must(t, err)
				must(t, unix.Munmap(m))
			}
		}, event.ImageLoaded, func(e *event.Event) bool { return e.File.FolderPath == in("lib.so") && mine(e) }},
	}
}

func processStimuli(t *testing.T, in func(string) string) []stimulus {
	victim := sleeper(t)
	onVictim := func(method string) func(e *event.Event) bool {
		return func(e *event.Event) bool {
			return mine(e) && e.Process.PID == int64(victim) && e.Process.FileName == "sleep" && e.Additional["Method"] == method
		}
	}
	remote := func(call uintptr) func(t *testing.T) {
		return func(t *testing.T) {
			local := make([]byte, 8)
			l := unix.Iovec{Base: &local[0], Len: 8}
			r := unix.RemoteIovec{Base: 0x1000, Len: 8} // not mapped: the attempt counts
			_, _, _ = unix.Syscall6(call, uintptr(victim), uintptr(unsafe.Pointer(&l)), 1, uintptr(unsafe.Pointer(&r)), 1, 0)
		}
	}
	return []stimulus{
		{"ptrace", func(t *testing.T) {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			must(t, unix.PtraceSeize(victim))
			_ = unix.PtraceDetach(victim) // it has not stopped
		}, event.ProcessTraced, func(e *event.Event) bool {
			return onVictim("ptrace")(e) && e.Additional["Request"] == "PTRACE_SEIZE"
		}},
		{"process_vm_readv", remote(unix.SYS_PROCESS_VM_READV), event.ProcessMemoryRead, onVictim("process_vm_readv")},
		{"process_vm_writev", remote(unix.SYS_PROCESS_VM_WRITEV), event.ProcessMemoryWritten, onVictim("process_vm_writev")},
		{"memory file of another", func(t *testing.T) {
			f, err := os.OpenFile(fmt.Sprintf("/proc/%d/mem", victim), os.O_RDONLY, 0)
			must(t, err)
			must(t, f.Close())
		}, event.ProcessMemoryRead, onVictim("/proc/pid/mem")},
		{"memory file of another, to write", func(t *testing.T) {
			f, err := os.OpenFile(fmt.Sprintf("/proc/%d/mem", victim), os.O_RDWR, 0)
			must(t, err)
			must(t, f.Close())
		}, event.ProcessMemoryWritten, onVictim("/proc/pid/mem")},
		{"memory file of itself", func(t *testing.T) {
			f, err := os.OpenFile("/proc/self/mem", os.O_RDWR, 0)
			must(t, err)
			must(t, f.Close())
		}, event.ProcessTampered, func(e *event.Event) bool { return mine(e) && e.Additional["Method"] == "/proc/self/mem" }},
		{"pidfd_getfd", func(t *testing.T) {
			fd, err := unix.PidfdOpen(victim, 0)
			must(t, err)
			defer unix.Close(fd)
			if got, err := unix.PidfdGetfd(fd, 0, 0); err == nil {
				_ = unix.Close(got)
			}
		}, event.ProcessDescriptorTaken, onVictim("pidfd_getfd")},
		{"name", func(t *testing.T) {
			must(t, exec.Command("/usr/bin/perl", "-e", `$0 = "kworker/7:7"; sleep 0`).Run())
		}, event.ProcessTampered, func(e *event.Event) bool {
			return e.Additional["Method"] == "PR_SET_NAME" && e.Additional["NewName"] == "kworker/7:7" && e.Additional["OldName"] == "perl"
		}},
		{"memory file", func(t *testing.T) {
			fd, err := unix.MemfdCreate("bulwark-test-memfd", unix.MFD_CLOEXEC)
			must(t, err)
			must(t, unix.Close(fd))
		}, event.MemoryFileCreated, func(e *event.Event) bool { return mine(e) && e.File.FileName == "bulwark-test-memfd" }},
		{"memory file executed", func(t *testing.T) {
			fd, err := unix.MemfdCreate("bulwark-test-exec", 0)
			must(t, err)
			defer unix.Close(fd)
			data, err := os.ReadFile("/bin/true")
			must(t, err)
			_, err = unix.Write(fd, data)
			must(t, err)
			must(t, exec.Command(fmt.Sprintf("/proc/self/fd/%d", fd)).Run())
		}, event.MemoryFileExecuted, func(e *event.Event) bool {
			return e.File.FileName == "bulwark-test-exec (deleted)" || e.File.FileName == "bulwark-test-exec"
		}},
		{"user id", func(t *testing.T) {
			must(t, exec.Command("/usr/bin/perl", "-e", `use POSIX; POSIX::setuid(65534) or die`).Run())
		}, event.UserIDChanged, func(e *event.Event) bool {
			return e.Additional["UserId"] == "65534" && e.Initiating.FileName == "perl"
		}},
		{"namespace", func(t *testing.T) { must(t, exec.Command("/usr/bin/unshare", "-u", "/bin/true").Run()) }, event.NamespaceChanged, func(e *event.Event) bool {
			return e.Additional["Method"] == "unshare" && e.Additional["Namespaces"] == "uts" && e.Initiating.FileName == "unshare"
		}},
		{"script", func(t *testing.T) {
			must(t, os.WriteFile(in("script.sh"), []byte("#!/bin/sh\nexit 0\n"), 0o755))
			must(t, exec.Command(in("script.sh"), "arg").Run())
		}, event.ProcessCreated, func(e *event.Event) bool {
			if e.Process.Script != in("script.sh") {
				return false
			}
			leader, err := unix.Getsid(0) // 0 is a session of another pid namespace
			must(t, err)
			if got, want := e.Process.SessionLeader, int64(leader); got != want {
				t.Errorf("session leader %d, want %d", got, want)
			}
			if got, want := e.Process.Namespaces, "uts:"+namespaceOf("uts"); !strings.HasSuffix(got, want) {
				t.Errorf("namespaces %q, want %q", got, want)
			}
			if got, want := e.Process.Capabilities, capabilities(); got != want {
				t.Errorf("capabilities %q, want %q", got, want)
			}
			return true
		}},
	}
}

func namespaceOf(kind string) string {
	text, _ := os.Readlink("/proc/self/ns/" + kind)
	return strings.Trim(strings.TrimPrefix(text, kind+":"), "[]")
}

func capabilities() string {
	data, _ := os.ReadFile("/proc/self/status")
	_, after, _ := strings.Cut(string(data), "CapEff:\t")
	text, _, _ := strings.Cut(after, "\n")
	return text
}

func kernelStimuli(in func(string) string) []stimulus {
	return []stimulus{
		{"bpf", func(t *testing.T) {
			insns := []uint64{0x00000000000000b7, 0x0000000000000095} // r0 = 0; exit
			license := []byte("GPL\x00")
			attr := struct {
				progType, count    uint32
				insns, license     uint64
				logLevel, logSize  uint32
				logBuf             uint64
				kernVersion, flags uint32
				name               [16]byte
			}{1, 2, uint64(uintptr(unsafe.Pointer(&insns[0]))), uint64(uintptr(unsafe.Pointer(&license[0]))), 0, 0, 0, 0, 0, [16]byte{}}
			copy(attr.name[:], "bulwark_probe")
			fd, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_LOAD, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
			if errno != 0 {
				t.Fatal(errno)
			}
			_ = unix.Close(int(fd))
		}, event.BPFProgramLoaded, func(e *event.Event) bool {
			return mine(e) && e.Additional["ProgramName"] == "bulwark_probe" && e.Additional["ProgramType"] == "socket_filter" && e.Additional["Instructions"] == "2"
		}},
		{"module", func(t *testing.T) {
			must(t, os.WriteFile(in("rootkit.ko"), []byte("no module"), 0o644))
			f, err := os.Open(in("rootkit.ko"))
			must(t, err)
			defer f.Close()
			if err := unix.FinitModule(int(f.Fd()), "hide=1", 0); err == nil {
				t.Fatal("loaded")
			}
		}, event.DriverLoadFailed, func(e *event.Event) bool {
			return e.File.FolderPath == in("rootkit.ko") && e.Additional["ModuleName"] == "rootkit" && e.Additional["Error"] != "" && e.Additional["Parameters"] == "hide=1"
		}},
		{"device", func(t *testing.T) {
			major, minor := 7, 200 // a loop device that nobody has
			must(t, unix.Mknod(in("disk"), unix.S_IFBLK|0o600, int(unix.Mkdev(uint32(major), uint32(minor)))))
			f, err := os.Open(in("disk"))
			if err != nil {
				need.Missing(t, "needs loop devices: %v", err)
			}
			must(t, f.Close())
		}, event.RawDeviceAccess, func(e *event.Event) bool {
			return e.File.FolderPath == in("disk") && e.Additional["Device"] == "7:200" && e.Additional["Access"] == "read"
		}},
		{"mount", func(t *testing.T) {
			must(t, os.Mkdir(in("mnt"), 0o755))
			must(t, exec.Command("/usr/bin/unshare", "-m", "/bin/mount", "-t", "tmpfs", "-o", "nodev", "bulwark-test", in("mnt")).Run())
		}, event.FileSystemMounted, func(e *event.Event) bool { return e.File.FolderPath == in("mnt") }},
		{"datagram", func(t *testing.T) {
			l, err := net.ListenPacket("udp4", "127.0.0.1:0")
			must(t, err)
			defer l.Close()
			c, err := net.Dial("udp4", l.LocalAddr().String())
			must(t, err)
			defer c.Close()
		}, event.ConnectionSuccess, func(e *event.Event) bool {
			return mine(e) && e.Network.Protocol == "Udp" && e.Network.RemoteIP == "127.0.0.1" && e.Network.RemotePort > 1024
		}},
		{"datagram socket that listens", func(t *testing.T) {
			l, err := net.ListenPacket("udp4", "127.0.0.3:0")
			must(t, err)
			must(t, l.Close())
		}, event.ListeningConnection, func(e *event.Event) bool {
			return mine(e) && e.Network.Protocol == "Udp" && e.Network.LocalIP == "127.0.0.3"
		}},
		{"raw socket", func(t *testing.T) {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP)
			must(t, err)
			must(t, unix.Close(fd))
		}, event.RawSocketCreated, func(e *event.Event) bool { return mine(e) && e.Network.Protocol == "Icmp" }},
		{"no route", func(t *testing.T) {
			must(t, exec.Command("/usr/bin/unshare", "-n", "/usr/bin/perl", "-MSocket", "-e",
				`socket(S, PF_INET, SOCK_STREAM, 0); connect(S, sockaddr_in(4444, inet_aton("192.0.2.9"))) and die`).Run())
		}, event.ConnectionFailed, func(e *event.Event) bool {
			return e.Network.RemoteIP == "192.0.2.9" && e.Network.RemotePort == 4444 && e.Additional["Error"] == "ENETUNREACH" && e.Initiating.FileName == "perl"
		}},
	}
}
