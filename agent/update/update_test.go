package update_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/agent/network"
	"github.com/bulwarkhq/bulwark/agent/update"
	"github.com/bulwarkhq/bulwark/api/onboarding"
	"github.com/bulwarkhq/bulwark/engine/clamdb/mirror"
	"github.com/bulwarkhq/bulwark/test/clamtest"
	"github.com/bulwarkhq/bulwark/test/testrelease"
)

var errBad = errors.New("a bad signature")

// bench is a publisher and a host that takes what it publishes from a mirror.
type bench struct {
	*testrelease.Repository
	t   *testing.T
	now time.Time

	dir      string // of the updater
	settings update.Settings
	portal   func() (*onboarding.Package, *http.Client, error)
	loaded   []string // folders in force
	loads    atomic.Int32
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{t: t, dir: t.TempDir(), now: time.Date(2026, 11, 1, 8, 0, 0, 0, time.UTC)}
	b.Repository = testrelease.New(t, func() time.Time { return b.now })
	b.portal = func() (*onboarding.Package, *http.Client, error) { return nil, nil, errors.New("there is no portal") }
	b.settings = update.Settings{Mirror: b.Repository.Repository()}
	if err := os.WriteFile(filepath.Join(b.dir, "root.json"), b.Root(), 0o644); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *bench) publish(text string) {
	b.t.Helper()
	b.Publish("a.yar", fmt.Sprintf("rule a { strings: $a = %q condition: $a }\n", text))
}

// open makes the updater anew, as a start of the daemon does.
func (b *bench) open() *update.Updater {
	b.t.Helper()
	u, err := update.New(update.Options{
		Dir: filepath.Join(b.dir, "updates"), Settings: func() update.Settings { return b.settings },
		Portal: func() (*onboarding.Package, *http.Client, error) { return b.portal() },
		Proxy:  func() (*network.Proxy, error) { return network.NewProxy("") },
		Load: func(_ context.Context, folders []string) error {
			b.loads.Add(1)
			for _, f := range folders {
				if strings.Contains(read(f), "BAD") {
					return fmt.Errorf("loading: %w", errBad)
				}
			}
			b.loaded = slices.Clone(folders)
			return nil
		},
		Refused:  func(err error) bool { return errors.Is(err, errBad) },
		RootFile: filepath.Join(b.dir, "root.json"), KeysFile: filepath.Join(b.dir, "keys"),
		Version: "test", Now: func() time.Time { return b.now }, FirstPause: time.Millisecond,
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return u
}

func read(dir string) string {
	var out []string
	filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			data, _ := os.ReadFile(path)
			out = append(out, string(data))
		}
		return nil
	})
	return strings.Join(out, "")
}

// inForce is the text of the sets in force.
func (b *bench) inForce() string {
	text := ""
	for _, f := range b.loaded {
		text += read(f)
	}
	return text
}

func (b *bench) sets() int {
	entries, err := os.ReadDir(filepath.Join(b.dir, "updates", "sets"))
	if err != nil {
		b.t.Fatal(err)
	}
	return len(entries)
}

func TestUpdate(t *testing.T) {
	b := newBench(t)
	b.publish("first")
	u := b.open()
	var steps []string
	out, err := u.Update(t.Context(), true, func(p update.Progress) { steps = append(steps, p.Text) })
	if err != nil || !out.Changed || !strings.Contains(b.inForce(), "first") {
		t.Fatalf("%+v %v", out, err)
	}
	if text := strings.Join(slices.Compact(steps), ", "); text != "Asking "+b.Repository.Repository()+", Fetching release 2026.1101.1, Trying release 2026.1101.1" {
		t.Errorf("steps: %s", text)
	}
	if out, err := u.Update(t.Context(), true, nil); err != nil || out.Changed || b.loads.Load() != 1 {
		t.Errorf("%+v %v, %d loads", out, err, b.loads.Load())
	}
	for i := range 4 {
		b.now = b.now.Add(24 * time.Hour)
		b.publish(fmt.Sprint("text ", i))
		u = b.open()
		if out, err := u.Update(t.Context(), false, nil); err != nil || !out.Changed {
			t.Errorf("%+v %v", out, err)
		}
	}
	if b.sets() != 2 {
		t.Errorf("%d sets are kept, want this one and the one before", b.sets())
	}
	if s := u.Status(); s.Release.Version != "2026.1105.5" || s.Previous.Version != "2026.1104.4" || s.Failure != "" || !s.Newest().Equal(b.now) || s.Source != b.Repository.Repository() {
		t.Errorf("%+v", s)
	}
}

