package spool

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/bulwarkhq/bulwark/event"
)

// rank orders what is given up first when there is no room.
type rank int

const (
	low   rank = iota // file, network, image load events
	mid               // process, logon and device events, behaviours
	alert             // alerts
	ranks
)

func (r rank) String() string { return [ranks]string{"low", "mid", "alert"}[r] }

// rankOf returns the rank of an event class.
func rankOf(c event.Class) rank {
	switch c {
	case event.ClassProcess, event.ClassLogon, event.ClassDevice, event.ClassBehavior:
		return mid
	}
	return low
}

// segment is one file of records.
type segment struct {
	path  string
	first uint64 // sequence in its name: of its first record
	last  uint64 // sequence of its last record, once it is read
	size  int64
	// damaged is set when reading met bytes that are no record: the file is set
	// aside instead of deleted when it is done.
	damaged bool
}

// track is the segments of one rank with the place where reading goes on.
type track struct {
	rank     rank
	segments []*segment // by first sequence
	done     []*segment // read to the end, not yet acknowledged
	out      *os.File   // the last segment, open for appending; nil between
	in       *os.File   // segments[0], open for reading; nil between
	offset   int64      // of the next record to read in segments[0]
	peeked   *record    // the record before offset, read but not taken
	readSeq  uint64     // sequence of the last record read
	synced   int64      // bytes of out's segment that are durable
	unsynced []*record  // what stands behind them
}

func segmentName(first uint64, r rank) string { return fmt.Sprintf("%016x.%s.seg", first, r) }

// parseSegment reads a file name; ok is false for other files.
func parseSegment(name string) (first uint64, r rank, ok bool) {
	parts := strings.Split(name, ".")
	if len(parts) != 3 || parts[2] != "seg" || len(parts[0]) != 16 {
		return 0, 0, false
	}
	first, err := strconv.ParseUint(parts[0], 16, 64)
	if err != nil {
		return 0, 0, false
	}
	for r = range ranks {
		if parts[1] == r.String() {
			return first, r, true
		}
	}
	return 0, 0, false
}

// list fills the tracks from the files of dir.
func listSegments(dir string) (tracks [ranks]*track, setAside []string, err error) {
	for r := range ranks {
		tracks[r] = &track{rank: r}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return tracks, nil, err
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if strings.HasSuffix(e.Name(), corruptSuffix) {
			setAside = append(setAside, path)
			continue
		}
		first, r, ok := parseSegment(e.Name())
		if !ok || !e.Type().IsRegular() {
			continue
		}
		info, err := e.Info()
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			return tracks, nil, err
		}
		tracks[r].segments = append(tracks[r].segments, &segment{path: path, first: first, size: info.Size()})
	}
	for _, t := range tracks {
		slices.SortFunc(t.segments, func(a, b *segment) int {
			if a.first < b.first {
				return -1
			}
			return 1
		})
	}
	return tracks, setAside, nil
}

// tailReport is what checking the end of a track found.
type tailReport struct {
	lastSeq  uint64
	reportID uint64
	torn     int64 // bytes cut off, 0 for none
	at       int64 // where
	lost     counts
	unknown  bool // what was lost cannot be counted
}

// checkTail reads the last segment of the track, cuts off a torn record at its
// end, and tells the highest numbers.
func (t *track) checkTail() (tailReport, error) {
	var rep tailReport
	if len(t.segments) == 0 {
		return rep, nil
	}
	s := t.segments[len(t.segments)-1]
	rep.lastSeq = s.first
	f, err := os.OpenFile(s.path, os.O_RDWR, 0)
	if err != nil {
		return rep, err
	}
	defer f.Close() // nothing was written that Truncate and Sync did not report
	for offset := int64(0); ; {
		r, err := readRecord(f, offset)
		switch {
		case err == nil:
			rep.lastSeq, rep.reportID = max(rep.lastSeq, r.seq), max(rep.reportID, r.reportID)
			offset += r.size()
			continue
		case errors.Is(err, io.EOF):
			return rep, nil
		case errors.Is(err, errTorn) || r != nil && offset+headerSize+int64(r.length) >= s.size:
			// The end of the file: the writer was killed, or the power went.
			rep.at, rep.torn = offset, s.size-offset
			if r != nil {
				rep.lost = r.counts
			} else {
				rep.unknown = true
			}
			s.size = offset
			return rep, errors.Join(f.Truncate(offset), f.Sync())
		}
		// Damage in the middle: reading deals with it later; here only the
		// numbers after it matter.
		next, found := resync(f, offset+1)
		if !found {
			return rep, nil
		}
		offset = next
	}
}

