package sample

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/engine/filetype"
)

// world is a submitter with a portal and a quarantine of the test.
type world struct {
	*Submitter
	t       *testing.T
	dir     string
	consent Consent
	ready   bool
	now     time.Time
	fail    error
	got     []string // what the portal has
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, dir: t.TempDir(), consent: All, ready: true, now: time.Now()}
	w.open()
	return w
}

func (w *world) open() {
	w.t.Helper()
	var err error
	w.Submitter, err = Open(Options{
		Dir: filepath.Join(w.dir, "queue"), Consent: func() Consent { return w.consent }, Ready: func() bool { return w.ready }, Now: func() time.Time { return w.now },
		Quarantined: func(_ context.Context, id string, to io.Writer) error { _, err := io.WriteString(to, id); return err },
		Send: func(_ context.Context, f File, r io.ReaderAt) error {
			if w.fail != nil {
				return w.fail
			}
			b, err := io.ReadAll(io.NewSectionReader(r, 0, MaxSize))
			w.got = append(w.got, f.AlertID+" "+string(b))
			return err
		},
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

func of(content string) File {
	h := sha256.Sum256([]byte(content))
	return File{AlertID: "a", SHA256: hex.EncodeToString(h[:]), Size: int64(len(content)), Kind: filetype.Detect([]byte(content))}
}

const (
	elf      = "\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x03\x00\x3e\x00"
	script   = "#!/bin/sh\nrm -rf /\n"
	document = "%PDF-1.7 the letter of somebody"
	text     = "a note of somebody"
)

// The setting decides by the kind of file, when it is found and when it goes.
func TestConsent(t *testing.T) {
	for _, tt := range []struct {
		consent Consent
		want    int
	}{{None, 0}, {Safe, 2}, {All, 4}, {"", 0}, {"other", 0}} {
		w := newWorld(t)
		w.consent = tt.consent
		for _, content := range []string{elf, script, document, text} {
			f := of(content)
			f.QuarantineID = content
			if err := w.Add(f); (err == nil) != tt.consent.Allows(f.Kind) {
				t.Errorf("%s, %s: %v", tt.consent, f.Kind, err)
			}
		}
		w.Once(t.Context())
		if len(w.got) != tt.want || len(w.Waiting()) != 0 {
			t.Errorf("%q: %q sent, %d wait", tt.consent, w.got, len(w.Waiting()))
		}
	}
	// Taken back while a file waits; and a content that is not what was said.
	w := newWorld(t)
	f := of(document)
	f.QuarantineID = document
	if err := w.Add(f); err != nil {
		t.Fatal(err)
	}
	w.consent = Safe
	w.Once(t.Context())
	lies := of(text)
	lies.QuarantineID, lies.Kind = text, filetype.ELF
	if err := w.Add(lies); err != nil {
		t.Fatal(err)
	}
	w.Once(t.Context())
	if s := w.Stats(); len(w.got) != 0 || s.Waiting != 0 || s.Dropped != 2 {
		t.Errorf("%q sent; %+v", w.got, s)
	}
}

// A file without quarantine is read from its path, if it is still the one that
// was found there.
func TestPath(t *testing.T) {
	w := newWorld(t)
	path := filepath.Join(w.dir, "evil \xff")
	secret := filepath.Join(w.dir, "secret")
	for name, tt := range map[string]struct {
		prepare func() error
		sent    bool
	}{
		"unchanged": {func() error { return os.WriteFile(path, []byte(script), 0o600) }, true},
		"changed":   {func() error { return os.WriteFile(path, []byte(script+"#"), 0o600) }, false},
		"gone":      {func() error { return nil }, false},
		"link": {func() error {
			return errors.Join(os.WriteFile(secret, []byte(script), 0o600), os.Symlink(secret, path))
		}, false},
		"folder": {func() error { return os.Mkdir(path, 0o700) }, false},
	} {
		w.got = nil
		if err := errors.Join(os.RemoveAll(path), tt.prepare()); err != nil {
			t.Fatal(err)
		}
		f := of(script)
		f.Path = []byte(path)
		if err := w.Add(f); err != nil {
			t.Fatal(err)
		}
		w.Once(t.Context())
		if (len(w.got) == 1) != tt.sent || len(w.Waiting()) != 0 {
			t.Errorf("%s: %q sent, %d wait", name, w.got, len(w.Waiting()))
		}
	}
}

// What waits outlives the daemon, is tried again after growing pauses, and not
// for ever.
func TestQueue(t *testing.T) {
	w := newWorld(t)
	w.ready = false
	f := of(script)
	f.QuarantineID = script
	for range 2 { // the second is the same file
		if err := w.Add(f); err != nil {
			t.Fatal(err)
		}
	}
	w.Once(t.Context())
	if err := os.WriteFile(filepath.Join(w.dir, "queue", strings.Repeat("0", 64)+".json"), []byte("{damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.open()
	if n := len(w.Waiting()); n != 1 || len(w.got) != 0 {
		t.Fatalf("%d wait after a restart, %q sent", n, w.got)
	}
	w.ready, w.fail = true, errors.New("the alert is on its way")
	w.Once(t.Context())
	w.fail = nil
	w.Once(t.Context())
	if len(w.got) != 0 {
		t.Error("tried again at once")
	}
	w.now = w.now.Add(firstRetry)
	w.Once(t.Context())
	if len(w.got) != 1 || w.got[0] != "a "+script || len(w.Waiting()) != 0 {
		t.Errorf("%q", w.got)
	}
	w.open()
	if len(w.Waiting()) != 0 {
		t.Error("sent, and waits after a restart")
	}
	for name, fail := range map[string]error{"refused": fmt.Errorf("too large: %w", ErrRefused), "too old": errors.New("offline")} {
		w.fail = fail
		if err := w.Add(f); err != nil {
			t.Fatal(err)
		}
		if w.Once(t.Context()); name == "too old" {
			if len(w.Waiting()) != 1 {
				t.Error("given up at once")
			}
			w.now = w.now.Add(maxAge + time.Hour)
			w.Once(t.Context())
		}
		if len(w.Waiting()) != 0 {
			t.Errorf("%s: still waits", name)
		}
	}
}

func TestClear(t *testing.T) {
	w := newWorld(t)
	w.ready = false
	f := of(script)
	f.QuarantineID = script
	if err := w.Add(f); err != nil {
		t.Fatal(err)
	}
	w.Clear()
	w.ready = true
	w.Once(t.Context())
	if left, err := os.ReadDir(filepath.Join(w.dir, "queue")); len(w.got)+len(w.Waiting())+len(left) != 0 || err != nil {
		t.Errorf("%q sent, %v left, %v", w.got, left, err)
	}
}

// The bounds of an hour and of the queue hold.
func TestBounds(t *testing.T) {
	w := newWorld(t)
	for i := range maxWaiting + 10 {
		content := fmt.Sprintf("#!/bin/sh\n%d\n", i)
		f := of(content)
		f.QuarantineID = content
		if err := w.Add(f); (err == nil) != (i < maxWaiting) {
			t.Fatalf("file %d: %v", i, err)
		}
	}
	w.Once(t.Context())
	w.Once(t.Context())
	if len(w.got) != perHour {
		t.Errorf("%d sent in an hour", len(w.got))
	}
	w.now = w.now.Add(time.Hour)
	w.Once(t.Context())
	if len(w.got) != 2*perHour {
		t.Errorf("%d sent in two hours", len(w.got))
	}
	for _, f := range []File{{}, of(""), {AlertID: "a", SHA256: of("x").SHA256, Size: MaxSize + 1}, {AlertID: "a", SHA256: "../x", Size: 1}, {SHA256: of("x").SHA256, Size: 1}} {
		if err := w.Add(f); err == nil {
			t.Errorf("%+v is taken", f)
		}
	}
}

func FuzzNote(f *testing.F) {
	f.Add([]byte(`{"alert_id":"a","sha256":"` + strings.Repeat("ab", 32) + `","size":1,"path":"L3g="}`))
	f.Add([]byte(`{"size":-1}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if n, err := decode(b); err == nil && n.check() != nil {
			t.Fatalf("%+v", n)
		}
	})
}
