package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/bulwarkhq/bulwark/agent/detect"
	"github.com/bulwarkhq/bulwark/agent/indicator"
	"github.com/bulwarkhq/bulwark/agent/respond"
	"github.com/bulwarkhq/bulwark/api/response"
	"github.com/bulwarkhq/bulwark/event"
	"github.com/bulwarkhq/bulwark/policy"
)

// responseTime bounds what a rule's responses take; maxResponses how many
// alerts are responded to at a time.
const (
	responseTime = 30 * time.Second
	maxResponses = 4
)

// openIndicators makes the manager of indicators.
func (a *Agent) openIndicators() {
	state := filepath.Join(a.opts.Dirs.State, "indicators")
	a.responding = make(chan struct{}, maxResponses)
	a.indicators = indicator.New(indicator.Options{
		Local: filepath.Join(a.opts.Dirs.Config, "indicators.json"), Portal: filepath.Join(state, "portal.json"),
		Signatures:   a.indicatorSignatures(),
		Reload:       func(ctx context.Context) error { return a.loadDefinitions(ctx, a.updater.Folders()) },
		PathsChanged: func() { a.realtime.policyChanged() },
		Enforcement: func() (string, bool) {
			e := a.config.Current()
			return e.String(policy.KeyNetworkProtection), e.Bool("networkProtection.enableSetWarnToBlock")
		},
		Exempt: func(program string) bool {
			return slices.Contains(a.config.Current().Strings(policy.KeyNetworkExclusions), program)
		},
		Alert: a.raise, Log: a.log.Logger("indicators"),
	})
}

// indicatorSignatures is the folder of what the scan engine knows of indicators.
func (a *Agent) indicatorSignatures() string {
	return filepath.Join(a.opts.Dirs.State, "indicators", "signatures")
}

// respondToRule does what the rule of an alert says and then raises the alert
// with what was done. Without responses it raises it at once.
func (a *Agent) respondToRule(al event.Alert) {
	want := a.rules.Responses(al.DetectorID)
	if len(want) == 0 || al.TestID != "" {
		a.raise(al)
		return
	}
	select {
	case a.responding <- struct{}{}:
	default:
		al.ActionDetail = "no response: too many at a time"
		a.raise(al)
		return
	}
	go func() {
		defer func() { <-a.responding }()
		ctx, cancel := context.WithTimeout(context.Background(), responseTime)
		defer cancel()
		var said []string
		for _, r := range want {
			what := ""
			err := protect(func() (err error) {
				what, err = a.respondOnce(ctx, r, &al)
				return err
			})
			if err != nil {
				what = string(r) + " failed: " + err.Error()
				a.log.Logger("respond").Error("response of a rule failed", "rule", al.Title, "response", string(r), "error", err)
			}
			said = append(said, what)
		}
		al.ActionDetail = strings.Join(said, "; ")
		a.raise(al)
	}()
}

func (a *Agent) respondOnce(ctx context.Context, r detect.Response, al *event.Alert) (string, error) {
	switch r {
	case detect.KillTree:
		n, err := a.killTree(al.Process)
		if n > 0 {
			al.Action = "killed"
		}
		return fmt.Sprintf("%d processes ended", n), err
	case detect.QuarantineImage:
		out, err := a.quarantineOrdered(ctx, response.FileParameters{Path: al.Process.FolderPath, SHA256: al.Process.SHA256}, false)
		if err == nil {
			al.Action = "quarantined"
		}
		return out.message, err
	case detect.BlockHash:
		if al.Process.SHA256 == "" {
			return "", errors.New("the hash of the program is not known")
		}
		return "hash blocked", a.indicators.BlockHash(al.Process.SHA256, "Blocked by the rule "+al.Title)
	case detect.Isolate:
		return "the host is isolated", a.isolation.Isolate(ctx, response.IsolateParameters{Order: al.ID})
	}
	return "", fmt.Errorf("response %q is unknown", string(r))
}

// killTree ends a process and its descendants, the youngest first. A process
// that has ended, and whose number may be somebody else's by now, is left alone;
// its children have gone to init and are not found.
func (a *Agent) killTree(p event.Process) (int, error) {
	host := respond.Host{Proc: "/proc", Own: a.ownPrograms(), Clock: a.table.Clock()}
	_, st, err := a.table.Read(int(p.PID))
	if err != nil || st.Start != a.table.Clock().TicksOf(p.StartTime) {
		return 0, fmt.Errorf("process %d has ended already", p.PID)
	}
	pids, err := a.table.Running()
	if err != nil {
		return 0, err
	}
	children := map[int][]int{}
	for _, pid := range pids {
		if ppid, err := parentOf(pid); err == nil {
			children[ppid] = append(children[ppid], pid)
		}
	}
	var tree []int
	for todo := []int{int(p.PID)}; len(todo) > 0 && len(tree) < 4096; todo = todo[1:] {
		if !slices.Contains(tree, todo[0]) {
			tree = append(tree, todo[0])
			todo = append(todo, children[todo[0]]...)
		}
	}
	slices.Reverse(tree)
	done := 0
	var errs []error
	for _, pid := range tree {
		if _, err := host.StopProcess(response.ProcessParameters{ProcessID: int32(pid)}); err != nil {
			errs = append(errs, err)
			continue
		}
		done++
	}
	return done, errors.Join(errs...)
}

// parentOf reads the parent from /proc/PID/stat, whose second field may hold
// anything in its parentheses.
func parentOf(pid int) (int, error) {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(data[strings.LastIndexByte(string(data), ')')+1:]))
	if len(fields) < 2 {
		return 0, fmt.Errorf("/proc/%d/stat is not complete", pid)
	}
	return strconv.Atoi(fields[1])
}
