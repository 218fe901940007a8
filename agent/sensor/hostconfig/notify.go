package hostconfig

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// maxWatched bounds the folders that are watched.
const maxWatched = 2000

// change is one notification.
type change struct {
	folder, name string
	pid          int // 0: not told
	time         time.Time
	overflow     bool // some were not told
}

const (
	fanMask = unix.FAN_CREATE | unix.FAN_DELETE | unix.FAN_MOVED_FROM | unix.FAN_MOVED_TO |
		unix.FAN_CLOSE_WRITE | unix.FAN_ATTRIB | unix.FAN_ONDIR | unix.FAN_EVENT_ON_CHILD
	inMask = unix.IN_CREATE | unix.IN_DELETE | unix.IN_MOVED_FROM | unix.IN_MOVED_TO |
		unix.IN_CLOSE_WRITE | unix.IN_ATTRIB | unix.IN_ONLYDIR
)

// notifier tells of changes in folders: by fanotify where the kernel and the
// file system can, else by inotify.
type notifier struct {
	log     *slog.Logger
	fan, in *os.File // nil where not to be had

	mu      sync.Mutex
	watched map[string]identity // folder -> what it was when it was marked
	byID    map[string]string   // fanotify: file system and handle -> folder
	byWD    map[int32]string    // inotify: watch -> folder
	err     error
}

// identity of a folder: one that was replaced has to be marked again.
type identity struct {
	dev, ino uint64
	birth    int64 // change of the folder itself does not matter; see watch
}

func newNotifier(onlyInotify bool, log *slog.Logger) *notifier {
	n := &notifier{log: log, watched: map[string]identity{}, byID: map[string]string{}, byWD: map[int32]string{}}
	if !onlyInotify {
		fd, err := unix.FanotifyInit(unix.FAN_CLASS_NOTIF|unix.FAN_CLOEXEC|unix.FAN_NONBLOCK|unix.FAN_REPORT_DFID_NAME, unix.O_RDONLY|unix.O_CLOEXEC)
		if err == nil {
			n.fan = os.NewFile(uintptr(fd), "fanotify")
		}
	}
	if fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK); err == nil {
		n.in = os.NewFile(uintptr(fd), "inotify")
	} else if n.fan == nil {
		n.err = fmt.Errorf("inotify_init1: %w", err)
	}
	return n
}

func (n *notifier) kind() string {
	if n.fan != nil {
		return "fanotify"
	}
	return "inotify"
}

func (n *notifier) close() {
	for _, f := range []*os.File{n.fan, n.in} {
		if f != nil {
			f.Close()
		}
	}
}

func (n *notifier) failure() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.err == nil {
		return errors.New("the notifications ended")
	}
	return n.err
}

// watch makes folders the watched set. Folders that are new are marked; of
// those that are gone the kernel has removed the mark.
func (n *notifier) watch(folders map[string]identity) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.fan == nil && n.in == nil {
		return n.err
	}
	var first error
	for folder, id := range folders {
		if n.watched[folder] == id {
			continue
		}
		if len(n.watched) >= maxWatched {
			return fmt.Errorf("more than %d folders", maxWatched)
		}
		if err := n.mark(folder); err != nil {
			if first == nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENOTDIR) {
				first = fmt.Errorf("%s: %w", folder, err)
			}
			continue
		}
		n.watched[folder] = id
	}
	maps.DeleteFunc(n.watched, func(folder string, _ identity) bool { _, ok := folders[folder]; return !ok })
	return first
}

func (n *notifier) mark(folder string) error {
	if n.fan != nil {
		key, err := handleOf(folder)
		if err == nil {
			err = unix.FanotifyMark(int(n.fan.Fd()), unix.FAN_MARK_ADD|unix.FAN_MARK_ONLYDIR, fanMask, unix.AT_FDCWD, folder)
		}
		if err == nil {
			n.byID[key] = folder
			return nil
		}
		if n.in == nil || errors.Is(err, unix.ENOENT) {
			return err
		}
	}
	wd, err := unix.InotifyAddWatch(int(n.in.Fd()), folder, inMask)
	if err != nil {
		return err
	}
	n.byWD[int32(wd)] = folder
	return nil
}

// handleOf is the key under which fanotify reports a folder.
func handleOf(folder string) (string, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(folder, &st); err != nil {
		return "", err
	}
	h, _, err := unix.NameToHandleAt(unix.AT_FDCWD, folder, 0)
	if err != nil {
		return "", err
	}
	b := binary.NativeEndian.AppendUint32(nil, uint32(st.Fsid.Val[0]))
	b = binary.NativeEndian.AppendUint32(b, uint32(st.Fsid.Val[1]))
	b = binary.NativeEndian.AppendUint32(b, uint32(h.Size()))
	b = binary.NativeEndian.AppendUint32(b, uint32(h.Type()))
	return string(append(b, h.Bytes()...)), nil
}

