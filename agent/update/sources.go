package update

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/bulwarkhq/bulwark/agent/network"
	"github.com/bulwarkhq/bulwark/api/onboarding"
	"github.com/bulwarkhq/bulwark/api/release"
	"github.com/bulwarkhq/bulwark/atomicfile"
	"github.com/bulwarkhq/bulwark/engine/clamdb"
	"github.com/bulwarkhq/bulwark/engine/clamdb/mirror"
)

// databases are those of a ClamAV mirror that are used.
var databases = []string{"main", "daily"}

// source is a place to take a release from.
type source struct {
	release.Source
	client  *http.Client // nil for folders
	channel string
}

// updateRelease asks the mirror, or the portal. any is false when there is
// neither.
func (u *Updater) updateRelease(ctx context.Context, s Settings, by bool, progress func(Progress), out *Outcome) (any bool, err error) {
	if s.Mirror != "" {
		src, err := u.mirrorSource(s.Mirror)
		if err == nil {
			err = u.releaseFrom(ctx, src, nil, by, progress, out)
		}
		if err == nil || !s.Fallback || errors.Is(err, ErrHeld) || u.opts.Refused(err) || ctx.Err() != nil {
			return true, err
		}
		u.log.Warn("the mirror of definitions cannot be used; asking the portal", "mirror", s.Mirror, "reason", network.Explain(err))
		out.Messages = append(out.Messages, "The mirror cannot be used: "+network.Explain(err))
	}
	pkg, client, perr := u.opts.Portal()
	if perr != nil {
		if s.Mirror != "" {
			return true, fmt.Errorf("neither mirror nor portal: %w", errors.Join(err, perr))
		}
		u.log.Debug("no portal to take definitions from", "reason", perr)
		return false, nil
	}
	defer client.CloseIdleConnections()
	address := strings.TrimSuffix(pkg.Portal, "/") + strings.TrimSuffix(release.Path, "/")
	src := source{Source: &release.HTTPSource{Client: client, Base: address, UserAgent: u.agent()}, channel: release.Production}
	return true, u.releaseFrom(ctx, src, pkg, by, progress, out)
}

func (u *Updater) agent() string { return "Bulwark/" + u.opts.Version }

// mirrorSource is an offline mirror. Its address is that of the folder of a
// channel; "preview" at its end means that one.
func (u *Updater) mirrorSource(address string) (source, error) {
	s := source{channel: release.Production}
	if path.Base(strings.TrimSuffix(address, "/")) == release.Preview {
		s.channel = release.Preview
	}
	if !isURL(address) {
		s.Source = &release.FolderSource{Dir: address}
		return s, nil
	}
	proxy, err := u.opts.Proxy()
	if err != nil {
		return s, err
	}
	s.client = network.Public(proxy)
	s.Source = &release.HTTPSource{Client: s.client, Base: address, UserAgent: u.agent()}
	return s, nil
}

// root returns the root metadata that trust begins with: the administrator's
// file, else that of the onboarding package, else the one that the portal gave
// over its pinned connection, once.
func (u *Updater) root(ctx context.Context, src source, pkg *onboarding.Package) ([]byte, error) {
	if u.opts.RootFile != "" {
		data, err := atomicfile.Read(u.opts.RootFile, release.MaxRoot)
		if err == nil {
			if _, err := release.RootVersion(data); err != nil {
				return nil, fmt.Errorf("%s: %w", u.opts.RootFile, err)
			}
			return data, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("definitions: %w", err)
		}
	}
	direct := pkg != nil
	if pkg == nil {
		var client *http.Client
		var err error
		if pkg, client, err = u.opts.Portal(); err != nil {
			return nil, fmt.Errorf("there is no root metadata to verify the mirror with: put it at %s (bulwark-portal definitions root prints it), or onboard this host: %w", u.opts.RootFile, err)
		}
		client.CloseIdleConnections()
	}
	if len(pkg.DefinitionsRoot) > 0 {
		return pkg.DefinitionsRoot, nil
	}
	sum := sha256.Sum256([]byte(pkg.CACertificate))
	kept := filepath.Join(u.opts.Dir, "trust", "portal-"+hex.EncodeToString(sum[:8])+".json")
	if data, err := atomicfile.Read(kept, release.MaxRoot); err == nil {
		return data, nil
	}
	if !direct {
		return nil, errors.New("there is no root metadata to verify the mirror with: download a new onboarding package in the portal, or put the root at " + u.opts.RootFile)
	}
	data, err := release.FetchRoot(ctx, src.Source)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(kept), 0o700); err != nil {
		return nil, fmt.Errorf("definitions: %w", err)
	}
	if err := os.WriteFile(kept, data, 0o600); err != nil {
		return nil, fmt.Errorf("definitions: %w", err)
	}
	return data, nil
}

