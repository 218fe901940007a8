package onaccess

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/bulwarkhq/bulwark/test/need"
)

// The little of io_uring(7) that one operation needs: struct io_uring_params,
// struct io_uring_sqe and struct io_uring_cqe of include/uapi/linux/io_uring.h.
type uringParams struct {
	sqEntries, cqEntries, flags, sqThreadCPU, sqThreadIdle, features, wqFD uint32
	_                                                                      [3]uint32
	sq                                                                     struct {
		head, tail, ringMask, ringEntries, flags, dropped, array, _ uint32
		_                                                           uint64
	}
	cq struct {
		head, tail, ringMask, ringEntries, overflow, cqes, flags, _ uint32
		_                                                           uint64
	}
}

type uringSQE struct {
	opcode, flags uint8
	ioprio        uint16
	fd            int32
	off, addr     uint64
	length, open  uint32
	userData      uint64
	_             [3]uint64
}

const (
	uringOpOpenat = 18
	uringOpWrite  = 23
	uringSQEsAt   = 0x10000000
	uringGetEvent = 1
)

// uring runs one operation and returns its result.
func uring(sqe uringSQE) (int32, error) {
	var p uringParams
	fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 1, uintptr(unsafe.Pointer(&p)), 0)
	if errno != 0 {
		return 0, fmt.Errorf("io_uring_setup: %w", errno)
	}
	defer unix.Close(int(fd))
	size := max(int(p.sq.array+p.sqEntries*4), int(p.cq.cqes+p.cqEntries*16))
	ring, err := unix.Mmap(int(fd), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
	if err != nil {
		return 0, err
	}
	defer unix.Munmap(ring)
	sqes, err := unix.Mmap(int(fd), uringSQEsAt, int(p.sqEntries)*64, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
	if err != nil {
		return 0, err
	}
	defer unix.Munmap(sqes)
	word := func(at uint32) *uint32 { return (*uint32)(unsafe.Pointer(&ring[at])) }
	*(*uringSQE)(unsafe.Pointer(&sqes[0])) = sqe
	*word(p.sq.array) = 0
	atomic.AddUint32(word(p.sq.tail), 1)
	submit := uintptr(1)
	for atomic.LoadUint32(word(p.cq.tail)) == 0 {
		n, _, errno := unix.Syscall6(unix.SYS_IO_URING_ENTER, fd, submit, 1, uringGetEvent, 0, 0)
		if errno != 0 && errno != unix.EINTR {
			return 0, fmt.Errorf("io_uring_enter: %w", errno)
		}
		if errno == 0 {
			submit -= min(submit, n) // a signal may end the wait after that
		}
	}
	result := *(*int32)(unsafe.Pointer(&ring[p.cq.cqes+8]))
	if result < 0 {
		return 0, syscall.Errno(-result)
	}
	return result, nil
}

func uringWrite(f *os.File, data []byte, off int64) error {
	var pin runtime.Pinner
	pin.Pin(&data[0])
	defer pin.Unpin()
	n, err := uring(uringSQE{
		opcode: uringOpWrite, fd: int32(f.Fd()), off: uint64(off),
		addr: uint64(uintptr(unsafe.Pointer(&data[0]))), length: uint32(len(data)),
	})
	if err == nil && int(n) != len(data) {
		err = fmt.Errorf("io_uring wrote %d of %d bytes", n, len(data))
	}
	return err
}

// haveUring skips tests where io_uring is switched off (kernel.io_uring_disabled).
func haveUring(t testing.TB) {
	t.Helper()
	if _, err := openUring("/dev/null"); err != nil && !errors.Is(err, io.EOF) {
		need.Missing(t, "no io_uring: %v", err)
	}
}
