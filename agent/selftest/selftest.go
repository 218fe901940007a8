// Package selftest proves the whole chain of protection on a live host: a
// harmless test file is blocked and quarantined, a harmless test command raises
// a behaviour alert, and both arrive at the portal. It measures each step and
// removes everything it made, here and there.
package selftest

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/bulwarkhq/bulwark/api/control"
	"github.com/bulwarkhq/bulwark/event"
)

// Prefix begins the name of the test's folder and of its command. The
// behaviour rule for self-tests and the daemon recognise the test by it.
const Prefix = "bulwark-selftest-"

// AlertFlag precedes the id of the test on the command line of the test
// command; the behaviour rule looks for it.
const AlertFlag = "--behaviour-alert="

// Bounds of single steps. The whole test takes well under a second on an idle
// host; the bounds are for busy ones.
const (
	blockTimeout   = 15 * time.Second
	sensingTimeout = 2 * time.Minute // loading programs into a slow kernel takes long
	alertTimeout   = 30 * time.Second
	arrivalTimeout = 20 * time.Second
	arrivalPoll    = 50 * time.Millisecond
	cleanupTimeout = 10 * time.Second
)

// ErrNoPortal is what Arrivals returns when there is no portal to ask and waiting
// does not help.
var ErrNoPortal = errors.New("no portal")

// Arrival is one alert of a test that the portal has stored.
type Arrival struct {
	AlertID string
	Source  string
	Time    time.Time // by the portal's clock
}

// Host is what the test needs of the daemon.
type Host interface {
	// Folder returns a folder that files can be written to and that real-time
	// protection watches; an error says why there is none.
	Folder() (string, error)
	// Begin announces a test: alerts that concern files below folder carry the
	// id as TestID. alerts receives every alert of the test; end ends it.
	Begin(id, folder string) (alerts <-chan event.Alert, end func())
	// Sensing waits until new processes are seen; an error says why they are not.
	Sensing(ctx context.Context) error
	// Arrivals returns the alerts of the test that the portal has; with remove
	// it removes them there. ErrNoPortal ends the test's waiting.
	Arrivals(ctx context.Context, id string, remove bool) ([]Arrival, error)
	// Execute runs a program in a process of its own and returns what it
	// printed, with an *exec.ExitError when it failed.
	Execute(ctx context.Context, path string, args ...string) ([]byte, error)
	// Forget removes what quarantine and history keep of the files below folder.
	Forget(ctx context.Context, folder string) error
}

// Run performs the test. It calls send after each step and returns an error
// only when the test could not be carried out (send failed, ctx ended): a step
// that fails is a result. On a host without a portal the step about it is
// skipped.
func Run(ctx context.Context, host Host, send func(control.SelfTestStep) error) error {
	id := newID()
	t := &test{host: host, id: id, send: send}
	folder, err := host.Folder()
	if err != nil {
		return t.report("blocked_file", time.Now(), err.Error(), errors.New("no protected folder"), "see `bulwark health --details antivirus`")
	}
	t.folder = filepath.Join(folder, Prefix+id)
	if err := os.Mkdir(t.folder, 0o700); err != nil {
		return t.report("blocked_file", time.Now(), "", fmt.Errorf("making the test folder: %w", err), "the folder must be writable")
	}
	var end func()
	t.alerts, end = host.Begin(id, t.folder)
	defer end()

	err = t.steps(ctx)
	// The clean-up also happens when the caller has gone.
	cleanCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
	defer cancel()
	return errors.Join(err, t.cleanUp(cleanCtx))
}

type test struct {
	host   Host
	id     string
	folder string
	alerts <-chan event.Alert
	send   func(control.SelfTestStep) error
	raised int // alerts raised on this host
}

