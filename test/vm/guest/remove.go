package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// removed removes the package: nothing runs or is marked any more, state and
// configuration stay.
func (g *guest) removed() error {
	if err := g.must("apt-get", "remove", "-y", "bulwark"); err != nil {
		return err
	}
	left, err := filepath.Glob("/proc/[0-9]*/exe")
	if err != nil {
		return err
	}
	for _, exe := range left {
		if target, err := os.Readlink(exe); err == nil && strings.HasPrefix(target, "/opt/bulwark/") {
			return fmt.Errorf("%s still runs", target)
		}
	}
	// systemd removes groups when it hears that they are empty.
	if err := until("no control groups are left", func() error {
		groups, err := filepath.Glob("/sys/fs/cgroup/system.slice/bulwark*")
		if err == nil && len(groups) != 0 {
			err = fmt.Errorf("%v", groups)
		}
		return err
	}); err != nil {
		return err
	}
	for path, there := range map[string]bool{
		"/opt/bulwark/bin/bulwarkd": false, "/usr/bin/bulwark": false, "/run/bulwark": false,
		"/var/opt/bulwark/quarantine": true, dropInFile: true,
	} {
		if _, err := os.Lstat(path); (err == nil) != there {
			return fmt.Errorf("%s is there: %v, want %v", path, err == nil, there)
		}
	}
	// Nobody is refused anything any more.
	if err := os.WriteFile("/srv/free.com", eicar, 0o600); err != nil {
		return err
	}
	defer os.Remove("/srv/free.com")
	got, err := open("/srv/free.com")
	return want(got, err, allowed)
}

// purged purges the package and compares what is on disk with what there was
// before the installation.
func (g *guest) purged() error {
	if err := g.must("apt-get", "purge", "-y", "bulwark"); err != nil {
		return err
	}
	// The administrator's.
	for _, path := range []string{
		filepath.Dir(dropInFile), repository, "/etc/apt/apt.conf.d/99bulwark",
		"/usr/share/keyrings/bulwark.gpg", "/usr/share/keyrings/bulwark-portal-ca.pem",
		onboardingPackage, "/root/portal-ca.pem",
	} {
		if err := os.RemoveAll(path); err != nil {
			return err
		}
	}
	b, err := os.ReadFile(filepath.Join(stateFolder, "before"))
	if err != nil {
		return err
	}
	before := strings.Split(string(b), "\n")
	after, err := listing()
	if err != nil {
		return err
	}
	var diff []string
	for _, l := range after {
		if !slices.Contains(before, l) {
			diff = append(diff, "+ "+l)
		}
	}
	for _, l := range before {
		if !slices.Contains(after, l) {
			diff = append(diff, "- "+l)
		}
	}
	if len(diff) != 0 {
		return fmt.Errorf("what is on disk differs:\n%s", strings.Join(diff, "\n"))
	}
	for _, database := range []string{"passwd", "group"} {
		if out, err := g.command("getent", database, "bulwark"); err == nil {
			return fmt.Errorf("%s still has %q", database, out)
		}
	}
	return nil
}

// volatile are places that the system itself changes.
var volatile = []string{
	"/proc", "/sys", "/dev", "/run", "/tmp", stateFolder, "/var/log/journal", "/var/lib/systemd", "/var/tmp",
	"/var/lib/dpkg", "/var/log/dpkg.log", "/var/lib/apt", "/var/cache/apt", "/var/log/apt", "/var/cache/ldconfig", "/var/lib/private",
	// Copies that the programs for accounts keep.
	"/etc/passwd-", "/etc/group-", "/etc/shadow-", "/etc/gshadow-", "/etc/subuid-", "/etc/subgid-", "/etc/.pwd.lock",
	"/etc/machine-id", "/var/log/wtmp", "/var/log/lastlog", "/etc/.updated", "/var/.updated",
}

// listing is every path outside the volatile places, with its mode, owner and,
// for files, size.
func listing() ([]string, error) {
	var out []string
	err := filepath.WalkDir("/", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if slices.Contains(volatile, path) {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if strings.HasPrefix(path, "/usr/lib/modules/") && d.IsDir() {
			return fs.SkipDir
		}
		if path == "/opt" || path == "/etc/opt" || path == "/var/opt" {
			return nil // dpkg removes them with the last package that has something inside
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		size := st.Size
		if d.IsDir() {
			size = 0
		}
		out = append(out, fmt.Sprintf("%s %o %d:%d %d", path, st.Mode, st.Uid, st.Gid, size))
		return nil
	})
	return out, err
}