// start reads notifications into out until ctx ends, then closes it.
func (n *notifier) start(ctx context.Context, out chan<- change) {
	var wg sync.WaitGroup
	read := func(f *os.File, parse func([]byte, func(change))) {
		if f == nil {
			return
		}
		wg.Go(func() {
			defer context.AfterFunc(ctx, func() { _ = f.SetReadDeadline(time.Now()) })()
			buf := make([]byte, 64<<10)
			for {
				got, err := f.Read(buf)
				if err != nil {
					if ctx.Err() == nil {
						n.mu.Lock()
						n.err = err
						n.mu.Unlock()
					}
					return
				}
				at := time.Now().UTC()
				parse(buf[:got], func(c change) {
					c.time = at
					select {
					case out <- c:
					case <-ctx.Done():
					}
				})
			}
		})
	}
	read(n.fan, func(b []byte, each func(change)) {
		ParseFanotify(b, func(r Record) {
			n.mu.Lock()
			folder, known := n.byID[r.Folder]
			n.mu.Unlock()
			if known || r.Overflow {
				each(change{folder: folder, name: r.Name, pid: r.PID, overflow: r.Overflow})
			}
		})
	})
	read(n.in, func(b []byte, each func(change)) {
		ParseInotify(b, func(wd int32, mask uint32, name string) {
			n.mu.Lock()
			folder, known := n.byWD[wd]
			if mask&unix.IN_IGNORED != 0 {
				delete(n.byWD, wd)
				delete(n.watched, folder)
			}
			n.mu.Unlock()
			if over := mask&unix.IN_Q_OVERFLOW != 0; known || over {
				each(change{folder: folder, name: name, overflow: over})
			}
		})
	})
	go func() {
		wg.Wait()
		close(out)
	}()
}

// Record is one event of a fanotify group with FAN_REPORT_DFID_NAME.
type Record struct {
	// Folder is the file system id, the length and type of the handle (32 bits
	// each, in the machine's order) and the handle of the folder.
	Folder   string
	Name     string // "." or empty for the folder itself
	PID      int
	Mask     uint64
	Overflow bool
}

// ParseFanotify reads what a group returned. Of a damaged buffer it gives what
// stands before the damage.
func ParseFanotify(b []byte, each func(Record)) {
	const header = 24 // struct fanotify_event_metadata
	for len(b) >= header {
		total, meta := int(binary.NativeEndian.Uint32(b)), int(binary.NativeEndian.Uint16(b[6:]))
		if total < header || meta < header || meta > total || total > len(b) || b[4] != unix.FANOTIFY_METADATA_VERSION {
			return
		}
		r := Record{Mask: binary.NativeEndian.Uint64(b[8:]), PID: int(int32(binary.NativeEndian.Uint32(b[20:])))}
		if r.Mask&unix.FAN_Q_OVERFLOW != 0 {
			r.Overflow = true
			each(r)
		} else if parseInfo(b[meta:total], &r) {
			each(r)
		}
		b = b[total:]
	}
}

// parseInfo reads the information records of an event: the handle of the
// folder and the name (struct fanotify_event_info_fid).
func parseInfo(b []byte, r *Record) bool {
	for len(b) >= 4 {
		kind, size := b[0], int(binary.NativeEndian.Uint16(b[2:]))
		if size < 4 || size > len(b) {
			return false
		}
		const fixed = 4 + 8 + 8 // header, fsid, handle's length and type
		if (kind == unix.FAN_EVENT_INFO_TYPE_DFID_NAME || kind == unix.FAN_EVENT_INFO_TYPE_DFID) && size >= fixed {
			n := int(binary.NativeEndian.Uint32(b[12:]))
			if n < 0 || n > 128 || fixed+n > size {
				return false
			}
			r.Folder = string(b[4 : fixed+n])
			name, _, _ := strings.Cut(string(b[fixed+n:size]), "\x00")
			if name != "." {
				r.Name = name
			}
			return true
		}
		b = b[size:]
	}
	return false
}

// ParseInotify reads what an inotify descriptor returned.
func ParseInotify(b []byte, each func(wd int32, mask uint32, name string)) {
	const header = 16
	for len(b) >= header {
		n := int(binary.NativeEndian.Uint32(b[12:]))
		if n < 0 || n > len(b)-header {
			return
		}
		name, _, _ := strings.Cut(string(b[header:header+n]), "\x00")
		each(int32(binary.NativeEndian.Uint32(b)), binary.NativeEndian.Uint32(b[4:]), name)
		b = b[header+n:]
	}
}
