package guard

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Page is the memory that the daemon and its guard share. Every word of it is
// an int64 that is only accessed atomically. Times are nanoseconds of
// CLOCK_MONOTONIC, which no clock change touches.
//
// A held access is published under the number of its descriptor, which is how
// the kernel names it too. Whoever answers it takes it off first: the daemon
// with Take, the guard by claiming it. So nobody answers an access twice, which
// would answer the next one that got the same number.
type Page struct {
	words []int64
	mem   []byte
}

// The words before the table.
const (
	wordMagic    = iota
	wordBeat     // the daemon's last sign of life; 0 before the first
	wordTop      // one more than the highest descriptor ever published
	wordReleased // accesses that the guard let go
	wordDrained  // events that the guard took from the kernel's queue
	wordPatience // ns without a sign of life after which everybody is let go
	wordLost     // events of wordDrained whose file the daemon did not get
	header       = 16
)

const pageMagic = 0x62756c7761726b31 // "bulwark1"

// Values of the table other than 0 (nothing held) and deadlines.
const (
	claimed = -1 // the guard is answering
	done    = -2 // the guard has answered
)

// maxSlots bounds the table: half a mebibyte, of which only what is used
// takes memory.
const maxSlots = 1 << 16

// NewPage makes a page in an anonymous file, which it returns for the guard to
// inherit. patience is how long the daemon may be silent.
func NewPage(patience time.Duration) (*Page, *os.File, error) {
	file, err := AnonymousFile("bulwark-guard")
	if err != nil {
		return nil, nil, fmt.Errorf("memory for the guard: %w", err)
	}
	fd := int(file.Fd())
	if err := unix.Ftruncate(fd, (header+maxSlots)*8); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("memory for the guard: %w", err), file.Close())
	}
	p, err := mapPage(fd)
	if err != nil {
		return nil, nil, errors.Join(err, file.Close())
	}
	p.store(wordPatience, int64(patience))
	p.store(wordMagic, pageMagic)
	return p, file, nil
}

func mapPage(fd int) (*Page, error) {
	const size = (header + maxSlots) * 8
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, fmt.Errorf("memory of the guard: %w", err)
	}
	if st.Size != size {
		return nil, fmt.Errorf("memory of the guard has %d bytes, want %d", st.Size, size)
	}
	mem, err := unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map the memory of the guard: %w", err)
	}
	return &Page{mem: mem, words: unsafe.Slice((*int64)(unsafe.Pointer(&mem[0])), header+maxSlots)}, nil
}

// Close unmaps the page; nobody may use it any more.
func (p *Page) Close() error {
	if p == nil {
		return nil
	}
	return unix.Munmap(p.mem)
}

func (p *Page) load(word int) int64         { return atomic.LoadInt64(&p.words[word]) }
func (p *Page) store(word int, value int64) { atomic.StoreInt64(&p.words[word], value) }
func (p *Page) add(word int)                { atomic.AddInt64(&p.words[word], 1) }

// Hold publishes a held access. It reports whether there is room for it: a
// descriptor beyond the table is let go only when the daemon is silent
// altogether.
func (p *Page) Hold(fd int32, deadline int64) bool {
	if p == nil || fd < 0 || fd >= maxSlots {
		return false
	}
	for top := p.load(wordTop); top <= int64(fd); top = p.load(wordTop) {
		if atomic.CompareAndSwapInt64(&p.words[wordTop], top, int64(fd)+1) {
			break
		}
	}
	p.store(header+int(fd), max(1, deadline))
	return true
}

// claimTime is how long the guard may take between claiming an access and
// having answered it, before it counts as dead.
const claimTime = 100 * time.Millisecond

// Take takes a published access off the page. False means that the guard has
// answered it.
func (p *Page) Take(fd int32) bool {
	slot := &p.words[header+int(fd)]
	var waiting time.Time
	for {
		switch v := atomic.LoadInt64(slot); v {
		case 0:
			return true
		case done:
			atomic.StoreInt64(slot, 0)
			return false
		case claimed:
			if waiting.IsZero() {
				waiting = time.Now()
			} else if time.Since(waiting) > claimTime {
				atomic.StoreInt64(slot, 0)
				return true
			}
			time.Sleep(50 * time.Microsecond)
		default:
			if atomic.CompareAndSwapInt64(slot, v, 0) {
				return true
			}
		}
	}
}

// Beat is the daemon's sign of life, and says how long it may be silent from it
// on: a shorter time never counts from a sign that was given under a longer one.
func (p *Page) Beat(now int64, patience time.Duration) {
	if p != nil {
		p.store(wordBeat, now)
		p.store(wordPatience, int64(patience))
	}
}

// Patience is how long the daemon may be silent now.
func (p *Page) Patience() time.Duration { return time.Duration(p.load(wordPatience)) }

// Counts are sums since the page was made.
type Counts struct {
	// Released are the accesses that the guard has let go, Drained the events that
	// it has taken from the kernel's queue, and Lost those of them whose file it
	// could not hand over.
	Released, Drained, Lost uint64
}

// Counts says what the guard has done.
func (p *Page) Counts() Counts {
	if p == nil {
		return Counts{}
	}
	return Counts{uint64(p.load(wordReleased)), uint64(p.load(wordDrained)), uint64(p.load(wordLost))}
}

// overdue answers every published access whose deadline is not after before,
// and returns the earliest deadline of the others (0: there is none).
func (p *Page) overdue(before int64, answer func(fd int32) bool) (earliest int64) {
	top := min(p.load(wordTop), maxSlots)
	for fd := range int32(top) {
		slot := &p.words[header+int(fd)]
		v := atomic.LoadInt64(slot)
		if v <= 0 {
			continue
		}
		if v > before {
			if earliest == 0 || v < earliest {
				earliest = v
			}
			continue
		}
		if !atomic.CompareAndSwapInt64(slot, v, claimed) {
			continue // the daemon was faster
		}
		if answer(fd) {
			p.add(wordReleased)
		}
		atomic.StoreInt64(slot, done)
	}
	return earliest
}

// Now is the time on the page's clock.
func Now() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return 0 // cannot happen: every kernel has this clock
	}
	return ts.Nano()
}
