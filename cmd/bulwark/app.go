package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/term"

	"github.com/bulwarkhq/bulwark/agent/layout"
	api "github.com/bulwarkhq/bulwark/api/control"
	"github.com/bulwarkhq/bulwark/cmd/bulwark/owner"
)

// Exit statuses.
const (
	statusOK        = 0
	statusNo        = 1 // the command worked and the answer is no
	statusError     = 2
	statusCancelled = 130 // as shells report SIGINT
)

// statusErr ends the program with a status; what there is to say has been said
// when err is nil.
type statusErr struct {
	status int
	err    error
}

func (e *statusErr) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit status %d", e.status)
	}
	return e.err.Error()
}

func (e *statusErr) Unwrap() error { return e.err }

func exit(status int) error { return &statusErr{status: status} }

// app is one run of the program.
type app struct {
	name           string // the program's name as it was started
	stdout, stderr io.Writer
	root           string
	output         string
	// quiet keeps the standard output free of warnings: somebody parses it.
	quiet  bool
	client *api.Client
	// owners looks up the packages of files.
	owners owner.Finder
	// terminal is whether stdout is one, with its width.
	terminal bool
	width    int
	now      func() time.Time
	zone     *time.Location
}

func newApp(name string, stdout, stderr io.Writer) *app {
	a := &app{name: name, stdout: stdout, stderr: stderr, now: time.Now, zone: time.Local, width: 80}
	if f, ok := stdout.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		a.terminal = true
		if w, _, err := term.GetSize(int(f.Fd())); err == nil && w > 0 {
			a.width = w
		}
	}
	return a
}

func (a *app) dirs() layout.Dirs {
	if a.root == "" || a.root == "/" {
		return layout.Default()
	}
	return layout.Under(a.root)
}

// reference reports whether the program speaks the reference product's surface.
func (a *app) reference() bool { return a.name == referenceName }

func (a *app) json() bool { return a.output == "json" }

// daemon returns the client of the daemon.
func (a *app) daemon() *api.Client {
	if a.client == nil {
		a.client = api.Dial(a.dirs().Socket())
		a.client.OnUnlicensed = func() {
			to := a.stdout
			if a.json() || a.quiet {
				to = a.stderr
			}
			fmt.Fprintln(to, "ATTENTION: No license found. This host is not enrolled with a portal: install its onboarding package at "+
				a.dirs().Onboarding()+". Protection works, but nobody is told.")
		}
	}
	return a.client
}

// printJSON writes v as the answer of the command.
func (a *app) printJSON(v any) error {
	enc := json.NewEncoder(a.stdout)
	enc.SetEscapeHTML(false)
	if a.terminal {
		enc.SetIndent("", "  ")
	}
	if err := enc.Encode(v); err != nil {
		return fmt.Errorf("write the answer: %w", err)
	}
	return nil
}

// printLine writes one JSON object of many, each in its line.
func (a *app) printLine(v any) error {
	enc := json.NewEncoder(a.stdout)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return fmt.Errorf("write the answer: %w", err)
	}
	return nil
}

// say writes a line of the answer.
func (a *app) say(format string, args ...any) { fmt.Fprintf(a.stdout, format+"\n", args...) }

// done ends a command that changed something: text is its line, v its JSON.
func (a *app) done(text string, v any) error {
	if a.json() {
		return a.printJSON(v)
	}
	a.say("%s", text)
	return nil
}

// report prints an error and returns the exit status.
func (a *app) report(err error) int {
	var status *statusErr
	if errors.As(err, &status) {
		if status.err == nil {
			return status.status
		}
		err = status.err
	}
	shown := &api.Error{Code: api.InvalidArgument, Message: err.Error()}
	var fromDaemon *api.Error
	switch {
	case errors.As(err, &fromDaemon):
		shown = fromDaemon
	case errors.Is(err, api.ErrNoDaemon):
		shown = &api.Error{
			Code:    api.Unavailable,
			Message: strings.ToUpper(err.Error()[:1]) + err.Error()[1:],
			Hint:    "is it running? Look with `systemctl status bulwark`, start it with `systemctl start bulwark`; why it stopped is in " + a.dirs().Log + "/bulwark_err.log",
		}
	case errors.Is(err, context.DeadlineExceeded):
		shown = &api.Error{Code: api.Unavailable, Message: "the daemon does not answer", Hint: "restart the service bulwark; `" + a.name + " diagnostic create` collects what is needed to find out why"}
	case errors.Is(err, context.Canceled):
		shown = &api.Error{Code: api.Unavailable, Message: "interrupted"}
	}
	if a.json() {
		data, _ := json.Marshal(api.ErrorBody{Error: shown})
		fmt.Fprintln(a.stderr, string(data))
	} else {
		fmt.Fprintln(a.stderr, visible(shown.Message))
		if shown.Hint != "" {
			fmt.Fprintln(a.stderr, "What to do: "+visible(shown.Hint))
		}
	}
	if status != nil {
		return status.status
	}
	return statusError
}
