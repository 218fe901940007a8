package schedule

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	_ "time/tzdata" // the tests name time zones

	"github.com/google/go-cmp/cmp"

	"github.com/bulwarkhq/bulwark/test/need"
)

// bench is a scheduler with a clock that the test moves.
type bench struct {
	*Scheduler
	t         *testing.T
	cfg       Config
	clock     time.Time
	plan      Plan
	idle      bool
	running   bool
	startErr  error
	defs      string
	afterScan bool
	started   []string
	lookEvery time.Duration
}

func newBench(t *testing.T, plan Plan, zone, at string) *bench {
	t.Helper()
	loc, err := time.LoadLocation(zone)
	if err != nil {
		t.Fatal(err)
	}
	clock, err := time.ParseInLocation(time.DateTime, at, loc)
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{t: t, plan: plan, clock: clock, defs: "1", lookEvery: 5 * time.Minute}
	b.cfg = Config{
		State: filepath.Join(t.TempDir(), "schedule.json"),
		Plan:  func() Plan { return b.plan }, Running: func() bool { return b.running },
		Definitions: func() string { return b.defs }, AfterUpdate: func() bool { return b.afterScan },
		Start: func(_ context.Context, s Scan) error {
			if b.startErr != nil {
				return b.startErr
			}
			what := "quick"
			switch {
			case s.Processes:
				what = "processes"
			case s.Full:
				what = "full"
			}
			if s.LowPriority {
				what += " low"
			}
			b.started = append(b.started, b.clock.Format("Mon 01-02 15:04 ")+what)
			return nil
		},
		// Without sync: the tests live for years.
		write: func(path string, s state) error {
			data, err := json.Marshal(s)
			if err != nil {
				return err
			}
			return os.WriteFile(path, data, 0o600)
		},
		now: func() time.Time { return b.clock }, idle: func() bool { return b.idle },
	}
	b.restart()
	return b
}

func (b *bench) restart() {
	b.t.Helper()
	s, err := New(b.cfg)
	if err != nil {
		b.t.Fatal(err)
	}
	b.Scheduler = s
}

// pass lets time pass while the host is up.
func (b *bench) pass(d time.Duration) {
	for end := b.clock.Add(d); b.clock.Before(end); b.clock = b.clock.Add(b.lookEvery) {
		b.step(b.t.Context())
	}
}

// sleep lets time pass while it is off.
func (b *bench) sleep(d time.Duration) { b.clock = b.clock.Add(d) }

func (b *bench) expect(want ...string) {
	b.t.Helper()
	if diff := cmp.Diff(want, b.started); diff != "" {
		b.t.Error(diff)
	}
	b.started = nil
}

const day = 24 * time.Hour

func TestJobs(t *testing.T) {
	t.Run("never", func(t *testing.T) {
		b := newBench(t, Plan{}, "UTC", "2026-11-29 12:00:00")
		b.pass(20 * day)
		b.expect()
		if next, err := b.Status(); len(next) != 0 || err != nil {
			t.Errorf("%v, %v", next, err)
		}
	})
	t.Run("daily", func(t *testing.T) {
		b := newBench(t, Plan{Daily: 885}, "UTC", "2026-11-29 16:00:00") // a Sunday
		b.pass(2 * day)
		b.expect("Mon 11-30 14:45 quick", "Tue 12-01 14:45 quick")
	})
	t.Run("weekly", func(t *testing.T) {
		b := newBench(t, Plan{WeeklyDay: 3, Weekly: 60, WeeklyFull: true}, "UTC", "2026-11-29 16:00:00")
		b.pass(15 * day)
		b.expect("Tue 12-01 01:00 full", "Tue 12-08 01:00 full")
	})
	t.Run("every day", func(t *testing.T) {
		b := newBench(t, Plan{WeeklyDay: 8, Weekly: 0}, "UTC", "2026-11-29 16:00:00")
		b.pass(2 * day)
		b.expect("Mon 11-30 00:00 quick", "Tue 12-01 00:00 quick")
	})
	t.Run("end of the day", func(t *testing.T) {
		b := newBench(t, Plan{WeeklyDay: 1, Weekly: 1440}, "UTC", "2026-11-28 16:00:00")
		b.pass(7 * day)
		b.expect("Mon 11-30 00:00 quick")
	})
	t.Run("interval", func(t *testing.T) {
		b := newBench(t, Plan{Interval: 6 * time.Hour}, "UTC", "2026-11-29 16:02:00")
		b.pass(13 * time.Hour)
		b.expect("Sun 11-29 22:02 quick", "Mon 11-30 04:02 quick")
	})
	t.Run("all at a time", func(t *testing.T) {
		b := newBench(t, Plan{Interval: 12 * time.Hour, Daily: 120, WeeklyDay: 2, Weekly: 120, WeeklyFull: true}, "UTC", "2026-11-29 14:00:00")
		b.pass(13 * time.Hour)
		b.expect("Mon 11-30 02:00 full") // stands for the quick ones
	})
}

