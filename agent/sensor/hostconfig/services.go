package hostconfig

import (
	"os"
	"path"
	"path/filepath"
	"strings"
)

// unitFolders are where systemd looks for units (systemd.unit(5)), of the
// system and of every user.
var unitFolders = []string{
	"/etc/systemd/system", "/run/systemd/system", "/run/systemd/transient", "/usr/local/lib/systemd/system",
	"/usr/lib/systemd/system", "/lib/systemd/system",
	"/etc/systemd/user", "/run/systemd/user", "/usr/local/lib/systemd/user", "/usr/lib/systemd/user",
}

// Folders of scripts that other init systems run.
var initFolders = []string{"/etc/init.d", "/etc/rc.d/init.d", "/etc/init"}

// readServices reads units and init scripts. Timers become tasks.
func (s *snapshot) readServices(before *snapshot) {
	folders := make([]string, 0, len(unitFolders)+8)
	for _, f := range unitFolders {
		folders = append(folders, s.path(f))
	}
	folders = append(folders, s.userUnits()...)
	read := map[string]bool{}
	units := map[string]*item{} // by name, of the folder with the highest priority
	enabled := map[string][]string{}
	for _, dir := range folders {
		at, err := filepath.EvalSymlinks(dir) // /lib is a link to /usr/lib today
		if err != nil {
			at = dir
		}
		if read[at] {
			continue
		}
		read[at] = true
		s.readUnits(at, before, units, enabled)
	}
	for name, links := range enabled {
		if u := units[name]; u != nil {
			u.fields["Enabled"] = "true"
			u.files = append(u.files, links...)
		}
	}
	for _, f := range initFolders {
		dir := s.path(f)
		for _, name := range s.names(dir) {
			p := path.Join(dir, name)
			if file := s.get(p, before, maxFile); file != nil && !file.link && name != "README" && !isBackup(name) {
				s.add(&item{kind: service, name: strings.TrimSuffix(name, ".conf"), files: []string{p}, fields: map[string]string{
					"ServiceType": "init script", "Command": p, "content": sum(file.content), "Executable": yes(file.mode&0o111 != 0),
				}})
			}
		}
	}
	for _, p := range []string{s.path("/etc/rc.local"), s.path("/etc/rc.d/rc.local")} {
		if file := s.get(p, before, maxFile); file != nil && !file.link {
			s.add(&item{kind: service, name: "rc.local", files: []string{p}, fields: map[string]string{
				"ServiceType": "init script", "Command": p, "content": sum(file.content), "Executable": yes(file.mode&0o111 != 0),
			}})
		}
	}
}

// userUnits are the folders of units that the users have in their homes.
func (s *snapshot) userUnits() []string {
	var out []string
	f := s.files[s.path("/etc/passwd")]
	if f == nil {
		return nil
	}
	seen := map[string]bool{}
	fields(f.content, 7, func(c []string) {
		home := path.Clean(c[5])
		if len(out) >= maxHomes || seen[home] || home == "/" || !path.IsAbs(home) || strings.HasPrefix(home, "/proc") || strings.HasPrefix(home, "/dev") {
			return
		}
		seen[home] = true
		dir := s.path(path.Join(home, ".config/systemd/user"))
		if st, err := os.Lstat(dir); err == nil && st.IsDir() {
			out = append(out, dir)
			return
		}
		// Its coming is seen in the nearest folder above, but only of homes: the
		// folders of system accounts are elsewhere and often busy.
		if strings.HasPrefix(home, "/home/") || home == "/root" {
			out = append(out, dir)
		}
	})
	return out
}

func isUnit(name string) (kind, bool) {
	switch path.Ext(name) {
	case ".timer":
		return task, true
	case ".service", ".socket", ".path":
		return service, true
	}
	return 0, false
}

func isBackup(name string) bool {
	return strings.HasSuffix(name, "~") || strings.HasPrefix(name, ".") || strings.Contains(name, ".dpkg-") || strings.HasSuffix(name, ".swp") || strings.HasSuffix(name, ".rpmsave")
}

func (s *snapshot) readUnits(dir string, before *snapshot, units map[string]*item, enabled map[string][]string) {
	for _, name := range s.names(dir) {
		p := path.Join(dir, name)
		switch ext := path.Ext(name); ext {
		case ".wants", ".requires", ".upholds":
			for _, unit := range s.names(p) {
				if _, ok := isUnit(unit); ok {
					enabled[unit] = append(enabled[unit], path.Join(p, unit))
				}
			}
			continue
		case ".d":
			s.readDropIns(p, name, before)
			continue
		}
		k, ok := isUnit(name)
		if !ok {
			continue
		}
		f := s.get(p, before, maxFile)
		if f == nil {
			continue
		}
		i := &item{kind: k, name: name, files: []string{p}, fields: map[string]string{"content": sum(f.content), "Enabled": "false"}}
		content := f.content
		if f.link {
			target := string(f.content)
			i.fields["Target"] = target
			i.fields["Masked"] = yes(target == "/dev/null")
			if !path.IsAbs(target) {
				target = path.Join(dir, target)
			}
			content, _ = readRegular(target, maxFile)
			i.files = append(i.files, target)
		}
		describeUnit(i, content)
		s.add(i)
		if units[name] == nil {
			units[name] = i
		}
	}
}

// readDropIns reads the folder of a unit's drop-ins (name.service.d). They are
// a definition of their own, so that the package's unit stays what it was.
func (s *snapshot) readDropIns(dir, name string, before *snapshot) {
	unit := strings.TrimSuffix(name, ".d")
	k, ok := isUnit(unit)
	if !ok {
		return
	}
	for _, n := range s.names(dir) {
		if p := path.Join(dir, n); strings.HasSuffix(n, ".conf") {
			if f := s.get(p, before, maxFile); f != nil {
				i := &item{kind: k, name: unit, files: []string{p}, fields: map[string]string{"content": sum(f.content), "DropIn": n}}
				describeUnit(i, f.content)
				s.add(i)
			}
		}
	}
}

// describeUnit adds what a unit runs and when.
func describeUnit(i *item, content []byte) {
	var commands, when []string
	section := ""
	for _, l := range lines(content, true) {
		if strings.HasPrefix(l, "[") {
			section = l
			continue
		}
		k, v, ok := strings.Cut(l, "=")
		if k, v = strings.TrimSpace(k), strings.TrimSpace(v); !ok || v == "" {
			continue
		}
		switch {
		case section == "[Service]" && strings.HasPrefix(k, "Exec"):
			commands = append(commands, v)
		case section == "[Service]" && k == "User":
			i.fields["RunAs"] = v
		case section == "[Unit]" && k == "Description":
			i.fields["Description"] = v
		case section == "[Timer]" && (strings.HasPrefix(k, "On") || k == "Persistent"):
			when = append(when, k+"="+v)
		case section == "[Timer]" && k == "Unit":
			i.fields["Unit"] = v
		}
	}
	if i.kind == service {
		i.fields["ServiceType"] = "systemd " + strings.TrimPrefix(path.Ext(i.name), ".")
	} else {
		i.fields["Schedule"] = strings.Join(when, "; ")
		if i.fields["Unit"] == "" {
			i.fields["Unit"] = strings.TrimSuffix(i.name, ".timer") + ".service"
		}
		i.fields["TaskType"] = "systemd timer"
	}
	if len(commands) > 0 {
		i.fields["Command"] = short(strings.Join(commands, "; "))
	}
}

// maxText bounds one told field.
const maxText = 4096

func short(s string) string {
	if len(s) <= maxText {
		return s
	}
	return strings.ToValidUTF8(s[:maxText], "") + "..."
}
