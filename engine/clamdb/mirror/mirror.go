// Package mirror keeps ClamAV databases up to date from a mirror: the official
// one, or a private one that serves the same files.
//
// It asks as ClamAV's mirrors want to be asked: for the version in the name
// service first where the mirror is an official one, else for the first 512
// bytes, and only if they changed; for .cdiff files where the database is a few
// versions behind, and for the whole only where it must. After "429 Too Many
// Requests" and "403 Forbidden" the mirror is left alone for as long as it says,
// or for hours. All of this survives restarts.
//
// A database is kept as NAME.cld, which the engine reads. What is not signed by
// the keys, or is older than what is there, never gets that far.
package mirror

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/bulwarkhq/bulwark/engine/clamdb"
)

// Official is the address of the project's mirror.
const Official = "https://database.clamav.net"

// Limits.
const (
	// maxDatabase bounds a .cvd in bytes.
	maxDatabase = 2 << 30
	// MaxDiffs is how many versions a database may be behind to be updated by
	// .cdiff files.
	MaxDiffs = 60
	// officialPause is the shortest time between two checks of a database at an
	// official mirror; who asks more often is shut out there.
	officialPause = time.Hour
	// tooMany and forbidden are the cool-down after those answers where the
	// mirror does not say how long.
	tooMany   = 4 * time.Hour
	forbidden = 24 * time.Hour
	maxPause  = 7 * 24 * time.Hour
	// slowest is the rate in bytes per second below which a download is given up.
	slowest = 2 << 10
)

// Errors.
var (
	// ErrRollback: the mirror offers an older version than the one that is there.
	ErrRollback = errors.New("the mirror has an older version than this host")
	// ErrInconsistent: the mirror serves another version than it announces.
	ErrInconsistent = errors.New("the mirror is not in step with itself")
)

// CoolDownError means that the mirror wants to be left alone.
type CoolDownError struct {
	Mirror string
	Until  time.Time
	// Status is the answer that it began with.
	Status int
}

func (e *CoolDownError) Error() string {
	why := "it limits how often it may be asked"
	if e.Status == http.StatusForbidden {
		why = "it refuses this host or program; use a private mirror (kept with ClamAV's cvdupdate) for more than a few hosts"
	}
	return fmt.Sprintf("%s answered %d %s: %s; it is left alone until %s", e.Mirror, e.Status, http.StatusText(e.Status), why, e.Until.UTC().Format(time.RFC3339))
}

// StatusError is the error for another answer that is no success.
type StatusError struct {
	URL    string
	Status int
}

func (e *StatusError) Error() string {
	return fmt.Sprintf("%s: HTTP status %d %s", e.URL, e.Status, http.StatusText(e.Status))
}

// Config of a Mirror. URL, Dir and Client are needed.
type Config struct {
	// URL of the mirror, without the names of files.
	URL string
	// Dir keeps the databases and what was learnt about the mirror.
	Dir string
	// Keys that databases must be signed with; nil takes the published ones.
	Keys *clamdb.Keys
	// UserAgent says who asks.
	UserAgent string
	Client    *http.Client
	// LookupTXT asks the name service; nil takes the system's.
	LookupTXT func(ctx context.Context, name string) ([]string, error)
	// Progress is told how many bytes of how many (0 where that is unknown) have
	// come of a file.
	Progress func(file string, done, total int64)
	Log      *slog.Logger
	Now      func() time.Time
}

// Mirror updates databases. It is not safe for concurrent use, and its folder
// is its own.
type Mirror struct {
	cfg Config
	log *slog.Logger
	// official mirrors announce versions in the name service and want pauses.
	official bool
	state    state
}

// state survives restarts.
type state struct {
	// CoolDown is until when the mirror is left alone, Status why.
	CoolDown time.Time `json:"cool_down,omitzero"`
	Status   int       `json:"status,omitempty"`
	// Checked is when a database's version was asked for last, Modified what the
	// mirror said about its age then.
	Checked  map[string]time.Time `json:"checked,omitempty"`
	Modified map[string]string    `json:"modified,omitempty"`
	// URL that all of this is about.
	URL string `json:"url"`
}

// Result says what an update did.
type Result struct {
	// From and To are versions; equal when nothing changed. From is 0 where there
	// was no database.
	From, To int
	Built    time.Time
	// Diffs is how many .cdiff files were applied; 0 with another To means that
	// the whole database was fetched.
	Diffs int
	// Bytes came over the line.
	Bytes int64
}