func TestMissedRunsAreMadeUpForOnce(t *testing.T) {
	b := newBench(t, Plan{Daily: 120}, "UTC", "2026-11-29 12:00:00")
	b.pass(time.Hour)
	b.sleep(5*day + 2*time.Hour)
	b.pass(time.Hour) // suspended
	b.expect("Fri 12-04 15:00 quick")
	b.sleep(day)
	b.restart() // switched off
	b.pass(2 * day)
	b.expect("Sat 12-05 16:00 quick", "Sun 12-06 02:00 quick", "Mon 12-07 02:00 quick")
	// A plan that is new, or switched on again, makes up for nothing.
	b.plan.Daily = 60
	b.pass(time.Hour)
	b.plan = Plan{}
	b.pass(day)
	b.plan.Daily = 60
	b.pass(time.Hour)
	b.expect()
}

// Each date has one daily scan, whatever clocks are put forward or back by law.
func TestDaylightSaving(t *testing.T) {
	for _, zone := range []string{"Europe/Berlin", "America/New_York", "Pacific/Apia"} {
		for _, minute := range []int{1, 120, 150, 1440} {
			b := newBench(t, Plan{Daily: minute}, zone, "2011-01-01 12:00:00") // Apia left out a day that year
			b.lookEvery = 3 * time.Hour
			b.pass(365 * day)
			perDate := map[string]int{}
			for _, s := range b.started {
				perDate[s[:9]]++
			}
			if len(b.started) < 364 || len(b.started) > 365 || len(perDate) < len(b.started)-1 {
				t.Errorf("%s at %d: %d scans on %d dates", zone, minute, len(b.started), len(perDate))
			}
		}
	}
}

func TestClockChanges(t *testing.T) {
	b := newBench(t, Plan{Daily: 120, Interval: 8 * time.Hour}, "UTC", "2026-11-29 12:00:00")
	b.pass(time.Hour)
	b.sleep(1000 * day) // the clock is wrong for a while
	b.pass(time.Hour)
	b.expect("Sat 08-25 13:00 quick")
	b.sleep(-1000 * day)
	b.pass(day)
	b.expect("Sun 11-29 22:00 quick", "Mon 11-30 02:00 quick", "Mon 11-30 06:00 quick")
	// Back by an hour, as time servers do it at worst: nothing twice.
	b.pass(13*time.Hour + 30*time.Minute)
	b.started = nil
	b.sleep(-2 * time.Hour)
	b.pass(3 * time.Hour)
	for _, s := range b.started {
		if strings.Contains(s, "12-01 02") {
			t.Errorf("twice: %s", s)
		}
	}
}

func TestRandomDelay(t *testing.T) {
	seen := map[string]bool{}
	for range 8 {
		b := newBench(t, Plan{Daily: 120, Random: 5 * time.Hour}, "UTC", "2026-11-29 12:00:00")
		b.pass(10 * day)
		if len(b.started) != 10 {
			t.Errorf("%v", b.started)
		}
		for _, s := range b.started {
			if at := s[10:15]; at < "02:00" || at > "07:05" {
				t.Errorf("at %s", at)
			}
			seen[s[10:15]] = true
		}
		// The delay of a day does not change with a restart.
		next, _ := b.Status()
		b.restart()
		b.step(t.Context())
		if again, _ := b.Status(); !again[0].Start.Equal(next[0].Start) {
			t.Errorf("%v, then %v", next, again)
		}
	}
	if len(seen) < 10 {
		t.Errorf("only %d different times: %v", len(seen), seen)
	}
	// The greatest delay does not lose a day.
	b := newBench(t, Plan{Daily: 120, Random: 23 * time.Hour}, "Europe/Berlin", "2026-03-01 12:00:00")
	b.pass(60 * day)
	if n := len(b.started); n < 59 || n > 61 {
		t.Errorf("%d scans in 60 days", n)
	}
}

