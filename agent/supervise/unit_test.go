package supervise

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestParseMessage(t *testing.T) {
	for _, tc := range []struct {
		in   string
		want message
	}{
		{"", message{}},
		{"READY=1", message{ready: true}},
		{"READY=1\nSTATUS=all well\n", message{ready: true, status: "all well"}},
		{"WATCHDOG=1\nREADY=1", message{alive: true, ready: true}},
		{"WATCHDOG=trigger", message{}},
		{"READY=0\nSTOPPING=1", message{stopping: true}},
		{"MAINPID=17\n=\nnonsense\nSTATUS=a=b", message{status: "a=b"}},
	} {
		if got := parseMessage([]byte(tc.in)); got != tc.want {
			t.Errorf("%q: got %+v, want %+v", tc.in, got, tc.want)
		}
	}
}

func FuzzParseMessage(f *testing.F) {
	f.Add([]byte("READY=1\nSTATUS=x\nWATCHDOG=1"))
	f.Add([]byte("STATUS=\xff\x00=\n\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		m := parseMessage(b)
		if strings.Contains(m.status, "\n") {
			t.Errorf("status of two lines: %q", m.status)
		}
		if m.ready && !strings.Contains(string(b), "READY=1") {
			t.Errorf("ready out of nothing: %q", b)
		}
	})
}

func TestPauses(t *testing.T) {
	p := pauses{min: time.Second, max: 5 * time.Second}
	var got []time.Duration
	for _, ran := range []time.Duration{0, 0, 0, 0, 0, time.Minute, 0} {
		got = append(got, p.after(ran)/time.Second)
	}
	want := []time.Duration{1, 2, 4, 5, 5, 1, 2}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestStartLimit(t *testing.T) {
	s := starts{limit: 2, interval: time.Minute}
	t0 := time.Unix(1000, 0)
	var got []bool
	for _, second := range []int64{0, 1, 2, 59, 60, 60, 61} {
		got = append(got, s.allow(t0.Add(time.Duration(second)*time.Second)))
	}
	want := []bool{true, true, false, false, true, false, true}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	unlimited := starts{}
	for range 100 {
		if !unlimited.allow(t0) {
			t.Fatal("no limit, and yet refused")
		}
	}
}

func TestEnvironment(t *testing.T) {
	outer := []string{"PATH=/bin", "NOTIFY_SOCKET=/outer", "WATCHDOG_PID=1", "WATCHDOG_USEC=5", "A="}
	for _, tc := range []struct {
		name string
		c    Config
		want []string
	}{
		{"watchdog", Config{Watchdog: 3 * time.Second}, []string{"PATH=/bin", "A=", "NOTIFY_SOCKET=/s", "WATCHDOG_USEC=3000000"}},
		{"no watchdog", Config{}, []string{"PATH=/bin", "A=", "NOTIFY_SOCKET=/s"}},
		{"simple", Config{Simple: true, Watchdog: time.Second}, []string{"PATH=/bin", "A="}},
	} {
		if diff := cmp.Diff(tc.want, environment(outer, tc.c, "/s")); diff != "" {
			t.Errorf("%s: %s", tc.name, diff)
		}
	}
}
