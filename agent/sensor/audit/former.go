package audit

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/bulwarkhq/bulwark/agent/boot"
	"github.com/bulwarkhq/bulwark/atomicfile"
)

// former is the state of the kernel's audit before we changed it. It is in
// Options.StateFile while we own audit: an agent that is killed cannot put it
// back, the next one can.
type former struct {
	// Boot is the kernel's boot_id: another start of the host has its own state.
	Boot string
	// PID is the agent's, which the kernel may name until it finds nobody there.
	PID int
	// Enabled says that we switched audit on.
	Enabled         bool
	BacklogLimit    uint32 // 0: unknown
	BacklogWaitTime uint32 // 0: it was so, or is unknown
}

// maxFormer is the size of a state file in bytes.
const maxFormer = 4 << 10

// store writes f to file, which is empty for nowhere.
func (f former) store(file string) error {
	if file == "" {
		return nil
	}
	data, err := json.Marshal(f)
	if err != nil {
		return fmt.Errorf("state of the kernel's audit: %w", err)
	}
	if err := atomicfile.Write(file, append(data, '\n'), 0o600); err != nil {
		return fmt.Errorf("state of the kernel's audit: %w", err)
	}
	return nil
}

// putBack gives settings that still have our values their former ones, and
// gives up being the one that the kernel sends to.
func (f former) putBack(c *control) error {
	st, err := c.status()
	if err != nil {
		return err
	}
	if st.Enabled == immutable {
		return nil // until the next start of the host
	}
	var errs []error
	nobody := st.PID == 0 || st.PID == uint32(f.PID)
	if f.Enabled && st.Enabled == 1 && nobody {
		errs = append(errs, c.set(statusEnabled, Status{}))
	}
	if st.PID == uint32(os.Getpid()) {
		errs = append(errs, c.set(statusPID, Status{}))
	}
	if st.BacklogLimit == ownBacklog && f.BacklogLimit != 0 && f.BacklogLimit != ownBacklog {
		errs = append(errs, c.set(statusBacklogLimit, Status{BacklogLimit: f.BacklogLimit}))
	}
	if st.BacklogWaitTime == 0 && f.BacklogWaitTime != 0 {
		errs = append(errs, c.set(statusBacklogWaitTime, Status{BacklogWaitTime: f.BacklogWaitTime}))
	}
	return errors.Join(errs...)
}

// Restore puts back what an agent that was killed left of the kernel's audit,
// as far as stateFile says and nobody has changed it since. It is for the start
// of a daemon. Without the file there is nothing to do; one that cannot be read
// is removed.
func Restore(stateFile string) error {
	f, err := readFormer(stateFile)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err == nil && f.Boot == boot.ID() {
		var c *control
		if c, err = openControl(); err == nil {
			err = f.putBack(c)
			c.close()
		}
	}
	return errors.Join(err, remainsOf(stateFile))
}

func readFormer(file string) (f former, err error) {
	data, err := atomicfile.Read(file, maxFormer)
	if err != nil {
		return f, fmt.Errorf("state of the kernel's audit: %w", err)
	}
	if err := json.Unmarshal(data, &f); err != nil {
		return former{}, fmt.Errorf("state of the kernel's audit in %s: %w", file, err)
	}
	return f, nil
}

func remainsOf(file string) error {
	if file == "" {
		return nil
	}
	if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("state of the kernel's audit: %w", err)
	}
	return nil
}

// formerOf is what is put back of a state in which nobody listens.
func formerOf(st Status) former {
	return former{
		Boot: boot.ID(), PID: unix.Getpid(), Enabled: st.Enabled == 0,
		BacklogLimit: st.BacklogLimit, BacklogWaitTime: st.BacklogWaitTime,
	}
}
