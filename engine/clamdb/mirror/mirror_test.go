package mirror_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/engine/clamdb"
	"github.com/bulwarkhq/bulwark/engine/clamdb/mirror"
	"github.com/bulwarkhq/bulwark/test/clamtest"
)

var built = time.Date(2026, 11, 1, 8, 0, 0, 0, time.UTC)

func versions(n int) []*clamtest.Database {
	var out []*clamtest.Database
	text := ""
	for v := 1; v <= n; v++ {
		text += fmt.Sprintf("%032x:%d:Test.%d\n", v, v, v)
		out = append(out, &clamtest.Database{Name: "daily", Version: v, Built: built.AddDate(0, 0, v), Members: map[string]string{"daily.hdb": text}})
	}
	return out
}

// server is a mirror that remembers what it was asked.
type server struct {
	*httptest.Server
	dir    string
	mu     sync.Mutex
	asked  []string
	answer func(w http.ResponseWriter, r *http.Request) bool // true: it answered
}

func serve(t *testing.T) *server {
	t.Helper()
	s := &server{dir: t.TempDir()}
	files := http.FileServer(http.Dir(s.dir))
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		what := r.URL.Path
		if r.Header.Get("Range") != "" {
			what += " range"
		}
		if r.Header.Get("If-Modified-Since") != "" {
			what += " since"
		}
		s.asked = append(s.asked, what)
		answer := s.answer
		s.mu.Unlock()
		if answer == nil || !answer(w, r) {
			files.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *server) took() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := strings.Join(s.asked, ", ")
	s.asked = nil
	return out
}

func (s *server) set(answer func(w http.ResponseWriter, r *http.Request) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = answer
}

type host struct {
	t      *testing.T
	dir    string
	url    string
	keys   *clamdb.Keys
	now    time.Time
	client *http.Client
	lookup func(context.Context, string) ([]string, error)
}

// update makes everything anew each time, as after a restart.
func (h *host) update() (mirror.Result, error) {
	h.t.Helper()
	if h.client == nil {
		h.client = http.DefaultClient
	}
	m, err := mirror.New(mirror.Config{
		URL: h.url, Dir: h.dir, Keys: h.keys, UserAgent: "Bulwark/test", Client: h.client, LookupTXT: h.lookup,
		Now: func() time.Time { return h.now },
	})
	if err != nil {
		h.t.Fatal(err)
	}
	r, err := m.Update(context.Background(), "daily")
	if local, lerr := m.Local("daily"); lerr == nil && err == nil && local.Version != r.To {
		h.t.Errorf("version %d on disk, %d reported", local.Version, r.To)
	}
	if left, _ := filepath.Glob(filepath.Join(h.dir, ".work-*")); len(left) > 0 {
		h.t.Errorf("left behind: %q", left)
	}
	return r, err
}