// New returns a mirror with what is known about it.
func New(cfg Config) (*Mirror, error) {
	u, err := url.Parse(cfg.URL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" {
		return nil, fmt.Errorf("ClamAV mirror %.200q: want http://host or https://host", cfg.URL)
	}
	if cfg.Keys == nil {
		cfg.Keys = clamdb.PublishedKeys()
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.LookupTXT == nil {
		cfg.LookupTXT = net.DefaultResolver.LookupTXT
	}
	if cfg.Progress == nil {
		cfg.Progress = func(string, int64, int64) {}
	}
	cfg.URL = strings.TrimSuffix(cfg.URL, "/")
	if err := os.MkdirAll(cfg.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("ClamAV databases: %w", err)
	}
	m := &Mirror{cfg: cfg, log: cfg.Log, official: strings.HasSuffix(strings.ToLower(u.Hostname()), ".clamav.net")}
	m.readState()
	// What an update that was cut off left behind.
	old, _ := filepath.Glob(filepath.Join(cfg.Dir, ".work-*")) // the pattern is good
	for _, path := range old {
		os.RemoveAll(path)
	}
	return m, nil
}

func (m *Mirror) statePath() string { return filepath.Join(m.cfg.Dir, "mirror.json") }

func (m *Mirror) readState() {
	data, err := os.ReadFile(m.statePath())
	if err == nil {
		err = json.Unmarshal(data, &m.state)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		m.log.Warn("what was known about the ClamAV mirror cannot be read", "error", err)
	}
	if m.state.URL != m.cfg.URL || err != nil {
		m.state = state{URL: m.cfg.URL}
	}
	if m.state.Checked == nil {
		m.state.Checked = map[string]time.Time{}
	}
	if m.state.Modified == nil {
		m.state.Modified = map[string]string{}
	}
}

func (m *Mirror) writeState() {
	data, err := json.MarshalIndent(m.state, "", " ")
	if err == nil {
		tmp := m.statePath() + ".new"
		if err = os.WriteFile(tmp, data, 0o644); err == nil {
			err = os.Rename(tmp, m.statePath())
		}
	}
	if err != nil {
		m.log.Warn("what is known about the ClamAV mirror is not kept", "error", err)
	}
}

// ValidName reports whether a database can have that name.
func ValidName(name string) bool {
	return name != "" && len(name) <= 32 && !strings.ContainsFunc(name, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9')
	})
}

// Path is where a database is.
func (m *Mirror) Path(name string) string { return filepath.Join(m.cfg.Dir, name+".cld") }

// Local is the header of the database that is there; the error wraps
// fs.ErrNotExist where there is none.
func (m *Mirror) Local(name string) (clamdb.Header, error) {
	f, err := os.Open(m.Path(name))
	if err != nil {
		return clamdb.Header{}, err
	}
	defer f.Close()
	head := make([]byte, headerBytes)
	if _, err := io.ReadFull(f, head); err != nil {
		return clamdb.Header{}, fmt.Errorf("%s: %w", f.Name(), err)
	}
	return clamdb.ParseHeader(head)
}

const headerBytes = 512

// Update brings a database up to date.
func (m *Mirror) Update(ctx context.Context, name string) (Result, error) {
	if !ValidName(name) {
		return Result{}, fmt.Errorf("%.64q is no name of a database", name)
	}
	now := m.cfg.Now()
	if until := m.state.CoolDown; now.Before(until) && until.Sub(now) <= maxPause {
		return Result{}, &CoolDownError{Mirror: m.cfg.URL, Until: until, Status: m.state.Status}
	}
	local, err := m.Local(name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		m.log.Warn("a ClamAV database is damaged; it is fetched again", "database", name, "error", err)
		local = clamdb.Header{}
	}
	r := Result{From: local.Version, To: local.Version, Built: local.Built}
	if since := now.Sub(m.state.Checked[name]); m.official && local.Version > 0 && since >= 0 && since < officialPause {
		return r, nil
	}
	remote, err := m.remoteVersion(ctx, name, local.Version)
	if err != nil {
		return r, err
	}
	switch {
	case remote == 0 || remote == local.Version:
		m.checked(name, now)
		return r, nil
	case remote < local.Version:
		return r, fmt.Errorf("%s: %w: %d, here is %d", m.file(name+".cvd"), ErrRollback, remote, local.Version)
	}
	work, err := os.MkdirTemp(m.cfg.Dir, ".work-*")
	if err != nil {
		return r, fmt.Errorf("ClamAV databases: %w", err)
	}
	defer os.RemoveAll(work)
	u := &update{m: m, name: name, work: work, result: &r}
	if local.Version > 0 && remote-local.Version <= MaxDiffs {
		err := u.byDiffs(ctx, local.Version, remote)
		if err == nil {
			delete(m.state.Modified, name) // that of the container is not known
			m.checked(name, now)
			return r, nil
		}
		var cool *CoolDownError
		if errors.As(err, &cool) || ctx.Err() != nil {
			return r, err
		}
		m.log.Info("the ClamAV database is fetched whole", "database", name, "reason", err)
		r.Diffs = 0
	}
	if err := u.whole(ctx, remote); err != nil {
		return r, err
	}
	m.checked(name, now)
	return r, nil
}

