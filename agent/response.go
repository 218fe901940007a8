package agent

import (
	"context"
	"crypto/sha1"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bulwarkhq/bulwark/agent/control"
	"github.com/bulwarkhq/bulwark/agent/isolation"
	"github.com/bulwarkhq/bulwark/agent/loaded"
	"github.com/bulwarkhq/bulwark/agent/quarantine"
	"github.com/bulwarkhq/bulwark/agent/respond"
	"github.com/bulwarkhq/bulwark/agent/threat"
	"github.com/bulwarkhq/bulwark/agent/uplink"
	agentv1 "github.com/bulwarkhq/bulwark/api/agent/v1"
	api "github.com/bulwarkhq/bulwark/api/control"
	"github.com/bulwarkhq/bulwark/api/response"
	"github.com/bulwarkhq/bulwark/engine/verdict"
)

// outcome is what a command came to.
type outcome struct {
	status, message string
	result          any // a JSON object; nil for none
}

func succeeded(format string, args ...any) (outcome, error) {
	return outcome{status: commandSucceeded, message: fmt.Sprintf(format, args...)}, nil
}

// carryOut does a command. An error is a failure whose text the portal shows.
func (a *Agent) carryOut(ctx context.Context, c *agentv1.Command, report uplink.Report) (outcome, error) {
	switch c.GetType() {
	case response.RunAntiVirusScan:
		status, message, err := a.commandedScan(ctx, c, report)
		return outcome{status: status, message: message}, err
	case response.Isolate:
		var p response.IsolateParameters
		if err := parameters(c, &p); err != nil {
			return outcome{}, err
		}
		if err := a.isolation.Isolate(ctx, p); err != nil {
			return outcome{}, err
		}
		a.uplink.CheckInSoon()
		return succeeded("the host is isolated")
	case response.Unisolate:
		if err := a.isolation.Release("order of the portal"); err != nil {
			return outcome{}, err
		}
		a.uplink.CheckInSoon()
		return succeeded("the host is released")
	case response.StopProcess:
		var p response.ProcessParameters
		if err := parameters(c, &p); err != nil {
			return outcome{}, err
		}
		what, err := respond.Host{Proc: "/proc", Own: a.ownPrograms(), Clock: a.table.Clock()}.StopProcess(p)
		if err != nil {
			return outcome{}, err
		}
		return succeeded("%s", what)
	case response.QuarantineFile, response.StopAndQuarantineFile:
		var p response.FileParameters
		if err := parameters(c, &p); err != nil {
			return outcome{}, err
		}
		return a.quarantineOrdered(ctx, p, c.GetType() == response.StopAndQuarantineFile)
	case response.RestoreFile:
		return a.restoreOrdered(ctx, c)
	case response.RemoveQuarantinedFile:
		return a.removeOrdered(ctx, c)
	case response.UpdateDefinitions:
		return a.updateOrdered(ctx, c, report)
	case response.CollectInvestigationPackage:
		return a.collectOrdered(ctx, c, report)
	case response.LiveResponse:
		return a.liveOrdered(ctx, c, report)
	case response.Offboard:
		return a.offboardOrdered(ctx, report)
	}
	return outcome{}, fmt.Errorf("this agent (version %s) does not know the action %q", a.opts.Version, c.GetType())
}

func parameters(c *agentv1.Command, into any) error {
	if err := json.Unmarshal(c.GetParametersJson(), into); err != nil {
		return fmt.Errorf("parameters of %s: %w", c.GetType(), err)
	}
	return nil
}

// orderedThreat is the name under which the history has what people quarantined.
const orderedThreat = "Ordered.Quarantine"

// quarantineOrdered moves the file of an order to the quarantine, after it ended
// those who run it.
func (a *Agent) quarantineOrdered(ctx context.Context, p response.FileParameters, stop bool) (outcome, error) {
	candidates := []string{p.Path}
	if p.Path == "" {
		candidates = a.candidates(ctx)
	}
	var done []string
	var errs []error
	for _, path := range candidates {
		said, err := a.quarantinePath(ctx, path, p, stop)
		switch {
		case errors.Is(err, errOtherContent) && p.Path == "":
		case err != nil:
			errs = append(errs, err)
		default:
			done = append(done, said...)
		}
	}
	switch {
	case len(done) > 0 && len(errs) > 0:
		return outcome{}, fmt.Errorf("%s; but: %w", strings.Join(done, "; "), errors.Join(errs...))
	case len(done) > 0:
		return succeeded("%s", strings.Join(done, "; "))
	case p.Path != "":
		return outcome{}, errors.Join(errs...)
	}
	return outcome{}, errors.New("no file of this hash is known here: no running program and nothing of the threat history has it; give its path")
}

