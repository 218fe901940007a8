package crash

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// reported are the calls that change files, with whether they name the file by
// a descriptor. Opening counts when it may create a file.
var reported = []struct {
	number       uint32
	name         string
	byDescriptor bool
	syncs        bool
}{
	{unix.SYS_WRITE, "write", true, false},
	{unix.SYS_PWRITE64, "pwrite64", true, false},
	{unix.SYS_PWRITEV, "pwritev", true, false},
	{unix.SYS_FTRUNCATE, "ftruncate", true, false},
	{unix.SYS_FALLOCATE, "fallocate", true, false},
	{unix.SYS_FSYNC, "fsync", true, true},
	{unix.SYS_FDATASYNC, "fdatasync", true, true},
	{unix.SYS_RENAMEAT, "renameat", false, false},
	{unix.SYS_RENAMEAT2, "renameat2", false, false},
	{unix.SYS_UNLINKAT, "unlinkat", false, false},
	{unix.SYS_LINKAT, "linkat", false, false},
	{unix.SYS_MKDIRAT, "mkdirat", false, false},
	{unix.SYS_FCHMODAT, "fchmodat", false, false},
	{unix.SYS_OPENAT, "openat", false, false},
}

// call is one report.
type call struct {
	id           uint64
	name         string
	fd           int
	byDescriptor bool
	syncs        bool
}

// Places in struct seccomp_data (linux/seccomp.h), little endian.
const (
	dataNumber = 0
	dataArg0   = 16
	dataArg2   = 32
)

// filter is the program: reported calls go to the listener, others pass.
// skip are descriptors that are none of files: the runtime's own, which it may
// write to while everything else stands still.
func filter(skip []int) ([]bpf.RawInstruction, error) {
	allow, notify := bpf.RetConstant{Val: unix.SECCOMP_RET_ALLOW}, bpf.RetConstant{Val: unix.SECCOMP_RET_USER_NOTIF}
	program := []bpf.Instruction{bpf.LoadAbsolute{Off: dataNumber, Size: 4}}
	var writes []bpf.Instruction
	writes = append(writes, bpf.LoadAbsolute{Off: dataArg0, Size: 4})
	for _, fd := range skip {
		writes = append(writes, bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: uint32(fd), SkipTrue: 1}, allow)
	}
	writes = append(writes, notify)
	for _, r := range reported {
		then := []bpf.Instruction{notify}
		switch r.number {
		case unix.SYS_WRITE:
			then = writes
		case unix.SYS_OPENAT:
			then = []bpf.Instruction{
				bpf.LoadAbsolute{Off: dataArg2, Size: 4},
				bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: unix.O_CREAT, SkipTrue: 1},
				allow, notify,
			}
		}
		program = append(program, bpf.JumpIf{Cond: bpf.JumpEqual, Val: r.number, SkipFalse: uint8(len(then))})
		program = append(program, then...)
	}
	return bpf.Assemble(append(program, allow))
}

// report puts the filter over the whole process and sends its listener through
// the socket.
func report(socket int) error {
	// The poller has its descriptors before they are looked for.
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	defer w.Close()
	if err := r.SetReadDeadline(time.Now().Add(time.Hour)); err != nil {
		return err
	}
	skip := []int{0, 1, 2, acknowledgements}
	for fd := 3; fd < 64; fd++ {
		if to, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd)); err == nil && strings.HasPrefix(to, "anon_inode:") {
			skip = append(skip, fd)
		}
	}
	raw, err := filter(skip)
	if err != nil {
		return err
	}
	instructions := make([]unix.SockFilter, len(raw))
	for i, in := range raw {
		instructions[i] = unix.SockFilter{Code: in.Op, Jt: in.Jt, Jf: in.Jf, K: in.K}
	}
	program := unix.SockFprog{Len: uint16(len(instructions)), Filter: &instructions[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil && os.Geteuid() != 0 {
		return err
	}
	const flags = unix.SECCOMP_FILTER_FLAG_TSYNC | unix.SECCOMP_FILTER_FLAG_TSYNC_ESRCH | unix.SECCOMP_FILTER_FLAG_NEW_LISTENER
	listener, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&program)))
	if errno != 0 {
		return errno
	}
	err = unix.Sendmsg(socket, []byte{0}, unix.UnixRights(int(listener)), nil, 0)
	return errors.Join(err, unix.Close(int(listener)), unix.Close(socket))
}

// receive takes the listener from the socket.
func receive(socket int) (int, error) {
	control := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(socket, make([]byte, 1), control, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return 0, err
	}
	messages, err := unix.ParseSocketControlMessage(control[:n])
	if err != nil || len(messages) != 1 {
		return 0, errors.Join(errors.New("the child has sent no listener"), err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return 0, errors.Join(errors.New("the child has sent no listener"), err)
	}
	return fds[0], nil
}

// struct seccomp_notif is id, pid, flags, data (64 bytes); struct
// seccomp_notif_resp id, val, error, flags.
const (
	notifSize = 80
	respSize  = 24
)

// next waits for a report; io.EOF when the child is gone.
func next(listener int) (call, error) {
	for {
		fds := []unix.PollFd{{Fd: int32(listener), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, int(giveUpAfter.Milliseconds()))
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return call{}, fmt.Errorf("wait for a report: %w", err)
		case n == 0:
			return call{}, fmt.Errorf("the child has not written for %s", giveUpAfter)
		case fds[0].Revents&unix.POLLIN == 0:
			return call{}, io.EOF
		}
		var b [notifSize]byte
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(listener), unix.SECCOMP_IOCTL_NOTIF_RECV, uintptr(unsafe.Pointer(&b[0])))
		switch {
		case errno == unix.EINTR, errno == unix.ENOENT: // its thread is gone
			continue
		case errno != 0:
			return call{}, fmt.Errorf("take a report: %w", errno)
		}
		c := call{id: binary.NativeEndian.Uint64(b[:]), fd: int(binary.NativeEndian.Uint64(b[16+dataArg0:]))}
		for _, r := range reported {
			if r.number == binary.NativeEndian.Uint32(b[16+dataNumber:]) {
				c.name, c.byDescriptor, c.syncs = r.name, r.byDescriptor, r.syncs
			}
		}
		return c, nil
	}
}

// proceed lets a reported call run.
func proceed(listener int, c call) error {
	var b [respSize]byte
	binary.NativeEndian.PutUint64(b[:], c.id)
	binary.NativeEndian.PutUint32(b[20:], unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(listener), unix.SECCOMP_IOCTL_NOTIF_SEND, uintptr(unsafe.Pointer(&b[0])))
	if errno != 0 && errno != unix.ENOENT {
		return fmt.Errorf("let a call run: %w", errno)
	}
	return nil
}
