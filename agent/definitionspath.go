package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	api "github.com/bulwarkhq/bulwark/api/control"
	"github.com/bulwarkhq/bulwark/policy"
)

// definitionSources are the folders that definitions are compiled from: the
// package's and the host's own.
func (a *Agent) definitionSources() []string {
	return a.sourcesWith(a.updater.Folders())
}

// sourcesWith are the sources with sets that were fetched. A release that has
// what the package ships takes its place.
func (a *Agent) sourcesWith(sets []string) []string {
	out := []string{a.ownDefinitions()}
	shipped := true
	for _, dir := range sets {
		out = append(out, dir)
		if st, err := os.Stat(filepath.Join(dir, "content")); err == nil && st.IsDir() {
			shipped = false
		}
	}
	if found, err := os.ReadDir(a.indicatorSignatures()); err == nil && len(found) > 0 {
		out = append(out, a.indicatorSignatures())
	}
	if shipped {
		out = append([]string{shippedDefinitions(a.opts.Dirs)}, out...)
	}
	return out
}

// ownDefinitions is the folder of the host's own definitions. One that cannot
// be trusted any more is not used.
func (a *Agent) ownDefinitions() string {
	folder := a.config.Current().String(policy.KeyDefinitionsPath)
	if folder == "" {
		return a.opts.Dirs.Definitions()
	}
	if err := trustedFolder(folder); err != nil {
		a.log.Logger("definitions").Error("the folder of definitions is not used", "folder", folder, "error", err)
		return a.opts.Dirs.Definitions()
	}
	return folder
}

// trustedFolder refuses a folder in which somebody else than the administrator
// could put definitions: whoever can do that decides what is a threat.
func trustedFolder(folder string) error {
	info, err := os.Stat(folder)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return fmt.Errorf("%s is no folder", folder)
	}
	if info.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("%s may be written by others than its owner: chmod go-w it", folder)
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Uid != 0 && int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("%s belongs to user %d: chown it to root", folder, st.Uid)
	}
	return nil
}

// SetDefinitionsPath implements control.Definitions.
func (d definitions) SetDefinitionsPath(ctx context.Context, folder string) (api.DefinitionsResult, error) {
	// The change is loaded here, so that the answer says how that went.
	d.a.moving.Store(true)
	defer d.a.moving.Store(false)
	var err error
	if folder == "" {
		_, err = d.a.config.Unset(ctx, policy.KeyDefinitionsPath)
	} else {
		if bad := trustedFolder(folder); bad != nil {
			return api.DefinitionsResult{}, &api.Error{
				Code: api.InvalidArgument, Message: "definitions cannot be taken from there: " + bad.Error(),
				Hint: "the folder must exist and belong to root, and only root may write there",
			}
		}
		var value []byte
		if value, err = json.Marshal(folder); err == nil {
			_, err = d.a.config.Set(ctx, api.SetRequest{Key: policy.KeyDefinitionsPath, Value: value})
		}
	}
	if err != nil {
		return api.DefinitionsResult{}, err
	}
	d.a.pool.SetSources(d.a.definitionSources())
	return d.ReloadDefinitions(ctx)
}

// definitionsMoved follows the configuration where the folder is changed by
// policy or in another way than SetDefinitionsPath.
func (a *Agent) definitionsMoved(ctx context.Context, old, now policy.Effective) {
	if old.String(policy.KeyDefinitionsPath) == now.String(policy.KeyDefinitionsPath) || a.moving.Load() {
		return
	}
	a.pool.SetSources(a.definitionSources())
	a.parts.wg.Go(func() {
		before := a.pool.Generation()
		err := protect(func() error { _, err := a.pool.Reload(ctx); return err })
		a.changedSince(before)
		if err != nil && ctx.Err() == nil {
			a.log.Logger("definitions").Error("definitions of the new folder not loaded; those before stay", "error", err)
		}
	})
}

// own reports whether a path is one of the agent's own folders, which are never
// scanned: the definitions hold the very patterns that they describe.
func (a *Agent) own(path string) bool {
	folder := a.config.Current().String(policy.KeyDefinitionsPath)
	return slices.ContainsFunc(a.ownFolders, func(dir string) bool { return within(path, dir) }) || folder != "" && within(path, folder)
}
