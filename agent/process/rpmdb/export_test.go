package rpmdb

import "bytes"

// The bounds of paths.
const (
	MaxPath  = maxPath
	MaxPaths = maxPaths
)

// ReadData is Read of what is in memory.
func ReadData(data, wal []byte, each func(*Package) error) error {
	db, err := open(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		return err
	}
	if db, ok := db.(*database); ok {
		db.readWAL(bytes.NewReader(wal), int64(len(wal)))
	}
	return packages(db, each)
}
