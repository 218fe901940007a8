package spool

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
)

// state is what must survive besides the records. It is kept in a file of two
// slots that are overwritten in turn, in place: that needs no free space, and
// a crash while writing leaves the other slot.
type state struct {
	generation uint64
	spoolID    [16]byte
	acked      uint64 // all records up to here are at the portal
	inflight   uint64 // the batch that ends here may be at the portal
	reportID   uint64 // no ReportID from here on was given
}

const (
	slotSize  = 4096
	stateSize = 4 + 4 + 8 + 16 + 8 + 8 + 8
)

var stateMagic = [4]byte{'B', 'W', 'S', 'S'}

func (s *state) id() string { return hex.EncodeToString(s.spoolID[:]) }

func (s *state) encode() []byte {
	b := make([]byte, stateSize)
	le := binary.LittleEndian
	copy(b, stateMagic[:])
	le.PutUint64(b[8:], s.generation)
	copy(b[16:], s.spoolID[:])
	le.PutUint64(b[32:], s.acked)
	le.PutUint64(b[40:], s.inflight)
	le.PutUint64(b[48:], s.reportID)
	le.PutUint32(b[4:], crc32.Checksum(b[8:], castagnoli))
	return b
}

func decodeState(b []byte) (state, bool) {
	le := binary.LittleEndian
	if len(b) < stateSize || [4]byte(b[:4]) != stateMagic || le.Uint32(b[4:]) != crc32.Checksum(b[8:stateSize], castagnoli) {
		return state{}, false
	}
	return state{
		generation: le.Uint64(b[8:]), spoolID: [16]byte(b[16:32]), acked: le.Uint64(b[32:]),
		inflight: le.Uint64(b[40:]), reportID: le.Uint64(b[48:]),
	}, true
}

// stateFile is the open file of the state.
type stateFile struct {
	f *os.File
	state
}

// openState reads the state or makes a new one. fresh is set for a new one;
// lost when there was a file that could not be read.
func openState(path string) (s *stateFile, fresh, lost bool, err error) {
	_, err = os.Stat(path)
	existed := err == nil
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, false, false, err
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, false, false, err
	}
	s = &stateFile{f: f}
	found := false
	for slot := range int64(2) {
		b := make([]byte, stateSize)
		if _, err := f.ReadAt(b, slot*slotSize); err != nil && !errors.Is(err, io.EOF) {
			continue // the other slot may do
		}
		if st, ok := decodeState(b); ok && (!found || st.generation > s.generation) {
			s.state, found = st, true
		}
	}
	if found {
		return s, false, false, nil
	}
	if _, err := rand.Read(s.spoolID[:]); err != nil {
		return nil, false, false, errors.Join(err, f.Close())
	}
	s.reportID = 1
	// Both slots get their room now, so that a full disk later does not matter.
	if err := errors.Join(f.Truncate(2*slotSize), s.save(true), s.save(true)); err != nil {
		return nil, false, false, errors.Join(fmt.Errorf("%s: %w", path, err), f.Close())
	}
	return s, true, existed, nil
}

// save writes the state; with sync it is durable when save returns.
func (s *stateFile) save(sync bool) error {
	s.generation++
	page := make([]byte, slotSize)
	copy(page, s.encode())
	if _, err := s.f.WriteAt(page, int64(s.generation%2)*slotSize); err != nil {
		return fmt.Errorf("spool state: %w", err)
	}
	if sync {
		if err := s.f.Sync(); err != nil {
			return fmt.Errorf("spool state: %w", err)
		}
	}
	return nil
}
