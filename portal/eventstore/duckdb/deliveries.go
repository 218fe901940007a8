package duckdb

import (
	"fmt"

	"github.com/bulwarkhq/bulwark/event"
	"github.com/bulwarkhq/bulwark/portal/eventstore"
)

// The marks of the spools and the devices' ledgers change with each batch, and
// a large fleet sends thousands of them in a second, of a few events each:
// changing rows with keys for each took most of the CPU time of storing them
// (BenchmarkAppendFleet: 1,362 us a batch, 160 without). So a batch only adds rows to the table deliveries, which has no keys,
// the way its events are added; now and then they are folded into the tables
// spools and receipts. The marks that count are in memory.

// foldRows is how many rows of deliveries are folded at once.
const foldRows = 200_000

var (
	deliveryColumns = []string{"device_id", "spool_id", "sequence", "received", "class", "stored"}
	deliveryTypes   = []event.Type{event.String, event.String, event.Long, event.DateTime, event.String, event.Long}
)

// delivery is a row: the events of one class of a batch.
type delivery struct {
	batch  *eventstore.Batch
	class  string // empty, with nothing stored, for a batch without events
	stored uint64
}

// deliveries adds the rows of the batches, within the transaction that is open.
func (w *writer) deliveries(batches []*eventstore.Batch) error {
	var rest []delivery
	for _, b := range batches {
		n := len(rest)
		for class, stored := range b.Classes() {
			rest = append(rest, delivery{b, class, stored})
		}
		if len(rest) == n {
			rest = append(rest, delivery{batch: b})
		}
	}
	w.unfolded += len(rest)
	c := w.delivered
	err := w.appendChunks("deliveries", deliveryColumns, c, func() int {
		rows := rest[:min(len(rest), c.size)]
		rest = rest[len(rows):]
		device, spool, class := values[stringT](&c.vectors[0]), values[stringT](&c.vectors[1]), values[stringT](&c.vectors[4])
		sequence, received, stored := values[int64](&c.vectors[2]), values[int64](&c.vectors[3]), values[int64](&c.vectors[5])
		for i, r := range rows {
			device[i], spool[i], class[i] = c.text.put(valid(r.batch.DeviceID)), c.text.put(valid(r.batch.SpoolID)), c.text.put(r.class)
			sequence[i], received[i], stored[i] = int64(r.batch.Sequence), r.batch.Received.UnixMicro(), int64(r.stored)
		}
		return len(rows)
	})
	if err != nil {
		return fmt.Errorf("deliveries: %w", err)
	}
	return nil
}

// fold moves what is in deliveries to spools and receipts, in a transaction of
// its own. The caller holds s.writing, or nothing else runs yet.
func (s *Store) fold() (err error) {
	exec := s.writer.exec
	if err := exec("BEGIN"); err != nil {
		return err
	}
	for _, q := range []string{
		"INSERT OR REPLACE INTO spools SELECT device_id, spool_id, max(sequence)::UBIGINT, max(received) FROM deliveries GROUP BY device_id, spool_id",
		"INSERT INTO receipts SELECT device_id, class, sum(stored)::UBIGINT, 0 FROM deliveries WHERE class <> '' GROUP BY device_id, class" + addToReceipts,
		"DELETE FROM deliveries",
		"COMMIT",
	} {
		if err := exec(q); err != nil {
			return fmt.Errorf("folding the deliveries: %w", joinRollback(err, exec))
		}
	}
	s.writer.unfolded = 0
	return nil
}