// resync finds the next good record at or after an offset.
func resync(f *os.File, from int64) (int64, bool) {
	const window = 64 << 10
	buf := make([]byte, window)
	// Bytes that look like many records must not keep us busy.
	for tries := 0; ; {
		n, err := f.ReadAt(buf, from)
		if n < headerSize || err != nil && !errors.Is(err, io.EOF) {
			return 0, false
		}
		for i := 0; i+len(magic) <= n; i++ {
			if [4]byte(buf[i:i+4]) != magic {
				continue
			}
			if tries++; tries > 1000 {
				return 0, false
			}
			if _, err := readRecord(f, from+int64(i)); err == nil {
				return from + int64(i), true
			}
		}
		from += int64(n) - int64(len(magic)) + 1
	}
}

// damage is something that reading a track met.
type damage struct {
	path   string
	offset int64
	err    error
	lost   counts
}

// peek returns the next record after the sequence floor without taking it; nil
// when there is none. Segments that are done stay until release. Damage is
// passed to report.
func (t *track) peek(floor uint64, report func(damage)) *record {
	for t.peeked == nil || t.peeked.seq <= floor {
		t.peeked = nil
		s, f := t.reading(report)
		if f == nil {
			return nil
		}
		r, err := readRecord(f, t.offset)
		switch {
		case err == nil && r.seq > t.readSeq:
			t.offset += r.size()
			t.readSeq = r.seq
			t.peeked = r
			continue
		case errors.Is(err, io.EOF):
			if len(t.segments) == 1 && t.out != nil {
				return nil // the end of what is written
			}
			t.finish()
			continue
		case err == nil:
			err = fmt.Errorf("%w: sequence %d after %d", errDamaged, r.seq, t.readSeq)
		}
		d := damage{path: s.path, offset: t.offset, err: err}
		if r != nil {
			d.lost = r.counts
		}
		s.damaged = true
		next, found := resync(f, t.offset+1)
		if !found {
			next = 1 << 62 // behind every end
		}
		t.offset = next
		report(d)
	}
	return t.peeked
}

// take removes the peeked record.
func (t *track) take() { t.peeked = nil }

// reading returns the segment that is being read, opening it when needed.
func (t *track) reading(report func(damage)) (*segment, *os.File) {
	for len(t.segments) > 0 {
		s := t.segments[0]
		if t.in != nil {
			return s, t.in
		}
		f, err := os.Open(s.path)
		if err == nil {
			t.in, t.offset = f, 0
			return s, f
		}
		// Deleted from outside, or unreadable: go on with the next.
		if len(t.segments) == 1 && t.out != nil {
			return s, nil
		}
		report(damage{path: s.path, err: err})
		t.segments = t.segments[1:]
	}
	return nil, nil
}

// finish ends reading of segments[0], which must not be the one that is
// written. It stays on disk until release.
func (t *track) finish() {
	s := t.segments[0]
	s.last = t.readSeq
	t.segments = t.segments[1:]
	t.done = append(t.done, s)
	t.closeIn()
}

// releasable reports whether release would remove something.
func (t *track) releasable(acked uint64) bool {
	return slices.ContainsFunc(t.done, func(s *segment) bool { return s.last <= acked })
}

// release removes the segments whose records are all acknowledged; damaged
// ones are set aside. It returns the names of the latter.
func (t *track) release(acked uint64) (aside []string) {
	t.done = slices.DeleteFunc(t.done, func(s *segment) bool {
		if s.last > acked {
			return false
		}
		if s.damaged {
			if err := os.Rename(s.path, s.path+corruptSuffix); err == nil {
				aside = append(aside, s.path+corruptSuffix)
				return true
			}
		}
		os.Remove(s.path) // what remains is found and skipped at the next start
		return true
	})
	return aside
}

// bytes is the size of the track on disk.
func (t *track) bytes() (n int64) {
	for _, s := range t.segments {
		n += s.size
	}
	for _, s := range t.done {
		n += s.size
	}
	return n
}

// evict deletes the oldest segment that is not being written and returns what
// was in it above the sequence floor, and the loss counters that it would have
// told. ok is false when there is none.
func (t *track) evict(floor uint64) (lost counts, told map[string]uint64, ok bool) {
	n := len(t.segments)
	if t.out != nil {
		n--
	}
	if n <= 0 {
		return lost, nil, false
	}
	s := t.segments[0]
	told = map[string]uint64{}
	count := func(r *record) {
		for i, c := range r.counts {
			lost[i] += c
		}
		for class, n := range r.told() {
			told[class] += n
		}
	}
	offset := int64(0)
	if t.in != nil {
		offset = t.offset
		if t.peeked != nil {
			count(t.peeked)
		}
	}
	if f, err := os.Open(s.path); err == nil {
		for {
			r, err := readRecord(f, offset)
			if err != nil {
				break // the end, or damage: what that hides cannot be counted
			}
			if r.seq > floor {
				count(r)
			}
			offset += r.size()
		}
		f.Close()
	}
	t.closeIn()
	t.segments = t.segments[1:]
	os.Remove(s.path) // a file that cannot be removed is found again at the next start
	return lost, told, true
}

func (t *track) closeIn() {
	if t.in != nil {
		t.in.Close()
		t.in = nil
	}
	t.offset, t.peeked = 0, nil
}