// TestBadRelease: a set that does not load leaves the one before in force, also
// over a restart, and is not tried again by itself.
func TestBadRelease(t *testing.T) {
	b := newBench(t)
	b.publish("first")
	u := b.open()
	if _, err := u.Update(t.Context(), false, nil); err != nil {
		t.Fatal(err)
	}
	b.publish("BAD")
	if _, err := u.Update(t.Context(), false, nil); !errors.Is(err, errBad) {
		t.Fatalf("%v", err)
	}
	check := func(u *update.Updater) {
		t.Helper()
		s := u.Status()
		if !strings.Contains(b.inForce(), "first") || s.Release.Version != "2026.1101.1" || len(s.Held) != 1 || s.Failure == "" || b.sets() != 1 {
			t.Errorf("%q, %+v, %d sets", b.inForce(), s, b.sets())
		}
	}
	check(u)
	loads := b.loads.Load()
	u = b.open()
	if _, err := u.Update(t.Context(), false, nil); !errors.Is(err, update.ErrHeld) || b.loads.Load() != loads {
		t.Errorf("%v", err)
	}
	check(u)
	if _, err := u.Update(t.Context(), true, nil); !errors.Is(err, errBad) || b.loads.Load() == loads {
		t.Errorf("asked for by somebody: %v", err)
	}
	check(u)
	b.publish("third")
	if _, err := u.Update(t.Context(), false, nil); err != nil || !strings.Contains(b.inForce(), "third") {
		t.Errorf("%v", err)
	}
}

func TestRestoreAndFallBack(t *testing.T) {
	b := newBench(t)
	b.publish("first")
	u := b.open()
	u.Update(t.Context(), false, nil)
	b.publish("second")
	u.Update(t.Context(), false, nil)
	if err := u.FallBack(t.Context(), "it does not load after the upgrade"); err != nil || !strings.Contains(b.inForce(), "first") {
		t.Errorf("%v %q", err, b.inForce())
	}
	if err := u.FallBack(t.Context(), "nor does this"); err != nil || len(b.loaded) != 0 {
		t.Errorf("%v %q", err, b.loaded)
	}
	if _, err := u.Update(t.Context(), false, nil); !errors.Is(err, update.ErrHeld) {
		t.Errorf("%v", err)
	}
	if _, err := u.Update(t.Context(), true, nil); err != nil || !strings.Contains(b.inForce(), "second") {
		t.Errorf("%v", err)
	}
	if err := u.Restore(t.Context()); err != nil || len(b.loaded) != 0 || b.sets() != 0 || len(u.Folders()) != 0 {
		t.Errorf("%v %q %d", err, b.loaded, b.sets())
	}
	u = b.open()
	if _, err := u.Update(t.Context(), false, nil); !errors.Is(err, update.ErrHeld) {
		t.Errorf("after restore it comes back by itself: %v", err)
	}
	b.publish("third")
	if _, err := u.Update(t.Context(), false, nil); err != nil || !strings.Contains(b.inForce(), "third") {
		t.Errorf("%v", err)
	}
}