// releaseFrom takes the newest release from a source.
func (u *Updater) releaseFrom(ctx context.Context, src source, pkg *onboarding.Package, by bool, progress func(Progress), out *Outcome) error {
	if src.client != nil {
		defer src.client.CloseIdleConnections()
	}
	u.mu.Lock()
	u.state.Source = src.String()
	current := u.state.Release.Current
	u.mu.Unlock()
	progress(Progress{Text: "Asking " + src.String()})
	root, err := u.root(ctx, src, pkg)
	if err != nil {
		return err
	}
	client := &release.Client{Source: src.Source, Root: root, Dir: u.trustDir(release.RootID(root)), Now: u.opts.Now}
	r, err := client.Refresh(ctx, src.channel)
	if err != nil {
		return err
	}
	next := &set{Version: r.Set.Version, Created: r.Set.Created}
	name, _ := r.Stored(release.SetTarget(src.channel))
	next.ID = "release " + r.Set.Version + " " + path.Base(name)[:16]
	if current != nil && current.ID == next.ID {
		out.Messages = append(out.Messages, "Release "+next.Version+" is the newest")
		return nil
	}
	if err := u.heldBack(&u.state.Release, next, by); err != nil {
		return err
	}
	if next.Folder, err = u.newSet("release"); err != nil {
		return err
	}
	have := u.index()
	stats, err := r.Download(ctx, u.folder(next), have, func(done, total int64) {
		progress(Progress{Text: "Fetching release " + next.Version, Done: done, Total: total})
	})
	if err != nil {
		os.RemoveAll(u.folder(next))
		return err
	}
	progress(Progress{Text: "Trying release " + next.Version})
	if err := u.adopt(ctx, func(s *state) *feed { return &s.Release }, next); err != nil {
		return err
	}
	out.Changed = true
	out.Messages = append(out.Messages, fmt.Sprintf("Release %s from %s: %d new file(s), %d by delta, %d kept, %.1f kB fetched",
		next.Version, src, stats.Full, stats.Deltas, stats.Kept, float64(stats.Bytes)/1000))
	return nil
}

// heldBack refuses a set that was refused before, unless somebody asks for it.
func (u *Updater) heldBack(f *feed, s *set, by bool) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if why := f.Held[s.ID]; why != "" && !by {
		return fmt.Errorf("%w: %s: %s", ErrHeld, s.Version, why)
	}
	return nil
}

// index finds the files of the sets that are there, by their sums.
func (u *Updater) index() release.Have {
	byID := map[string]string{}
	u.mu.Lock()
	folders := u.foldersLocked(u.state.Release.Current, u.state.Release.Previous)
	u.mu.Unlock()
	for _, dir := range folders {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			f, err := os.Open(path)
			if err != nil {
				return err
			}
			defer f.Close()
			sum := sha256.New()
			if _, err := io.Copy(sum, f); err != nil {
				return err
			}
			byID[hex.EncodeToString(sum.Sum(nil))] = path
			return nil
		})
		if err != nil {
			u.log.Warn("a set of definitions cannot be read; more is fetched", "error", err)
		}
	}
	return func(sum string) string { return byID[sum] }
}

