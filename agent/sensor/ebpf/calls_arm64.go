package ebpf

import "golang.org/x/sys/unix"

// calls is the system calls that are looked at, by number.
func calls() map[uint32]uint32 {
	return map[uint32]uint32{
		unix.SYS_OPENAT: opOpen, unix.SYS_OPENAT2: opOpen, unix.SYS_OPEN_BY_HANDLE_AT: opOpen,
		unix.SYS_WRITE: opWrite, unix.SYS_PWRITE64: opWrite, unix.SYS_WRITEV: opWrite, unix.SYS_PWRITEV: opWrite, unix.SYS_PWRITEV2: opWrite,
		unix.SYS_FTRUNCATE: opWrite, unix.SYS_FALLOCATE: opWrite, unix.SYS_SENDFILE: opWrite,
		unix.SYS_COPY_FILE_RANGE: opWriteFD2, unix.SYS_SPLICE: opWriteFD2, unix.SYS_MMAP: opMmap,
		unix.SYS_UNLINKAT: opUnlinkat, unix.SYS_RENAMEAT: opRenameat, unix.SYS_RENAMEAT2: opRenameat,
		unix.SYS_LINKAT: opLinkat, unix.SYS_SYMLINKAT: opSymlinkat, unix.SYS_MKNODAT: opMknodat,
		unix.SYS_FCHMOD: opFchmod, unix.SYS_FCHMODAT: opFchmodat, unix.SYS_FCHMODAT2: opFchmodat,
		unix.SYS_FCHOWN: opFchown, unix.SYS_FCHOWNAT: opFchownat,
		unix.SYS_SETXATTR: opSetxattr, unix.SYS_LSETXATTR: opSetxattr, unix.SYS_FSETXATTR: opFsetxattr,
		unix.SYS_CONNECT: opConnect, unix.SYS_SENDTO: opSendto, unix.SYS_SENDMSG: opSendmsg, unix.SYS_SENDMMSG: opSendmmsg, unix.SYS_BIND: opBind, unix.SYS_SOCKET: opSocket,
		unix.SYS_PTRACE: opPtrace, unix.SYS_PROCESS_VM_READV: opVMRead, unix.SYS_PROCESS_VM_WRITEV: opVMWrite, unix.SYS_PIDFD_GETFD: opPidfdGetfd,
		unix.SYS_MEMFD_CREATE: opMemfd, unix.SYS_MOUNT: opMount, unix.SYS_UMOUNT2: opUmount, unix.SYS_MOVE_MOUNT: opMoveMount,
		unix.SYS_SETUID: opSetuid, unix.SYS_SETREUID: opSetuid, unix.SYS_SETRESUID: opSetuid, unix.SYS_CAPSET: opCapset,
		unix.SYS_UNSHARE: opUnshare, unix.SYS_SETNS: opSetns, unix.SYS_CLONE: opClone, unix.SYS_PRCTL: opPrctl, unix.SYS_BPF: opBPF,
		unix.SYS_INIT_MODULE: opInitModule, unix.SYS_FINIT_MODULE: opFinitModule, unix.SYS_DELETE_MODULE: opDeleteModule,
	}
}
