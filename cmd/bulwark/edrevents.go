package main

import (
	"context"
	"errors"
	"fmt"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	api "github.com/bulwarkhq/bulwark/api/control"
	"github.com/bulwarkhq/bulwark/event"
)

func (a *app) edrEventsCommand() *cobra.Command {
	var f api.EventFilter
	var follow bool
	var count int
	c := a.command("events", "Show what the sensors see: the last events, or with --follow those to come", func(ctx context.Context) error {
		if count < 0 {
			return fmt.Errorf("--count %d: want how many events to show, or 0 for no limit", count)
		}
		if !follow {
			got, err := a.daemon().RecentEvents(ctx, f)
			if err != nil {
				return err
			}
			if count > 0 && len(got.Events) > count {
				got.Events = got.Events[len(got.Events)-count:]
			}
			if a.json() {
				return a.printJSON(got)
			}
			for i := range got.Events {
				a.sayEvent(&got.Events[i])
			}
			return nil
		}
		return a.followEvents(ctx, f, count)
	})
	c.Flags().BoolVar(&follow, "follow", false, "go on with what happens from now on; as JSON one event a line")
	c.Flags().IntVar(&count, "count", 0, "end after so many events")
	c.Flags().StringVar(&f.Category, "category", "", "only events of this category, e.g. process, file, network, dns")
	c.Flags().StringVar(&f.Action, "action", "", "only events of this ActionType, e.g. FileCreated")
	c.Flags().StringVar(&f.Text, "text", "", "only events with this text in a path, command line, host name or address")
	c.Flags().Int64Var(&f.PID, "pid", 0, "only events of this process")
	var names []string
	for _, k := range event.Categories() {
		names = append(names, string(k))
	}
	complete(c, "category", names...)
	return c
}

func (a *app) followEvents(ctx context.Context, f api.EventFilter, count int) error {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	enough := errors.New("enough")
	n := 0
	err := a.daemon().FollowSensorEvents(ctx, f, func(s api.SensorEvents) error {
		if s.Missed > 0 {
			fmt.Fprintf(a.stderr, "%d events came too fast to be shown.\n", s.Missed)
		}
		for i := range s.Events {
			if a.json() {
				if err := a.printLine(&s.Events[i]); err != nil {
					return err
				}
			} else {
				a.sayEvent(&s.Events[i])
			}
			if n++; n == count {
				return enough
			}
		}
		return nil
	})
	if errors.Is(err, enough) || ctx.Err() != nil {
		return nil
	}
	return err
}

// sayEvent shows an event in one line: when, what, who, on what.
func (a *app) sayEvent(e *event.Event) {
	who := e.Initiating
	var about []string
	add := func(format string, args ...any) { about = append(about, fmt.Sprintf(format, args...)) }
	switch {
	case e.Class == event.ClassProcess:
		who = e.Process
	case e.Class == event.ClassBehavior:
		who = e.Process
		add("%s:", visible(e.Additional[event.BehaviorDescription]))
		if e.Process.CommandLine != "" {
			add("%s", visible(e.Process.CommandLine))
		}
	case e.Process.PID != 0 && e.Process.PID != who.PID:
		add("process %d %s", e.Process.PID, visible(e.Process.FolderPath))
	}
	if e.File.PreviousFolderPath != "" {
		add("%s ->", visible(e.File.PreviousFolderPath))
	}
	if e.File.FolderPath != "" {
		add("%s", visible(e.File.FolderPath))
	}
	if n := e.Network; n.RemoteIP != "" || n.LocalIP != "" {
		add("%s %s -> %s", visible(n.Protocol), end(n.LocalIP, n.LocalPort), end(n.RemoteIP, n.RemotePort))
	}
	if e.Network.RemoteURL != "" {
		add("%s", visible(e.Network.RemoteURL))
	}
	if e.Logon.AccountName != "" {
		add("account %s", visible(e.Logon.AccountName))
	}
	if e.Class == event.ClassProcess && e.Process.CommandLine != "" {
		add("%s", visible(e.Process.CommandLine))
	}
	for _, k := range []string{"Method", "Request", "ModuleName", "ProgramName", "QueryType", "ResponseCode", "Answers", "ExitCode", "ExitSignal", "Error"} {
		if v := e.Additional[k]; v != "" {
			add("%s=%s", k, visible(v))
		}
	}
	a.say("%s %-26s %7d %-16s %s", e.Time.Local().Format("15:04:05.000"), visible(e.Action), who.PID, visible(who.FileName), strings.Join(about, " "))
}

func end(ip string, port int64) string {
	if ip == "" {
		return "*"
	}
	if strings.Contains(ip, ":") {
		ip = "[" + ip + "]"
	}
	return visible(ip) + ":" + strconv.FormatInt(port, 10)
}

func (a *app) edrTreeCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "tree <pid>", Short: "Show where a process comes from and what came from it, also after it ended",
		Args: func(c *cobra.Command, args []string) error {
			if len(args) != 1 {
				return fmt.Errorf("%s needs one process id; see %s --help", c.CommandPath(), c.CommandPath())
			}
			return nil
		},
	}
	c.RunE = func(c *cobra.Command, args []string) error {
		pid, err := strconv.ParseInt(args[0], 10, 32)
		if err != nil || pid <= 0 {
			return fmt.Errorf("%q is no process id: want a whole number from 1", args[0])
		}
		t, err := a.daemon().ProcessTree(c.Context(), pid)
		if err != nil {
			return err
		}
		if a.json() {
			return a.printJSON(t)
		}
		for _, p := range t.Processes {
			state := ""
			if p.Ended {
				state = " (ended)"
			}
			line := p.CommandLine
			if line == "" {
				line = p.FolderPath
			}
			mark := ""
			if p.PID == pid {
				mark = "> "
			}
			a.say("%s%s%d %s %s%s %s", strings.Repeat("  ", p.Depth), mark, p.PID, visible(p.AccountName), p.StartTime.Local().Format(time.DateTime), state, visible(line))
		}
		if t.Cut {
			fmt.Fprintln(a.stderr, "There are more processes than are shown.")
		}
		return nil
	}
	return c
}
