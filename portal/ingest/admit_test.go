package ingest

import (
	"context"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/klauspost/compress/zstd"

	agentv1 "github.com/bulwarkhq/bulwark/api/agent/v1"
	"github.com/bulwarkhq/bulwark/event"
)

// TestAdmit: what waits to be stored has a bound in bytes; a batch that finds no
// room waits, gives up with its caller, and leaves nothing taken.
func TestAdmit(t *testing.T) {
	s, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	m := &agentv1.DeliverRequest{
		SpoolId: "0123456789abcdef0123456789abcdef", Sequence: 1, EventCount: 1,
		EventsZstd: enc.EncodeAll(event.Encode([]event.Event{{Action: "x"}}), nil),
	}
	admit := func(ctx context.Context) (func(), error) {
		var b Batch
		var slice []event.Event
		return s.admit(ctx, m, &b, &slice)
	}
	// Others hold all but one byte.
	if !s.room.TryAcquire(maxDecoded - 1) {
		t.Fatal("the room is not empty at the start")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := admit(ctx); connect.CodeOf(err) != connect.CodeCanceled {
		t.Fatalf("without room: %v", err)
	}
	if len(s.slots) != 0 {
		t.Errorf("%d slots are still taken", len(s.slots))
	}
	waits := make(chan func(), 1)
	go func() {
		free, err := admit(t.Context())
		if err != nil {
			t.Error(err)
		}
		waits <- free
	}()
	s.room.Release(maxDecoded - 1)
	free := <-waits
	if free == nil {
		t.FailNow()
	}
	if s.room.TryAcquire(maxDecoded) {
		t.Error("a batch takes no room")
	}
	free()
	if !s.room.TryAcquire(maxDecoded) {
		t.Error("the room is not given back")
	}
	// A batch that is refused takes neither.
	s.room.Release(maxDecoded)
	m.EventCount = 2
	if _, err := admit(t.Context()); connect.CodeOf(err) != connect.CodeInvalidArgument {
		t.Errorf("a wrong count: %v", err)
	}
	if len(s.slots) != 0 || !s.room.TryAcquire(maxDecoded) {
		t.Error("a refused batch keeps its slot or room")
	}
}
