package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	as := func(name string) func() {
		return func() {
			args := os.Args[1:]
			if root := os.Getenv("BULWARK_TEST_ROOT"); root != "" {
				args = append([]string{"--root", root}, args...)
			}
			os.Exit(run(context.Background(), name, args, os.Stdout, os.Stderr))
		}
	}
	testscript.Main(m, map[string]func(){"bulwark": as("bulwark"), "mdatp": as("mdatp")})
}

// TestScripts runs the scripts of testdata: every command, in text and JSON.
// Each has a daemon of its own; scripts whose name begins with unlicensed have
// one that is not enrolled, those with absent none.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(e *testscript.Env) error {
			e.Setenv("BULWARK_TEST_ROOT", filepath.Join(e.WorkDir, "root"))
			e.Setenv("TZ", "UTC")
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
			// status N command...: the command ends with that status.
			"status": func(ts *testscript.TestScript, neg bool, args []string) {
				if neg || len(args) < 2 {
					ts.Fatalf("usage: status N command...")
				}
				err := ts.Exec(args[1], args[2:]...)
				got := "0"
				if err != nil {
					got = strings.TrimPrefix(err.Error(), "exit status ")
				}
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
