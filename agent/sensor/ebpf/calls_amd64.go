package ebpf

import "golang.org/x/sys/unix"

// calls is the system calls that are looked at, by number; those of 32-bit
// programs (arch/x86/entry/syscalls/syscall_32.tbl) from compatBase on.
func calls() map[uint32]uint32 {
	return map[uint32]uint32{
		unix.SYS_OPEN: opOpen, unix.SYS_OPENAT: opOpen, unix.SYS_OPENAT2: opOpen, unix.SYS_CREAT: opOpen, unix.SYS_OPEN_BY_HANDLE_AT: opOpen,
		unix.SYS_WRITE: opWrite, unix.SYS_PWRITE64: opWrite, unix.SYS_WRITEV: opWrite, unix.SYS_PWRITEV: opWrite, unix.SYS_PWRITEV2: opWrite,
		unix.SYS_FTRUNCATE: opWrite, unix.SYS_FALLOCATE: opWrite, unix.SYS_SENDFILE: opWrite,
		unix.SYS_COPY_FILE_RANGE: opWriteFD2, unix.SYS_SPLICE: opWriteFD2, unix.SYS_MMAP: opMmap,
		unix.SYS_UNLINK: opUnlink, unix.SYS_UNLINKAT: opUnlinkat, unix.SYS_RENAME: opRename, unix.SYS_RENAMEAT: opRenameat, unix.SYS_RENAMEAT2: opRenameat,
		unix.SYS_LINK: opLink, unix.SYS_LINKAT: opLinkat, unix.SYS_SYMLINK: opSymlink, unix.SYS_SYMLINKAT: opSymlinkat,
		unix.SYS_MKNOD: opMknod, unix.SYS_MKNODAT: opMknodat,
		unix.SYS_CHMOD: opChmod, unix.SYS_FCHMOD: opFchmod, unix.SYS_FCHMODAT: opFchmodat, unix.SYS_FCHMODAT2: opFchmodat,
		unix.SYS_CHOWN: opChown, unix.SYS_LCHOWN: opChown, unix.SYS_FCHOWN: opFchown, unix.SYS_FCHOWNAT: opFchownat,
		unix.SYS_SETXATTR: opSetxattr, unix.SYS_LSETXATTR: opSetxattr, unix.SYS_FSETXATTR: opFsetxattr,
		unix.SYS_CONNECT: opConnect, unix.SYS_SENDTO: opSendto, unix.SYS_SENDMSG: opSendmsg, unix.SYS_SENDMMSG: opSendmmsg, unix.SYS_BIND: opBind, unix.SYS_SOCKET: opSocket,
		unix.SYS_PTRACE: opPtrace, unix.SYS_PROCESS_VM_READV: opVMRead, unix.SYS_PROCESS_VM_WRITEV: opVMWrite, unix.SYS_PIDFD_GETFD: opPidfdGetfd,
		unix.SYS_MEMFD_CREATE: opMemfd, unix.SYS_MOUNT: opMount, unix.SYS_UMOUNT2: opUmount, unix.SYS_MOVE_MOUNT: opMoveMount,
		unix.SYS_SETUID: opSetuid, unix.SYS_SETREUID: opSetuid, unix.SYS_SETRESUID: opSetuid, unix.SYS_CAPSET: opCapset,
		unix.SYS_UNSHARE: opUnshare, unix.SYS_SETNS: opSetns, unix.SYS_CLONE: opClone, unix.SYS_PRCTL: opPrctl, unix.SYS_BPF: opBPF,
		unix.SYS_INIT_MODULE: opInitModule, unix.SYS_FINIT_MODULE: opFinitModule, unix.SYS_DELETE_MODULE: opDeleteModule,

		compatBase + 5: opOpen, compatBase + 295: opOpen, compatBase + 437: opOpen, compatBase + 8: opOpen,
		compatBase + 4: opWrite, compatBase + 181: opWrite, compatBase + 146: opWrite, compatBase + 334: opWrite,
		compatBase + 93: opWrite, compatBase + 194: opWrite, compatBase + 187: opWrite, compatBase + 239: opWrite,
		compatBase + 192: opMmap,
		compatBase + 10:  opUnlink, compatBase + 301: opUnlinkat, compatBase + 38: opRename, compatBase + 302: opRenameat, compatBase + 353: opRenameat,
		compatBase + 9: opLink, compatBase + 303: opLinkat, compatBase + 83: opSymlink, compatBase + 304: opSymlinkat,
		compatBase + 14: opMknod, compatBase + 297: opMknodat,
		compatBase + 15: opChmod, compatBase + 94: opFchmod, compatBase + 306: opFchmodat,
		compatBase + 212: opChown, compatBase + 198: opChown, compatBase + 207: opFchown, compatBase + 298: opFchownat,
		compatBase + 362: opConnect, compatBase + 369: opSendto, compatBase + 361: opBind, compatBase + 359: opSocket,
		compatBase + 26: opPtrace, compatBase + 347: opVMRead, compatBase + 348: opVMWrite, compatBase + 438: opPidfdGetfd,
		compatBase + 356: opMemfd, compatBase + 21: opMount, compatBase + 52: opUmount,
		compatBase + 213: opSetuid, compatBase + 203: opSetuid, compatBase + 208: opSetuid, compatBase + 185: opCapset,
		compatBase + 310: opUnshare, compatBase + 346: opSetns, compatBase + 120: opClone, compatBase + 172: opPrctl, compatBase + 357: opBPF,
		compatBase + 128: opInitModule, compatBase + 350: opFinitModule, compatBase + 129: opDeleteModule,
	}
}