func TestWaiting(t *testing.T) {
	b := newBench(t, Plan{WeeklyDay: 2, Weekly: 120, WeeklyFull: true, WhenIdle: true, Daily: 180}, "UTC", "2026-11-29 12:00:00")
	b.pass(14*time.Hour + 30*time.Minute)
	b.expect()
	if next, _ := b.Status(); next[0].Waiting != "an idle host" {
		t.Errorf("%+v", next)
	}
	b.pass(time.Hour) // quick scans do not wait for an idle host
	b.expect("Mon 11-30 03:00 quick")
	b.idle = true
	b.pass(time.Hour)
	b.expect("Mon 11-30 03:30 full")
	b.idle = false
	b.pass(7 * day)
	if b.started[len(b.started)-2] != "Sun 12-06 03:00 quick" {
		t.Errorf("%q", b.started)
	}
	b.started = nil
	b.pass(day) // it was due at 02:00 on Monday
	b.expect("Mon 12-07 22:00 full low", "Tue 12-08 03:00 quick")

	// One scan at a time.
	b.running = true
	b.pass(day)
	b.expect()
	if next, _ := b.Status(); !strings.Contains(next[1].Waiting, "another scan") {
		t.Errorf("%+v", next)
	}
	b.running = false
	b.pass(time.Hour)
	if len(b.started) != 1 || !strings.HasSuffix(b.started[0], "quick") {
		t.Errorf("%q", b.started)
	}
	b.started = nil

	// What cannot start is tried again, and health hears of it.
	b.startErr = errors.New("no definitions")
	b.pass(day)
	if _, err := b.Status(); err == nil {
		t.Error("no error")
	}
	b.startErr = nil
	b.pass(time.Hour)
	if len(b.started) != 1 {
		t.Errorf("%q", b.started)
	}
	if _, err := b.Status(); err != nil {
		t.Error(err)
	}
}

// TestStatusOfANewPlan: what comes next is told as soon as it is configured, not
// after the next look at the clock.
func TestStatusOfANewPlan(t *testing.T) {
	b := newBench(t, Plan{}, "UTC", "2026-03-02 12:00:00")
	b.step(t.Context())
	if next, err := b.Status(); len(next) != 0 || err != nil {
		t.Errorf("nothing is planned: %+v, %v", next, err)
	}
	b.plan = Plan{Daily: 13 * 60}
	next, err := b.Status()
	if err != nil || len(next) != 1 || next[0].Job != Daily || next[0].Start != b.clock.Add(time.Hour) {
		t.Errorf("%+v, %v", next, err)
	}
	b.plan = Plan{}
	if next, err := b.Status(); len(next) != 0 || err != nil {
		t.Errorf("switched off: %+v, %v", next, err)
	}
}

func TestAfterDefinitionUpdate(t *testing.T) {
	b := newBench(t, Plan{}, "UTC", "2026-11-29 12:00:00")
	b.afterScan = true
	b.defs = ""
	b.pass(time.Hour)
	b.defs = "1" // the ones of the start
	b.pass(time.Hour)
	b.expect()
	b.defs, b.running = "2", true
	b.pass(time.Hour)
	b.running = false
	b.pass(time.Hour)
	b.expect("Sun 11-29 15:00 processes")
	b.afterScan, b.defs = false, "3"
	b.pass(time.Hour)
	b.expect()
}

