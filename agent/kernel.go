package agent

import (
	"log/slog"

	"golang.org/x/sys/unix"

	"github.com/bulwarkhq/bulwark/agent/onaccess/kernels"
	api "github.com/bulwarkhq/bulwark/api/control"
	"github.com/bulwarkhq/bulwark/content"
	"github.com/bulwarkhq/bulwark/policy"
)

// runningKernel is what is known against the kernel of this host.
type runningKernel struct {
	release string
	known   []kernels.Entry
}

// lookAtKernel looks the running kernel up. A kernel that cannot be looked up
// counts as good, and the log says so.
func lookAtKernel(log *slog.Logger) runningKernel {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		log.Warn("kernel version not known; it is taken for good", "error", err)
		return runningKernel{}
	}
	k := runningKernel{release: unix.ByteSliceToString(u.Release[:])}
	list, err := kernels.Load(content.Kernels())
	if err == nil {
		k.known, err = list.Match(k.release)
	}
	if err != nil {
		log.Warn("kernel not looked up; it is taken for good", "release", k.release, "error", err)
	}
	return k
}

// mustNotHold says why no access may be held; "" when they may, because the
// kernel is good or because policy takes the risk.
func (k runningKernel) mustNotHold(e policy.Effective) string {
	for _, x := range k.known {
		if x.Effect == kernels.NotifyOnly && e.String(policy.KeyKnownBadKernels) != policy.Enabled {
			return x.Reason
		}
	}
	return ""
}

// issues are for health.
func (k runningKernel) issues(e policy.Effective) []api.Issue {
	var out []api.Issue
	for _, x := range k.known {
		issue := api.Issue{
			ID: "known-bad kernel", Warning: true,
			Message: "kernel " + k.release + ": " + x.Reason + " (" + x.ID + ", " + x.Reference + ")",
			Remedy:  "install a newer kernel",
		}
		if x.Effect == kernels.NotifyOnly {
			if issue.Warning = e.String(policy.KeyKnownBadKernels) == policy.Enabled; issue.Warning {
				issue.Message += "; accesses are held all the same, because " + policy.KeyKnownBadKernels + " is enabled"
			} else {
				issue.Message += "; files are scanned after the fact instead of being held"
				issue.Remedy += ", or take the risk with " + policy.KeyKnownBadKernels + " in the managed profile"
			}
		}
		out = append(out, issue)
	}
	return out
}
