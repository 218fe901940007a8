package sandbox

import (
	"errors"
	"fmt"
	"runtime"
	"syscall"
	"unsafe"

	seccomp "github.com/elastic/go-seccomp-bpf"
	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/psx"
)

// The calls that the Go runtime and reading handed-over descriptors need.
// Everything that could reach another file, process or machine is absent.
var allowed = []string{
	// memory
	"munmap", "madvise", "mincore", "brk", "mremap",
	// threads, signals, time
	"futex", "nanosleep", "clock_nanosleep", "clock_gettime", "clock_getres",
	"gettimeofday", "time", "sched_yield", "sched_getaffinity", "getpid", "gettid",
	"rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "rt_sigtimedwait", "sigaltstack", "restart_syscall",
	"setitimer", "timer_create", "timer_settime", "timer_delete",
	"set_robust_list", "set_tid_address", "rseq", "membarrier",
	"exit", "exit_group",
	// descriptors that are already open
	"read", "readv", "pread64", "preadv", "lseek", "fstat", "close", "fcntl",
	"write", "writev",
	"epoll_create1", "epoll_ctl", "epoll_wait", "epoll_pwait", "poll", "ppoll", "eventfd2", "pipe2",
	"recvmsg", "sendmsg", "fadvise64", "readahead",
	// questions about itself
	"getrandom", "uname", "getrusage", "getuid", "geteuid", "getgid", "getegid",
	"getresuid", "getresgid", "getppid", "getrlimit", "prlimit64", "capget",
}

// Additionally for a process that may read some folders.
var allowedReading = []string{"newfstatat", "getdents64", "readlinkat", "statx", "fstatfs"}

// Additionally for a process that writes its result to a descriptor.
var allowedOutput = []string{"pwrite64", "pwritev", "ftruncate", "fsync", "fdatasync", "fallocate"}

// No correct code of ours comes near these: whoever calls them has taken the
// process over, so it ends at once.
var deadly = []string{
	"execve", "execveat", "ptrace", "process_vm_readv", "process_vm_writev", "kcmp",
	"fork", "vfork", "unshare", "setns", "mount", "umount2", "pivot_root", "chroot",
	"bpf", "perf_event_open", "userfaultfd", "io_uring_setup", "io_uring_enter", "io_uring_register",
	"init_module", "finit_module", "delete_module", "kexec_load", "kexec_file_load",
	"keyctl", "add_key", "request_key", "open_by_handle_at", "name_to_handle_at",
	"iopl", "ioperm", "reboot", "swapon", "swapoff", "personality", "modify_ldt",
	"setuid", "setgid", "setreuid", "setregid", "setresuid", "setresgid", "setgroups", "setfsuid", "setfsgid", "capset",
	"kill", "tkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo", "pidfd_open", "pidfd_send_signal", "pidfd_getfd",
	"memfd_create", "memfd_secret", "mount_setattr", "move_mount", "open_tree", "fsopen", "fsmount",
}

// policy builds the filter. reading allows opening files for reading (Landlock
// and the user decide which), output writing to descriptors at any offset.
func policy(reading, output bool, pid int) (seccomp.Policy, error) {
	info, err := arch.GetInfo("")
	if err != nil {
		return seccomp.Policy{}, fmt.Errorf("seccomp on %s: %w", runtime.GOARCH, err)
	}
	known := func(names []string) []string {
		out := make([]string, 0, len(names))
		for _, n := range names {
			if _, ok := info.SyscallNames[n]; ok { // arm64 has no fork, time, poll, ...
				out = append(out, n)
			}
		}
		return out
	}
	when := func(name string, conditions ...seccomp.Condition) seccomp.NameWithConditions {
		return seccomp.NameWithConditions{Name: name, Conditions: conditions}
	}
	bit := func(arg uint32, op seccomp.Operation, value uint64) seccomp.Condition {
		return seccomp.Condition{Argument: arg, Operation: op, Value: value}
	}
	conditional := []seccomp.NameWithConditions{
		// No new code: a page is never both handed in by data and executable.
		when("mmap", bit(2, seccomp.BitsNotSet, unix.PROT_EXEC)),
		when("mprotect", bit(2, seccomp.BitsNotSet, unix.PROT_EXEC)),
		// New threads only, no processes.
		when("clone", bit(0, seccomp.BitsSet, unix.CLONE_THREAD)),
		// The runtime pre-empts its own threads by signal.
		when("tgkill", bit(0, seccomp.Equal, uint64(pid))),
		// The runtime names its memory areas.
		when("prctl", bit(0, seccomp.Equal, unix.PR_SET_VMA)),
		when("prctl", bit(0, seccomp.Equal, unix.PR_CAPBSET_READ)),
		when("prctl", bit(0, seccomp.Equal, unix.PR_GET_NO_NEW_PRIVS)),
	}
	names := known(allowed)
	if output {
		names = append(names, known(allowedOutput)...)
	}
	if reading {
		names = append(names, known(allowedReading)...)
		const writing = unix.O_WRONLY | unix.O_RDWR | unix.O_CREAT | unix.O_TRUNC | unix.O_APPEND
		conditional = append(conditional, when("openat", bit(2, seccomp.BitsNotSet, writing)))
	}
	const enosys = seccomp.Action(unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS))
	return seccomp.Policy{
		DefaultAction: seccomp.ActionErrno, // EPERM
		Syscalls: []seccomp.SyscallGroup{
			{Names: names, NamesWithCondtions: conditional, Action: seccomp.ActionAllow},
			// C libraries try clone3 first and need this answer to fall back to
			// clone, whose flags a filter can see.
			{Names: known([]string{"clone3", "faccessat2", "close_range"}), Action: enosys},
			{Names: known(deadly), Action: seccomp.ActionKillProcess},
		},
	}, nil
}

// installFilter puts the filter on every thread.
func installFilter(reading, output bool) error {
	p, err := policy(reading, output, unix.Getpid())
	if err != nil {
		return err
	}
	instructions, err := p.Assemble()
	if err != nil {
		return fmt.Errorf("assembling the seccomp policy: %w", err)
	}
	raw, err := bpf.Assemble(instructions)
	if err != nil {
		return fmt.Errorf("assembling the seccomp filter: %w", err)
	}
	filter := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		filter[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	defer runtime.KeepAlive(filter)

	// One call for all threads (3.17, and older enterprise kernels that took the
	// call over). A positive result names a thread that could not follow.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	thread, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&program)))
	switch {
	case errno == 0 && thread == 0:
		return nil
	case errno == 0:
		return fmt.Errorf("seccomp: thread %d could not take over the filter", thread)
	case !errors.Is(errno, syscall.ENOSYS):
		return fmt.Errorf("seccomp: %w", errno)
	}
	// Older kernels: thread by thread. The filter allows what that needs.
	if _, _, errno := psx.Syscall6(unix.SYS_PRCTL, unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&program)), 0, 0, 0); errno != 0 {
		return fmt.Errorf("seccomp filters are not in this kernel: %w", errno)
	}
	return nil
}
