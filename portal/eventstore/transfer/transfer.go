// Package transfer copies the events of a store into another one.
//
// The hours of arrival of each table are copied one by one, each under a number of
// its own (a group) at the target. A journal beside the source says which are done
// and which one was begun: a copy that was interrupted makes what it had begun void,
// and goes on. At the end the events of both stores are counted and compared.
package transfer

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/bulwarkhq/bulwark/portal/eventstore"
	"github.com/bulwarkhq/bulwark/portal/hunting"
)

// Source is a store that gives its events.
type Source interface {
	Hours(ctx context.Context) ([]eventstore.Hour, error)
	Export(ctx context.Context, h eventstore.Hour, each func(*hunting.Block) error) error
	Ledger(ctx context.Context) (eventstore.Ledger, error)
}

// Target is a store that takes them.
type Target interface {
	ImportGroup() uint64
	Import(ctx context.Context, table string, group uint64, b *hunting.Block) error
	Abort(ctx context.Context, group uint64) error
	Imported(ctx context.Context, table string, groups []uint64) (map[uint64]int64, error)
	ImportLedger(ctx context.Context, l eventstore.Ledger) error
}

// attempts is how often an hour is copied before the copy ends with an error.
const attempts = 3

// Config is that of a copy.
type Config struct {
	Source Source
	Target Target
	// Journal is a file; Destination names the target in it.
	Journal, Destination string
	// Progress is called behind each hour; nil for nobody.
	Progress func(Progress)
}

// Progress of a copy.
type Progress struct {
	// Hours and Events are how many are done, of HoursOf and EventsOf.
	Hours, HoursOf   int
	Events, EventsOf int64
}

// Day is the comparison of the events of a table that arrived on a day.
type Day struct {
	Table          string
	Day            time.Time
	Source, Target int64
}

// Plan is what a copy has to do.
type Plan struct {
	Hours []eventstore.Hour // all, those that are done too
	done  map[hourKey]entry
}

// Open are the hours that are to be copied, and the number of their events.
func (p *Plan) Open() (hours int, events int64) {
	for _, h := range p.Hours {
		if p.done[keyOf(h)].Rows != h.Rows {
			hours, events = hours+1, events+h.Rows
		}
	}
	return hours, events
}

type hourKey struct {
	table string
	at    int64 // seconds since 1970
}

func keyOf(h eventstore.Hour) hourKey { return hourKey{h.Table, h.At.Unix()} }

// entry is a line of the journal. The first one has the Destination. Others have an
// hour and a group: it is begun, or done with so many Rows, or void.
type entry struct {
	Destination string `json:"destination,omitempty"`
	Step        string `json:"step,omitempty"` // begin, done, void
	Table       string `json:"table,omitempty"`
	Hour        int64  `json:"hour,omitempty"`
	Group       uint64 `json:"group,omitempty"`
	Rows        int64  `json:"rows,omitempty"`
}

// maxJournal bounds what is read of a journal.
const maxJournal = 1 << 30

// journal is an open one.
type journal struct {
	file *os.File
	// done are the hours that were copied; begun are groups of which that is not known.
	done  map[hourKey]entry
	begun map[uint64]entry
}

// read reads a journal; the end of what it understands is returned too: a line that
// was not written whole is behind it.
func (j *journal) read(in io.Reader, destination string) (end int64, err error) {
	j.done, j.begun = map[hourKey]entry{}, map[uint64]entry{}
	lines := bufio.NewReader(io.LimitReader(in, maxJournal))
	for n := 0; ; n++ {
		line, err := lines.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			if end+int64(len(line)) >= maxJournal { // there may be more, and what is done must not be done again
				return end, fmt.Errorf("it has more than %d bytes", maxJournal-1)
			}
			return end, nil
		}
		if err != nil {
			return end, err
		}
		var e entry
		if err := json.Unmarshal(bytes.TrimSpace(line), &e); err != nil {
			return end, fmt.Errorf("line %d: %w", n+1, err)
		}
		if n == 0 && e.Destination != destination {
			return end, fmt.Errorf("it is of a copy to %s: go on with that one, or remove the file to begin anew", e.Destination)
		}
		end += int64(len(line))
		j.take(e)
	}
}

func (j *journal) take(e entry) {
	k := hourKey{e.Table, e.Hour}
	switch e.Step {
	case "begin":
		j.begun[e.Group] = e
	case "done":
		delete(j.begun, e.Group)
		j.done[k] = e
	case "void":
		delete(j.begun, e.Group)
		if j.done[k].Group == e.Group {
			delete(j.done, k)
		}
	}
}

func openJournal(path, destination string) (*journal, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("journal of the copy: %w", err)
	}
	j := &journal{file: f}
	end, err := j.read(f, destination)
	if err == nil {
		err = f.Truncate(end)
	}
	if err == nil {
		_, err = f.Seek(end, io.SeekStart)
	}
	if err == nil && end == 0 {
		if err = j.add(entry{Destination: destination}); err == nil {
			err = syncFolder(filepath.Dir(path))
		}
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("journal of the copy %s: %w", path, err)
	}
	return j, nil
}

func syncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// add writes a line; it is on disk when it returns.
func (j *journal) add(e entry) error {
	line, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("journal of the copy: %w", err)
	}
	if _, err = j.file.Write(append(line, '\n')); err == nil {
		err = j.file.Sync()
	}
	if err != nil {
		return fmt.Errorf("journal of the copy: %w", err)
	}
	j.take(e)
	return nil
}

