package onaccess

import (
	"errors"
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// TestCountHot counts the accesses of another process, by file and by program.
func TestCountHot(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Ignore = IgnoreOff })
	busy, quiet := r.put(t, "busy", "harmless"), r.put(t, "quiet", "harmless too")
	before := r.CountHot(HotFiles)
	before.End()
	files, programs := r.CountHot(HotFiles), r.CountHot(HotExecutables)
	for range 3 {
		r.accessor.must(request{Op: "read", Path: busy})
	}
	r.accessor.must(request{Op: "read", Path: quiet})
	files.End()
	programs.End()
	r.accessor.must(request{Op: "read", Path: busy}) // after the end

	got := files.Report(0)
	want := []HotSource{{Path: busy, Auth: 3, Processes: 1}, {Path: quiet, Auth: 1, Processes: 1}}
	if diff := cmp.Diff(want, got.Sources); diff != "" || got.Total != 4 {
		t.Errorf("%d events, sources (-want +got):\n%s", got.Total, diff)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	want = []HotSource{{Path: exe, Auth: 4, Processes: 1}}
	if diff := cmp.Diff(want, programs.Report(0).Sources); diff != "" {
		t.Errorf("programs (-want +got):\n%s", diff)
	}
	if one := files.Report(1); len(one.Sources) != 1 || one.Sources[0].Path != busy {
		t.Errorf("top 1: %+v", one.Sources)
	}
	if n := before.Report(0).Total; n != 0 {
		t.Errorf("%d events counted after the end", n)
	}
}

func TestHotIsBounded(t *testing.T) {
	c := &HotCount{kind: HotFiles, files: map[fileKey]*hotEntry{}, programs: map[int32]*hotEntry{}}
	for i := range 2 * maxHot {
		c.add(-1, int32(i), fileKey{1, uint64(i)}, i%2 == 0)
	}
	if r := c.Report(0); len(c.files) != maxHot || r.Total != 2*maxHot || r.Untold != maxHot {
		t.Errorf("%d kept, %d events, %d untold", len(c.files), r.Total, r.Untold)
	}
}

func TestSuggest(t *testing.T) {
	look := func(path string) (uid, mode uint32, err error) {
		switch path {
		case "/usr/lib/postgresql/15/bin/postgres", "/usr/bin/bash", "/var/lib/dpkg/info":
			return 0, 0o755, nil
		case "/srv/app/own":
			return 1000, 0o755, nil
		case "/var/lib/postgresql/15":
			return 101, 0o700, nil
		case "/srv/all":
			return 0, 0o777, nil
		}
		return 0, 0, errors.New("not there")
	}
	s := Stats{
		Processes: []ProcessStats{
			{PID: 1, Path: "/usr/lib/postgresql/15/bin/postgres", TotalScan: 2 * time.Second, Files: 10},
			{PID: 2, Path: "/usr/lib/postgresql/15/bin/postgres", TotalScan: 2 * time.Second, Files: 10},
			{PID: 3, Path: "/usr/bin/bash", TotalScan: 3 * time.Second, Files: 5},
			{PID: 4, Path: "/srv/app/own", TotalScan: time.Second, Files: 5},
			{PID: 5, Path: "/usr/bin/true", TotalScan: time.Millisecond, Files: 500}, // not worth it
			{PID: 6, TotalScan: 2 * time.Second},                                     // nobody knows who it was
		},
		Files: []PathStats{
			{Path: "/var/lib/postgresql/15/main/base/1/2", TotalScan: 2 * time.Second, Scans: 7},
			{Path: "/var/lib/postgresql/15/main/base/1/3", TotalScan: 2 * time.Second, Scans: 3},
			{Path: "/home/alice/Downloads/x", TotalScan: time.Second, Scans: 1},
			{Path: "/srv/all/x", TotalScan: 900 * time.Millisecond, Scans: 1},
			{Path: "/var/lib/dpkg/info/x.list", TotalScan: 800 * time.Millisecond, Scans: 1},
			{Path: "/etc/passwd", TotalScan: 9 * time.Second, Scans: 1}, // a top folder
		},
	}
	want := []Suggestion{
		{Type: "folder", Value: "/var/lib/postgresql/15", Saves: 4 * time.Second, Scans: 10, Risk: RiskMedium},
		{Type: "process", Value: "/usr/lib/postgresql/15/bin/postgres", Saves: 4 * time.Second, Scans: 20, Risk: RiskMedium},
		{Type: "process", Value: "/usr/bin/bash", Saves: 3 * time.Second, Scans: 5, Risk: RiskHigh},
		{Type: "folder", Value: "/home/alice/Downloads", Saves: time.Second, Scans: 1, Risk: RiskHigh},
		{Type: "process", Value: "/srv/app/own", Saves: time.Second, Scans: 5, Risk: RiskHigh},
		{Type: "folder", Value: "/srv/all", Saves: 900 * time.Millisecond, Scans: 1, Risk: RiskHigh},
		{Type: "folder", Value: "/var/lib/dpkg/info", Saves: 800 * time.Millisecond, Scans: 1, Risk: RiskLow},
	}
	got := Suggest(s, look)
	if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(Suggestion{}, "Why", "Share")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for _, x := range got {
		if x.Why == "" || x.Share <= 0 || x.Share > 1 {
			t.Errorf("%s: share %v, why %q", x.Value, x.Share, x.Why)
		}
	}
	if got := Suggest(Stats{}, look); len(got) != 0 {
		t.Errorf("suggestions from nothing: %+v", got)
	}
}

// TestCountersAlone: who wants no list pays for none; with it every process is
// looked up in /proc.
func TestCountersAlone(t *testing.T) {
	r := newRig(t, nil)
	r.accessor.must(request{Op: "read", Path: r.put(t, "file", "harmless")})
	if s := r.Stats(NoTop); s.Scans == 0 || s.Processes != nil || s.Files != nil {
		t.Errorf("%d scans, processes %v, files %v", s.Scans, s.Processes, s.Files)
	}
	if s := r.Stats(0); len(s.Processes) == 0 || len(s.Files) == 0 {
		t.Errorf("processes %v, files %v", s.Processes, s.Files)
	}
}

// Processes are counted while statistics are on, and anew after they were off.
func TestStatisticsOff(t *testing.T) {
	r := newRig(t, nil)
	r.accessor.must(request{Op: "read", Path: r.put(t, "one", "harmless")})
	r.SetStatistics(false)
	r.accessor.must(request{Op: "read", Path: r.put(t, "two", "harmless")})
	if s := r.Stats(0); s.Scans < 2 || len(s.Processes) != 0 {
		t.Errorf("off: %d scans, processes %v", s.Scans, s.Processes)
	}
	r.SetStatistics(true)
	r.accessor.must(request{Op: "read", Path: r.put(t, "three", "harmless")})
	if s := r.Stats(0); len(s.Processes) == 0 {
		t.Errorf("on again: no processes")
	}
}
