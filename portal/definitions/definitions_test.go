package definitions

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/api/release"
	"github.com/bulwarkhq/bulwark/test/clamtest"
)

var start = time.Date(2026, 11, 1, 8, 0, 0, 0, time.UTC)

const rule = "rule %s { strings: $a = \"%s\" condition: $a }\n"

// bench is a publisher with a folder as its source and a clock.
type bench struct {
	*Publisher
	t      testing.TB
	source string
	now    time.Time
}

func newBench(t testing.TB) *bench {
	t.Helper()
	b := &bench{t: t, source: t.TempDir(), now: start}
	b.Publisher = New(Config{Dir: filepath.Join(t.TempDir(), "definitions"), Now: func() time.Time { return b.now }, KnownClean: []string{"/bin/sh"}})
	return b
}

func (b *bench) write(name, text string) {
	b.t.Helper()
	path := filepath.Join(b.source, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) build(extra ...string) (Result, error) {
	b.t.Helper()
	return b.buildIn(release.Production, extra...)
}

func (b *bench) buildIn(channel string, extra ...string) (Result, error) {
	b.t.Helper()
	o := BuildOptions{Channel: channel}
	if len(extra) == 0 {
		extra = []string{"own:folder=" + b.source}
	}
	for _, text := range extra {
		s, err := ParseSource(text)
		if err != nil {
			b.t.Fatal(err)
		}
		o.Sources = append(o.Sources, s)
	}
	return b.Build(context.Background(), o)
}

func (b *bench) mustBuild(extra ...string) *release.Set {
	b.t.Helper()
	r, err := b.build(extra...)
	if err != nil {
		b.t.Fatal(err)
	}
	return r.Set
}

// host is somebody who uses the releases.
type host struct {
	release.Client
	t    testing.TB
	sets string
	last string // folder of the set before
}

func (b *bench) newHost() *host {
	b.t.Helper()
	root, err := b.Root()
	if err != nil {
		b.t.Fatal(err)
	}
	return &host{t: b.t, sets: b.t.TempDir(), Client: release.Client{
		Source: &release.FolderSource{Dir: b.Repository()}, Root: root, Dir: b.t.TempDir(), Now: func() time.Time { return b.now },
	}}
}

func (h *host) update() (*release.Set, release.Stats, error) {
	h.t.Helper()
	r, err := h.Refresh(context.Background(), release.Production)
	if err != nil {
		return nil, release.Stats{}, err
	}
	dir, err := os.MkdirTemp(h.sets, "set-*")
	if err != nil {
		h.t.Fatal(err)
	}
	old := h.last
	stats, err := r.Download(context.Background(), dir, func(sum string) string { return find(old, sum) }, nil)
	if err != nil {
		return nil, stats, err
	}
	h.last = dir
	return r.Set, stats, nil
}

func find(dir, sum string) string {
	found := ""
	if dir != "" {
		filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() {
				data, _ := os.ReadFile(path)
				if s := sha256.Sum256(data); hex.EncodeToString(s[:]) == sum {
					found = path
				}
			}
			return nil
		})
	}
	return found
}

