package threat

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/engine/verdict"
	"github.com/google/go-cmp/cmp"
)

func open(t *testing.T) *History {
	t.Helper()
	h, err := Open(filepath.Join(t.TempDir(), "threats.db"), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return h
}

func hash(n int) string { return fmt.Sprintf("%064x", n) }

var start = time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)

func detection(n int) Detection {
	return Detection{
		Time: start.Add(time.Duration(n) * time.Hour), Name: "Virus:Test/Number", Type: verdict.Malware, Signature: "sig", Source: "main.ndb",
		Path: fmt.Sprintf("/tmp/file-%d", n), SHA256: hash(n), Size: 68, User: "root", Status: StatusBlocked,
		Process: Process{PID: 7, Name: "cat", Path: "/bin/cat", CommandLine: "cat x"}, Scan: Scan{Type: "real_time"},
	}
}

func TestOneRowForOneContent(t *testing.T) {
	h := open(t)
	d := detection(1)
	first, fresh, err := h.Record(d)
	if err != nil || !fresh {
		t.Fatalf("%v, %v", fresh, err)
	}
	d.Path, d.Time, d.Status, d.QuarantineID, d.User = "/tmp/\xff\nother", d.Time.Add(time.Minute), StatusQuarantined, "q1", "bob"
	second, fresh, err := h.Record(d)
	if err != nil || fresh {
		t.Fatalf("%v, %v", fresh, err)
	}
	want := first
	want.Paths = []string{"/tmp/\xff\nother", "/tmp/file-1"}
	want.Last, want.Count, want.Status, want.QuarantineIDs, want.User = d.Time, 2, StatusQuarantined, []string{"q1"}, "bob"
	want.History = []Change{{Time: start.Add(time.Hour), Status: StatusBlocked}, {Time: d.Time, Status: StatusQuarantined}}
	for name, get := range map[string]func() (Threat, error){
		"Record": func() (Threat, error) { return second, nil },
		"Get":    func() (Threat, error) { return h.Get(first.TrackingID) },
		"ByHash": func() (Threat, error) { return h.ByHash(hash(1)) },
		"List": func() (Threat, error) {
			l, err := h.List(0)
			if len(l) != 1 {
				return Threat{}, fmt.Errorf("%d rows", len(l))
			}
			return l[0], err
		},
	} {
		got, err := get()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	// The same again and again is one line of history, and bounded paths.
	for i := range 3 * MaxPaths {
		d.Path = fmt.Sprintf("/x/%d", i)
		if _, _, err := h.Record(d); err != nil {
			t.Fatal(err)
		}
	}
	got, err := h.Get(first.TrackingID)
	if err != nil || len(got.History) != 2 || len(got.Paths) != MaxPaths || got.Count != 2+3*MaxPaths || got.Paths[0] != d.Path {
		t.Errorf("%d changes, %d paths, %d times, %v", len(got.History), len(got.Paths), got.Count, err)
	}
	for i := range 2 * MaxHistory {
		if _, err := h.SetStatus(first.TrackingID, Change{Status: StatusRestored, Detail: fmt.Sprint(i)}); err != nil {
			t.Fatal(err)
		}
	}
	got, err = h.Get(first.TrackingID)
	if err != nil || len(got.History) != MaxHistory || got.History[0].Status != StatusBlocked || got.Status != StatusRestored {
		t.Errorf("%d changes, %+v, %v", len(got.History), got.History[0], err)
	}
}

func TestBadDetections(t *testing.T) {
	h := open(t)
	for name, change := range map[string]func(*Detection){
		"no hash":       func(d *Detection) { d.SHA256 = "" },
		"bad hash":      func(d *Detection) { d.SHA256 = strings.Repeat("Z", 64) },
		"no name":       func(d *Detection) { d.Name = "" },
		"relative path": func(d *Detection) { d.Path = "x" },
		"no status":     func(d *Detection) { d.Status = "" },
	} {
		d := detection(1)
		change(&d)
		if _, _, err := h.Record(d); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if n, err := h.Count(); n != 0 || err != nil {
		t.Errorf("%d rows, %v", n, err)
	}
	for _, id := range []string{"", "x", "../x"} {
		if _, err := h.Get(id); !errors.Is(err, ErrNotFound) {
			t.Errorf("%q: %v", id, err)
		}
		if _, err := h.SetStatus(id, Change{Status: StatusRemoved}); !errors.Is(err, ErrNotFound) {
			t.Errorf("%q: %v", id, err)
		}
	}
}

func TestListAndPrune(t *testing.T) {
	h := open(t)
	for n := range 10 {
		if _, _, err := h.Record(detection(n)); err != nil {
			t.Fatal(err)
		}
	}
	// A new detection of an old row makes it the newest.
	again := detection(0)
	again.Time = start.Add(100 * time.Hour)
	if _, _, err := h.Record(again); err != nil {
		t.Fatal(err)
	}
	hashes := func(limit int) (out []string) {
		l, err := h.List(limit)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range l {
			out = append(out, strings.TrimLeft(r.SHA256, "0"))
		}
		return out
	}
	if diff := cmp.Diff([]string{"", "9", "8"}, hashes(3)); diff != "" {
		t.Error(diff)
	}
	if n, err := h.Prune(start.Add(4*time.Hour), 0); n != 3 || err != nil { // 1, 2, 3
		t.Errorf("%d, %v", n, err)
	}
	if diff := cmp.Diff([]string{"", "9", "8", "7", "6", "5", "4"}, hashes(0)); diff != "" {
		t.Error(diff)
	}
	if n, err := h.Prune(time.Time{}, 2); n != 5 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	if diff := cmp.Diff([]string{"", "9"}, hashes(0)); diff != "" {
		t.Error(diff)
	}
	if _, err := h.ByHash(hash(5)); !errors.Is(err, ErrNotFound) {
		t.Errorf("pruned row still has its hash: %v", err)
	}
	if _, fresh, err := h.Record(detection(5)); !fresh || err != nil {
		t.Errorf("%v, %v", fresh, err)
	}
}

func TestAllowed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "threats.db")
	h, err := Open(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range []Allowed{
		{Kind: AllowedName, Value: "EICAR", By: "root"},
		{Kind: AllowedHash, Value: strings.ToUpper(hash(0xabc))},
		{Kind: AllowedName, Value: "Past", Until: time.Now().Add(-time.Second)},
	} {
		if err := h.Allow(a); err != nil {
			t.Fatal(err)
		}
	}
	for _, a := range []Allowed{{Kind: AllowedName}, {Kind: AllowedName, Value: "a\nb"}, {Kind: AllowedHash, Value: "12"}, {Kind: "x", Value: "y"}} {
		if err := h.Allow(a); err == nil {
			t.Errorf("%+v accepted", a)
		}
	}
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	if h, err = Open(path, nil); err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	for _, tt := range []struct {
		name, hash string
		want       bool
	}{
		{"EICAR", hash(1), true}, {"eicar", hash(1), false}, {"Other", hash(0xabc), true}, {"Past", hash(2), false}, {hash(0xabc), "EICAR", false},
	} {
		if got := h.IsAllowed(tt.name, tt.hash); got != tt.want {
			t.Errorf("%q, %s: %v", tt.name, tt.hash, got)
		}
	}
	for name, want := range map[string]string{"EICAR": "EICAR", "Other": hash(0xabc), "Past": ""} {
		sum := hash(2)
		if name == "Other" {
			sum = hash(0xabc)
		}
		if got, ok := h.Allowance(name, sum); ok != (want != "") || got.Value != want {
			t.Errorf("%s is allowed by %+v, %v", name, got, ok)
		}
	}
	if l, err := h.AllowedList(); err != nil || len(l) != 2 || l[0].Value != "EICAR" {
		t.Errorf("%+v, %v", l, err)
	}
	if err := h.Disallow(AllowedName, "EICAR"); err != nil || h.IsAllowed("EICAR", "") {
		t.Errorf("%v", err)
	}
	if err := h.Disallow(AllowedName, "EICAR"); !errors.Is(err, ErrNotAllowed) {
		t.Errorf("%v", err)
	}
}

func TestDocument(t *testing.T) {
	h := open(t)
	if b, err := json.Marshal(NewDocument(nil)); err != nil || string(b) != `{"threats":{"scans":[]}}` {
		t.Errorf("%s, %v", b, err)
	}
	for n, scan := range []Scan{{Type: "real_time"}, {ID: "s1", Type: "quick"}, {Type: "real_time"}} {
		d := detection(n)
		d.Scan = scan
		if _, _, err := h.Record(d); err != nil {
			t.Fatal(err)
		}
	}
	rows, err := h.List(0)
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(NewDocument(rows))
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Threats struct {
			Scans []struct {
				Type    string
				Threats []struct {
					Threat  map[string]any
					History []map[string]string
				}
			}
		}
	}
	if err := json.Unmarshal(b, &doc); err != nil {
		t.Fatal(err)
	}
	scans := doc.Threats.Scans
	if len(scans) != 2 || scans[0].Type != "real_time" || len(scans[0].Threats) != 2 || scans[1].Type != "quick" {
		t.Fatalf("%s", b)
	}
	first := scans[0].Threats[0]
	if first.Threat["tracking_id"] != rows[0].TrackingID || first.Threat["path"] != "/tmp/file-2" ||
		first.History[0]["key"] != "1795874400000" || first.History[0]["value"] != "blocked" {
		t.Errorf("%s", b)
	}
}

