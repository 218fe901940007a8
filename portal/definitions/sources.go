package definitions

import (
	"archive/tar"
	"archive/zip"
	"bufio"
	"compress/gzip"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/bulwarkhq/bulwark/api/release"
	rules "github.com/bulwarkhq/bulwark/content/yara"
	"github.com/bulwarkhq/bulwark/engine/clamdb"
	"github.com/bulwarkhq/bulwark/engine/clamdb/mirror"
)

// Kinds of sources.
const (
	kindContent = "content" // what the product ships
	kindClamAV  = "clamav"  // a mirror of ClamAV databases
	kindYARA    = "yara"    // a rule file or an archive of them
	kindHashes  = "hashes"  // a list of hashes
	kindFolder  = "folder"  // files as they are
)

// Limits of what is fetched, in bytes.
const (
	maxFeed     = 1 << 30
	maxUnpacked = 2 << 30
	maxMembers  = 20_000
)

// Source is where signatures come from.
type Source struct {
	Kind string
	// Location is a URL or a path; empty for content.
	Location string
	// Name tells sources of a kind apart in the release and in messages.
	Name string
	// Databases of a ClamAV mirror.
	Databases []string
}

func (s Source) String() string {
	if s.Location == "" {
		return s.Kind
	}
	return s.Kind + "=" + redacted(s.Location)
}

// redacted hides a password in a URL.
func redacted(location string) string {
	if u, err := url.Parse(location); err == nil && u.User != nil {
		return u.Redacted()
	}
	return location
}

// ParseSource reads the text of a source:
//
//	content
//	clamav=URL[,DATABASE...]   main and daily by default
//	yara=URL or path           .yar, .yara, .zip, .tar, .tar.gz
//	hashes=URL or path         lines of MD5, SHA-1 or SHA-256 [, name]
//	folder=path                databases and rules as they are
//
// A name may come before: linux:yara=rules.zip.
func ParseSource(text string) (Source, error) {
	bad := func(why string) (Source, error) { return Source{}, fmt.Errorf("source %q: %s", text, why) }
	kind, location, has := strings.Cut(text, "=")
	s := Source{Kind: kind, Location: location}
	if name, k, ok := strings.Cut(kind, ":"); ok {
		s.Name, s.Kind = name, k
	}
	switch s.Kind {
	case kindContent:
		if has {
			return bad("content takes no value")
		}
	case kindClamAV:
		f := strings.Split(location, ",")
		s.Location, s.Databases = f[0], f[1:]
		if len(s.Databases) == 0 {
			s.Databases = []string{"main", "daily"}
		}
		for _, d := range s.Databases {
			if !mirror.ValidName(d) {
				return bad(fmt.Sprintf("%q is no name of a database", d))
			}
		}
		if !isURL(s.Location) {
			return bad("want the http(s) address of a mirror")
		}
	case kindYARA, kindHashes, kindFolder:
		if location == "" {
			return bad("want a path or an http(s) address")
		}
		if s.Kind == kindFolder && isURL(location) {
			return bad("want a folder")
		}
	default:
		return bad("want content, clamav=, yara=, hashes= or folder=")
	}
	if s.Name == "" {
		s.Name = s.Kind
		if s.Location != "" && s.Kind != kindClamAV {
			s.Name = plainName(s.Location)
		}
	}
	if !release.ValidName(s.Name) || strings.Contains(s.Name, "/") {
		return bad(fmt.Sprintf("%q is no name: use letters, digits, - and _", s.Name))
	}
	return s, nil
}

// plainName makes a name from the end of an address.
func plainName(location string) string {
	if u, err := url.Parse(location); err == nil && u.Path != "" {
		location = u.Path
	}
	base := path.Base(location)
	for _, ext := range []string{".gz", ".tar", ".zip", ".yar", ".yara", ".txt", ".csv"} {
		base = strings.TrimSuffix(base, ext)
	}
	return strings.Trim(strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_' {
			return r
		}
		return '_'
	}, base), "_-")
}

func isURL(s string) bool {
	u, err := url.Parse(s)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Hostname() != ""
}

