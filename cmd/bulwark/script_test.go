package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestScripts runs the scripts of testdata: every command, in text and JSON.
// Each has a daemon of its own; scripts whose name begins with unlicensed have
// one that is not enrolled, those with absent none. The commands of a script
// run in one child; "exec bulwark" starts a process.
func TestScripts(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	bin := t.TempDir()
	for _, name := range []string{"bulwark", referenceName} {
		if err := os.Symlink(self, filepath.Join(bin, name)); err != nil {
			t.Fatal(err)
		}
	}
	command := func(ts *testscript.TestScript, name string, args []string) int {
		reply, err := ts.Value("child").(*child).run(ts.MkAbs("."), name, args...)
		ts.Check(err)
		ts.Stdout().Write(reply.Stdout)
		ts.Stderr().Write(reply.Stderr)
		return reply.Status
	}
	as := func(name string) func(ts *testscript.TestScript, neg bool, args []string) {
		return func(ts *testscript.TestScript, neg bool, args []string) {
			if status := command(ts, name, args); (status == statusOK) == neg {
				ts.Fatalf("%s %s: exit status %d", name, strings.Join(args, " "), status)
			}
		}
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(e *testscript.Env) error {
			e.Setenv("BULWARK_TEST_ROOT", filepath.Join(e.WorkDir, "root"))
			e.Setenv("TZ", "UTC")
			e.Setenv("PATH", bin+string(filepath.ListSeparator)+e.Getenv("PATH"))
			c, err := startChild(self, e.Vars, nil)
			if err != nil {
				return err
			}
			e.Values["child"] = c
			e.Defer(func() {
				if err := c.stop(); err != nil {
					e.T().Fatal(err)
				}
			})
			name := filepath.Base(e.WorkDir) // script-<name>
			if strings.Contains(name, "absent") {
				return nil
			}
			d, stop, err := startDaemon(filepath.Join(e.WorkDir, "root"), !strings.Contains(name, "unlicensed"))
			if err != nil {
				return err
			}
			e.Values["daemon"] = d
			e.Defer(func() {
				if err := stop(); err != nil {
					e.T().Fatal(err)
				}
			})
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"bulwark":     as("bulwark"),
			referenceName: as(referenceName),
			// status N command...: the command ends with that status.
			"status": func(ts *testscript.TestScript, neg bool, args []string) {
				if neg || len(args) < 2 {
					ts.Fatalf("usage: status N command...")
				}
				if args[1] != "bulwark" && args[1] != referenceName {
					ts.Fatalf("%s is not the program", args[1])
				}
				got := strconv.Itoa(command(ts, args[1], args[2:]))
				if got != args[0] {
					ts.Fatalf("%s: exit status %s, want %s", strings.Join(args[1:], " "), got, args[0])
				}
			},
			// managed file: put in place as the managed profile and in force.
			"managed": func(ts *testscript.TestScript, neg bool, args []string) {
				d, ok := ts.Value("daemon").(*daemon)
				if neg || !ok || len(args) != 1 {
					ts.Fatalf("usage: managed file")
				}
				data := ts.ReadFile(args[0])
				ts.Check(os.MkdirAll(filepath.Dir(d.dirs.Managed()), 0o755))
				ts.Check(os.WriteFile(d.dirs.Managed(), []byte(data), 0o644))
				d.manager.Reload()
			},
			// offline: the connectivity test fails from now on.
			"offline": func(ts *testscript.TestScript, neg bool, args []string) {
				d := ts.Value("daemon").(*daemon)
				d.agent.mu.Lock()
				defer d.agent.mu.Unlock()
				d.agent.offline = true
			},
			// nothing: no threats and no quarantined files from now on.
			"nothing": func(ts *testscript.TestScript, neg bool, args []string) {
				d := ts.Value("daemon").(*daemon)
				d.agent.mu.Lock()
				defer d.agent.mu.Unlock()
				d.agent.threats, d.agent.quarantine, d.agent.scans = nil, nil, nil
			},
			// lines N: the last standard output has that many lines.
			"lines": func(ts *testscript.TestScript, neg bool, args []string) {
				if got := fmt.Sprint(strings.Count(ts.ReadFile("stdout"), "\n")); got != args[0] {
					ts.Fatalf("%s lines, want %s", got, args[0])
				}
			},
		},
	})
}
