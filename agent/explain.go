package agent

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bulwarkhq/bulwark/agent/onaccess"
	"github.com/bulwarkhq/bulwark/agent/scan"
	"github.com/bulwarkhq/bulwark/agent/threat"
	api "github.com/bulwarkhq/bulwark/api/control"
	"github.com/bulwarkhq/bulwark/engine/verdict"
	"github.com/bulwarkhq/bulwark/policy"
)

// maxMatchedBytes is how many bytes of a match are shown.
const maxMatchedBytes = 64

// maxHashed bounds what is hashed for an explanation.
const maxHashed = 4 << 30

// explanations says what is decided about a file. It goes the way of an access
// with the watcher's own configuration, and scans the file.
type explanations struct{ a *Agent }

// Explain implements control.Explain.
func (x explanations) Explain(ctx context.Context, r api.ExplainRequest) (api.Explanation, error) {
	out := api.Explanation{Path: r.Path, Exclusions: []api.Exclusion{}, ScanExclusions: []api.Exclusion{}, Way: []api.ExplainedStep{}}
	resolved, err := filepath.EvalSymlinks(string(r.Path))
	if errors.Is(err, fs.ErrNotExist) {
		return out, &api.Error{Code: api.NotFound, Message: fmt.Sprintf("%s: there is no such file", r.Path)}
	}
	if err != nil {
		return out, &api.Error{Code: api.InvalidArgument, Message: err.Error()}
	}
	out.Resolved = api.Path(resolved)
	// Never a device, and nothing that waits: what is there is looked at before
	// it is opened, and again afterwards.
	if st, err := os.Lstat(resolved); err != nil || !st.Mode().IsRegular() {
		if err == nil {
			err = fmt.Errorf("%s is no regular file (%s): only those are scanned", resolved, st.Mode().Type())
		}
		return out, &api.Error{Code: api.InvalidArgument, Message: err.Error()}
	}
	f, err := os.OpenFile(resolved, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return out, &api.Error{Code: api.Conflict, Message: "the file cannot be read: " + err.Error()}
	}
	defer func() { _ = f.Close() }() // read-only
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return out, &api.Error{Code: api.Conflict, Message: resolved + " was replaced while it was looked at"}
	}
	out.Size, out.Mode, out.Owner = st.Size, fs.FileMode(st.Mode&0o777).String(), x.a.userName(st.Uid)
	out.Modified = time.Unix(st.Mtim.Unix()).UTC().Format(time.RFC3339)

	step := func(name, result string, took time.Duration) {
		out.Way = append(out.Way, api.ExplainedStep{Name: name, Result: result, DurationMS: float64(took) / float64(time.Millisecond)})
	}
	e := x.a.config.Current()
	out.EnforcementLevel = e.EnforcementLevel()
	watching := x.watching(&out, resolved)
	step("kernel", watching, 0)
	began := time.Now()
	x.exclusions(&out, e, resolved, string(r.Process))
	step("exclusions", fmt.Sprintf("%d apply in real time, %d in scans", len(out.Exclusions), len(out.ScanExclusions)), time.Since(began))
	if w := x.a.realtime.watcher.Load(); w != nil {
		out.Known, _ = w.Known(f)
	}
	step("verdict cache", map[bool]string{true: "known: an access is answered at once", false: "not known: an access waits for a scan"}[out.Known], 0)

	began = time.Now()
	v, err := x.a.pool.Scan(ctx, scan.Request{File: f, Path: resolved, Priority: scan.PriorityOnDemand, Archives: e.Bool(policy.KeyScanArchives)})
	took := time.Since(began)
	if err != nil {
		if ctx.Err() != nil {
			return out, ctx.Err()
		}
		out.ScanError = err.Error()
		step("scan", "failed: "+err.Error(), took)
	} else {
		out.SHA256, out.FileType = v.SHA256, v.FileType
		out.Verdict = x.verdict(e, f, v, took)
		step("scan", fmt.Sprintf("%d signatures matched", len(v.Matches)), took)
	}
	if out.SHA256 == "" && st.Size <= maxHashed {
		if out.SHA256, err = hashFile(ctx, f); err != nil {
			return out, fmt.Errorf("hash of %s: %w", resolved, err)
		}
	}
	if row, err := x.a.history.ByHash(out.SHA256); err == nil && out.SHA256 != "" {
		t := apiThreat(row)
		out.Threat = &t
	}
	decide(&out, x.a.own(resolved), x.a.realtime.stats(onaccess.NoTop).Holding)
	step("decision", out.Decision+": "+out.Reason, 0)
	return out, nil
}