func (t *test) steps(ctx context.Context) error {
	for _, step := range []func(context.Context) error{t.blockedFile, t.behaviourAlert, t.arrival} {
		if err := step(ctx); err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return nil
}

// report sends the result of a step: ok when failure is nil.
func (t *test) report(name string, began time.Time, detail string, failure error, hint string) error {
	s := control.SelfTestStep{
		Name: name, Status: control.StepOK, Detail: detail,
		DurationMS: float64(time.Since(began).Microseconds()) / 1000,
	}
	if failure != nil {
		s.Status, s.Detail, s.Hint = control.StepFailed, failure.Error(), hint
		if detail != "" {
			s.Detail += ": " + detail
		}
	}
	return t.send(s)
}

// skip reports a step that this host has no use for.
func (t *test) skip(name string, began time.Time, why, hint string) error {
	return t.send(control.SelfTestStep{
		Name: name, Status: control.StepSkipped, Detail: why, Hint: hint,
		DurationMS: float64(time.Since(began).Microseconds()) / 1000,
	})
}

// blockedFile writes the EICAR test file and lets another process open it: the
// daemon's own accesses are never held. The writing descriptor stays open until
// then, because closing it would have the file quarantined before it is opened.
func (t *test) blockedFile(ctx context.Context) error {
	const name, hint = "blocked_file", "is real-time protection on? see `bulwark health` and `bulwark config show`"
	path := filepath.Join(t.folder, "eicar.com")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return t.report(name, time.Now(), "", fmt.Errorf("writing the test file: %w", err), "the folder must be writable")
	}
	defer func() { _ = f.Close() }() // nothing depends on this file's content reaching the disk
	if _, err := f.WriteString(eicar()); err != nil {
		return t.report(name, time.Now(), "", fmt.Errorf("writing the test file: %w", err), "is the disk full?")
	}
	began := time.Now()
	opened, err := t.openElsewhere(ctx, path)
	if err != nil {
		return t.report(name, began, "", err, hint)
	}
	if opened {
		return t.report(name, began, path, errors.New("the test file could be opened"), hint)
	}
	if err := t.report(name, began, "open of the EICAR test file was refused", nil, ""); err != nil {
		return err
	}
	began = time.Now()
	a, err := t.await(ctx, event.SourceAntivirus, blockTimeout)
	if err != nil {
		return t.report("quarantine", began, "", err, hint)
	}
	return t.report("quarantine", began, a.ThreatName+" "+a.Action, nil, "")
}

// behaviourAlert runs a command that does nothing and that the self-test rule
// matches.
func (t *test) behaviourAlert(ctx context.Context) error {
	const name, hint = "behaviour_alert", "see `bulwark health --details edr` for the process sensor"
	// A sensor that still starts, just after an installation, would miss the command.
	began := time.Now()
	sensingCtx, cancelSensing := context.WithTimeout(ctx, sensingTimeout)
	defer cancelSensing()
	if err := t.host.Sensing(sensingCtx); err != nil {
		return t.report(name, began, "", err, hint)
	}
	program := filepath.Join(t.folder, Prefix+t.id)
	if err := copyProgram(program); err != nil {
		return t.report(name, time.Now(), "", err, "")
	}
	began = time.Now()
	runCtx, cancel := context.WithTimeout(ctx, alertTimeout)
	defer cancel()
	if out, err := t.host.Execute(runCtx, program, AlertFlag+t.id); err != nil {
		return t.report(name, began, strings.TrimSpace(string(out)), fmt.Errorf("running the test command: %w", err), "is the folder mounted noexec?")
	}
	a, err := t.await(ctx, event.SourceSelfTest, alertTimeout)
	if err != nil {
		return t.report(name, began, "", err, hint)
	}
	return t.report(name, began, a.Title, nil, "")
}