func tree(t testing.TB, dir string) string {
	t.Helper()
	files, err := listFiles(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, f := range files {
		out = append(out, f.Name)
	}
	return strings.Join(out, " ")
}

func TestReleases(t *testing.T) {
	b := newBench(t)
	var lines []string
	for i := range 5000 {
		lines = append(lines, fmt.Sprintf("%x:%d:Test.%d", sha256.Sum256([]byte{byte(i), byte(i >> 8)}), i+1, i))
	}
	b.write("big.hsb", strings.Join(lines, "\n")+"\n")
	b.write("rules/a.yar", fmt.Sprintf(rule, "a", "first text"))
	b.write("README.md", "not a database")
	first := b.mustBuild()
	if first.Version != "2026.1101.1" || first.Sequence != 1 || first.Signatures != 5001 {
		t.Errorf("%+v", first)
	}
	h := b.newHost()
	set, stats, err := h.update()
	if err != nil || set.Sequence != 1 || stats.Full != 2 {
		t.Fatalf("%+v %+v %v", set, stats, err)
	}
	if got := tree(t, h.last); got != "own/big.hsb own/rules/a.yar" {
		t.Errorf("files: %s", got)
	}
	whole := stats.Bytes
	// The same again is no release, but is signed anew.
	b.now = b.now.Add(time.Hour)
	if r, err := b.build(); err != nil || r.Changed || r.Set.Sequence != 1 {
		t.Errorf("%+v %v", r, err)
	}
	// A line more comes as a delta, and the rule is not fetched again.
	b.now = b.now.Add(24 * time.Hour)
	lines = slices.Insert(lines, 2500, strings.Repeat("ab", 32)+":77:Test.New")
	b.write("big.hsb", strings.Join(lines, "\n")+"\n")
	second := b.mustBuild()
	if second.Version != "2026.1102.2" || len(second.Files[0].Deltas) != 1 {
		t.Errorf("%+v", second)
	}
	_, stats, err = h.update()
	if err != nil || stats.Deltas != 1 || stats.Kept != 1 || stats.Full != 0 {
		t.Fatalf("%+v %v", stats, err)
	}
	if data, _ := os.ReadFile(filepath.Join(h.last, "own/big.hsb")); string(data) != strings.Join(lines, "\n")+"\n" {
		t.Error("the delta made another file")
	}
	if stats.Bytes > whole/20 {
		t.Errorf("a line more came as %d bytes, the whole as %d", stats.Bytes, whole)
	}
	// A host that slept through a release finds a delta too, one whose file is
	// damaged takes the whole.
	late, broken := b.newHost(), b.newHost()
	late.update()
	broken.update()
	b.write("big.hsb", strings.Join(lines[10:], "\n")+"\n")
	b.mustBuild()
	b.write("big.hsb", strings.Join(lines[20:], "\n")+"\n")
	b.mustBuild()
	if _, stats, err := late.update(); err != nil || stats.Deltas != 1 || stats.Full != 0 {
		t.Errorf("%+v %v", stats, err)
	}
	if err := os.WriteFile(filepath.Join(broken.last, "own/big.hsb"), []byte("damaged"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, stats, err := broken.update(); err != nil || stats.Full != 1 {
		t.Errorf("%+v %v", stats, err)
	}
	// Months later the repository has not grown without end, and everything that
	// is published is there.
	for range 8 {
		b.now = b.now.Add(48 * time.Hour)
		lines = lines[3:]
		b.write("big.hsb", strings.Join(lines, "\n")+"\n")
		b.mustBuild()
		b.age()
	}
	if _, _, err := late.update(); err != nil {
		t.Error(err)
	}
	n := 0
	filepath.WalkDir(b.Repository(), func(_ string, d fs.DirEntry, _ error) error {
		if !d.IsDir() {
			n++
		}
		return nil
	})
	if n > 45 {
		t.Errorf("%d files after a dozen releases", n)
	}
}

// age makes files of the repository as old as the clock of the test says.
func (b *bench) age() {
	filepath.WalkDir(b.Repository(), func(path string, d fs.DirEntry, _ error) error {
		if st, err := d.Info(); err == nil && st.ModTime().After(b.now) {
			os.Chtimes(path, b.now, b.now)
		}
		return nil
	})
}

// TestAttacks is a repository in the hands of somebody who has none of its keys.
func TestAttacks(t *testing.T) {
	// copyOf keeps a state of the repository.
	copyOf := func(b *bench) string {
		dir := filepath.Join(b.t.TempDir(), "copy")
		if err := os.CopyFS(dir, os.DirFS(b.Repository())); err != nil {
			b.t.Fatal(err)
		}
		return dir
	}
	replace := func(b *bench, with string) {
		if err := errors.Join(os.RemoveAll(b.Repository()), os.CopyFS(b.Repository(), os.DirFS(with))); err != nil {
			b.t.Fatal(err)
		}
	}
	meta := func(b *bench, name string) string { return filepath.Join(b.Repository(), release.MetadataDir, name) }
	// each overwrites the files that match with what change makes of them.
	each := func(b *bench, pattern string, change func(data []byte) []byte) {
		paths, err := filepath.Glob(filepath.Join(b.Repository(), pattern))
		if err != nil || len(paths) == 0 {
			b.t.Fatalf("%s: %v", pattern, err)
		}
		for _, path := range paths {
			data, err := os.ReadFile(path)
			if err == nil {
				err = os.WriteFile(path, change(data), 0o644)
			}
			if err != nil {
				b.t.Fatal(err)
			}
		}
	}
	old := map[string]string{}
	for name, c := range map[string]struct {
		attack func(b *bench)
		want   error
	}{
		"rollback: everything as it was": {func(b *bench) { replace(b, old["1"]) }, release.ErrRollback},
		"rollback: old snapshot and targets under the new timestamp": {func(b *bench) {
			stamp, _ := os.ReadFile(meta(b, "timestamp.json"))
			replace(b, old["1"])
			os.WriteFile(meta(b, "timestamp.json"), stamp, 0o644)
		}, release.ErrAbsent},
		"mix and match: old targets under the new snapshot": {func(b *bench) {
			data, _ := os.ReadFile(meta(b, "1.targets.json"))
			os.WriteFile(meta(b, "3.targets.json"), data, 0o644)
		}, release.ErrMismatch},
		"mix and match: old snapshot under the new name": {func(b *bench) {
			data, _ := os.ReadFile(meta(b, "1.snapshot.json"))
			os.WriteFile(meta(b, "3.snapshot.json"), data, 0o644)
		}, release.ErrMismatch},
		"freeze: nothing new for longer than the timestamp is good": {func(b *bench) { b.now = b.now.Add(8 * 24 * time.Hour) }, release.ErrExpired},
		"endless timestamp": {func(b *bench) {
			each(b, "metadata/timestamp.json", func(d []byte) []byte { return bytes.Repeat(d, 100) })
		}, release.ErrEndless},
		"endless snapshot": {func(b *bench) {
			each(b, "metadata/3.snapshot.json", func(d []byte) []byte { return append(d, make([]byte, 1<<20)...) })
		}, release.ErrEndless},
		"endless files": {func(b *bench) {
			each(b, "targets/files/*", func(d []byte) []byte { return append(d, make([]byte, 1<<20)...) })
		}, release.ErrEndless},
		"another set":        {func(b *bench) { each(b, "targets/production/*", func(d []byte) []byte { d[10] ^= 1; return d }) }, release.ErrMismatch},
		"another file":       {func(b *bench) { each(b, "targets/files/*", func(d []byte) []byte { d[len(d)-1] ^= 1; return d }) }, release.ErrMismatch},
		"a file that is cut": {func(b *bench) { each(b, "targets/files/*", func(d []byte) []byte { return d[:len(d)/2] }) }, release.ErrMismatch},
		"a timestamp without a good signature": {func(b *bench) {
			each(b, "metadata/timestamp.json", func(d []byte) []byte { return bytes.Replace(d, []byte(`"version": 3`), []byte(`"version": 9`), 1) })
		}, release.ErrSignature},
		"a root that was not signed by the old": {func(b *bench) {
			other := newBench(b.t)
			other.write("x.yar", fmt.Sprintf(rule, "evil", "evil text"))
			other.mustBuild()
			replace(b, other.Repository())
			os.Rename(meta(b, "1.root.json"), meta(b, "2.root.json"))
		}, release.ErrSignature},
		"all of it signed by other keys": {func(b *bench) {
			other := newBench(b.t)
			other.write("x.yar", fmt.Sprintf(rule, "evil", "evil text"))
			for range 4 {
				other.mustBuild()
			}
			replace(b, other.Repository())
		}, release.ErrSignature},
		"no metadata at all": {func(b *bench) { os.RemoveAll(filepath.Join(b.Repository(), "metadata")) }, release.ErrAbsent},
		"a page in its place": {func(b *bench) {
			each(b, "metadata/timestamp.json", func([]byte) []byte { return []byte("<html>log in</html>") })
		}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			for i := range 2 {
				b.write("a.yar", fmt.Sprintf(rule, "a", fmt.Sprint("some text ", i)))
				b.mustBuild()
				old[fmt.Sprint(i+1)] = copyOf(b)
			}
			h := b.newHost()
			if _, _, err := h.update(); err != nil {
				t.Fatal(err)
			}
			before := tree(t, h.last)
			b.write("a.yar", fmt.Sprintf(rule, "a", "the newest text"))
			b.mustBuild()
			c.attack(b)
			set, _, err := h.update()
			absent := errors.Is(c.want, release.ErrAbsent) && strings.Contains(fmt.Sprint(err), "404")
			if err == nil || c.want != nil && !errors.Is(err, c.want) && !absent {
				t.Errorf("set %+v, error %v, want %v", set, err, c.want)
			}
			t.Log(err)
			if after := tree(t, h.last); after != before {
				t.Errorf("files changed: %s", after)
			}
		})
	}
}

// TestSlowServer is a server that answers and then keeps silent.
func TestSlowServer(t *testing.T) {
	b := newBench(t)
	b.write("a.yar", fmt.Sprintf(rule, "a", "some text"))
	b.mustBuild()
	hang := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "root") {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Length", "500")
		w.WriteHeader(200)
		w.(http.Flusher).Flush()
		select {
		case <-hang:
		case <-r.Context().Done():
		}
	}))
	defer server.Close()
	defer close(hang)
	h := b.newHost()
	h.Source = &release.HTTPSource{Client: server.Client(), Base: server.URL}
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	if _, err := h.Refresh(ctx, release.Production); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
}

