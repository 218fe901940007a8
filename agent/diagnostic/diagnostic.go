// Package diagnostic makes the support bundle: logs, configuration, health and
// facts of the host in one zip file that an administrator can read before
// sending it, everything without what looks like a secret (Redact). It also
// collects the facts themselves and draws conclusions from them (Analyze).
package diagnostic

import (
	"archive/zip"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/bulwarkhq/bulwark/atomicfile"
)

// maxText bounds a configuration file.
const maxText = 16 << 20

// maxFile bounds what is taken of one file: its last bytes.
const maxFile = 64 << 20

// Source is what goes into a bundle.
type Source struct {
	LogDir string
	// Files are configuration files that are copied when present. What holds a
	// secret as a whole (onboarding package, keys, quarantine) does not belong here.
	Files []string
	// Documents are written under their names, e.g. "health.json".
	Documents map[string][]byte
}

// hostFiles say on what the agent runs.
var hostFiles = []string{
	"/etc/os-release", "/proc/version", "/proc/cmdline", "/proc/mounts", "/proc/self/mountinfo",
	"/proc/cpuinfo", "/proc/meminfo", "/proc/loadavg", "/proc/uptime", "/proc/modules",
	"/proc/sys/fs/fanotify/max_user_groups", "/proc/sys/fs/fanotify/max_user_marks",
	"/proc/sys/fs/fanotify/max_queued_events", "/proc/self/status", "/proc/self/limits",
	"/proc/filesystems", "/proc/swaps", "/proc/vmstat", "/proc/stat", "/proc/diskstats", "/proc/pressure/cpu", "/proc/pressure/io",
	"/proc/pressure/memory", "/proc/net/dev", "/proc/net/route", "/proc/net/ipv6_route", "/proc/net/sockstat", "/etc/resolv.conf", "/etc/hosts",
	"/sys/kernel/security/lsm", "/sys/fs/selinux/enforce", "/sys/module/apparmor/parameters/enabled",
	"/var/log/dpkg.log", "/var/log/dnf.rpm.log", "/var/log/yum.log", "/var/log/zypp/history",
	"/usr/lib/systemd/system/bulwark.service", "/etc/systemd/system/bulwark.service",
}

// Create writes the bundle into folder, readable by root alone, and returns its
// path and size. What cannot be read is listed in the bundle's errors.txt.
func Create(ctx context.Context, folder string, src Source) (string, int64, error) {
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return "", 0, fmt.Errorf("diagnostic bundle: %w", err)
	}
	f, err := os.CreateTemp(folder, "bulwark-diagnostic-"+time.Now().UTC().Format("20060102T150405Z")+"-*.zip")
	if err != nil {
		return "", 0, fmt.Errorf("diagnostic bundle: %w", err)
	}
	size, err := write(ctx, f, src)
	if err := errors.Join(err, f.Close()); err != nil {
		return "", 0, errors.Join(fmt.Errorf("diagnostic bundle %s: %w", f.Name(), err), os.Remove(f.Name()))
	}
	return f.Name(), size, nil
}

func write(ctx context.Context, f *os.File, src Source) (int64, error) {
	z := zip.NewWriter(f)
	var problems strings.Builder
	add := func(name string, r io.Reader) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		w, err := z.CreateHeader(&zip.FileHeader{Name: name, Method: zip.Deflate, Modified: time.Now()})
		if err != nil {
			return err
		}
		_, err = io.Copy(w, r)
		return err
	}
	addFile := func(name, path string) error {
		r, err := openTail(path)
		if err != nil {
			fmt.Fprintf(&problems, "%s: %v\n", path, err)
			return nil
		}
		defer func() { _ = r.Close() }()
		return add(name, newRedactor(r))
	}
	for _, name := range slices.Sorted(maps.Keys(src.Documents)) {
		if err := add(name, newRedactor(bytes.NewReader(src.Documents[name]))); err != nil {
			return 0, err
		}
	}
	for _, path := range hostFiles {
		if err := addFile("host/"+strings.TrimPrefix(strings.ReplaceAll(path, "/", "_"), "_"), path); err != nil {
			return 0, err
		}
	}
	for _, path := range src.Files {
		// All or nothing: half a file could show half a password.
		text, err := atomicfile.Read(path, maxText)
		if err != nil {
			fmt.Fprintf(&problems, "%v\n", err)
			continue
		}
		if err := add("config/"+filepath.Base(path), newRedactor(bytes.NewReader(text))); err != nil {
			return 0, err
		}
	}
	err := filepath.WalkDir(src.LogDir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			fmt.Fprintf(&problems, "%s: %v\n", path, err)
			return nil
		}
		if !d.Type().IsRegular() {
			return nil
		}
		name, err := filepath.Rel(src.LogDir, path)
		if err != nil {
			return err
		}
		return addFile("log/"+filepath.ToSlash(name), path)
	})
	if err != nil {
		return 0, err
	}
	if problems.Len() > 0 {
		if err := add("errors.txt", strings.NewReader(problems.String())); err != nil {
			return 0, err
		}
	}
	if err := z.Close(); err != nil {
		return 0, err
	}
	return f.Seek(0, io.SeekEnd)
}

// openTail opens a file at its last maxFile bytes.
func openTail(path string) (io.ReadCloser, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	if st, err := f.Stat(); err == nil && st.Mode().IsRegular() && st.Size() > maxFile {
		if _, err := f.Seek(-maxFile, io.SeekEnd); err != nil {
			return nil, errors.Join(err, f.Close())
		}
	}
	return struct {
		io.Reader
		io.Closer
	}{io.LimitReader(f, maxFile), f}, nil
}
