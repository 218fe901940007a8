// Package coverage proves on which mounts real-time protection works. It does
// not ask the kernel or our own tables: on every writable mount of every mount
// namespace another process writes a harmless file and opens it, and the mount
// counts as protected only if that open was refused.
//
// The file's whole content is a random token, drawn for this one file, for
// which the on-access path gives one refusal (onaccess.ExpectProbe). No
// signature is involved, so nothing is quarantined or reported and no other
// program takes the file for malware. Everything that touches a file system is
// done by the helper process (Helper), which is killed if a file system hangs:
// the daemon itself never waits for one.
package coverage

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"github.com/bulwarkhq/bulwark/agent/onaccess"
)

// Prefix begins the names of probe files.
const Prefix = ".bulwark-coverage-probe-"

// magic begins the token, so that a left-over is known to be ours.
const magic = "bulwark-probe:"

// Status is what is known about a mount.
type Status string

// The values of Status.
const (
	Protected   Status = "protected"
	Unprotected Status = "unprotected"
	// Unproven: it should be protected, and the probe could not be made.
	Unproven Status = "unproven"
	// NotApplicable: nobody can put a file there that could be executed or read
	// later: read-only mounts, the kernel's own file systems, single files.
	NotApplicable Status = "not_applicable"
)

// Mount is one mount with its result.
type Mount struct {
	Point      string
	Filesystem string
	// Namespace is the number of the mount namespace; Process one of its
	// members, 0 for the daemon's own namespace.
	Namespace uint64
	Process   int32
	Status    Status
	Reason    string // why not protected
}

// Result is one run.
type Result struct {
	Checked    time.Time
	Took       time.Duration
	Namespaces int
	Mounts     []Mount
	// Problems are namespaces or tables that could not be looked at.
	Problems []string
}

// Count is how many mounts have the status.
func (r Result) Count(s Status) (n int) {
	for _, m := range r.Mounts {
		if m.Status == s {
			n++
		}
	}
	return n
}

// Percent is the share of the mounts that matter on which protection is
// proven, from 0 to 100; 100 when there is none that matters.
func (r Result) Percent() float64 {
	good := r.Count(Protected)
	all := good + r.Count(Unprotected) + r.Count(Unproven)
	if all == 0 {
		return 100
	}
	return float64(good) * 100 / float64(all)
}

// Watcher is the real-time protection that is tested.
type Watcher interface {
	Mode() onaccess.Mode
	MountNamespaces() ([]onaccess.Namespace, error)
	ExpectProbe(token [onaccess.ProbeSize]byte) (wait func(stop <-chan struct{}) onaccess.ProbeResult)
}

// Checker runs the check. Its callers take turns: one Run or Sweep at a time.
type Checker struct {
	// Command and Args start the helper process (see Helper).
	Command string
	Args    []string
	// Start starts the command; see package spawn. nil means cmd.Start().
	Start func(cmd *exec.Cmd) error
	Env   []string
	// Marker is a file that exists while probes may lie about: a run that was
	// killed is cleaned up after by the next Sweep.
	Marker string
}

const (
	// maxProbes bounds one run.
	maxProbes = 8192
	// patience is how long one probe may take: more than the deadline of an
	// access, since a saturated scanner lets probes wait like any other file.
	patience = 15 * time.Second
	// observed is how long an access that nobody holds may take to be seen.
	observed = 3 * time.Second
)

// Run checks every mount.
func (c *Checker) Run(ctx context.Context, w Watcher) (Result, error) {
	started := time.Now()
	spaces, err := w.MountNamespaces()
	if err != nil && len(spaces) == 0 {
		return Result{}, fmt.Errorf("coverage: %w", err)
	}
	r := Result{Checked: started, Namespaces: len(spaces)}
	if err != nil {
		r.Problems = append(r.Problems, err.Error())
	}
	if err := c.mark(); err != nil {
		return Result{}, err
	}
	h := &helpers{checker: c}
	defer h.stop()
	probes := 0
	for _, ns := range spaces {
		for _, m := range ns.Mounts {
			if err := ctx.Err(); err != nil {
				return Result{}, fmt.Errorf("coverage: %w", err)
			}
			out := Mount{Point: m.Point, Filesystem: m.Filesystem, Namespace: ns.ID}
			if !ns.Own {
				out.Process = ns.Process
			}
			out.Status, out.Reason = beforehand(m)
			if out.Status == "" {
				if probes++; probes > maxProbes {
					out.Status, out.Reason = Unproven, fmt.Sprintf("not tried: more than %d mounts", maxProbes)
				} else {
					out.Status, out.Reason = h.probe(ctx, w, m)
				}
			}
			if out.Status == gone {
				continue
			}
			r.Mounts = append(r.Mounts, out)
		}
	}
	h.stop()
	if !h.lost {
		c.unmark()
	}
	r.Took = time.Since(started)
	return r, nil
}

// gone marks a mount that went away during the check.
const gone Status = "gone"