// arrival waits until the portal has every alert of the test.
func (t *test) arrival(ctx context.Context) error {
	const name = "arrival_at_portal"
	began := time.Now()
	if t.raised == 0 {
		return t.report(name, began, "", errors.New("no alert was raised that could arrive"), "")
	}
	waitCtx, cancel := context.WithTimeout(ctx, arrivalTimeout)
	defer cancel()
	var last error
	arrived := 0
	for {
		arrivals, err := t.host.Arrivals(waitCtx, t.id, false)
		if err == nil && len(arrivals) >= t.raised {
			return t.report(name, began, fmt.Sprintf("%d of %d alerts", len(arrivals), t.raised), nil, "")
		}
		if errors.Is(err, ErrNoPortal) {
			return t.skip(name, began, err.Error(), "enroll this host to have its alerts at a portal: see `bulwark health --explain`")
		}
		if err != nil && waitCtx.Err() == nil {
			last = err
		}
		arrived = max(arrived, len(arrivals))
		select {
		case <-waitCtx.Done():
			if last == nil {
				last = fmt.Errorf("%d of %d alerts arrived within %s", arrived, t.raised, arrivalTimeout)
			}
			return t.report(name, began, "", last, "see `bulwark connectivity test`")
		case <-time.After(arrivalPoll):
		}
	}
}

func (t *test) cleanUp(ctx context.Context) error {
	const name = "cleanup"
	began := time.Now()
	if err := errors.Join(t.host.Forget(ctx, t.folder), os.RemoveAll(t.folder)); err != nil {
		return t.report(name, began, "", err, "remove "+t.folder)
	}
	switch _, err := t.host.Arrivals(ctx, t.id, true); {
	case t.raised == 0 || err == nil:
	case errors.Is(err, ErrNoPortal):
		return t.report(name, began, "test file and history removed; no portal has alerts of the test", nil, "")
	default:
		return t.report(name, began, "", fmt.Errorf("test file and history are removed, the alerts are still on their way: %w", err),
			"nothing: the portal removes alerts of a self-test by itself within two hours of their arrival")
	}
	return t.report(name, began, "test file, history and alerts removed", nil, "")
}

// await waits for an alert of the given source.
func (t *test) await(ctx context.Context, source string, bound time.Duration) (event.Alert, error) {
	timeout := time.NewTimer(bound)
	defer timeout.Stop()
	for {
		select {
		case a := <-t.alerts:
			t.raised++
			if a.Source == source {
				return a, nil
			}
		case <-ctx.Done():
			return event.Alert{}, ctx.Err()
		case <-timeout.C:
			return event.Alert{}, fmt.Errorf("no alert within %s", bound)
		}
	}
}

// openElsewhere lets a shell open the file for reading.
func (t *test) openElsewhere(ctx context.Context, path string) (opened bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, blockTimeout)
	defer cancel()
	out, err := t.host.Execute(ctx, "/bin/sh", "-c", `exec 3<"$1"`, "sh", path)
	if err == nil {
		return true, nil
	}
	if _, ok := errors.AsType[*exec.ExitError](err); !ok || ctx.Err() != nil {
		return false, fmt.Errorf("opening the test file: %w", err)
	}
	// The words are strerror's, which the C locale (a daemon's) does not translate.
	if text := string(out); !strings.Contains(text, "Operation not permitted") && !strings.Contains(text, "No such file") {
		return false, fmt.Errorf("opening the test file failed otherwise than by protection: %s", strings.TrimSpace(text))
	}
	return false, nil
}

// copyProgram makes the test command: a copy of true(1), or a script where
// there is none.
func copyProgram(path string) error {
	var content io.Reader = strings.NewReader("#!/bin/sh\nexit 0\n")
	for _, name := range []string{"/bin/true", "/usr/bin/true"} {
		if f, err := os.Open(name); err == nil {
			defer func() { _ = f.Close() }()
			content = f
			break
		}
	}
	out, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o700)
	if err != nil {
		return fmt.Errorf("making the test command: %w", err)
	}
	_, err = io.Copy(out, content)
	if err := errors.Join(err, out.Close()); err != nil {
		return fmt.Errorf("making the test command: %w", err)
	}
	return nil
}

// eicar returns the EICAR test string, put together so that this program is not
// itself detected.
func eicar() string {
	return `X5O!P%@AP[4\PZX54(P^)7CC)7}` + `$EICAR-STANDARD-` + `ANTIVIRUS-TEST-FILE!$H+H*`
}

func newID() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}
