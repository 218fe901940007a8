package ondemand

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/bulwarkhq/bulwark/agent/database"
	"github.com/bulwarkhq/bulwark/api/control"
	bolt "go.etcd.io/bbolt"
)

// keepScans bounds the history.
const keepScans = 1000

var bucketScans = []byte("scans") // start time, id -> Record; oldest first

// Record is a scan in the history.
type Record struct {
	control.Scan
	// SkippedBy counts what was not looked at by reason; SkippedFiles are the
	// first of them, links and exclusions left out.
	SkippedBy    map[string]int64 `json:"skipped_by,omitempty"`
	SkippedFiles []Skipped        `json:"skipped_files,omitempty"`
}

// Skipped is a file that was not looked at, or only in part.
type Skipped struct {
	Path   control.Path `json:"path"`
	Reason string       `json:"reason"`
}

type history struct{ db *bolt.DB }

func openHistory(path string, log *slog.Logger) (*history, error) {
	db, err := database.Open(path, log, bucketScans)
	if err != nil {
		return nil, fmt.Errorf("scan history: %w", err)
	}
	h := &history{db: db}
	if err := h.interrupted(); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return h, nil
}

// interrupted marks the scans that a crash left running.
func (h *history) interrupted() error {
	err := h.db.Update(func(tx *bolt.Tx) error {
		b := tx.Bucket(bucketScans)
		var left []Record
		err := b.ForEach(func(_, v []byte) error {
			var r Record
			if json.Unmarshal(v, &r) == nil && !r.State.Final() {
				left = append(left, r)
			}
			return nil
		})
		if err != nil {
			return err
		}
		for _, r := range left {
			r.State, r.End, r.Reason = control.ScanFailed, time.Now().UTC(), "the daemon stopped during the scan"
			if err := putRecord(b, r); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("scan history: %w", err)
	}
	return nil
}

func putRecord(b *bolt.Bucket, r Record) error {
	v, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return b.Put(recordKey(r), v)
}

func recordKey(r Record) []byte {
	return append(binary.BigEndian.AppendUint64(nil, uint64(max(0, r.Start.UnixNano()))), r.ID...)
}

func (h *history) put(r Record) error {
	err := h.db.Update(func(tx *bolt.Tx) error {
		b := tx.Bucket(bucketScans)
		if err := putRecord(b, r); err != nil {
			return err
		}
		excess := b.Stats().KeyN - keepScans
		for c := b.Cursor(); excess > 0; excess-- {
			k, _ := c.First()
			if k == nil {
				break
			}
			if err := b.Delete(append([]byte(nil), k...)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("recording scan %s: %w", r.ID, err)
	}
	return nil
}

// list returns records newest first; limit 0 is all.
func (h *history) list(limit int) ([]Record, error) {
	var out []Record
	err := h.db.View(func(tx *bolt.Tx) error {
		c := tx.Bucket(bucketScans).Cursor()
		for k, v := c.Last(); k != nil && (limit <= 0 || len(out) < limit); k, v = c.Prev() {
			var r Record
			if err := json.Unmarshal(v, &r); err != nil {
				continue // of a later version; the others are still of use
			}
			out = append(out, r)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading the scan history: %w", err)
	}
	return out, nil
}