// TestRootRotation renews the root, as happens every year, and with another
// timestamp key, as after a theft.
func TestRootRotation(t *testing.T) {
	b := newBench(t)
	b.write("a.yar", fmt.Sprintf(rule, "a", "some text"))
	b.mustBuild()
	h := b.newHost()
	if _, _, err := h.update(); err != nil {
		t.Fatal(err)
	}
	b.now = b.now.Add(rootLife/2 + time.Hour)
	b.mustBuild()
	if _, _, err := h.update(); err != nil {
		t.Error(err)
	}
	if v, _ := release.RootVersion(h.trusted()); v != 2 {
		t.Errorf("root version %d", v)
	}
	// Without its key the root stays, and releases go on.
	if err := os.Rename(b.path("keys", "root.pem"), b.path("root.pem")); err != nil {
		t.Fatal(err)
	}
	b.now = b.now.Add(rootLife/2 + time.Hour)
	b.write("a.yar", fmt.Sprintf(rule, "a", "other text"))
	b.mustBuild()
	if _, _, err := h.update(); err != nil {
		t.Error(err)
	}
	b.now = b.now.Add(rootLife)
	b.mustBuild()
	if _, _, err := h.update(); !errors.Is(err, release.ErrExpired) {
		t.Errorf("the root is out of date: %v", err)
	}
	if err := os.Rename(b.path("root.pem"), b.path("keys", "root.pem")); err != nil {
		t.Fatal(err)
	}
	b.mustBuild()
	if set, _, err := h.update(); err != nil || set.Sequence != 2 {
		t.Errorf("%+v %v", set, err)
	}
	if err := os.Remove(b.path("keys", "targets.pem")); err != nil {
		t.Fatal(err)
	}
	if _, err := b.build(); err == nil || !strings.Contains(err.Error(), "targets.pem is missing") {
		t.Errorf("%v", err)
	}
}