// candidates are files that an order may mean by their hash: programs that run,
// and what the history knows.
func (a *Agent) candidates(ctx context.Context) []string {
	var out []string
	add := func(path string) {
		if strings.HasPrefix(path, "/") && !slices.Contains(out, path) && len(out) < 4096 {
			out = append(out, path)
		}
	}
	if pids, err := a.table.Running(); err == nil {
		for _, pid := range pids {
			if exe, err := os.Readlink("/proc/" + strconv.Itoa(pid) + "/exe"); err == nil && ctx.Err() == nil {
				add(exe)
			}
		}
	}
	if rows, err := a.history.List(1000); err == nil {
		for _, row := range rows {
			for _, path := range row.Paths {
				add(path)
			}
		}
	}
	return out
}

var errOtherContent = errors.New("is not the file that is meant")

// quarantinePath moves one file and says what was done.
func (a *Agent) quarantinePath(ctx context.Context, path string, p response.FileParameters, stop bool) ([]string, error) {
	if a.own(path) || slices.Contains(a.ownPrograms(), path) {
		if p.Path == "" {
			return nil, errOtherContent
		}
		return nil, fmt.Errorf("%s is the agent's own", path)
	}
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		if p.Path == "" {
			return nil, errOtherContent // gone, or a path of another mount namespace
		}
		return nil, err
	}
	defer func() { _ = f.Close() }() // read-only
	st, err := f.Stat()
	if err != nil || !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no regular file", path)
	}
	sum, err := hashFile(ctx, f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if p.SHA256 != "" && sum != p.SHA256 {
		return nil, fmt.Errorf("%s %w: its SHA-256 is %s", path, errOtherContent, sum)
	}
	if p.SHA1 != "" {
		got, err := sha1Of(f)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		if got != p.SHA1 {
			return nil, fmt.Errorf("%s %w: its SHA-1 is %s", path, errOtherContent, got)
		}
	}
	var said []string
	if stop {
		if said, err = a.endLoaded(f, path); err != nil {
			return nil, err
		}
	}
	item, err := a.quarantine.Add(ctx, f, path, quarantine.Meta{Threat: orderedThreat, ThreatType: string(verdict.Malware)})
	if err != nil {
		return nil, err
	}
	_, _, err = a.history.Record(threat.Detection{
		Time: time.Now(), Name: orderedThreat, Type: verdict.Malware, Signature: orderedThreat, Source: "portal", Path: path, SHA256: sum, Size: st.Size(),
		Scan: threat.Scan{Type: "portal"}, Status: threat.StatusQuarantined, Detail: "ordered in the portal", QuarantineID: item.ID,
	})
	if err != nil {
		a.log.Logger("history").Error("ordered quarantine not recorded", "path", path, "error", err)
	}
	if item.State == quarantine.StateOriginalKept {
		return nil, fmt.Errorf("%s: a copy is in the quarantine, the original is still there: %s", path, item.StateReason)
	}
	return append(said, fmt.Sprintf("%s is in the quarantine (item %s, SHA-256 %s)", path, item.ID, sum)), nil
}

// endLoaded ends the processes that run the file.
func (a *Agent) endLoaded(f *os.File, path string) ([]string, error) {
	file, err := loaded.FileOf(f, path)
	if err != nil {
		return nil, err
	}
	own := a.ownPrograms()
	found, err := loaded.Kill(file, func(pid int) bool {
		exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
		return err == nil && slices.Contains(own, exe)
	})
	var said []string
	for _, p := range found {
		if p.Killed {
			said = append(said, fmt.Sprintf("process %d (%s) ended", p.PID, p.Path))
		} else if p.Err != nil {
			err = errors.Join(err, p.Err)
		}
	}
	return said, err
}

