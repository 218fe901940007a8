package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/bulwarkhq/bulwark/api/control"
	"github.com/bulwarkhq/bulwark/policy"
)

// processorLimit limits the scanner while the agent runs: the kernel stops its
// group again and again while it has files to scan, nothing is let through
// because of that, and the limit goes away again.
func (a *agent) processorLimit() error {
	pids, err := scanners()
	if err != nil {
		return err
	}
	group, err := groupOf(pids[0])
	if err != nil {
		return err
	}
	dir := filepath.Join("/sys/fs/cgroup", group)
	limit := func(percent int, want string) error {
		_, err := a.api.Set(a.g.ctx, control.SetRequest{Key: policy.KeyScannerCPU, Value: json.RawMessage(strconv.Itoa(percent))})
		if err != nil {
			return err
		}
		return until("the limit is "+want, func() error {
			b, err := os.ReadFile(filepath.Join(dir, "cpu.max"))
			if got := strings.TrimSpace(string(b)); err == nil && got != want {
				err = fmt.Errorf("cpu.max of %s is %q", group, got)
			}
			return err
		})
	}
	if err := limit(20, "4000 20000"); err != nil {
		return err
	}
	before, err := throttled(dir)
	if err != nil {
		return err
	}
	n := 0
	err = until("the kernel stops the scanner", func() error {
		n++
		path := filepath.Join(mountFolder, "tmpfs", "limit."+strconv.Itoa(n))
		content := append(bytes.Repeat([]byte(path+" "), 20_000), eicar...)
		if err := os.WriteFile(path, content, 0o644); err != nil {
			return err
		}
		if got, err := open(path); err != nil || got != allowed { // no test file: that would have to begin with it
			return fmt.Errorf("open of a clean file: %s, %w", got, err)
		}
		now, err := throttled(dir)
		if err == nil && now < before+3 {
			err = fmt.Errorf("stopped %d times while it scanned %d files", now-before, n)
		}
		return err
	})
	detail, detailErr := a.detail("scanner_limits")
	if text := fmt.Sprint(detail); detailErr == nil && !strings.Contains(text, "CPU to 20 %") {
		detailErr = fmt.Errorf("health says %q about the limits", text)
	}
	return errors.Join(err, detailErr, limit(0, "max 20000"))
}

// throttled is how often the kernel has stopped a group because of its limit.
func throttled(dir string) (int, error) {
	b, err := os.ReadFile(filepath.Join(dir, "cpu.stat"))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "nr_throttled "); ok {
			return strconv.Atoi(strings.TrimSpace(v))
		}
	}
	return 0, fmt.Errorf("%s has no nr_throttled: %q", dir, b)
}
