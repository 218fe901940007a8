package definitions

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/api/release"
)

// TestSync mirrors over the portal's own handler, and mirrors the mirror.
func TestSync(t *testing.T) {
	b := newBench(t)
	b.write("a.yar", fmt.Sprintf(rule, "a", "first odd text"))
	b.write("b.yar", fmt.Sprintf(rule, "b", "second odd text"))
	b.mustBuild()
	server := httptest.NewServer(b.Handler())
	defer server.Close()
	root, err := b.Root()
	if err != nil {
		t.Fatal(err)
	}
	to := t.TempDir()
	sync := func(src release.Source, folder string) (Synced, error) {
		s, err := Sync(context.Background(), SyncOptions{Source: src, Root: root, Folder: folder, Backup: true, Now: func() time.Time { return b.now }})
		if err != nil {
			return Synced{}, err
		}
		return s[0], nil
	}
	web := &release.HTTPSource{Client: server.Client(), Base: server.URL + release.Path}
	first, err := sync(web, to)
	if err != nil || !first.Changed || first.Bytes == 0 {
		t.Fatalf("%+v %v", first, err)
	}
	production := filepath.Join(to, "linux", "production")
	use := func(dir, want string) {
		t.Helper()
		h := b.newHost()
		h.Source = &release.FolderSource{Dir: dir}
		if _, _, err := h.update(); err != nil {
			t.Fatal(err)
		}
		if data, _ := os.ReadFile(filepath.Join(h.last, "own/a.yar")); !strings.Contains(string(data), want) {
			t.Errorf("%s: %s", dir, data)
		}
	}
	use(production, "first")
	if s, err := sync(web, to); err != nil || s.Changed || s.Bytes != 0 {
		t.Errorf("again: %+v %v", s, err)
	}
	b.write("a.yar", fmt.Sprintf(rule, "a", "third odd text"))
	b.mustBuild()
	second, err := sync(web, to)
	if err != nil || !second.Changed || second.Bytes >= first.Bytes {
		t.Errorf("%+v %v; the first took %d bytes", second, err, first.Bytes)
	}
	use(production, "third")
	if text, _ := os.ReadFile(filepath.Join(production+"_back", "manifest.json")); !strings.Contains(string(text), "2026.1101.1") {
		t.Errorf("n-1: %s", text)
	}
	// A mirror of the mirror.
	other := t.TempDir()
	if s, err := sync(&release.FolderSource{Dir: production}, other); err != nil || !s.Changed {
		t.Errorf("%+v %v", s, err)
	}
	use(filepath.Join(other, "linux", "production"), "third")
	// A damaged source changes nothing.
	paths, _ := filepath.Glob(filepath.Join(b.Repository(), release.TargetsDir, "files", "*"))
	b.write("a.yar", fmt.Sprintf(rule, "a", "fourth odd text"))
	b.mustBuild()
	fresh, _ := filepath.Glob(filepath.Join(b.Repository(), release.TargetsDir, "files", "*"))
	for _, path := range fresh {
		if !strings.Contains(strings.Join(paths, " "), path) {
			os.WriteFile(path, []byte("damaged"), 0o644)
		}
	}
	if _, err := sync(web, to); !errors.Is(err, release.ErrMismatch) {
		t.Errorf("%v", err)
	}
	use(production, "third")
}

func TestHandler(t *testing.T) {
	b := newBench(t)
	b.write("a.yar", fmt.Sprintf(rule, "a", "some odd text"))
	b.mustBuild()
	server := httptest.NewServer(b.Handler())
	defer server.Close()
	for path, want := range map[string]int{
		"metadata/timestamp.json": 200, "metadata/1.root.json": 200, "metadata/": 404, "metadata": 404, "": 404, "../keys/root.pem": 404,
		"metadata/../../keys/root.pem": 404, "keys/root.pem": 404, "targets/.hidden": 404, "metadata/absent.json": 404,
	} {
		res, err := http.Get(server.URL + release.Path + path)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != want {
			t.Errorf("%s: %d, want %d", path, res.StatusCode, want)
		}
	}
	req, _ := http.NewRequest(http.MethodPost, server.URL+release.Path+"metadata/timestamp.json", nil)
	res, err := http.DefaultClient.Do(req)
	if err != nil || res.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("%v %v", res, err)
	}
}

func TestMirrorSettings(t *testing.T) {
	path := filepath.Join(t.TempDir(), "settings.json")
	for text, want := range map[string]string{
		`{"downloadFolder": "/srv/x", "downloadLinuxUpdates": true, "downloadMacUpdates": false, "downloadPreviewUpdates": true, "backupPreviousUpdates": true, "logFilePath": ""}`: "",
		`{}`:                    "downloadFolder is missing",
		`{"downloadFolder": 1}`: "settings.json: ",
		`{"downloadFolder": "/x", "downloadLinuxUpdates": false}`: "downloadLinuxUpdates is false",
		`{"downloadFolder": "/x", "downloadMacUpdates": true}`:    "set it to false",
	} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		s, err := ReadMirrorSettings(path)
		if want == "" && (err != nil || s.DownloadFolder != "/srv/x" || !s.DownloadPreviewUpdates) || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %+v %v", text, s, err)
		}
	}
}

func FuzzHashList(f *testing.F) {
	f.Add("sha256,name\n" + strings.Repeat("ab", 32) + ",x\n")
	f.Add("# x\n" + strings.Repeat("cd", 16))
	f.Fuzz(func(t *testing.T, text string) {
		path := filepath.Join(t.TempDir(), "out")
		if hashList(strings.NewReader(text), path, "source") != nil {
			return
		}
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(data)) {
			if strings.Count(line, ":") != 3 {
				t.Errorf("%q", line)
			}
		}
	})
}