// pseudo are the kernel's own file systems, in which nobody can store a file.
var pseudo = map[string]bool{
	"autofs": true, "binfmt_misc": true, "bpf": true, "cgroup": true, "cgroup2": true, "configfs": true,
	"debugfs": true, "devpts": true, "efivarfs": true, "fusectl": true, "mqueue": true, "nfsd": true,
	"nsfs": true, "proc": true, "pstore": true, "resctrl": true, "rpc_pipefs": true, "securityfs": true, "selinuxfs": true,
	"smackfs": true, "sysfs": true, "tracefs": true,
}

// beforehand decides about mounts on which no probe is put; "" for the others.
func beforehand(m onaccess.Mount) (Status, string) {
	switch {
	case pseudo[m.Filesystem]:
		return NotApplicable, "the kernel's own file system: holds no files"
	case m.Filesystem == "hugetlbfs":
		return NotApplicable, "huge pages: memory of programs, which nobody can write to as a file"
	case m.Filesystem == "devtmpfs" || m.Skip == onaccess.SkipDevices:
		return NotApplicable, "device folder: only root can write there"
	case m.ReadOnly:
		reason := "read-only: no probe can be written"
		if m.Skip != "" {
			reason += "; not watched: " + m.Skip
		}
		return NotApplicable, reason
	case m.Skip != "":
		return Unprotected, m.Skip
	}
	return "", ""
}

// token draws a token for one probe.
func token() ([onaccess.ProbeSize]byte, error) {
	var t [onaccess.ProbeSize]byte
	var random [(onaccess.ProbeSize - len(magic)) / 2]byte
	if _, err := rand.Read(random[:]); err != nil {
		return t, fmt.Errorf("draw a probe's token: %w", err)
	}
	n := copy(t[:], magic)
	hex.Encode(t[n:], random[:])
	return t, nil
}

// probe tries one mount.
func (h *helpers) probe(ctx context.Context, w Watcher, m onaccess.Mount) (Status, string) {
	// An answer may come too late once, on a busy host.
	for attempt := 0; ; attempt++ {
		status, reason, again := h.once(ctx, w, m)
		if !again || attempt == 1 {
			return status, reason
		}
	}
}

func (h *helpers) once(ctx context.Context, w Watcher, m onaccess.Mount) (status Status, reason string, again bool) {
	t, err := token()
	if err != nil {
		return Unproven, err.Error(), false
	}
	wait := w.ExpectProbe(t)
	stop := make(chan struct{})
	var once sync.Once
	end := func() { once.Do(func() { close(stop) }) }
	defer end()
	a, err := h.ask(ctx, order{Op: opProbe, Dir: m.Path(), Mount: m.ID, Token: string(t[:])})
	switch {
	case err != nil:
		end()
		wait(stop)
		return Unproven, err.Error(), false
	case a.Gone:
		end()
		wait(stop)
		return gone, "", false
	case !a.Opened && !a.Refused:
		end()
		wait(stop)
		if a.NotFolder {
			return NotApplicable, "a single file is mounted here", false
		}
		return Unproven, "the probe could not be written: " + a.Error, false
	}
	// Also after a refusal: whoever answered may not have said so to wait yet.
	timer := time.AfterFunc(observed, end)
	defer timer.Stop()
	got := wait(stop)
	switch {
	case a.Refused && got.Denied:
		return Protected, "", false
	case a.Refused:
		return Unproven, "the open was refused, but not by this agent: " + a.Error, false
	case got.Excluded:
		return Unprotected, "excluded by policy", false
	case got.Seen && w.Mode() == onaccess.Audit:
		return Unprotected, "observed only: the enforcement level is audit", false
	case got.Seen && !got.Held:
		return Unprotected, "observed only: the access was not held", true
	case got.Seen:
		return Unprotected, "the access was held and allowed", true
	}
	return Unprotected, "the access did not reach the agent", true
}

func (c *Checker) mark() error {
	if c.Marker == "" {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(c.Marker), 0o755); err != nil {
		return fmt.Errorf("coverage: marker: %w", err)
	}
	if err := os.WriteFile(c.Marker, []byte("probe files may lie on mounts; the agent removes them\n"), 0o600); err != nil {
		return fmt.Errorf("coverage: marker: %w", err)
	}
	return nil
}

func (c *Checker) unmark() {
	if c.Marker != "" {
		os.Remove(c.Marker)
	}
}

// Sweep removes the probe files of a run that was killed, if there was one. It
// returns how many it removed.
func (c *Checker) Sweep(ctx context.Context, w Watcher) (int, error) {
	if c.Marker == "" {
		return 0, nil
	}
	if _, err := os.Stat(c.Marker); errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	spaces, err := w.MountNamespaces()
	if err != nil && len(spaces) == 0 {
		return 0, fmt.Errorf("coverage: %w", err)
	}
	h := &helpers{checker: c}
	defer h.stop()
	removed := 0
	var errs []error
	for _, ns := range spaces {
		for _, m := range ns.Mounts {
			if status, _ := beforehand(m); status != "" {
				continue
			}
			a, err := h.ask(ctx, order{Op: opSweep, Dir: m.Path(), Mount: m.ID})
			if err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", m.Path(), err))
				continue
			}
			removed += a.Removed
		}
	}
	if err := errors.Join(errs...); err != nil {
		return removed, fmt.Errorf("coverage: sweep: %w", err)
	}
	c.unmark()
	return removed, nil
}