// updateClamAV updates the databases and makes a set of them.
func (u *Updater) updateClamAV(ctx context.Context, setting string, by bool, progress func(Progress), out *Outcome) error {
	proxy, err := u.opts.Proxy()
	if err != nil {
		return err
	}
	keys := clamdb.PublishedKeys()
	if k, err := clamdb.ReadKeys(u.opts.KeysFile); err == nil {
		keys = k
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	client := network.Public(proxy)
	defer client.CloseIdleConnections()
	m, err := mirror.New(mirror.Config{
		URL: mirrorURL(setting), Dir: u.clamavDir(), Keys: keys, UserAgent: u.agent(), Client: client, Log: u.log, Now: u.opts.Now,
		Progress: func(file string, done, total int64) {
			progress(Progress{Text: "Fetching " + file, Done: done, Total: total})
		},
	})
	if err != nil {
		return err
	}
	progress(Progress{Text: "Asking " + mirrorURL(setting)})
	next := &set{}
	var versions []string
	var failed error
	for _, name := range databases {
		r, err := m.Update(ctx, name)
		if err != nil {
			// The others may work, and an old one is better than none.
			failed = errors.Join(failed, fmt.Errorf("ClamAV database %s: %w", name, err))
			if r.To == 0 {
				continue
			}
		}
		versions = append(versions, fmt.Sprintf("%s %d", name, r.To))
		if r.Built.After(next.Created) {
			next.Created = r.Built
		}
		if r.From != r.To {
			how := "whole"
			if r.Diffs > 0 {
				how = fmt.Sprintf("by %d .cdiff file(s)", r.Diffs)
			}
			out.Messages = append(out.Messages, fmt.Sprintf("ClamAV database %s %d fetched %s, %.1f kB", name, r.To, how, float64(r.Bytes)/1000))
		}
	}
	if len(versions) == 0 || ctx.Err() != nil {
		return failed
	}
	next.Version = strings.Join(versions, ", ")
	next.ID = "clamav " + next.Version
	u.mu.Lock()
	current := u.state.ClamAV.Current
	u.mu.Unlock()
	if current != nil && current.ID == next.ID {
		if failed == nil {
			out.Messages = append(out.Messages, "ClamAV databases "+next.Version+" are the newest")
		}
		return failed
	}
	if err := u.heldBack(&u.state.ClamAV, next, by); err != nil {
		return errors.Join(failed, err)
	}
	if next.Folder, err = u.newSet("clamav"); err != nil {
		return err
	}
	for _, name := range databases {
		err := linkOrCopy(m.Path(name), filepath.Join(u.folder(next), name+".cld"))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			os.RemoveAll(u.folder(next))
			return fmt.Errorf("definitions: %w", err)
		}
	}
	progress(Progress{Text: "Trying ClamAV databases " + next.Version})
	if err := u.adopt(ctx, func(s *state) *feed { return &s.ClamAV }, next); err != nil {
		return errors.Join(failed, err)
	}
	out.Changed = true
	return failed
}

// linkOrCopy gives a set a file of its own: databases are replaced by renaming,
// so that a link stays what it is.
func linkOrCopy(from, to string) error {
	if err := os.Link(from, to); err == nil || errors.Is(err, fs.ErrNotExist) {
		return err
	}
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// ConnectivityTest tries the mirrors that are in use.
func (u *Updater) ConnectivityTest(ctx context.Context) []network.Result {
	var out []network.Result
	for _, e := range u.Endpoints() {
		p := &network.Probe{URL: e.Address}
		if isURL(e.Address) {
			if proxy, ok := p.Reach(ctx, u.opts.Proxy); ok {
				client := network.Public(proxy)
				p.Step(ctx, e.Purpose, "look at the mirror's log; something between may answer in its place", func(ctx context.Context) (string, error) {
					defer client.CloseIdleConnections()
					return network.Fetch(ctx, client, strings.TrimSuffix(e.Address, "/")+"/"+e.File, u.agent())
				})
			}
		} else {
			p.Step(ctx, e.Purpose, "is the share mounted, and has `bulwark-portal mirror sync` been run?", func(ctx context.Context) (string, error) {
				f, err := (&release.FolderSource{Dir: e.Address}).Open(ctx, e.File)
				if err != nil {
					return "", err
				}
				return "the folder can be read", f.Close()
			})
		}
		out = append(out, p.Results...)
	}
	return out
}

// stale is how old an update may be for a scan to begin without another one.
const stale = time.Hour

// BeforeScan updates, for at most patience, where updates are made before scans
// and the last one is not of just now.
func (u *Updater) BeforeScan(ctx context.Context, patience time.Duration) {
	u.mu.Lock()
	checked := u.state.Checked
	u.mu.Unlock()
	if age := u.opts.Now().Sub(checked); age >= 0 && age < stale {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if _, err := u.Update(ctx, false, nil); err != nil && !errors.Is(err, ErrNoSource) {
		u.log.Warn("definitions not updated before the scan", "reason", network.Explain(err))
	}
}
