package scan

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/bulwarkhq/bulwark/agent/scan/sandbox"
	"github.com/bulwarkhq/bulwark/agent/scan/wire"
)

// Status is the state of a Pool for health.
type Status struct {
	// Generation and Info are of the definitions in use; Generation 0 is none.
	Generation uint64    `json:"generation"`
	Info       wire.Info `json:"info"`
	// LoadError says why the last attempt to load definitions failed; the ones in
	// use may be older.
	LoadError string `json:"load_error,omitempty"`
	// Report is of the last compilation since the start.
	Report Report `json:"report"`
	// Unloaded means that no process runs until the next scan.
	Unloaded  bool            `json:"unloaded"`
	Processes []ProcessStatus `json:"processes"`
	// Cgroup says which limits of a cgroup are in force, or why none are.
	Cgroup string `json:"cgroup"`
	// Waiting scans by priority.
	Waiting [priorities]int `json:"waiting"`
	// Totals since the start. Timeouts counts scans that were given up while they
	// ran, Crashes processes that died by themselves, Restarts all that were
	// replaced.
	Scans, Threats, Errors, Timeouts, Crashes, Restarts uint64
}

// ProcessStatus is the state of one scanner process.
type ProcessStatus struct {
	// PID is 0 while the process is being started or cannot be; Failure then says
	// why.
	PID         int       `json:"pid"`
	LowPriority bool      `json:"low_priority"`
	Failure     string    `json:"failure,omitempty"`
	Since       time.Time `json:"since"`
	Running     int       `json:"running"` // scans
	// Resident and Private are memory in bytes; Resident includes the shared
	// mapping of the definitions.
	Resident int64          `json:"resident"`
	Private  int64          `json:"private"`
	Sandbox  sandbox.Report `json:"sandbox"`
}

// Info is of the definitions in use; the zero value while there are none.
func (p *Pool) Info() wire.Info {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.gen == nil {
		return wire.Info{}
	}
	return p.gen.info
}

// Status returns the present state.
func (p *Pool) Status() Status {
	s := p.status()
	for i := range s.Processes {
		if pid := s.Processes[i].PID; pid != 0 {
			s.Processes[i].Resident, s.Processes[i].Private = memoryOf(pid)
		}
	}
	return s
}

func (p *Pool) status() Status {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := Status{
		Report: p.report, Unloaded: p.unloaded, Cgroup: "not used",
		Scans: p.counts.scans, Threats: p.counts.threats, Errors: p.counts.errors,
		Timeouts: p.counts.timeouts, Crashes: p.counts.crashes, Restarts: p.counts.restarts,
	}
	if p.limits != nil {
		s.Cgroup = p.limits.detail()
	}
	if p.loadErr != nil {
		s.LoadError = p.loadErr.Error()
	}
	for i := range p.queues {
		s.Waiting[i] = p.queues[i].Len()
	}
	if p.gen == nil {
		return s
	}
	s.Generation, s.Info = p.gen.number, p.gen.info
	for _, l := range []*lane{p.gen.main, p.gen.background} {
		if l == nil {
			continue
		}
		ps := ProcessStatus{LowPriority: l.low}
		if l.failure != nil {
			ps.Failure = l.failure.Error()
		}
		if c := l.child; c != nil {
			ps.PID, ps.Since, ps.Running, ps.Sandbox = c.pid, c.since, len(c.pending), c.hello.Sandbox
		}
		s.Processes = append(s.Processes, ps)
	}
	return s
}

// memoryOf reads a process's memory from /proc; zeros when it is gone.
func memoryOf(pid int) (resident, private int64) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0, 0
	}
	f := bytes.Fields(data) // size resident shared ..., in pages
	if len(f) < 3 {
		return 0, 0
	}
	r, err1 := strconv.ParseInt(string(f[1]), 10, 64)
	s, err2 := strconv.ParseInt(string(f[2]), 10, 64)
	if err1 != nil || err2 != nil {
		return 0, 0
	}
	page := int64(os.Getpagesize())
	return r * page, (r - s) * page
}