// watching fills in the mount and says whether real-time protection sees
// accesses to it.
func (x explanations) watching(out *api.Explanation, path string) string {
	st := x.a.realtime.stats(onaccess.NoTop)
	best := ""
	see := func(mounts []onaccess.MarkedMount, watched bool) {
		for _, m := range mounts {
			if m.Process != 0 || m.Point != "/" && !within(path, m.Point) || len(m.Point) < len(best) {
				continue
			}
			best = m.Point
			out.Mount, out.Filesystem, out.Watched, out.NotWatchedWhy = api.Path(m.Point), m.Filesystem, watched, m.Reason
		}
	}
	see(st.SkippedMounts, false)
	see(st.MarkedMounts, true)
	switch {
	case st.Subsystem != "fanotify":
		out.Watched, out.NotWatchedWhy = false, st.Reason
	case st.Mode != onaccess.RealTime && st.Mode != onaccess.Audit:
		out.Watched, out.NotWatchedWhy = false, "real-time protection is off (enforcement level "+string(st.Mode)+")"
	case best == "":
		out.NotWatchedWhy = "the mount is not among those that are watched"
	}
	if !out.Watched {
		return "no event: " + out.NotWatchedWhy
	}
	if st.Holding {
		return "the access is held until there is a verdict"
	}
	return "the access is observed, not held"
}

func (x explanations) exclusions(out *api.Explanation, e policy.Effective, path, process string) {
	if process != "" {
		if r, err := filepath.EvalSymlinks(process); err == nil {
			process = r
		}
	}
	now := time.Now()
	out.Exclusions = append(out.Exclusions, x.a.config.Describe(e.Exclusions().Matches(policy.UseRealTime, path, process, now))...)
	out.ScanExclusions = append(out.ScanExclusions, x.a.config.Describe(e.Exclusions().Matches(policy.UseScan, path, "", now))...)
}

func (x explanations) verdict(e policy.Effective, f *os.File, v verdict.Verdict, took time.Duration) *api.ExplainedVerdict {
	out := &api.ExplainedVerdict{
		Engine: v.Engine, Definitions: v.Definitions, Objects: v.Objects, Bytes: v.Bytes,
		DurationMS: float64(took) / float64(time.Millisecond), Limits: []string{}, Matches: []api.ExplainedMatch{},
	}
	for _, l := range v.Limits {
		out.Limits = append(out.Limits, string(l))
	}
	for _, m := range v.Matches {
		match := api.ExplainedMatch{
			Name: m.Threat, Type: string(m.Type), Signature: m.Signature, Source: m.Source, Inside: m.Inside, Offset: m.Offset,
			Action: e.ThreatAction(string(m.Type)), Allowed: x.a.allowed(e, m, v),
		}
		if match.Allowed {
			match.AllowedBy = x.allowedBy(e, m, v)
		}
		if m.Offset >= 0 && len(m.Inside) == 0 {
			b := make([]byte, maxMatchedBytes)
			n, err := f.ReadAt(b, m.Offset)
			if err == nil || errors.Is(err, io.EOF) {
				match.Bytes = hex.EncodeToString(b[:n])
			}
		}
		out.Matches = append(out.Matches, match)
	}
	return out
}

// allowedBy says what lets a match through.
func (x explanations) allowedBy(e policy.Effective, m verdict.Match, v verdict.Verdict) string {
	if e.Allows(m.Threat, v.SHA256) {
		return "on the configuration's list of allowed threats"
	}
	a, ok := x.a.history.Allowance(m.Threat, v.SHA256)
	text := "on the allow list"
	switch {
	case !ok: // taken back meanwhile
	case a.Reason == restoredReason:
		text = restoredReason
	case a.Kind == threat.AllowedName:
		text += " by its name"
	default:
		text += " by its content"
	}
	if !a.Until.IsZero() {
		text += ", until " + a.Until.UTC().Format(time.RFC3339)
	}
	return text
}

// decide says what an access leads to. own: the file is the agent's; holding:
// accesses are held now.
func decide(out *api.Explanation, own, holding bool) {
	blocks, found := "", ""
	if out.Verdict != nil {
		for _, m := range out.Verdict.Matches {
			found = m.Name
			if m.Action == policy.ActionBlock && !m.Allowed && blocks == "" {
				blocks = m.Name
			}
		}
	}
	switch {
	case own:
		out.Decision, out.Reason = api.DecisionSkipped, "it is one of the agent's own files"
	case !out.Watched:
		out.Decision, out.Reason = api.DecisionSkipped, out.NotWatchedWhy
	case len(out.Exclusions) > 0:
		out.Decision, out.Reason = api.DecisionSkipped, "it is excluded"
	case out.Verdict == nil:
		out.Decision, out.Reason = api.DecisionUnknown, "there is no verdict, and accesses without one are allowed: "+out.ScanError
	case blocks != "" && out.EnforcementLevel == policy.RealTime && holding:
		out.Decision, out.Reason = api.DecisionBlocked, "the signature "+blocks+" matches, and policy blocks that type"
	case blocks != "":
		out.Decision, out.Reason = api.DecisionReported, "the signature "+blocks+" matches; accesses are not blocked now"
	case found != "":
		out.Decision, out.Reason = api.DecisionAllowed, "the signature "+found+" matches, and that is allowed by policy, by the allow list or because it was restored"
	case len(out.Verdict.Limits) > 0:
		out.Decision, out.Reason = api.DecisionAllowed, "no signature matches as far as the scan came"
	default:
		out.Decision, out.Reason = api.DecisionAllowed, "no signature matches"
	}
	if out.Decision == api.DecisionSkipped && blocks != "" {
		out.Reason += "; a scan without exclusions finds " + blocks
	}
}