func sha1Of(f *os.File) (string, error) {
	h := sha1.New()
	if _, err := io.Copy(h, io.NewSectionReader(f, 0, 1<<62)); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// itemsOrdered does something with the quarantined files of an order: the one with
// its id (or that of its threat), or all of its hash, the newest first.
func (a *Agent) itemsOrdered(c *agentv1.Command, do func(quarantine.Item) (string, error)) (outcome, error) {
	var p response.RestoreParameters
	if err := parameters(c, &p); err != nil {
		return outcome{}, err
	}
	var items []quarantine.Item
	if p.ItemID != "" {
		item, err := threats{a}.find(api.RestoreRequest{ID: p.ItemID})
		if err != nil {
			return outcome{}, err
		}
		items = []quarantine.Item{item}
	} else if items = slices.DeleteFunc(a.quarantine.List(), func(i quarantine.Item) bool { return i.SHA256 != p.SHA256 }); len(items) == 0 {
		return outcome{}, errors.New("the quarantine has no file of this SHA-256")
	}
	var done []string
	var errs []error
	for _, item := range items {
		said, err := do(item)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		done = append(done, said)
	}
	switch {
	case len(errs) > 0 && len(done) > 0:
		return outcome{}, fmt.Errorf("%s; but: %w", strings.Join(done, "; "), errors.Join(errs...))
	case len(errs) > 0:
		return outcome{}, errors.Join(errs...)
	}
	return succeeded("%s", strings.Join(done, "; "))
}

func (a *Agent) restoreOrdered(ctx context.Context, c *agentv1.Command) (outcome, error) {
	restored := map[api.Path]bool{}
	return a.itemsOrdered(c, func(item quarantine.Item) (string, error) {
		if restored[api.Path(item.Path)] {
			return "an older copy of it stays in the quarantine", nil
		}
		r, err := threats{a}.RestoreFromQuarantine(control.AsRoot(ctx), api.RestoreRequest{ID: item.ID})
		if err != nil {
			return "", err
		}
		restored[api.Path(item.Path)] = true
		return fmt.Sprintf("restored to %s", r.Path), nil
	})
}

func (a *Agent) removeOrdered(ctx context.Context, c *agentv1.Command) (outcome, error) {
	return a.itemsOrdered(c, func(item quarantine.Item) (string, error) {
		if err := (threats{a}).RemoveFromQuarantine(control.AsRoot(ctx), api.ThreatID{ID: item.ID}); err != nil {
			return "", err
		}
		return fmt.Sprintf("deleted for good: %s", item.Path), nil
	})
}

func (a *Agent) updateOrdered(ctx context.Context, c *agentv1.Command, report uplink.Report) (outcome, error) {
	if err := report(ctx, commandRunning, "", nil); err != nil {
		a.log.Logger("respond").Warn("begin of a command not reported", "id", c.GetId(), "error", err)
	}
	message := ""
	err := definitions{a}.UpdateDefinitions(ctx, func(p api.DefinitionsProgress) error {
		if p.Result != nil {
			message = p.Result.Message + ": " + p.Result.Definitions.Version
		}
		return nil
	})
	if err != nil {
		return outcome{}, err
	}
	return succeeded("%s", message)
}

// collectTime bounds the making of an investigation package.
const collectTime = 10 * time.Minute

func (a *Agent) collectOrdered(ctx context.Context, c *agentv1.Command, report uplink.Report) (outcome, error) {
	if err := report(ctx, commandRunning, "collecting", nil); err != nil {
		a.log.Logger("respond").Warn("begin of a command not reported", "id", c.GetId(), "error", err)
	}
	f, problems, err := a.collect(ctx)
	if err != nil {
		return outcome{}, err
	}
	defer func() { _ = f.Close() }() // the file is gone already
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return outcome{}, fmt.Errorf("investigation package: %w", err)
	}
	host, err := os.Hostname()
	if err != nil {
		host = "host"
	}
	name := fmt.Sprintf("investigation-%s-%s.tar.gz", host, time.Now().UTC().Format("20060102-150405"))
	sum, err := a.uplink.SendFile(ctx, c.GetId(), name, f, size)
	if err != nil {
		return outcome{}, err
	}
	out, err := succeeded("%d bytes sent; %d things could not be collected", size, len(problems))
	out.result = response.PackageResult{FileName: name, Size: size, SHA256: sum}
	return out, err
}

// collect makes an investigation package in a file without a name.
func (a *Agent) collect(ctx context.Context) (*os.File, []string, error) {
	ctx, cancel := context.WithTimeout(ctx, collectTime)
	defer cancel()
	f, err := os.CreateTemp(a.opts.Dirs.State, ".investigation-*")
	if err != nil {
		return nil, nil, fmt.Errorf("investigation package: %w", err)
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("investigation package: %w", err), f.Close())
	}
	documents := map[string][]byte{}
	add := func(name string, v any, err error) {
		if err != nil {
			v = map[string]string{"error": err.Error()}
		}
		if data, err := json.MarshalIndent(v, "", "  "); err == nil {
			documents[name] = data
		}
	}
	health, err := a.health.Health(ctx)
	add("health.json", health, err)
	history, err := threats{a}.ListThreats(control.AsRoot(ctx))
	add("threats.json", history, err)
	quarantined, err := threats{a}.ListQuarantine(control.AsRoot(ctx))
	add("quarantine.json", quarantined, err)
	settings, err := a.config.Settings(ctx)
	add("settings.json", settings, err)
	problems, err := respond.Collector{Root: "/", Run: a.starter, Documents: documents, Users: a.table.Users()}.Collect(ctx, f)
	if err != nil {
		return nil, problems, errors.Join(err, f.Close())
	}
	return f, problems, nil
}

// offboardOrdered reports first: afterwards there is no way to.
func (a *Agent) offboardOrdered(ctx context.Context, report uplink.Report) (outcome, error) {
	if err := report(ctx, commandSucceeded, "the host leaves", nil); err != nil {
		return outcome{}, fmt.Errorf("the host does not leave, since the portal does not hear of it: %w", err)
	}
	if err := a.isolation.Release("offboarded by the portal"); err != nil && !errors.Is(err, isolation.ErrNotIsolated) {
		a.log.Logger("respond").Error("the host is not released before it leaves", "error", err)
	}
	if _, err := a.Offboard(ctx); err != nil {
		a.log.Logger("respond").Error("offboarding ordered by the portal failed", "error", err)
	}
	return outcome{}, errReported
}

// errReported means that the end of a command is reported already.
var errReported = errors.New("reported")

// isolationPath is the file of an isolation.
func (a *Agent) isolationPath() string { return filepath.Join(a.opts.Dirs.State, "isolation.json") }