// gather fetches a source into an empty folder.
func (p *Publisher) gather(ctx context.Context, s Source, dir string) error {
	switch s.Kind {
	case kindContent:
		return copyTree(rules.FS(), dir)
	case kindClamAV:
		return p.clamav(ctx, s, dir)
	case kindFolder:
		st, err := os.Stat(s.Location)
		if err != nil {
			return err
		}
		if !st.IsDir() {
			return errors.New("not a folder")
		}
		return copyTree(os.DirFS(s.Location), dir)
	}
	file, err := p.fetch(ctx, s.Location)
	if err != nil {
		return err
	}
	defer func() {
		file.Close()
		if isURL(s.Location) {
			os.Remove(file.Name())
		}
	}()
	if s.Kind == kindHashes {
		return hashList(file, filepath.Join(dir, "hashes.hsb"), s.Name)
	}
	return unpackRules(file, s.Location, dir)
}

// clamav updates databases from a mirror, beside what is there of the last
// time, and copies them.
func (p *Publisher) clamav(ctx context.Context, s Source, dir string) error {
	state := p.path("clamav", s.Name)
	m, err := mirror.New(mirror.Config{
		URL: s.Location, Dir: state, Keys: p.cfg.ContainerKeys, UserAgent: "Bulwark-portal/" + p.cfg.Version,
		Client: httpClient(), Log: p.log, Now: p.cfg.Now,
	})
	if err != nil {
		return err
	}
	for _, name := range s.Databases {
		if _, err := m.Update(ctx, name); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if err := copyFile(m.Path(name), filepath.Join(dir, name+".cld")); err != nil {
			return err
		}
	}
	return nil
}

// httpClient fetches feeds: proxies as the environment says, system authorities.
func httpClient() *http.Client {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.ResponseHeaderTimeout = time.Minute
	return &http.Client{Transport: t}
}

// fetch opens a file, or downloads one.
func (p *Publisher) fetch(ctx context.Context, location string) (*os.File, error) {
	if !isURL(location) {
		return os.Open(location)
	}
	ctx, cancel := context.WithTimeout(ctx, time.Hour)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, location, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", "Bulwark-portal/"+p.cfg.Version)
	res, err := httpClient().Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, &release.StatusError{URL: redacted(location), Status: res.StatusCode}
	}
	f, err := os.CreateTemp(p.cfg.Dir, ".feed-*")
	if err != nil {
		return nil, err
	}
	n, err := io.Copy(f, io.LimitReader(res.Body, maxFeed+1))
	if err == nil && n > maxFeed {
		err = fmt.Errorf("more than %d bytes", int64(maxFeed))
	}
	if err == nil && res.ContentLength >= 0 && n != res.ContentLength {
		err = io.ErrUnexpectedEOF
	}
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		f.Close()
		os.Remove(f.Name())
		return nil, err
	}
	return f, nil
}

// useful reports whether the engine reads files of that name.
func useful(name string) bool {
	ext := strings.ToLower(path.Ext(name))
	switch ext {
	case ".yar", ".yara", ".rule":
		return true
	}
	_, ok := clamdb.FormatOf(ext)
	return ok || clamdb.IsContainer(ext)
}

// copyTree copies what the engine reads. Names that a release cannot have are
// an error, so that nothing is silently left out.
func copyTree(from fs.FS, dir string) error {
	var total int64
	n := 0
	err := fs.WalkDir(from, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() || !useful(name) {
			return nil
		}
		in, err := from.Open(name)
		if err != nil {
			return err
		}
		defer in.Close()
		st, err := in.Stat()
		if err != nil {
			return err
		}
		if !st.Mode().IsRegular() {
			return nil
		}
		n++
		written, err := put(dir, name, in, maxUnpacked-total)
		total += written
		return err
	})
	if err == nil && n == 0 {
		return errors.New("no databases or rules in it")
	}
	return err
}

// put writes a file of a source.
func put(dir, name string, r io.Reader, left int64) (int64, error) {
	// One folder is the source's own.
	if !release.ValidName("source/" + name) {
		return 0, fmt.Errorf("%q: a release cannot have a file of that name: use letters, digits and -_.+@, at most 3 folders deep", name)
	}
	to := filepath.Join(dir, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return 0, err
	}
	f, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return 0, err
	}
	n, err := io.Copy(f, io.LimitReader(r, left+1))
	if n > left {
		err = errors.Join(err, fmt.Errorf("unpacks to more than %d bytes", int64(maxUnpacked)))
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return n, fmt.Errorf("%s: %w", name, err)
	}
	return n, nil
}