func (m *Mirror) checked(name string, now time.Time) {
	m.state.Checked[name] = now
	m.state.CoolDown, m.state.Status = time.Time{}, 0
	m.writeState()
}

func (m *Mirror) file(name string) string { return m.cfg.URL + "/" + name }

// dnsFields are the places of the databases in the record of the name service.
var dnsFields = map[string]int{"main": 1, "daily": 2, "bytecode": 7}

// remoteVersion asks which version the mirror has; 0 means no other than
// before.
func (m *Mirror) remoteVersion(ctx context.Context, name string, local int) (int, error) {
	if at, known := dnsFields[name]; known && m.official {
		if v := m.announced(ctx, at); v > 0 {
			return v, nil
		}
	}
	header := http.Header{"Range": {"bytes=0-511"}}
	if since := m.state.Modified[name]; since != "" && local > 0 {
		header.Set("If-Modified-Since", since)
	}
	res, err := m.get(ctx, name+".cvd", header)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	if res.StatusCode == http.StatusNotModified {
		return 0, nil
	}
	head := make([]byte, headerBytes)
	if _, err := io.ReadFull(res.Body, head); err != nil {
		return 0, fmt.Errorf("%s: %w", m.file(name+".cvd"), err)
	}
	h, err := clamdb.ParseHeader(head)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", m.file(name+".cvd"), err)
	}
	if h.Version <= 0 {
		return 0, fmt.Errorf("%s: version %d", m.file(name+".cvd"), h.Version)
	}
	if h.Version == local {
		m.state.Modified[name] = res.Header.Get("Last-Modified")
	} else {
		delete(m.state.Modified, name) // until it has been fetched
	}
	return h.Version, nil
}

// announced is the version in the name service, 0 where there is none.
func (m *Mirror) announced(ctx context.Context, at int) int {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	texts, err := m.cfg.LookupTXT(ctx, "current.cvd.clamav.net")
	if err != nil {
		m.log.Debug("the name service does not know the versions of ClamAV's databases", "error", err)
		return 0
	}
	for _, text := range texts {
		f := strings.Split(text, ":")
		if len(f) <= at || len(f) < 4 {
			continue
		}
		// A record that was made long ago is somebody's cache, or a lie.
		if made, err := strconv.ParseInt(f[3], 10, 64); err != nil || m.cfg.Now().Sub(time.Unix(made, 0)) > 3*24*time.Hour {
			continue
		}
		if v, err := strconv.Atoi(f[at]); err == nil && v > 0 {
			return v
		}
	}
	return 0
}

// get asks for a file. The answer is 200, 206 or 304; others are errors.
func (m *Mirror) get(ctx context.Context, name string, header http.Header) (*http.Response, error) {
	address := m.file(name)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", address, err)
	}
	for k, v := range header {
		req.Header[k] = v
	}
	req.Header.Set("User-Agent", m.cfg.UserAgent)
	req.Header.Set("Accept-Encoding", "identity")
	res, err := m.cfg.Client.Do(req)
	if err != nil {
		return nil, err
	}
	switch res.StatusCode {
	case http.StatusOK, http.StatusPartialContent, http.StatusNotModified:
		return res, nil
	}
	res.Body.Close()
	if res.StatusCode == http.StatusTooManyRequests || res.StatusCode == http.StatusForbidden {
		pause := tooMany
		if res.StatusCode == http.StatusForbidden {
			pause = forbidden
		}
		now := m.cfg.Now()
		if d := retryAfter(res.Header.Get("Retry-After"), now); d > 0 {
			pause = min(d, maxPause)
		}
		m.state.CoolDown, m.state.Status = now.Add(pause), res.StatusCode
		m.writeState()
		return nil, &CoolDownError{Mirror: m.cfg.URL, Until: m.state.CoolDown, Status: res.StatusCode}
	}
	return nil, &StatusError{URL: address, Status: res.StatusCode}
}

func retryAfter(text string, now time.Time) time.Duration {
	if n, err := strconv.Atoi(strings.TrimSpace(text)); err == nil && n < 1<<30 {
		return time.Duration(n) * time.Second
	}
	if at, err := http.ParseTime(text); err == nil {
		return at.Sub(now)
	}
	return 0
}
