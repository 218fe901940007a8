package guard

import (
	"errors"
	"os"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// keepOpen is how long a file stays open that nobody has looked at: for so long
	// its file system cannot be unmounted. Later it is named by its handle.
	keepOpen = 3 * time.Second
	// maxOpen and maxNamed bound the files of both kinds. The oldest make room.
	maxOpen  = 256
	maxNamed = 512
	// handTick is how often is looked whether the daemon takes them.
	handTick = 50 * time.Millisecond
	// maxUnread bounds what waits in the socket, in bytes of kernel memory: a
	// handful of files, should the daemon hang again before it reads them.
	maxUnread = 8 << 10
)

// keeper keeps the files that the guard took from the kernel's queue and let go
// unseen, until the daemon answers again and takes them over. It has a goroutine of
// its own: nobody's answer waits for it.
type keeper struct {
	page *Page
	to   int // the daemon's socket
	wake chan struct{}

	mu          sync.Mutex // held for moments
	open, named []Released // the oldest first
}

func newKeeper(page *Page, to int) *keeper {
	return &keeper{page: page, to: to, wake: make(chan struct{}, 1)}
}

// add keeps an open file. What has to make room for it is returned, for the caller
// to close (-1: nothing).
func (k *keeper) add(r Released) (evicted int) {
	evicted = -1
	k.mu.Lock()
	if len(k.open) >= maxOpen {
		evicted = k.open[0].FD
		k.open = k.open[1:]
		k.lost()
	}
	k.open = append(k.open, r)
	k.mu.Unlock()
	select {
	case k.wake <- struct{}{}:
	default:
	}
	return evicted
}

func (k *keeper) lost() { k.page.add(wordLost) }

// run ends with the process.
func (k *keeper) run() {
	for range k.wake {
		for k.round(Now()) {
			time.Sleep(handTick)
		}
	}
}

// round hands over what it can and reports whether something is left.
func (k *keeper) round(now int64) (left bool) {
	if beat := k.page.load(wordBeat); now-beat < 2*int64(Tick(k.page.Patience())) {
		for _, list := range []*[]Released{&k.named, &k.open} {
			for k.hand(list) {
			}
		}
	}
	for {
		r, ok := k.take(&k.open, now-int64(keepOpen))
		if !ok {
			break
		}
		k.name(r)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.open)+len(k.named) > 0
}

// take takes the first of a list that was let go before a time.
func (k *keeper) take(list *[]Released, before int64) (r Released, ok bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(*list) == 0 || (*list)[0].At > before {
		return Released{}, false
	}
	r = (*list)[0]
	*list = (*list)[1:]
	return r, true
}

// hand hands the first of a list over; false when that has to wait, or none is left.
func (k *keeper) hand(list *[]Released) bool {
	if n, err := unix.IoctlGetInt(k.to, unix.SIOCOUTQ); err != nil || n > maxUnread {
		return false
	}
	r, ok := k.take(list, Now())
	if !ok {
		return false
	}
	err := r.send(k.to)
	if errors.Is(err, unix.EAGAIN) {
		k.mu.Lock()
		*list = append([]Released{r}, *list...)
		k.mu.Unlock()
		return false
	}
	if err != nil {
		k.lost()
	}
	r.close()
	return err == nil
}

// name remembers a file by its handle instead of keeping it open.
func (k *keeper) name(r Released) {
	defer r.close()
	handle, mount, err := unix.NameToHandleAt(r.FD, "", unix.AT_EMPTY_PATH)
	if err != nil || handle.Size() > maxHandle {
		k.lost() // a file system without handles
		return
	}
	r.Handle, r.Mount = handle, mount
	if path, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(r.FD)); err == nil && len(path) <= maxPath {
		r.Path = path
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.named) >= maxNamed {
		k.named = k.named[1:]
		k.lost()
	}
	named := r
	named.FD = -1
	k.named = append(k.named, named)
}
