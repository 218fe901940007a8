package ingest

import (
	"testing"

	"github.com/klauspost/compress/zstd"
	"google.golang.org/protobuf/proto"

	agentv1 "github.com/bulwarkhq/bulwark/api/agent/v1"
	"github.com/bulwarkhq/bulwark/event"
)

// FuzzDecode: no message panics or gets past the limits.
func FuzzDecode(f *testing.F) {
	s, err := New(Config{})
	if err != nil {
		f.Fatal(err)
	}
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		f.Fatal(err)
	}
	good, err := proto.Marshal(&agentv1.DeliverRequest{
		SpoolId: "0123456789abcdef0123456789abcdef", Sequence: 1, EventCount: 1,
		EventsZstd: enc.EncodeAll(event.Encode([]event.Event{{Action: "x"}}), nil), AlertsJson: [][]byte{[]byte("{}")}, Lost: map[string]uint64{"file": 1},
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte{0x1a, 0x04, 0x28, 0xb5, 0x2f, 0xfd})
	f.Fuzz(func(t *testing.T, data []byte) {
		var m agentv1.DeliverRequest
		if proto.Unmarshal(data, &m) != nil {
			return
		}
		var b Batch
		var room []event.Event
		if _, err := s.decode(&m, &b, &room); err != nil {
			return
		}
		if len(b.Events) > event.MaxBatchEvents || len(b.Lost) > maxLost+1 || len(b.Alerts) > MaxAlerts {
			t.Fatalf("accepted %d events, %d alerts, %d counters", len(b.Events), len(b.Alerts), len(b.Lost))
		}
	})
}
