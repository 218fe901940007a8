// Package database opens the small bbolt databases that hold the agent's
// histories. They are worth keeping, but not worth standing still for: a damaged
// one is moved aside and protection goes on with an empty one.
package database

import (
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	bolt "go.etcd.io/bbolt"
	boltErrors "go.etcd.io/bbolt/errors"
)

// ErrInUse means that another process has the database open.
var ErrInUse = boltErrors.ErrTimeout

var errDamaged = errors.New("the database is damaged")

// Open opens the database and makes it, its folder and its buckets if absent. A
// damaged one is moved aside (path + ".damaged-TIME") and a new one begun. Any
// other error (ErrInUse, a full disk) leaves it where it is.
func Open(path string, log *slog.Logger, buckets ...[]byte) (*bolt.DB, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("making the folder of %s: %w", path, err)
	}
	db, err := open(path, buckets)
	if errors.Is(err, errDamaged) {
		aside := path + ".damaged-" + time.Now().UTC().Format("20060102T150405")
		if moveErr := os.Rename(path, aside); moveErr != nil {
			return nil, fmt.Errorf("%s cannot be used: %w", path, errors.Join(err, moveErr))
		}
		log.Error("a database is damaged; it was moved aside and a new one begun", "path", path, "moved_to", aside, "error", err)
		db, err = open(path, buckets)
	}
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", path, err)
	}
	return db, nil
}

// open opens and checks the file. bbolt panics over some damage, and reading a
// file that was cut short behind its mapping is a fault.
func open(path string, buckets [][]byte) (db *bolt.DB, err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("%w: %v", errDamaged, v)
		}
	}()
	db, err = bolt.Open(path, 0o600, &bolt.Options{Timeout: 5 * time.Second})
	for _, damage := range []error{boltErrors.ErrInvalid, boltErrors.ErrChecksum, boltErrors.ErrVersionMismatch} {
		if errors.Is(err, damage) {
			return nil, fmt.Errorf("%w: %w", errDamaged, err)
		}
	}
	if err != nil {
		return nil, err
	}
	err = db.View(func(tx *bolt.Tx) error {
		st, err := os.Stat(path)
		if err != nil {
			return err
		}
		if st.Size() < tx.Size() {
			return fmt.Errorf("%w: it has %d bytes, its header says %d", errDamaged, st.Size(), tx.Size())
		}
		// Check has a goroutine of its own, where a fault would end the program, so
		// every page is visited here before.
		// A page that leads back to itself would never end; each key takes at least
		// 16 bytes of a file without such loops.
		left := st.Size() / 16
		if err := tx.ForEach(func(_ []byte, b *bolt.Bucket) error { return visit(b, &left) }); err != nil {
			return fmt.Errorf("%w: %w", errDamaged, err)
		}
		var first error
		for err := range tx.Check() {
			if first == nil {
				first = fmt.Errorf("%w: %w", errDamaged, err)
			}
		}
		return first
	})
	if err == nil {
		err = db.Update(func(tx *bolt.Tx) error {
			for _, name := range buckets {
				if _, err := tx.CreateBucketIfNotExists(name); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

// visit reads every key and value below a bucket, at most *left of them.
func visit(b *bolt.Bucket, left *int64) error {
	return b.ForEach(func(k, v []byte) error {
		if *left--; *left < 0 {
			return errors.New("its pages lead in circles")
		}
		if v == nil {
			if inner := b.Bucket(k); inner != nil {
				return visit(inner, left)
			}
		}
		crc32.ChecksumIEEE(k)
		crc32.ChecksumIEEE(v)
		return nil
	})
}
