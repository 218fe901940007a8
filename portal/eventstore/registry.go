package eventstore

import "context"

// Registry is where portals that write to the same servers of events find out about
// each other what no clock says: who has died, and what has been decided about what
// that one left behind. The control database is one (package sqlstore).
type Registry interface {
	// Enter gives this process a number among the writers, which nobody has had.
	Enter(ctx context.Context) (Writer, error)
	// Dead returns which of these writers can no longer confirm that they are
	// entered. One that this registry does not know is not among them.
	Dead(ctx context.Context, writers []uint64) (map[uint64]bool, error)
	// Judge records of groups of batches whether they count, and returns what is
	// recorded: of each group what was recorded first.
	Judge(ctx context.Context, counts map[uint64]bool) (map[uint64]bool, error)
}

// Writer is a process that is entered in a Registry. Its methods are for one
// goroutine.
type Writer interface {
	// Number is never zero.
	Number() uint64
	// Confirm returns nil when the writer was still entered after the call began:
	// nobody took it for dead before.
	Confirm(ctx context.Context) error
	Close() error
}
