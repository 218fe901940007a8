package schedule

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/bulwarkhq/bulwark/atomicfile"
)

// state is what is kept on disk.
type state struct {
	Seed string             `json:"seed"`
	Jobs map[Job]*jobRecord `json:"jobs"`
}

// jobRecord is what a job did last.
type jobRecord struct {
	// Key of the plan that the rest belongs to.
	Key string `json:"key"`
	// Done names the last occurrence that is dealt with, by its date; daily and
	// weekly jobs.
	Done string `json:"done,omitempty"`
	// Since is when the interval began: the last start, or when it was set.
	Since time.Time `json:"since,omitzero"`
	// Started is the last start; zero for none.
	Started time.Time `json:"started,omitzero"`
}

// maxStateBytes bounds the file.
const maxStateBytes = 64 << 10

// readState reads the file; an absent one is an empty state.
func readState(path string) (state, error) {
	var s state
	b, err := atomicfile.Read(path, maxStateBytes)
	if errors.Is(err, os.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return s, err
	}
	return parseState(b)
}

func parseState(b []byte) (state, error) {
	var s state
	if err := json.Unmarshal(b, &s); err != nil {
		return state{}, fmt.Errorf("it is damaged: %w", err)
	}
	for j, r := range s.Jobs {
		if r == nil {
			delete(s.Jobs, j)
		}
	}
	return s, nil
}

// write replaces the file: after a power cut it is the old or the new one.
func (s state) write(path string) error {
	b, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return atomicfile.Write(path, append(b, '\n'), 0o600)
}

// record returns a job's record under the plan; one that is new or of another
// plan begins now and has nothing to make up for.
func (s *state) record(p Plan, j Job, now time.Time) (r *jobRecord, changed bool) {
	r, key := s.Jobs[j], p.key(j)
	switch {
	case key == "":
		delete(s.Jobs, j)
		return nil, r != nil
	case r == nil || r.Key != key:
		started := time.Time{}
		if r != nil {
			started = r.Started
		}
		r = &jobRecord{Key: key, Since: now.UTC(), Started: started}
		if j != Interval {
			r.Done = p.latest(j, now, s.Seed).date
		}
		s.Jobs[j] = r
		return r, true
	}
	// A clock that was ahead for a while must not keep scans back until that time
	// comes.
	if j == Interval {
		if r.Since.After(now) {
			r.Since, changed = now.UTC(), true
		}
		return r, changed
	}
	if r.Done > p.next(j, now, s.Seed).date {
		r.Done, changed = p.latest(j, now, s.Seed).date, true
	}
	return r, changed
}

// due returns when a job starts, and whether that is now or was before.
func (s *state) due(p Plan, j Job, r *jobRecord, now time.Time) (start time.Time, isDue bool) {
	if j == Interval {
		start = r.Since.Add(p.Interval)
		return start, !now.Before(start)
	}
	o := p.latest(j, now, s.Seed)
	if o.date <= r.Done {
		o = p.next(j, now, s.Seed)
	}
	return o.start, !now.Before(o.start)
}

// done notes that a job was started.
func (s *state) done(p Plan, j Job, r *jobRecord, now time.Time) {
	r.Since, r.Started = now.UTC(), now.UTC()
	if j != Interval {
		r.Done = max(r.Done, p.latest(j, now, s.Seed).date)
	}
}