func TestParallel(t *testing.T) {
	h := open(t)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for n := range 10 {
				if _, _, err := h.Record(detection(n)); err != nil {
					t.Error(err)
				}
				if _, err := h.List(3); err != nil {
					t.Error(err)
				}
				if err := h.Allow(Allowed{Kind: AllowedName, Value: fmt.Sprint(i)}); err != nil {
					t.Error(err)
				}
				h.IsAllowed("x", "y")
			}
		})
	}
	wg.Wait()
	if n, err := h.Count(); n != 10 || err != nil {
		t.Errorf("%d rows, %v", n, err)
	}
	if l, err := h.AllowedList(); len(l) != 8 || err != nil {
		t.Errorf("%d allowed, %v", len(l), err)
	}
	for _, a := range []string{"0", "7"} {
		if !h.IsAllowed(a, "") {
			t.Errorf("%s is lost", a)
		}
	}
}

func FuzzDecode(f *testing.F) {
	good, err := encode(Threat{TrackingID: "x", SHA256: hash(1), Paths: []string{"/a\xff"}, History: []Change{{Time: start, Status: StatusBlocked}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{}`))
	f.Add([]byte(`{"tracking_id":"x","sha256":"` + hash(2) + `","raw_paths":[null,"AA=="]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		row, err := decode(b)
		if err != nil {
			return
		}
		again, err := encode(row)
		if err != nil {
			return // times outside of what JSON can say
		}
		if got, err := decode(again); err != nil || got.TrackingID != row.TrackingID {
			t.Fatalf("%v: %q", err, again)
		}
	})
}
