package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// kernelTests are the tests of agent/onaccess that depend on the kernel: what
// it can, what it can with features switched off, down to what 3.10 has, and
// that each way of reaching and changing a file is noticed.
const kernelTests = "^(TestProbe|TestWithoutFeatures|TestFilesystemMark|TestMountInAnotherNamespace|TestMutedMount|" +
	"TestNewMountIsWatched|TestDeniesExecution|TestEveryWayOfWriting|TestBadContentRemoved|TestMappedWriterIsNeverTrusted|" +
	"TestReached.*|TestSubvolumes|TestReflinkIsNoticed|TestMemoryFileIsNotHeld|TestBigFile|TestKilledDaemonReleasesEverybody|" +
	"TestExcludedBindMount|TestNeverHold|TestOtherHolders|TestClockJumps|TestSwitchingMissesNothing)$"

var testResult = regexp.MustCompile(`^\s*--- (PASS|FAIL|SKIP): (\S+)`)

// testKernel runs them on this kernel.
func testKernel(g *guest) error {
	for _, name := range []string{"btrfs", "xfs"} {
		if ok, err := g.kernelHas(name); err != nil || !ok {
			return errors.Join(err, fmt.Errorf("this kernel has no %s", name))
		}
	}
	cmd := exec.CommandContext(g.ctx, filepath.Join(payload, "onaccess.test"), "-test.v", "-test.run", kernelTests, "-test.timeout", "20m")
	cmd.Dir = "/tmp"
	// CI: a test that lacks something fails.
	cmd.Env = append(os.Environ(), "CI=true", "BULWARK_SET_CLOCK=1", "TMPDIR=/srv", "HOME=/root", "PATH=/usr/sbin:/usr/bin:/sbin:/bin")
	cmd.Stderr = cmd.Stdout
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	var said []string // since the last result
	passed := 0
	in := bufio.NewScanner(out)
	for in.Scan() {
		line := in.Text()
		r := testResult.FindStringSubmatch(line)
		if r == nil {
			said = append(said, line)
			continue
		}
		g.check("kernel/"+r[2], func() error {
			if r[1] == "PASS" {
				passed++
				return nil
			}
			return fmt.Errorf("%s: %s", r[1], strings.Join(said[max(0, len(said)-20):], "\n"))
		})
		if r[1] == "PASS" {
			said = nil
		}
	}
	err = errors.Join(in.Err(), cmd.Wait())
	if err == nil && passed < 20 {
		err = fmt.Errorf("only %d tests passed", passed)
	}
	if err != nil {
		return fmt.Errorf("%w: %s", err, strings.Join(said[max(0, len(said)-20):], "\n"))
	}
	return nil
}