// TestSources is about where a release comes from and what it is verified with.
func TestSources(t *testing.T) {
	b := newBench(t)
	u := b.open()
	b.settings.Mirror = ""
	if _, err := u.Update(t.Context(), true, nil); !errors.Is(err, update.ErrNoSource) {
		t.Errorf("%v", err)
	}
	b.publish("first")
	server := httptest.NewServer(http.StripPrefix("/definitions", http.FileServer(http.Dir(b.Repository.Repository()))))
	defer server.Close()
	root, err := os.ReadFile(filepath.Join(b.dir, "root.json"))
	if err != nil {
		t.Fatal(err)
	}
	pkg := &onboarding.Package{Portal: server.URL, DefinitionsRoot: root, CACertificate: "ca"}
	b.portal = func() (*onboarding.Package, *http.Client, error) { return pkg, &http.Client{}, nil }
	os.Remove(filepath.Join(b.dir, "root.json"))
	if out, err := u.Update(t.Context(), true, nil); err != nil || !out.Changed {
		t.Errorf("from the portal: %+v %v", out, err)
	}
	// A mirror that is older than what the portal gave is refused; the portal is
	// asked, unless that is forbidden.
	old := filepath.Join(t.TempDir(), "old")
	os.CopyFS(old, os.DirFS(b.Repository.Repository()))
	b.publish("second")
	if out, err := u.Update(t.Context(), true, nil); err != nil || !out.Changed {
		t.Errorf("%+v %v", out, err)
	}
	b.settings.Mirror, b.settings.Fallback = old, false
	if _, err := u.Update(t.Context(), true, nil); err == nil || !strings.Contains(err.Error(), "older than what this host has seen") {
		t.Errorf("an old mirror: %v", err)
	}
	b.publish("third")
	b.settings.Fallback = true
	out, err := u.Update(t.Context(), true, nil)
	if err != nil || !strings.Contains(b.inForce(), "third") || !strings.Contains(strings.Join(out.Messages, " "), "The mirror cannot be used") {
		t.Errorf("%+v %v", out, err)
	}
	// An unsigned mirror is refused whatever is configured.
	fake := newBench(t)
	fake.publish("evil")
	b.settings.Mirror, b.settings.Fallback = fake.Repository.Repository(), false
	if _, err := u.Update(t.Context(), true, nil); err == nil || !strings.Contains(err.Error(), "not signed with the keys") || strings.Contains(b.inForce(), "evil") {
		t.Errorf("%v", err)
	}
	// A package without the root: the portal's own connection gives it, once.
	pkg.DefinitionsRoot = nil
	b.settings.Mirror = ""
	if _, err := u.Update(t.Context(), true, nil); err != nil {
		t.Errorf("%v", err)
	}
	os.RemoveAll(filepath.Join(b.Repository.Repository(), "metadata", "root.json"))
	b.settings.Mirror = b.Repository.Repository()
	if _, err := u.Update(t.Context(), true, nil); err != nil {
		t.Errorf("from the mirror with the root that the portal gave: %v", err)
	}
	b.settings.Mirror = "http://127.0.0.1:1/linux/production"
	if _, err := u.Update(t.Context(), true, nil); err == nil || !strings.Contains(u.Status().Failure, "refused") {
		t.Errorf("%v", err)
	}
}