func TestUpdate(t *testing.T) {
	s, signer, vs := serve(t), clamtest.NewSigner(t), versions(9)
	h := &host{t: t, dir: t.TempDir(), url: s.URL, keys: signer.Keys(), now: built}
	step := func(name string, want mirror.Result, asked string) {
		t.Helper()
		r, err := h.update()
		want.Built, want.Bytes = r.Built, r.Bytes
		if err != nil || r != want {
			t.Errorf("%s: %+v %v, want %+v", name, r, err, want)
		}
		if got := s.took(); got != asked {
			t.Errorf("%s: asked %s, want %s", name, got, asked)
		}
	}
	signer.Publish(t, s.dir, vs[0])
	step("first", mirror.Result{From: 0, To: 1}, "/daily.cvd range, /daily.cvd")
	step("no news", mirror.Result{From: 1, To: 1}, "/daily.cvd range since")
	signer.Publish(t, s.dir, vs[:4]...)
	future := time.Now().Add(time.Hour)
	os.Chtimes(filepath.Join(s.dir, "daily.cvd"), future, future)
	step("three behind", mirror.Result{From: 1, To: 4, Diffs: 3}, "/daily.cvd range since, /daily-2.cdiff, /daily-3.cdiff, /daily-4.cdiff")
	step("no time known after diffs", mirror.Result{From: 4, To: 4}, "/daily.cvd range")
	step("then it is", mirror.Result{From: 4, To: 4}, "/daily.cvd range since")
	// A .cdiff that is missing, or that is empty, which says the same.
	signer.Publish(t, s.dir, vs[:6]...)
	os.WriteFile(filepath.Join(s.dir, "daily-6.cdiff"), nil, 0o644)
	future = future.Add(time.Hour)
	os.Chtimes(filepath.Join(s.dir, "daily.cvd"), future, future)
	step("whole", mirror.Result{From: 4, To: 6}, "/daily.cvd range since, /daily-5.cdiff, /daily-6.cdiff, /daily.cvd")
	// What is on disk is what the engine reads.
	f, err := os.Open(filepath.Join(h.dir, "daily.cld"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	st, _ := f.Stat()
	c, err := clamdb.OpenContainer(f, st.Size(), "cld", nil)
	if err != nil {
		t.Fatal(err)
	}
	var text string
	if err := c.Members(func(name string, r io.Reader) error {
		b, err := io.ReadAll(r)
		if name == "daily.hdb" {
			text = string(b)
		}
		return err
	}); err != nil || text != vs[5].Members["daily.hdb"] {
		t.Errorf("%q %v", text, err)
	}
}

func TestHostileMirror(t *testing.T) {
	signer, other, vs := clamtest.NewSigner(t), clamtest.NewSigner(t), versions(6)
	for name, c := range map[string]struct {
		prepare func(t *testing.T, s *server)
		want    error
		says    string
	}{
		"another key": {prepare: func(t *testing.T, s *server) { other.Publish(t, s.dir, vs[:4]...) }, want: clamdb.ErrContainer},
		"diff of another key, whole too": {prepare: func(t *testing.T, s *server) {
			signer.Publish(t, s.dir, vs[:4]...)
			os.WriteFile(filepath.Join(s.dir, "daily-4.cdiff"), other.Diff(4, other.Script(vs[2], vs[3])), 0o644)
			data, _ := os.ReadFile(filepath.Join(s.dir, "daily.cvd"))
			data[len(data)-3] ^= 1
			os.WriteFile(filepath.Join(s.dir, "daily.cvd"), data, 0o644)
		}, want: clamdb.ErrContainer},
		"old version": {prepare: func(t *testing.T, s *server) { signer.Publish(t, s.dir, vs[0]) }, want: mirror.ErrRollback},
		"old version under a new header": {prepare: func(t *testing.T, s *server) {
			signer.Publish(t, s.dir, vs[0])
			data, _ := os.ReadFile(filepath.Join(s.dir, "daily.cvd"))
			copy(data, strings.Replace(string(data[:512]), ":1:1:90:", ":9:1:90:", 1))
			os.WriteFile(filepath.Join(s.dir, "daily.cvd"), data, 0o644)
		}, want: mirror.ErrRollback},
		"announces, does not have": {prepare: func(t *testing.T, s *server) {
			signer.Publish(t, s.dir, vs[1])
			data, _ := os.ReadFile(filepath.Join(s.dir, "daily.cvd"))
			copy(data, strings.Replace(string(data[:512]), ":2:1:90:", ":9:1:90:", 1))
			os.WriteFile(filepath.Join(s.dir, "daily.cvd"), data, 0o644)
		}, want: mirror.ErrInconsistent},
		"endless": {prepare: func(t *testing.T, s *server) {
			signer.Publish(t, s.dir, vs[:4]...)
			s.set(func(w http.ResponseWriter, r *http.Request) bool {
				if r.Header.Get("Range") != "" {
					return false
				}
				w.Header().Set("Content-Length", fmt.Sprint(int64(1)<<40))
				w.Write(make([]byte, 100))
				return true
			})
		}, says: "the limit is"},
		"cut": {prepare: func(t *testing.T, s *server) {
			signer.Publish(t, s.dir, vs[:4]...)
			s.set(func(w http.ResponseWriter, r *http.Request) bool {
				if r.Header.Get("Range") != "" {
					return false
				}
				w.Header().Set("Content-Length", "100000")
				w.Write(make([]byte, 100))
				return true
			})
		}, want: io.ErrUnexpectedEOF},
		"an error page": {prepare: func(t *testing.T, s *server) {
			s.set(func(w http.ResponseWriter, r *http.Request) bool {
				io.WriteString(w, "<html>"+strings.Repeat("please log in ", 100))
				return true
			})
		}, want: clamdb.ErrContainer},
		"gone": {prepare: func(t *testing.T, s *server) { os.Remove(filepath.Join(s.dir, "daily.cvd")) }, says: "404 Not Found"},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t)
			h := &host{t: t, dir: t.TempDir(), url: s.URL, keys: signer.Keys(), now: built}
			signer.Publish(t, s.dir, vs[:2]...)
			if r, err := h.update(); err != nil || r.To != 2 {
				t.Fatalf("%+v %v", r, err)
			}
			c.prepare(t, s)
			future := time.Now().Add(time.Hour)
			os.Chtimes(filepath.Join(s.dir, "daily.cvd"), future, future)
			r, err := h.update()
			if err == nil || c.want != nil && !errors.Is(err, c.want) || !strings.Contains(fmt.Sprint(err), c.says) {
				t.Errorf("%+v %v, want %v %s", r, err, c.want, c.says)
			}
			// The good database is still there.
			s.set(nil)
			os.RemoveAll(filepath.Join(s.dir, "daily-4.cdiff"))
			signer.Publish(t, s.dir, vs[:3]...)
			future = future.Add(time.Hour)
			os.Chtimes(filepath.Join(s.dir, "daily.cvd"), future, future)
			if r, err := h.update(); err != nil || r.From != 2 || r.To != 3 {
				t.Errorf("afterwards: %+v %v", r, err)
			}
		})
	}
}