// Look says what a copy would do. It changes nothing.
func Look(ctx context.Context, source Source, path, destination string) (*Plan, error) {
	j := &journal{}
	f, err := os.Open(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("journal of the copy: %w", err)
	default:
		defer f.Close()
		if _, err := j.read(f, destination); err != nil {
			return nil, fmt.Errorf("journal of the copy %s: %w", path, err)
		}
	}
	hours, err := source.Hours(ctx)
	return &Plan{hours, j.done}, err
}

// Run copies what is not copied yet and compares the stores. The days are returned
// where they were compared, also beside an error that says that some differ.
func Run(ctx context.Context, cfg Config) ([]Day, error) {
	j, err := openJournal(cfg.Journal, cfg.Destination)
	if err != nil {
		return nil, err
	}
	defer j.file.Close()
	for _, e := range sorted(j.begun) {
		if err := cfg.void(ctx, j, e); err != nil {
			return nil, err
		}
	}
	hours, err := cfg.Source.Hours(ctx)
	if err != nil {
		return nil, err
	}
	var p Progress
	for _, h := range hours {
		p.HoursOf, p.EventsOf = p.HoursOf+1, p.EventsOf+h.Rows
	}
	for _, h := range hours {
		if old, ok := j.done[keyOf(h)]; !ok || old.Rows != h.Rows {
			if ok { // more came since
				if err := cfg.void(ctx, j, old); err != nil {
					return nil, err
				}
			}
			if err := cfg.hour(ctx, j, h); err != nil {
				return nil, err
			}
		}
		p.Hours, p.Events = p.Hours+1, p.Events+h.Rows
		if cfg.Progress != nil {
			cfg.Progress(p)
		}
	}
	l, err := cfg.Source.Ledger(ctx)
	if err != nil {
		return nil, err
	}
	if err := cfg.Target.ImportLedger(ctx, l); err != nil {
		return nil, err
	}
	return cfg.compare(ctx, j)
}

func sorted(begun map[uint64]entry) []entry {
	var out []entry
	for _, e := range begun {
		out = append(out, e)
	}
	slices.SortFunc(out, func(a, b entry) int { return int(a.Hour - b.Hour) })
	return out
}

// void has the target forget a group.
func (cfg *Config) void(ctx context.Context, j *journal, e entry) error {
	if err := cfg.Target.Abort(ctx, e.Group); err != nil {
		return err
	}
	e.Step, e.Rows = "void", 0
	return j.add(e)
}

// hour copies an hour.
func (cfg *Config) hour(ctx context.Context, j *journal, h eventstore.Hour) error {
	var failed []error
	for range attempts {
		e := entry{Step: "begin", Table: h.Table, Hour: h.At.Unix(), Group: cfg.Target.ImportGroup()}
		if err := j.add(e); err != nil {
			return err
		}
		err := cfg.Source.Export(ctx, h, func(b *hunting.Block) error {
			e.Rows += int64(b.Rows)
			return cfg.Target.Import(ctx, h.Table, e.Group, b)
		})
		if err == nil {
			err = cfg.whole(ctx, e, h)
		}
		if err == nil {
			e.Step = "done"
			return j.add(e)
		}
		failed = append(failed, err)
		if ctx.Err() != nil {
			break // the next run makes it void
		}
		if err := cfg.void(ctx, j, e); err != nil {
			return errors.Join(append(failed, err)...)
		}
	}
	return fmt.Errorf("copying %s, events that arrived within the hour from %s on: %w", h.Table, h.At.Format(time.RFC3339), errors.Join(failed...))
}

// whole checks that all events of an hour have come.
func (cfg *Config) whole(ctx context.Context, e entry, h eventstore.Hour) error {
	counts, err := cfg.Target.Imported(ctx, h.Table, []uint64{e.Group})
	if err != nil {
		return err
	}
	if n := counts[e.Group]; e.Rows != h.Rows || n != h.Rows {
		return fmt.Errorf("%d events were there, %d were read, %d have come", h.Rows, e.Rows, n)
	}
	return nil
}

// ErrDiffer means that the stores do not have the same events.
var ErrDiffer = errors.New("the stores do not have the same number of events")

// compare counts the events of both stores anew.
func (cfg *Config) compare(ctx context.Context, j *journal) ([]Day, error) {
	hours, err := cfg.Source.Hours(ctx)
	if err != nil {
		return nil, err
	}
	groups := map[string][]uint64{}
	for _, h := range hours {
		groups[h.Table] = append(groups[h.Table], j.done[keyOf(h)].Group)
	}
	counts := map[string]map[uint64]int64{}
	for table, list := range groups {
		if counts[table], err = cfg.Target.Imported(ctx, table, list); err != nil {
			return nil, err
		}
	}
	var out []Day
	differ := false
	for _, h := range hours {
		day := h.At.Truncate(24 * time.Hour)
		if n := len(out); n == 0 || out[n-1].Table != h.Table || !out[n-1].Day.Equal(day) {
			out = append(out, Day{Table: h.Table, Day: day})
		}
		d := &out[len(out)-1]
		n := counts[h.Table][j.done[keyOf(h)].Group]
		d.Source, d.Target = d.Source+h.Rows, d.Target+n
		differ = differ || n != h.Rows
	}
	if differ {
		return out, ErrDiffer
	}
	return out, nil
}
