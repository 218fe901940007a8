// Package database opens the small bbolt databases that hold the agent's
// histories. They are worth keeping, but not worth standing still for: a damaged
// one is moved aside and protection goes on with an empty one.
package database

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"

	bolt "go.etcd.io/bbolt"
	boltErrors "go.etcd.io/bbolt/errors"
	"golang.org/x/sys/unix"
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
		aside, moveErr := moveAside(path)
		if moveErr != nil {
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

// open opens and checks the file. bbolt trusts what it reads, so that is checked
// before; a file that is cut short behind its mapping later is a fault.
func open(path string, buckets [][]byte) (db *bolt.DB, err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("%w: %v", errDamaged, v)
		}
	}()
	if err := checkFile(path); err != nil {
		return nil, err
	}
	db, err = bolt.Open(path, 0o600, &bolt.Options{Timeout: lockTimeout})
	for _, damage := range []error{boltErrors.ErrInvalid, boltErrors.ErrChecksum, boltErrors.ErrVersionMismatch} {
		if errors.Is(err, damage) {
			return nil, fmt.Errorf("%w: %w", errDamaged, err)
		}
	}
	if err != nil {
		return nil, err
	}
	err = db.Update(func(tx *bolt.Tx) error {
		for _, name := range buckets {
			if _, err := tx.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		return nil
	})
	if errors.Is(err, boltErrors.ErrIncompatibleValue) {
		err = fmt.Errorf("%w: %w", errDamaged, err) // something else has the name of a bucket
	}
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

// lockTimeout bounds waiting for another process that has the database open.
const lockTimeout = 5 * time.Second

// checkFile checks a file that nobody else uses. An absent or empty one is good:
// bbolt makes it.
func checkFile(path string) error {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close() // ends the lock
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if !st.Mode().IsRegular() {
		return fmt.Errorf("%s is no regular file", path)
	}
	// bbolt's own lock, so that nobody writes meanwhile.
	for deadline := time.Now().Add(lockTimeout); ; time.Sleep(50 * time.Millisecond) {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			break
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return fmt.Errorf("locking %s: %w", path, err)
		}
		if time.Now().After(deadline) {
			return ErrInUse
		}
	}
	if st.Size() == 0 {
		return nil
	}
	return check(f, st.Size())
}

// damagedInfix marks files that were moved aside; the time follows.
const damagedInfix = ".damaged-"

// keepDamaged bounds how many damaged versions of a database are kept.
const keepDamaged = 3

// Damaged lists the databases in a folder that were moved aside and are still
// there, for a person to look at and delete.
func Damaged(folder string) []string {
	found, err := filepath.Glob(filepath.Join(globEscape(folder), "*"+damagedInfix+"*"))
	if err != nil {
		return nil
	}
	return found
}

func globEscape(s string) string {
	return strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`).Replace(s)
}

// moveAside renames a damaged database and deletes the oldest of those before.
func moveAside(path string) (string, error) {
	aside := path + damagedInfix + time.Now().UTC().Format("20060102T150405.000000000")
	if err := os.Rename(path, aside); err != nil {
		return "", err
	}
	old, err := filepath.Glob(globEscape(path) + damagedInfix + "*") // sorted: the oldest first
	for len(old) > keepDamaged && err == nil {
		err = os.Remove(old[0])
		old = old[1:]
	}
	return aside, err
}
