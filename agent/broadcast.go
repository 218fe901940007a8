package agent

import (
	"context"
	"sync"
)

// broadcast gives every value to all who listen at that moment. A listener that
// is too slow loses values; the sender never waits.
type broadcast[T any] struct {
	mu        sync.Mutex
	listeners map[chan T]struct{}
}

// listen returns a channel that holds up to size waiting values, and a function
// that ends listening.
func (b *broadcast[T]) listen(size int) (<-chan T, func()) {
	ch := make(chan T, size)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.listeners == nil {
		b.listeners = map[chan T]struct{}{}
	}
	b.listeners[ch] = struct{}{}
	return ch, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.listeners, ch)
	}
}

func (b *broadcast[T]) send(v T) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for ch := range b.listeners {
		select {
		case ch <- v:
		default:
		}
	}
}

// follow calls send for every value until ctx ends or send fails.
func (b *broadcast[T]) follow(ctx context.Context, send func(T) error) error {
	ch, end := b.listen(256)
	defer end()
	for {
		select {
		case <-ctx.Done():
			return nil
		case v := <-ch:
			if err := send(v); err != nil {
				return err
			}
		}
	}
}
