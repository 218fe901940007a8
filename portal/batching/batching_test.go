package batching_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/portal/batching"
)

var errBusy = errors.New("busy")

// store is a store that stands still until it is released, for each group.
type store struct {
	entered chan []int
	release chan []error
}

func newStore() *store {
	return &store{entered: make(chan []int), release: make(chan []error)}
}

func (s *store) store(group []int) []error {
	s.entered <- slices.Clone(group)
	return <-s.release
}

func (s *store) queue(t *testing.T, cfg batching.Config[int]) *batching.Queue[int] {
	t.Helper()
	cfg.Busy, cfg.Store = errBusy, s.store
	q := batching.New(cfg)
	t.Cleanup(q.Close)
	return q
}

// add adds a change in the background.
func add(ctx context.Context, q *batching.Queue[int], change int) <-chan error {
	got := make(chan error, 1)
	go func() { got <- q.Add(ctx, change) }()
	return got
}

// waiting returns when so many changes wait.
func waiting(t *testing.T, q *batching.Queue[int], n int) {
	t.Helper()
	for end := time.Now().Add(time.Minute); q.Waiting() != n; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d changes wait, want %d", q.Waiting(), n)
		}
	}
}

// What comes while a group is being stored is the next group, and each has its
// own answer.
func TestGroups(t *testing.T) {
	s := newStore()
	q := s.queue(t, batching.Config[int]{Length: 10, Group: 3})
	first := add(t.Context(), q, 1)
	if got := <-s.entered; !slices.Equal(got, []int{1}) {
		t.Fatalf("the first group is %v", got)
	}
	refused := errors.New("refused")
	var answers []<-chan error
	for i := 2; i <= 5; i++ {
		answers = append(answers, add(t.Context(), q, i))
		waiting(t, q, i-1)
	}
	s.release <- nil
	if err := <-first; err != nil {
		t.Error(err)
	}
	if got := <-s.entered; !slices.Equal(got, []int{2, 3, 4}) {
		t.Errorf("the second group is %v", got)
	}
	s.release <- []error{nil, refused, nil}
	for i, want := range []error{nil, refused, nil} {
		if err := <-answers[i]; !errors.Is(err, want) {
			t.Errorf("change %d: %v, want %v", i+2, err, want)
		}
	}
	if got := <-s.entered; !slices.Equal(got, []int{5}) {
		t.Errorf("the third group is %v", got)
	}
	s.release <- nil
	if err := <-answers[3]; err != nil {
		t.Error(err)
	}
}

// A group is full by the sizes of its changes, too.
func TestFull(t *testing.T) {
	s := newStore()
	q := s.queue(t, batching.Config[int]{Length: 10, Group: 10, Size: func(n int) int { return n }, Full: 100})
	add(t.Context(), q, 1)
	<-s.entered
	for i, n := range []int{60, 40, 1} {
		add(t.Context(), q, n)
		waiting(t, q, i+1)
	}
	s.release <- nil
	if got := <-s.entered; !slices.Equal(got, []int{60, 40}) {
		t.Errorf("the group is %v", got)
	}
	s.release <- nil
	<-s.entered
	s.release <- nil
}

// After a group the next one waits for company, however quickly it was stored.
func TestPause(t *testing.T) {
	groups := make(chan []int, 10)
	q := batching.New(batching.Config[int]{
		Length: 10, Group: 2,
		Pause: func(int, time.Duration) time.Duration { return time.Hour },
		Store: func(group []int) []error {
			groups <- slices.Clone(group)
			return nil
		},
	})
	defer q.Close()
	if err := q.Add(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	<-groups
	var both sync.WaitGroup
	for _, n := range []int{2, 3} {
		both.Go(func() {
			if err := q.Add(t.Context(), n); err != nil {
				t.Error(err)
			}
		})
	}
	if got := <-groups; len(got) != 2 {
		t.Errorf("a group that was not full did not wait: %v", got)
	}
	both.Wait()
}

// Who gives up while waiting has stored nothing; who gives up later is told how
// it went.
func TestGivenUp(t *testing.T) {
	s := newStore()
	q := s.queue(t, batching.Config[int]{Length: 10, Group: 10})
	ctx, cancel := context.WithCancel(t.Context())
	first := add(ctx, q, 1)
	<-s.entered
	second := add(ctx, q, 2)
	waiting(t, q, 1)
	cancel()
	if err := <-second; !errors.Is(err, context.Canceled) {
		t.Errorf("given up while waiting: %v", err)
	}
	third := add(t.Context(), q, 3)
	waiting(t, q, 2)
	s.release <- nil
	if err := <-first; err != nil {
		t.Errorf("given up while it was stored: %v", err)
	}
	if got := <-s.entered; !slices.Equal(got, []int{3}) {
		t.Errorf("the group is %v", got)
	}
	s.release <- nil
	if err := <-third; err != nil {
		t.Error(err)
	}
}

// A queue that is full refuses, and one that is closed lets nobody wait.
func TestRefused(t *testing.T) {
	s := newStore()
	q := s.queue(t, batching.Config[int]{Length: 1, Patience: time.Millisecond, Group: 10})
	first := add(t.Context(), q, 1)
	<-s.entered
	second := add(t.Context(), q, 2)
	waiting(t, q, 1)
	if err := q.Add(t.Context(), 3); !errors.Is(err, errBusy) {
		t.Errorf("a full queue: %v", err)
	}
	closed := make(chan struct{})
	go func() {
		q.Close()
		close(closed)
	}()
	for err := error(nil); !errors.Is(err, batching.ErrClosed); time.Sleep(time.Millisecond) {
		if err = q.Add(t.Context(), 4); err == nil {
			t.Fatal("stored after Close")
		}
	}
	s.release <- nil
	if err := <-first; err != nil {
		t.Error(err)
	}
	// It waited when the queue was closed: it is refused.
	<-closed
	if err := <-second; !errors.Is(err, batching.ErrClosed) {
		t.Errorf("what still waited: %v", err)
	}
}