func TestCoolDown(t *testing.T) {
	signer, vs := clamtest.NewSigner(t), versions(2)
	for name, c := range map[string]struct {
		status int
		after  string
		pause  time.Duration
	}{
		"429":               {status: 429, pause: 4 * time.Hour},
		"403":               {status: 403, pause: 24 * time.Hour},
		"429 with seconds":  {status: 429, after: "600", pause: 10 * time.Minute},
		"429 with a date":   {status: 429, after: built.Add(2 * time.Hour).Format(http.TimeFormat), pause: 2 * time.Hour},
		"429 for ever":      {status: 429, after: "999999999", pause: 7 * 24 * time.Hour},
		"429 with nonsense": {status: 429, after: "soon", pause: 4 * time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t)
			signer.Publish(t, s.dir, vs[:1]...)
			h := &host{t: t, dir: t.TempDir(), url: s.URL, keys: signer.Keys(), now: built}
			s.set(func(w http.ResponseWriter, r *http.Request) bool {
				if got := r.Header.Get("User-Agent"); got != "Bulwark/test" {
					t.Errorf("User-Agent %q", got)
				}
				if c.after != "" {
					w.Header().Set("Retry-After", c.after)
				}
				w.WriteHeader(c.status)
				return true
			})
			_, err := h.update()
			var cool *mirror.CoolDownError
			if !errors.As(err, &cool) || cool.Until.Sub(built) != c.pause || cool.Status != c.status {
				t.Fatalf("%v", err)
			}
			s.took()
			s.set(nil)
			h.now = built.Add(c.pause - time.Second)
			if _, err := h.update(); !errors.As(err, &cool) || s.took() != "" {
				t.Errorf("asked during the cool-down: %v", err)
			}
			h.now = built.Add(c.pause + time.Second)
			if r, err := h.update(); err != nil || r.To != 1 {
				t.Errorf("afterwards: %+v %v", r, err)
			}
		})
	}
}

// TestOfficial is about what only the project's own mirror has: versions in the
// name service, and a pause between checks.
func TestOfficial(t *testing.T) {
	s, signer, vs := serve(t), clamtest.NewSigner(t), versions(3)
	signer.Publish(t, s.dir, vs[:1]...)
	target := strings.TrimPrefix(s.URL, "http://")
	h := &host{
		t: t, dir: t.TempDir(), url: "http://database.clamav.net", keys: signer.Keys(), now: built,
		client: &http.Client{Transport: rewrite(target)},
	}
	record := func(daily int, made time.Time) func(context.Context, string) ([]string, error) {
		return func(_ context.Context, name string) ([]string, error) {
			if name != "current.cvd.clamav.net" {
				t.Errorf("asked for %s", name)
			}
			return []string{fmt.Sprintf("1.4.3:62:%d:%d:0:90:49192:339", daily, made.Unix())}, nil
		}
	}
	h.lookup = record(1, built)
	if r, err := h.update(); err != nil || r.To != 1 || s.took() != "/daily.cvd" {
		t.Errorf("%+v %v", r, err)
	}
	signer.Publish(t, s.dir, vs[:2]...)
	h.lookup = record(2, built)
	h.now = built.Add(30 * time.Minute)
	if r, err := h.update(); err != nil || r.To != 1 || s.took() != "" {
		t.Errorf("within the hour: %+v %v", r, err)
	}
	h.now = built.Add(61 * time.Minute)
	if r, err := h.update(); err != nil || r.To != 2 || r.Diffs != 1 || s.took() != "/daily-2.cdiff" {
		t.Errorf("%+v %v", r, err)
	}
	// An old record, or none, is not believed: the mirror itself is asked.
	signer.Publish(t, s.dir, vs[:3]...)
	h.lookup, h.now = record(2, built), built.AddDate(0, 0, 5)
	if r, err := h.update(); err != nil || r.To != 3 || !strings.HasPrefix(s.took(), "/daily.cvd range") {
		t.Errorf("%+v %v", r, err)
	}
	h.lookup, h.now = func(context.Context, string) ([]string, error) { return nil, errors.New("no name service") }, h.now.Add(2*time.Hour)
	if r, err := h.update(); err != nil || r.To != 3 || !strings.HasPrefix(s.took(), "/daily.cvd range") {
		t.Errorf("%+v %v", r, err)
	}
}

type rewrite string

func (to rewrite) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.URL.Host = string(to)
	return http.DefaultTransport.RoundTrip(r)
}
