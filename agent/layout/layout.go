// Package layout names the places on disk that the agent uses.
package layout

import "path/filepath"

// Dirs are the agent's directories. Tests and side-by-side installations use
// others than the default.
type Dirs struct {
	Program string // programs and shipped content
	Config  string // onboarding and managed configuration
	State   string // definitions, quarantine, history, spool, identity
	Log     string
	Run     string // socket, pid file
}

// Default is the layout of the packages (FHS: /opt add-on packages).
func Default() Dirs {
	return Dirs{
		Program: "/opt/bulwark",
		Config:  "/etc/opt/bulwark",
		State:   "/var/opt/bulwark",
		Log:     "/var/log/bulwark",
		Run:     "/run/bulwark",
	}
}

// Under puts the whole layout below root, for tests and demonstrations.
func Under(root string) Dirs {
	d := Default()
	return Dirs{
		Program: filepath.Join(root, d.Program),
		Config:  filepath.Join(root, d.Config),
		State:   filepath.Join(root, d.State),
		Log:     filepath.Join(root, d.Log),
		Run:     filepath.Join(root, d.Run),
	}
}

func (d Dirs) Onboarding() string  { return filepath.Join(d.Config, "onboard.json") }
func (d Dirs) Managed() string     { return filepath.Join(d.Config, "managed", "managed.json") }
func (d Dirs) Definitions() string { return filepath.Join(d.State, "definitions") }
func (d Dirs) Quarantine() string  { return filepath.Join(d.State, "quarantine") }
func (d Dirs) Spool() string       { return filepath.Join(d.State, "spool") }
func (d Dirs) Identity() string    { return filepath.Join(d.State, "identity") }
func (d Dirs) Socket() string      { return filepath.Join(d.Run, "bulwark.sock") }
