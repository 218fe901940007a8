package process

import "strings"

// ParseCgroup finds the id of the container in the text of /proc/pid/cgroup;
// empty when the process is in none.
func ParseCgroup(data []byte) string {
	for line := range strings.SplitSeq(string(data), "\n") {
		f := strings.SplitN(line, ":", 3)
		if len(f) != 3 {
			continue
		}
		if id := ContainerID(f[2]); id != "" {
			return id
		}
	}
	return ""
}

// ContainerID finds the id of the container in the path of a control group.
// Docker, containerd, CRI-O and Podman use 64 hex digits with their own
// decoration (docker-<id>.scope, cri-containerd-<id>.scope, /docker/<id>);
// LXC and systemd-nspawn use the name.
func ContainerID(path string) string {
	found := ""
	for part := range strings.SplitSeq(path, "/") {
		if strings.Contains(part, "conmon") { // the monitor runs on the host
			continue
		}
		if name, ok := strings.CutPrefix(part, "lxc.payload."); ok {
			found = clean(name)
			continue
		}
		name := strings.TrimSuffix(part, ".scope")
		if machine, ok := strings.CutPrefix(name, "machine-"); ok && name != part {
			found = clean(strings.ReplaceAll(machine, `\x2d`, "-"))
			continue
		}
		if n := len(name); n >= 64 && isHex(name[n-64:]) && (n == 64 || name[n-65] == '-' || name[n-65] == ':') {
			found = name[n-64:]
		}
	}
	return found
}

func isHex(s string) bool {
	for i := range len(s) {
		c := s[i]
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}