func (h *host) trusted() []byte {
	data, err := os.ReadFile(filepath.Join(h.Dir, "root.json"))
	if err != nil {
		h.t.Fatal(err)
	}
	return data
}

func TestRenew(t *testing.T) {
	b := newBench(t)
	if err := b.Renew(); err != nil {
		t.Error(err)
	}
	b.write("a.yar", fmt.Sprintf(rule, "a", "some text"))
	b.mustBuild()
	h := b.newHost()
	for range 60 { // two months without a release
		b.now = b.now.Add(24 * time.Hour)
		if err := b.Renew(); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := h.update(); err != nil {
		t.Error(err)
	}
}

func TestChannels(t *testing.T) {
	b := newBench(t)
	b.write("a.yar", fmt.Sprintf(rule, "a", "stable text"))
	b.mustBuild()
	b.write("a.yar", fmt.Sprintf(rule, "a", "fresh text"))
	if r, err := b.buildIn(release.Preview); err != nil || !r.Changed {
		t.Fatalf("%+v %v", r, err)
	}
	h := b.newHost()
	for channel, want := range map[string]string{release.Production: "stable", release.Preview: "fresh"} {
		r, err := h.Refresh(context.Background(), channel)
		if err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		if _, err := r.Download(context.Background(), dir, nil, nil); err != nil {
			t.Fatal(err)
		}
		if data, _ := os.ReadFile(filepath.Join(dir, "own/a.yar")); !strings.Contains(string(data), want) {
			t.Errorf("%s: %s", channel, data)
		}
	}
}

func TestBuildRefuses(t *testing.T) {
	b := newBench(t)
	b.write("a.yar", fmt.Sprintf(rule, "a", "one odd text")+fmt.Sprintf(rule, "b", "two text")+fmt.Sprintf(rule, "c", "three"))
	b.mustBuild()
	shell := []byte(fmt.Sprintf(rule, "every", "ELF") + fmt.Sprintf(rule, "b", "two odd text"))
	for name, c := range map[string]struct {
		files map[string]string
		src   []string
		want  error
		says  string
	}{
		"known clean":   {files: map[string]string{"a.yar": string(shell)}, want: ErrKnownClean, says: "/bin/sh as"},
		"shrunk":        {files: map[string]string{"a.yar": fmt.Sprintf(rule, "a", "one odd text")}, want: ErrShrunk, says: "(1, before 3)"},
		"nothing":       {files: map[string]string{"a.yar": "rule {"}, says: "not one usable signature"},
		"bad name":      {files: map[string]string{"a b.yar": fmt.Sprintf(rule, "a", "one odd text")}, says: `"a b.yar": a release cannot have a file of that name`},
		"absent folder": {src: []string{"folder=/does/not/exist"}, says: "source folder=/does/not/exist: "},
		"empty folder":  {src: []string{"folder=" + t.TempDir()}, says: "no databases or rules in it"},
		"twice":         {src: []string{"content", "content"}, says: "two sources are called content"},
		"absent server": {src: []string{"yara=http://127.0.0.1:1/rules.zip"}, says: "refused"},
	} {
		t.Run(name, func(t *testing.T) {
			b.source = t.TempDir()
			for f, text := range c.files {
				b.write(f, text)
			}
			r, err := b.build(c.src...)
			if err == nil || c.want != nil && !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%+v %v, want %v %s", r, err, c.want, c.says)
			}
			past, err := readReleases(b.path("releases"), release.Production)
			if err != nil || len(past) != 1 {
				t.Errorf("%d releases, %v", len(past), err)
			}
		})
	}
	left, _ := filepath.Glob(b.path(".*"))
	if len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

// TestSources builds from one source of each kind, over HTTP where that is how
// it comes.
func TestSources(t *testing.T) {
	signer := clamtest.NewSigner(t)
	web := t.TempDir()
	versions := []*clamtest.Database{
		{Name: "daily", Version: 1, Built: start, Members: map[string]string{"daily.hdb": "aa15bcf478d165efd2065190eb473bcb:544:Clam.One\n"}},
		{Name: "daily", Version: 2, Built: start, Members: map[string]string{"daily.hdb": "aa15bcf478d165efd2065190eb473bcb:544:Clam.One\nbb15bcf478d165efd2065190eb473bcb:1:Clam.Two\n"}},
	}
	signer.Publish(t, web, versions[0])
	var archive bytes.Buffer
	z := zip.NewWriter(&archive)
	for name, text := range map[string]string{
		"rules-main/linux/x.yar": fmt.Sprintf(rule, "x", "zip text"), "rules-main/../../../etc/y.yar": fmt.Sprintf(rule, "y", "bad path"), "rules-main/LICENSE": "free",
	} {
		w, _ := z.Create(name)
		io.WriteString(w, text)
	}
	z.Close()
	os.WriteFile(filepath.Join(web, "rules.zip"), archive.Bytes(), 0o644)
	var ball bytes.Buffer
	g := gzip.NewWriter(&ball)
	tw := tar.NewWriter(g)
	text := fmt.Sprintf(rule, "t", "tar text")
	tw.WriteHeader(&tar.Header{Name: "./t.yara", Size: int64(len(text)), Mode: 0o644})
	io.WriteString(tw, text)
	tw.Close()
	g.Close()
	os.WriteFile(filepath.Join(web, "more.tar.gz"), ball.Bytes(), 0o644)
	os.WriteFile(filepath.Join(web, "bad.csv"), []byte("sha256,name\n"+strings.Repeat("ab", 32)+",Feed.One\n# x\n"+strings.Repeat("cd", 20)+"\n"+strings.Repeat("ef", 16)+";Feed:Three\n"), 0o644)
	var agents []string
	files := http.FileServer(http.Dir(web))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		agents = append(agents, r.UserAgent())
		files.ServeHTTP(w, r)
	}))
	defer server.Close()
	b := newBench(t)
	b.cfg.ContainerKeys, b.cfg.Version = signer.Keys(), "1.2"
	sources := []string{
		"content", "clamav=" + server.URL + ",daily", "yara=" + server.URL + "/rules.zip", "yara=" + filepath.Join(web, "more.tar.gz"), "hashes=" + server.URL + "/bad.csv",
	}
	set := b.mustBuild(sources...)
	h := b.newHost()
	if _, _, err := h.update(); err != nil {
		t.Fatal(err)
	}
	got := tree(t, h.last)
	for _, want := range []string{"bad/hashes.hsb", "clamav/daily.cld", "content/", "more/t.yara", "rules/rules-main/linux/x.yar", "rules/etc/y.yar"} {
		if !strings.Contains(got, want) {
			t.Errorf("%s is not among %s", want, got)
		}
	}
	if data, _ := os.ReadFile(filepath.Join(h.last, "bad/hashes.hsb")); string(data) != strings.Repeat("ab", 32)+":*:Feed.One:73\n"+strings.Repeat("cd", 20)+":*:bad:73\n"+strings.Repeat("ef", 16)+":*:Feed_Three:73\n" {
		t.Errorf("%s", data)
	}
	for _, a := range agents {
		if a != "Bulwark-portal/1.2" {
			t.Errorf("User-Agent %q", a)
		}
	}
	// One cannot be had: refused, or what it had before with KeepGoing.
	signer.Publish(t, web, versions...)
	os.Chtimes(filepath.Join(web, "daily.cvd"), time.Now().Add(time.Hour), time.Now().Add(time.Hour))
	os.Remove(filepath.Join(web, "rules.zip"))
	var source *SourceError
	if _, err := b.build(sources...); !errors.As(err, &source) || source.Source.Name != "rules" {
		t.Errorf("%v", err)
	}
	o := BuildOptions{Channel: release.Production, KeepGoing: true}
	for _, text := range sources {
		s, _ := ParseSource(text)
		o.Sources = append(o.Sources, s)
	}
	r, err := b.Build(context.Background(), o)
	if err != nil || len(r.Stale) != 1 || r.Set.Signatures != set.Signatures+1 {
		t.Errorf("%v %v, %d signatures after %d", err, r.Stale, r.Set.Signatures, set.Signatures)
	}
}

func TestParseSource(t *testing.T) {
	for text, want := range map[string]string{
		"content": "content", "clamav=https://m.example": "clamav [main daily]", "clamav=https://m.example,daily": "clamav [daily]",
		"x:yara=/a/b.zip": "x", "yara=https://e.example/p/rules.tar.gz?x=1": "rules", "hashes=feed.csv": "feed", "folder=/srv/own sigs": "own_sigs",
	} {
		s, err := ParseSource(text)
		got := s.Name
		if len(s.Databases) > 0 {
			got += fmt.Sprint(" ", s.Databases)
		}
		if err != nil || got != want {
			t.Errorf("%s: %q %v", text, got, err)
		}
	}
	for _, text := range []string{"", "x", "content=1", "clamav=", "clamav=/folder", "clamav=https://m,../x", "yara=", "folder=http://x/y", "../a:yara=x.yar", "a/b:yara=x.yar"} {
		if s, err := ParseSource(text); err == nil {
			t.Errorf("%q is %+v", text, s)
		}
	}
}
