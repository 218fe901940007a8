package threat

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bulwarkhq/bulwark/agent/database"
	"github.com/google/uuid"
	bolt "go.etcd.io/bbolt"
)

// The buckets of the database.
var (
	bucketThreats = []byte("threats") // tracking id -> record
	bucketHashes  = []byte("hashes")  // SHA-256 -> tracking id
	bucketTimes   = []byte("times")   // latest detection, id -> nothing; oldest first
	bucketAllowed = []byte("allowed") // kind:value -> Allowed
)

// History is the database. Its methods may be called from any goroutine; those
// that change something return when the change is on disk.
type History struct {
	db *bolt.DB
	// allowing keeps allowed in the order of the database's changes.
	allowing sync.Mutex
	allowed  atomic.Pointer[map[string]time.Time] // key -> until
}

// Open opens the database and makes it if absent. A damaged one is moved aside
// (path + ".damaged-TIME") and a new one begun: protection goes on without
// history. A database that another process holds is an error.
func Open(path string, log *slog.Logger) (*History, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	db, err := database.Open(path, log, bucketThreats, bucketHashes, bucketTimes, bucketAllowed)
	if err != nil {
		return nil, fmt.Errorf("threat history: %w", err)
	}
	h := &History{db: db}
	if err := h.loadAllowed(); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return h, nil
}

// Close ends the use of the database.
func (h *History) Close() error { return h.db.Close() }

// timeKey sorts by time, then id. Times before 1970 sort as 1970.
func timeKey(t time.Time, id string) []byte {
	return append(binary.BigEndian.AppendUint64(nil, uint64(max(0, t.UnixNano()))), id...)
}

func get(tx *bolt.Tx, id string) (Threat, error) {
	b := tx.Bucket(bucketThreats).Get([]byte(id))
	if b == nil {
		return Threat{}, fmt.Errorf("%q: %w", id, ErrNotFound)
	}
	return decode(b)
}

func put(tx *bolt.Tx, t Threat) error {
	b, err := encode(t)
	if err != nil {
		return err
	}
	return errors.Join(
		tx.Bucket(bucketThreats).Put([]byte(t.TrackingID), b),
		tx.Bucket(bucketHashes).Put([]byte(t.SHA256), []byte(t.TrackingID)),
		tx.Bucket(bucketTimes).Put(timeKey(t.Last, t.TrackingID), nil),
	)
}

func remove(tx *bolt.Tx, t Threat) error {
	return errors.Join(
		tx.Bucket(bucketThreats).Delete([]byte(t.TrackingID)),
		tx.Bucket(bucketHashes).Delete([]byte(t.SHA256)),
		tx.Bucket(bucketTimes).Delete(timeKey(t.Last, t.TrackingID)),
	)
}

// Record adds a detection: to the row of the same content, or to a new one. It
// returns the row and whether it is new.
func (h *History) Record(d Detection) (t Threat, fresh bool, err error) {
	if err := d.check(); err != nil {
		return Threat{}, false, fmt.Errorf("recording a threat: %w", err)
	}
	if d.Time.IsZero() {
		d.Time = time.Now()
	}
	d.Time = d.Time.UTC().Round(0)
	err = h.db.Update(func(tx *bolt.Tx) error {
		fresh = false
		id := tx.Bucket(bucketHashes).Get([]byte(d.SHA256))
		if id == nil {
			fresh = true
			t = Threat{TrackingID: uuid.NewString()}
		} else {
			var err error
			if t, err = get(tx, string(id)); err != nil {
				return err
			}
			if err := tx.Bucket(bucketTimes).Delete(timeKey(t.Last, t.TrackingID)); err != nil {
				return err
			}
		}
		t.merge(d)
		return put(tx, t)
	})
	if err != nil {
		return Threat{}, false, fmt.Errorf("recording the threat %q in %q: %w", d.Name, d.Path, err)
	}
	return t, fresh, nil
}

// Update changes a row: change gets the present row and the result is stored.
// The identity (tracking id, hash, times of detection) stays.
func (h *History) Update(id string, change func(*Threat)) (t Threat, err error) {
	err = h.db.Update(func(tx *bolt.Tx) error {
		old, err := get(tx, id)
		if err != nil {
			return err
		}
		t = old
		change(&t)
		t.TrackingID, t.SHA256, t.First, t.Last = old.TrackingID, old.SHA256, old.First, old.Last
		return put(tx, t)
	})
	if err != nil {
		return Threat{}, fmt.Errorf("changing a threat: %w", err)
	}
	return t, nil
}

// SetStatus appends to a row's history.
func (h *History) SetStatus(id string, c Change) (Threat, error) {
	if c.Time.IsZero() {
		c.Time = time.Now()
	}
	c.Time = c.Time.UTC().Round(0)
	return h.Update(id, func(t *Threat) { t.change(c) })
}

// Get returns the row of a tracking id.
func (h *History) Get(id string) (t Threat, err error) {
	err = h.db.View(func(tx *bolt.Tx) error {
		t, err = get(tx, id)
		return err
	})
	return t, err
}

// ByHash returns the row of a content.
func (h *History) ByHash(sha256 string) (t Threat, err error) {
	err = h.db.View(func(tx *bolt.Tx) error {
		id := tx.Bucket(bucketHashes).Get([]byte(sha256))
		if id == nil {
			return fmt.Errorf("%q: %w", sha256, ErrNotFound)
		}
		t, err = get(tx, string(id))
		return err
	})
	return t, err
}

// List returns rows by their latest detection, newest first. limit 0 is all.
// Rows that cannot be read are left out and named in the error, which comes
// with the others.
func (h *History) List(limit int) ([]Threat, error) {
	var out []Threat
	var errs []error
	err := h.db.View(func(tx *bolt.Tx) error {
		c := tx.Bucket(bucketTimes).Cursor()
		for k, _ := c.Last(); k != nil && (limit <= 0 || len(out) < limit); k, _ = c.Prev() {
			t, err := get(tx, string(k[8:]))
			if err != nil {
				errs = append(errs, err)
				continue
			}
			out = append(out, t)
		}
		return nil
	})
	return out, errors.Join(append(errs, err)...)
}

// Count returns the number of rows.
func (h *History) Count() (n int, err error) {
	err = h.db.View(func(tx *bolt.Tx) error {
		n = tx.Bucket(bucketThreats).Stats().KeyN
		return nil
	})
	return n, err
}

// Prune removes the rows whose latest detection is before cutoff, and the
// oldest ones beyond most (0 is no bound). It returns how many.
func (h *History) Prune(cutoff time.Time, most int) (n int, err error) {
	err = h.db.Update(func(tx *bolt.Tx) error {
		n = 0
		excess := 0
		if most > 0 {
			excess = tx.Bucket(bucketTimes).Stats().KeyN - most
		}
		before := timeKey(cutoff, "")
		var doomed [][]byte // a cursor must not see deletions
		c := tx.Bucket(bucketTimes).Cursor()
		for k, _ := c.First(); k != nil; k, _ = c.Next() {
			if len(doomed) >= excess && string(k) >= string(before) {
				break
			}
			doomed = append(doomed, append([]byte(nil), k...))
		}
		for _, k := range doomed {
			t, err := get(tx, string(k[8:]))
			if err == nil {
				err = remove(tx, t)
			} else {
				err = errors.Join(tx.Bucket(bucketTimes).Delete(k), tx.Bucket(bucketThreats).Delete(k[8:]))
			}
			if err != nil {
				return err
			}
			n++
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("pruning the threat history: %w", err)
	}
	return n, nil
}