// unpackRules takes the rule files of an archive, or the one file.
func unpackRules(f *os.File, location, dir string) error {
	name := path.Base(location)
	if u, err := url.Parse(location); err == nil && u.Path != "" {
		name = path.Base(u.Path)
	}
	magic := make([]byte, 4)
	n, err := f.ReadAt(magic, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	count := 0
	var total int64
	take := func(name string, r io.Reader) error {
		name = strings.TrimPrefix(path.Clean("/"+name), "/")
		if !useful(name) {
			return nil
		}
		if count++; count > maxMembers {
			return fmt.Errorf("more than %d files", maxMembers)
		}
		written, err := put(dir, flat(name), r, maxUnpacked-total)
		total += written
		return err
	}
	switch {
	case string(magic[:n]) == "PK\x03\x04":
		err = eachZip(f, take)
	case n >= 2 && magic[0] == 0x1f && magic[1] == 0x8b:
		z, zerr := gzip.NewReader(bufio.NewReader(f))
		if zerr != nil {
			return zerr
		}
		defer z.Close()
		err = eachTar(io.LimitReader(z, maxUnpacked), take)
	case strings.HasSuffix(strings.ToLower(name), ".tar"):
		err = eachTar(f, take)
	default:
		if !useful(name) {
			name = "rules.yar"
		}
		err = take(name, f)
	}
	if err == nil && count == 0 {
		return errors.New("no rules in it")
	}
	return err
}

// flat makes a name that a release can have from a path in an archive: at most
// its last two folders, and _ for what is not allowed.
func flat(name string) string {
	parts := strings.Split(name, "/")
	parts = parts[max(0, len(parts)-3):]
	for i, part := range parts {
		parts[i] = strings.TrimLeft(strings.Map(func(r rune) rune {
			if release.ValidName("x"+string(r)) && r != '/' {
				return r
			}
			return '_'
		}, part), ".-")
	}
	return path.Join(slices.DeleteFunc(parts, func(s string) bool { return s == "" })...)
}

func eachZip(f *os.File, take func(string, io.Reader) error) error {
	st, err := f.Stat()
	if err != nil {
		return err
	}
	z, err := zip.NewReader(f, st.Size())
	if err != nil {
		return err
	}
	for _, m := range z.File {
		if !m.Mode().IsRegular() {
			continue
		}
		r, err := m.Open()
		if err != nil {
			return fmt.Errorf("%s: %w", m.Name, err)
		}
		err = take(m.Name, r)
		r.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

func eachTar(r io.Reader, take func(string, io.Reader) error) error {
	t := tar.NewReader(r)
	for {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		if err := take(h.Name, t); err != nil {
			return err
		}
	}
}

// hashList turns a list of hashes into a ClamAV database: a hash of 32, 40 or
// 64 digits at the beginning of each line, and after white space, a comma or a
// semicolon a name. Lines that begin with # and a line of titles do not count.
func hashList(r io.Reader, path, source string) (err error) {
	out, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	w := bufio.NewWriter(out)
	in := bufio.NewScanner(r)
	in.Buffer(make([]byte, 64<<10), 1<<20)
	n, good := 0, 0
	for in.Scan() {
		n++
		line := strings.TrimSpace(in.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		f := strings.FieldsFunc(line, func(r rune) bool { return r == ',' || r == ';' || r == ' ' || r == '\t' || r == '"' })
		if len(f) == 0 || !isHash(f[0]) {
			if good == 0 {
				continue // titles
			}
			return fmt.Errorf("line %d: %.80q does not begin with an MD5, SHA-1 or SHA-256", n, line)
		}
		good++
		name := source
		if len(f) > 1 {
			name = threatName(f[1])
		}
		// No size: 73 is the level from which ClamAV knows that.
		fmt.Fprintf(w, "%s:*:%s:73\n", strings.ToLower(f[0]), name)
	}
	if err := in.Err(); err != nil {
		return fmt.Errorf("line %d: %w", n+1, err)
	}
	if good == 0 {
		return errors.New("no hashes in it")
	}
	return w.Flush()
}

func isHash(s string) bool {
	if len(s) != 32 && len(s) != 40 && len(s) != 64 {
		return false
	}
	_, err := hex.DecodeString(s)
	return err == nil
}

func threatName(s string) string {
	s = strings.Map(func(r rune) rune {
		if r > ' ' && r < 0x7f && r != ':' {
			return r
		}
		return '_'
	}, s)
	return s[:min(len(s), 128)]
}

func copyFile(from, to string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	_, err = io.Copy(out, in)
	return err
}
