package sensor

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/bulwarkhq/bulwark/agent/process"
	"github.com/bulwarkhq/bulwark/event"
)

// item is an event on its way.
type item struct {
	ev    event.Event
	image process.Image
	size  int64
	at    time.Time
}

// inbox holds events between the sensors and the one who works on them. He takes
// all that is there at once: sensors deliver many in a row, and to wake somebody
// costs more than what is done for an event.
type inbox struct {
	most int           // items, of those that were taken too
	wake chan struct{} // of one

	mu    sync.Mutex
	items []*item
	spare []*item // empty; room for the next ones

	count atomic.Int64 // not done
	bytes atomic.Int64 // of those
	free  sync.Pool    // of *item
}

func newInbox(most int) *inbox { return &inbox{most: most, wake: make(chan struct{}, 1)} }

// put reports whether there was room.
func (b *inbox) put(ev *event.Event, image process.Image) bool {
	size := int64(1500 + len(ev.Process.CommandLine) + len(ev.Initiating.CommandLine))
	count, bytes := b.count.Add(1), b.bytes.Add(size)
	if count > int64(b.most) || bytes > maxQueuedBytes {
		b.count.Add(-1)
		b.bytes.Add(-size)
		return false
	}
	it, ok := b.free.Get().(*item)
	if !ok {
		it = new(item)
	}
	it.ev, it.image, it.size, it.at = *ev, image, size, time.Now()
	b.mu.Lock()
	b.items = append(b.items, it)
	b.mu.Unlock()
	select {
	case b.wake <- struct{}{}:
	default:
	}
	return true
}

// maxSpare bounds the room that is kept after a burst, in items.
const maxSpare = 1024

// take hands everything that waits to each.
func (b *inbox) take(each func(*item)) {
	b.mu.Lock()
	taken := b.items
	b.items, b.spare = b.spare, nil
	b.mu.Unlock()
	for i, it := range taken {
		taken[i] = nil
		each(it)
	}
	if cap(taken) > maxSpare {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.spare = taken[:0]
}

// done makes the room of an item free.
func (b *inbox) done(size int64) {
	b.count.Add(-1)
	b.bytes.Add(-size)
}

// reuse takes an item back that nobody has any more.
func (b *inbox) reuse(it *item) {
	*it = item{}
	b.free.Put(it)
}

// crowded reports whether so much waits that nothing may take long.
func (b *inbox) crowded() bool {
	return b.count.Load() > int64(b.most)/4 || b.bytes.Load() > maxQueuedBytes/4
}