func TestState(t *testing.T) {
	for name, content := range map[string]string{
		"damaged": "{", "empty": "", "null": `{"jobs":{"daily":null}}`, "wrong": `{"jobs":{"daily":{"done":5}}}`,
		"future": `{"seed":"x","jobs":{"daily":{"key":"at 120","done":"9999-99-99"}}}`,
	} {
		b := newBench(t, Plan{Daily: 120}, "UTC", "2026-11-29 12:00:00")
		if err := os.WriteFile(b.cfg.State, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		b.restart()
		b.pass(day)
		if len(b.started) != 1 {
			t.Errorf("%s: %q", name, b.started)
		}
	}
	// What is written is what is read.
	path := filepath.Join(t.TempDir(), "state.json")
	want := state{Seed: "s", Jobs: map[Job]*jobRecord{Weekly: {Key: "k", Done: "2026-11-29", Since: time.Unix(5, 0).UTC()}}}
	if err := want.write(path); err != nil {
		t.Fatal(err)
	}
	if got, err := readState(path); err != nil || !cmp.Equal(want, got) {
		t.Errorf("%v, %v", got, err)
	}
	b := newBench(t, Plan{Daily: 120}, "UTC", "2026-11-29 12:00:00")
	b.cfg.State = filepath.Join(t.TempDir(), "missing", "folder", "\x00")
	b.Scheduler.cfg.State = b.cfg.State
	b.pass(day)
	if _, err := b.Status(); err == nil || len(b.started) != 1 {
		t.Errorf("%v, %q", err, b.started)
	}
}

func FuzzState(f *testing.F) {
	f.Add([]byte(`{"seed":"x","jobs":{"daily":{"key":"at 120","done":"2026-01-01","since":"2026-01-01T00:00:00Z"}}}`), int64(1_800_000_000))
	f.Fuzz(func(t *testing.T, b []byte, unix int64) {
		s, err := parseState(b)
		if err != nil || unix < 0 || unix > 1<<36 {
			return
		}
		if s.Jobs == nil {
			s.Jobs = map[Job]*jobRecord{}
		}
		now := time.Unix(unix, 0).UTC()
		plan := Plan{Interval: time.Hour, Daily: 120, WeeklyDay: 3, Weekly: 1440, Random: time.Hour}
		for _, j := range jobs {
			r, _ := s.record(plan, j, now)
			s.done(plan, j, r, now)
			if _, due := s.due(plan, j, r, now); due {
				t.Errorf("%s is due right after it was started", j)
			}
		}
	})
}

// Whatever the host does, there are never more daily scans than dates, and never
// none on a date on which it was up for the whole day.
func TestRandomLives(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	for life := range 5 {
		b := newBench(t, Plan{Daily: 1 + random.IntN(1440)}, "Europe/Berlin", "2026-02-01 12:00:00")
		whole := map[string]bool{}
		for range 60 {
			from := b.clock
			b.pass(time.Duration(random.IntN(60)) * time.Hour)
			for d := from.AddDate(0, 0, 1); d.AddDate(0, 0, 1).Before(b.clock); d = d.AddDate(0, 0, 1) {
				whole[d.Format("01-02")] = true
			}
			b.sleep(time.Duration(random.IntN(40)) * time.Hour)
			if random.IntN(2) == 0 {
				b.restart()
			}
		}
		perDate := map[string]int{}
		for _, s := range b.started {
			perDate[s[4:9]]++
		}
		dates := 0
		for d := range whole {
			if perDate[d] == 0 && b.plan.Daily < 1440 {
				t.Errorf("life %d: no scan on %s", life, d)
			}
			dates++
		}
		for d, n := range perDate {
			if n > 2 { // a missed one of the day before, and the day's own
				t.Errorf("life %d: %d scans on %s", life, n, d)
			}
		}
		if dates == 0 {
			t.Error("no whole day: the test shows nothing")
		}
	}
}

func TestIdleness(t *testing.T) {
	path := filepath.Join(t.TempDir(), "stat")
	i := &idleness{path: path}
	user, idle := 1000, 5000
	look := func(busy, free int) bool {
		user, idle = user+busy, idle+free
		if err := os.WriteFile(path, fmt.Appendf(nil, "cpu  %d 0 0 %d 0 0 0 0 0 0\ncpu0 1 1\n", user, idle), 0o600); err != nil {
			t.Fatal(err)
		}
		return i.idle()
	}
	for n, step := range []struct {
		busy, free int
		want       bool
	}{
		{0, 0, false},
		{1, 99, false},
		{20, 80, false},
		{0, 100, true},
		{5, 95, true},
		{50, 50, false},
		{1, 99, false},
		{1, 99, false},
		{1, 99, true},
	} {
		if got := look(step.busy, step.free); got != step.want {
			t.Errorf("look %d: %v", n, got)
		}
	}
	for _, content := range []string{"", "cpu\n", "cpu x y\n", "intr 5\n"} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		i.idle()
	}
}

func TestHostZone(t *testing.T) {
	t.Setenv("TZ", "")
	path := filepath.Join(t.TempDir(), "localtime")
	h := &hostZone{path: path}
	if h.get() != time.Local {
		t.Error("absent file")
	}
	if err := os.WriteFile(path, []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	if h.get() != time.Local {
		t.Error("damaged file")
	}
	for _, zone := range []string{"/usr/share/zoneinfo/Asia/Tokyo", "/usr/share/zoneinfo/Asia/Kolkata"} {
		data, err := os.ReadFile(zone)
		if err != nil {
			need.Missing(t, "no time zones: %v", err)
		}
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		want, err := time.LoadLocation(strings.TrimPrefix(zone, "/usr/share/zoneinfo/"))
		if err != nil {
			t.Fatal(err)
		}
		at := time.Unix(1_800_000_000, 0)
		if got := at.In(h.get()).Format(time.DateTime); got != at.In(want).Format(time.DateTime) {
			t.Errorf("%s: %s", zone, got)
		}
	}
}
