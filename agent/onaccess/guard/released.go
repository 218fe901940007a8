package guard

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// Released is an access that the guard took from the kernel's queue and let go:
// the daemon has never seen it.
type Released struct {
	// Group is the fanotify group's index, as they were handed to the guard.
	Group int
	Mask  uint64 // of the event
	PID   int32
	At    int64 // when, on the clock of Now
	// FD is the open file, as the kernel made it for the event: accesses through it
	// raise none. With -1 the file has to be opened by Handle, on the mount with
	// the number Mount; Path was its name.
	FD     int
	Handle unix.FileHandle
	Mount  int
	Path   string
}

const (
	// A message is the header, the handle and the path.
	releasedHeader = 36
	maxHandle      = 128 // MAX_HANDLE_SZ
	maxPath        = 4096
	maxReleased    = releasedHeader + maxHandle + maxPath
)

func (r *Released) close() {
	if r.FD >= 0 {
		unix.Close(r.FD)
	}
}

func (r *Released) encode() []byte {
	var handle []byte
	if r.FD < 0 {
		handle = r.Handle.Bytes()
	}
	b := make([]byte, 0, releasedHeader+len(handle)+len(r.Path))
	b = binary.NativeEndian.AppendUint32(b, uint32(r.Group))
	b = binary.NativeEndian.AppendUint32(b, uint32(r.PID))
	b = binary.NativeEndian.AppendUint64(b, r.Mask)
	b = binary.NativeEndian.AppendUint64(b, uint64(r.At))
	b = binary.NativeEndian.AppendUint32(b, uint32(r.Mount))
	handleType := int32(0)
	if r.FD < 0 {
		handleType = r.Handle.Type()
	}
	b = binary.NativeEndian.AppendUint32(b, uint32(handleType))
	b = binary.NativeEndian.AppendUint32(b, uint32(len(handle)))
	b = append(b, handle...)
	return append(b, r.Path...)
}

var errReleased = errors.New("message of the guard that is none")

// decodeReleased leaves FD to its caller.
func decodeReleased(b []byte) (r Released, err error) {
	if len(b) < releasedHeader || len(b) > maxReleased {
		return r, fmt.Errorf("%w: %d bytes", errReleased, len(b))
	}
	r = Released{
		Group: int(binary.NativeEndian.Uint32(b)), PID: int32(binary.NativeEndian.Uint32(b[4:])),
		Mask: binary.NativeEndian.Uint64(b[8:]), At: int64(binary.NativeEndian.Uint64(b[16:])),
		Mount: int(int32(binary.NativeEndian.Uint32(b[24:]))), FD: -1,
	}
	n := binary.NativeEndian.Uint32(b[32:])
	if r.Group >= maxGroups || n > maxHandle || int(n) > len(b)-releasedHeader {
		return r, fmt.Errorf("%w: group %d, handle of %d bytes", errReleased, r.Group, n)
	}
	rest := b[releasedHeader:]
	r.Handle = unix.NewFileHandle(int32(binary.NativeEndian.Uint32(b[28:])), rest[:n])
	r.Path = string(rest[n:])
	return r, nil
}

// send does not wait.
func (r *Released) send(to int) error {
	var rights []byte
	if r.FD >= 0 {
		rights = unix.UnixRights(r.FD)
	}
	return unix.Sendmsg(to, r.encode(), rights, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
}

// Receive waits for the next access that a guard hands over; a descriptor is the
// caller's to close. An error is the end of the guard, or of its socket.
func Receive(from *net.UnixConn) (Released, error) {
	var data [maxReleased + 1]byte
	var oob [64]byte // one descriptor and more
	n, oobn, _, _, err := from.ReadMsgUnix(data[:], oob[:])
	if err != nil {
		return Released{}, fmt.Errorf("receive from the guard: %w", err)
	}
	fds, err := descriptors(oob[:oobn])
	if err == nil && len(fds) > 1 {
		err = fmt.Errorf("%w: %d descriptors", errReleased, len(fds))
	}
	var r Released
	if err == nil {
		r, err = decodeReleased(data[:n])
	}
	if err == nil && len(fds) == 0 && r.Handle.Size() == 0 {
		err = fmt.Errorf("%w: no file", errReleased)
	}
	if err != nil {
		for _, fd := range fds {
			unix.Close(fd)
		}
		return Released{}, fmt.Errorf("receive from the guard: %w", err)
	}
	if len(fds) == 1 {
		r.FD = fds[0]
	}
	return r, nil
}

// descriptors are those of control messages.
func descriptors(oob []byte) (fds []int, err error) {
	messages, err := unix.ParseSocketControlMessage(oob)
	for i := range messages {
		got, parseErr := unix.ParseUnixRights(&messages[i])
		err = errors.Join(err, parseErr)
		fds = append(fds, got...)
	}
	return fds, err
}