// TestClamAV: one setting protects a host without a portal.
func TestClamAV(t *testing.T) {
	b := newBench(t)
	signer, web := clamtest.NewSigner(t), t.TempDir()
	signer.WriteKeys(t, filepath.Join(b.dir, "keys"))
	version := func(name string, v int, text string) *clamtest.Database {
		return &clamtest.Database{Name: name, Version: v, Built: b.now, Members: map[string]string{name + ".hdb": text}}
	}
	signer.Publish(t, web, version("main", 60, "aa15bcf478d165efd2065190eb473bcb:544:Main\n"))
	d1 := version("daily", 100, "bb15bcf478d165efd2065190eb473bcb:544:Daily.One\n")
	d2 := version("daily", 101, d1.Members["daily.hdb"]+"cc15bcf478d165efd2065190eb473bcb:544:Daily.Two\n")
	d3 := version("daily", 102, d2.Members["daily.hdb"]+"dd15bcf478d165efd2065190eb473bcb:544:BAD\n")
	signer.Publish(t, web, d1)
	status := http.StatusOK
	files := http.FileServer(http.Dir(web))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if status != http.StatusOK {
			w.WriteHeader(status)
			return
		}
		files.ServeHTTP(w, r)
	}))
	defer server.Close()
	b.settings = update.Settings{ClamAV: server.URL}
	u := b.open()
	later := time.Now()
	touch := func() {
		later = later.Add(time.Hour)
		os.Chtimes(filepath.Join(web, "daily.cvd"), later, later)
	}
	out, err := u.Update(t.Context(), true, nil)
	if err != nil || !out.Changed || !strings.Contains(b.inForce(), "Daily.One") || !strings.Contains(b.inForce(), ":Main") {
		t.Fatalf("%+v %v", out, err)
	}
	signer.Publish(t, web, d1, d2)
	touch()
	out, err = u.Update(t.Context(), false, nil)
	if err != nil || !strings.Contains(b.inForce(), "Daily.Two") || !strings.Contains(strings.Join(out.Messages, ""), "by 1 .cdiff file") {
		t.Errorf("%+v %v", out, err)
	}
	if s := u.Status(); s.ClamAV.Version != "main 60, daily 101" {
		t.Errorf("%+v", s)
	}
	// One that does not load is left alone, and the one before stays.
	signer.Publish(t, web, d1, d2, d3)
	touch()
	if _, err := u.Update(t.Context(), false, nil); !errors.Is(err, errBad) || !strings.Contains(b.inForce(), "Daily.Two") {
		t.Errorf("%v", err)
	}
	loads := b.loads.Load()
	if _, err := u.Update(t.Context(), false, nil); !errors.Is(err, update.ErrHeld) || b.loads.Load() != loads {
		t.Errorf("%v", err)
	}
	// The mirror wants to be left alone.
	status = http.StatusTooManyRequests
	var cool *mirror.CoolDownError
	if _, err := u.Update(t.Context(), true, nil); !errors.As(err, &cool) || !strings.Contains(b.inForce(), "Daily.Two") {
		t.Errorf("%v", err)
	}
	// Without the setting the databases go.
	b.settings = update.Settings{Mirror: b.Repository.Repository()}
	b.publish("first")
	if _, err := u.Update(t.Context(), true, nil); err != nil || strings.Contains(b.inForce(), "Daily") || !strings.Contains(b.inForce(), "first") {
		t.Errorf("%v %q", err, b.inForce())
	}
}

func TestRun(t *testing.T) {
	b := newBench(t)
	b.publish("first")
	b.settings.Periodic, b.settings.Interval = true, time.Hour
	u := b.open()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- u.Run(ctx) }()
	for deadline := time.Now().Add(2 * time.Minute); u.Status().Release.Version == ""; {
		if time.Now().After(deadline) {
			t.Fatalf("%+v", u.Status())
		}
		time.Sleep(10 * time.Millisecond)
	}
	for deadline := time.Now().Add(2 * time.Minute); ; {
		next := u.Status().Next.Sub(b.now)
		if next >= 53*time.Minute && next <= 67*time.Minute {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the next update is in %s", next)
		}
		time.Sleep(10 * time.Millisecond)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestDamagedState(t *testing.T) {
	b := newBench(t)
	b.publish("first")
	u := b.open()
	u.Update(t.Context(), true, nil)
	path := filepath.Join(b.dir, "updates", "state.json")
	for _, text := range []string{"{", `{"release":{"current":{"folder":"../../etc"}}}`, `{"release":{"current":{"folder":"gone"}}}`} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		u := b.open()
		if got := u.Folders(); len(got) != 0 {
			t.Errorf("%s: %q", text, got)
		}
		if out, err := u.Update(t.Context(), false, nil); err != nil || !out.Changed {
			t.Errorf("%s: %+v %v", text, out, err)
		}
	}
}
