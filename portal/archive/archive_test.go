package archive

import (
	"bytes"
	"context"
	"crypto/md5" // S3 checks what arrived with it
	"encoding/base64"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/portal/eventstore"
)

// storage takes objects as S3 does (Amazon S3 API Reference, PutObject), if they
// are signed and their checksum is right.
type storage struct {
	t       *testing.T
	mu      sync.Mutex
	objects map[string][]byte
	fails   int // the next requests
	status  int
}

func (s *storage) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	body, err := io.ReadAll(r.Body)
	if s.fails > 0 {
		s.fails--
		w.Header().Set("Content-Type", "application/xml")
		w.WriteHeader(s.status)
		io.WriteString(w, `<?xml version="1.0"?><Error><Code>AccessDenied</Code><Message>not with this key</Message></Error>`) // the client sees a failure
		return
	}
	sum := md5.Sum(body)
	if err != nil || r.Method != http.MethodPut || !strings.HasPrefix(r.Header.Get("Authorization"), "AWS4-HMAC-SHA256 Credential=key/") ||
		r.Header.Get("Content-Md5") != base64.StdEncoding.EncodeToString(sum[:]) || r.Header.Get("Content-Type") != contentType {
		s.t.Errorf("%s %s with %q: %v", r.Method, r.URL, r.Header, err)
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	if !strings.Contains(r.Header.Get("Authorization"), "content-md5") {
		s.t.Error("the checksum is not signed")
	}
	s.objects[r.URL.Path] = body
	w.Header().Set("ETag", `"e"`)
}

// shelf is a Source.
type shelf struct {
	files    []eventstore.File
	archived []string
}

func (s *shelf) Archivable(context.Context) ([]eventstore.File, error) {
	var out []eventstore.File
	for _, f := range s.files {
		if !slices.Contains(s.archived, f.Name) {
			out = append(out, f)
		}
	}
	return out, nil
}

func (s *shelf) SetArchived(_ context.Context, name string) error {
	s.archived = append(s.archived, name)
	return nil
}

func TestPass(t *testing.T) {
	t.Setenv("AWS_ACCESS_KEY_ID", "key")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	st := &storage{t: t, objects: map[string][]byte{}, status: http.StatusForbidden}
	server := httptest.NewServer(st)
	defer server.Close()
	dir := t.TempDir()
	src := &shelf{}
	content := map[string][]byte{}
	for i, name := range []string{"a.parquet", "b.parquet", "gone.parquet", "c.parquet"} {
		f := eventstore.File{Table: "DeviceProcessEvents", Hour: time.Date(2026, 3, 2+i, 23, 0, 0, 0, time.UTC), Name: name, Path: filepath.Join(dir, name), Rows: 1, Bytes: int64(1000 * (i + 1))}
		if name != "gone.parquet" {
			content[name] = bytes.Repeat([]byte{byte(i)}, int(f.Bytes))
			if err := os.WriteFile(f.Path, content[name], 0o600); err != nil {
				t.Fatal(err)
			}
		}
		src.files = append(src.files, f)
	}
	now := time.Date(2026, 3, 9, 0, 0, 0, 0, time.UTC)
	s, err := New(Config{Source: src, URL: "s3://company-events/bulwark/prod/", Endpoint: server.URL, Region: "eu-central-1", Logger: slog.New(slog.DiscardHandler), Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	// What the storage refuses stays, and what comes after it.
	st.fails = 1
	if err := s.Pass(t.Context()); err == nil || !strings.Contains(err.Error(), "not with this key") || !strings.Contains(err.Error(), "a.parquet") {
		t.Errorf("a refusal: %v", err)
	}
	if got := s.Status(); got.Files != 4 || got.Bytes != 10_000 || got.Archived != 0 || got.Error == "" || !got.Success.IsZero() {
		t.Errorf("after a refusal: %+v", got)
	}
	if len(src.archived) != 0 || len(st.objects) != 0 {
		t.Errorf("after a refusal %q are marked, %d stored", src.archived, len(st.objects))
	}
	if err := s.Pass(t.Context()); err != nil {
		t.Fatal(err)
	}
	for path, name := range map[string]string{
		"/company-events/bulwark/prod/DeviceProcessEvents/day=2026-03-02/a.parquet": "a.parquet",
		"/company-events/bulwark/prod/DeviceProcessEvents/day=2026-03-03/b.parquet": "b.parquet",
		"/company-events/bulwark/prod/DeviceProcessEvents/day=2026-03-05/c.parquet": "c.parquet",
	} {
		if !bytes.Equal(st.objects[path], content[name]) {
			t.Errorf("%s has %d bytes of %d", path, len(st.objects[path]), len(content[name]))
		}
	}
	if len(st.objects) != 3 || !slices.Equal(src.archived, []string{"a.parquet", "b.parquet", "c.parquet"}) {
		t.Errorf("%d stored, %q marked", len(st.objects), src.archived)
	}
	if got := s.Status(); got.Files != 0 || got.Archived != 3 || got.Error != "" || !got.Success.Equal(now) {
		t.Errorf("at the end: %+v", got)
	}
}

func TestNewRefuses(t *testing.T) {
	for _, c := range []Config{
		{},
		{URL: "https://bucket/x"},
		{URL: "s3://"},
		{URL: "s3://B"},
		{URL: "s3://user:pw@bucket"},
		{URL: "s3://bucket?x=y"},
		{URL: "s3://bucket", Endpoint: "s3.example.org"},
		{URL: "s3://bucket", Endpoint: "ftp://x"},
		{URL: "s3://bucket", Endpoint: "https://x/path"},
	} {
		if _, err := New(c); err == nil || !strings.HasPrefix(err.Error(), "archive: ") {
			t.Errorf("%+v: %v", c, err)
		}
	}
}
