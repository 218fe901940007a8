package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/bulwarkhq/bulwark/agent/control"
	"github.com/bulwarkhq/bulwark/agent/respond"
	"github.com/bulwarkhq/bulwark/agent/uplink"
	agentv1 "github.com/bulwarkhq/bulwark/api/agent/v1"
	"github.com/bulwarkhq/bulwark/api/response"
)

// newLive makes the live response of this daemon.
func (a *Agent) newLive() *respond.Live {
	return &respond.Live{
		Dir: filepath.Join(a.opts.Dirs.State, "live"), Run: a.starter, Proc: "/proc", Now: time.Now,
		Send: func(ctx context.Context, command, name string, f io.ReaderAt, size int64) error {
			_, err := a.uplink.SendFile(ctx, command, name, f, size)
			return err
		},
		Fetch: func(ctx context.Context, command, sum string, limit int64, w io.Writer) error {
			return a.uplink.FetchFile(ctx, command, sum, limit, w)
		},
		More: map[string]func(context.Context, []string) (string, error){"status": a.liveStatus, "remediate": a.liveRemediate},
	}
}

func (a *Agent) liveStatus(ctx context.Context, _ []string) (string, error) {
	h, err := a.health.Health(ctx)
	if err != nil {
		return "", err
	}
	data, err := json.MarshalIndent(h, "", "  ")
	return string(data) + "\n", err
}

func (a *Agent) liveRemediate(ctx context.Context, args []string) (string, error) {
	switch {
	case len(args) == 1 && args[0] == "list":
		items, err := threats{a}.ListQuarantine(control.AsRoot(ctx))
		var b strings.Builder
		for _, i := range items {
			fmt.Fprintf(&b, "%s  %s  %s  %q\n", i.ID, i.Time.UTC().Format(time.RFC3339), i.Name, string(i.Path))
		}
		return b.String(), err
	case len(args) == 2 && args[0] == "file":
		out, err := a.quarantineOrdered(ctx, response.FileParameters{Path: args[1]}, true)
		return out.message + "\n", err
	case len(args) == 2 && args[0] == "process":
		pid, err := strconv.ParseInt(args[1], 10, 32)
		if err != nil {
			return "", fmt.Errorf("%.32q is no process number", args[1])
		}
		said, err := respond.Host{Proc: "/proc", Own: a.ownPrograms(), Clock: a.table.Clock()}.StopProcess(response.ProcessParameters{ProcessID: int32(pid)})
		return said + "\n", err
	}
	return "", errors.New("remediate wants: file PATH, process PID, or list")
}

// liveOrdered does the commands of a live response order.
func (a *Agent) liveOrdered(ctx context.Context, c *agentv1.Command, report uplink.Report) (outcome, error) {
	p, err := response.DecodeLive(c.GetParametersJson())
	if err != nil {
		return outcome{}, err
	}
	if err := report(ctx, commandRunning, "", nil); err != nil {
		a.log.Logger("respond").Warn("begin of a command not reported", "id", c.GetId(), "error", err)
	}
	result, ok := a.live.Do(ctx, c.GetId(), p)
	for _, o := range result.Commands {
		a.log.Logger("respond").Warn("live response", "session", p.Session, "command", o.Command, "status", o.Status)
	}
	out := outcome{status: commandSucceeded, message: fmt.Sprintf("%d command(s) done", len(result.Commands)), result: result}
	if !ok {
		out.status, out.message = commandFailed, result.Commands[len(result.Commands)-1].Error
	}
	return out, nil
}
