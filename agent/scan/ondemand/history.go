package ondemand

import (
	"bytes"
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

// keepScans bounds the history whatever policy says.
const keepScans = 15000

// keepSkipped is for how many scans the skipped files are kept.
const keepSkipped = 100

// The buckets of the database; their keys are start time and id, so the oldest
// is first.
var (
	bucketScans   = []byte("scans")   // Record
	bucketSkipped = []byte("skipped") // list of control.SkippedFile
)

// Record is a scan in the history.
type Record struct {
	control.Scan
	// SkippedFiles are the first files that were not looked at, or only in part;
	// links and exclusions are left out.
	SkippedFiles []control.SkippedFile `json:"-"`
	// Spec is set while the scan runs: what is needed to resume it.
	Spec *Spec `json:"spec,omitempty"`
	// Crashes counts the resumptions after which the daemon ended without saying
	// goodbye; Stopped is set when it did.
	Crashes int  `json:"crashes,omitempty"`
	Stopped bool `json:"stopped,omitempty"`
}

type history struct{ db *bolt.DB }

// openHistory opens the history and returns the scan that a stop of the daemon
// interrupted and that can be resumed, or nil.
func openHistory(path string, log *slog.Logger) (*history, *Record, error) {
	db, err := database.Open(path, log, bucketScans, bucketSkipped)
	if err != nil {
		return nil, nil, fmt.Errorf("scan history: %w", err)
	}
	h := &history{db: db}
	resume, err := h.interrupted()
	if err != nil {
		return nil, nil, errors.Join(err, db.Close())
	}
	return h, resume, nil
}

// maxCrashes is how often a scan may end with the daemon before it is given up:
// it might be the cause.
const maxCrashes = 3

// interrupted ends the scans that a stop left running, but for the newest one if
// that can be resumed.
func (h *history) interrupted() (resume *Record, err error) {
	err = h.db.Update(func(tx *bolt.Tx) error {
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
		for i, r := range left {
			if !r.Stopped {
				r.Crashes++
			}
			if i == len(left)-1 && r.Spec != nil && r.Spec.resumable() && r.Crashes < maxCrashes {
				resume = &r
			} else {
				r.State, r.End, r.Reason, r.Spec = control.ScanFailed, time.Now().UTC(), "the daemon stopped during the scan", nil
			}
			if err := putRecord(b, r); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("scan history: %w", err)
	}
	return resume, nil
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
		if len(r.SkippedFiles) > 0 {
			v, err := json.Marshal(r.SkippedFiles)
			if err != nil {
				return err
			}
			if err := tx.Bucket(bucketSkipped).Put(recordKey(r), v); err != nil {
				return err
			}
		}
		return errors.Join(shorten(b, keepScans), shorten(tx.Bucket(bucketSkipped), keepSkipped))
	})
	if err != nil {
		return fmt.Errorf("recording scan %s: %w", r.ID, err)
	}
	return nil
}

// shorten removes the oldest records beyond a number.
func shorten(b *bolt.Bucket, keep int) error {
	for excess := b.Stats().KeyN - keep; excess > 0; excess-- {
		k, _ := b.Cursor().First()
		if err := b.Delete(bytes.Clone(k)); err != nil {
			return err
		}
	}
	return nil
}

// prune removes the scans that began before a time, and the oldest beyond a
// number. A running one stays.
func (h *history) prune(before time.Time, keep int) (removed int, err error) {
	err = h.db.Update(func(tx *bolt.Tx) error {
		b := tx.Bucket(bucketScans)
		n := b.Stats().KeyN
		var old [][]byte
		c := b.Cursor()
		for k, v := c.First(); k != nil; k, v = c.Next() {
			var r Record
			final := json.Unmarshal(v, &r) != nil || r.State.Final()
			tooOld := len(k) < 8 || binary.BigEndian.Uint64(k) < uint64(max(0, before.UnixNano()))
			if !tooOld && n-len(old) <= keep {
				break
			}
			if final {
				old = append(old, bytes.Clone(k))
			}
		}
		for _, k := range old {
			if err := errors.Join(b.Delete(k), tx.Bucket(bucketSkipped).Delete(k)); err != nil {
				return err
			}
		}
		removed = len(old)
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("scan history: %w", err)
	}
	return removed, nil
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

// get returns a record with the files that it left out.
func (h *history) get(id string) (r Record, found bool, err error) {
	err = h.db.View(func(tx *bolt.Tx) error {
		c := tx.Bucket(bucketScans).Cursor()
		for k, v := c.Last(); k != nil; k, v = c.Prev() {
			if len(k) < 8 || string(k[8:]) != id || json.Unmarshal(v, &r) != nil {
				continue
			}
			found = true
			if v := tx.Bucket(bucketSkipped).Get(k); v != nil {
				return json.Unmarshal(v, &r.SkippedFiles)
			}
			return nil
		}
		return nil
	})
	if err != nil {
		return Record{}, false, fmt.Errorf("reading the scan history: %w", err)
	}
	return r, found, nil
}
