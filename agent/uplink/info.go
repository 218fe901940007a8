package uplink

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	agentv1 "github.com/bulwarkhq/bulwark/api/agent/v1"
	"github.com/bulwarkhq/bulwark/api/onboarding"
)

// info is what this device says about itself.
func (s *session) info() *agentv1.DeviceInfo {
	return s.u.device(s.p.Tags)
}

// Device is what the device says about itself at each check-in.
func (u *Uplink) Device() *agentv1.DeviceInfo {
	u.mu.Lock()
	s := u.current
	u.mu.Unlock()
	if s == nil {
		return u.device(nil)
	}
	return s.info()
}

func (u *Uplink) device(tags []onboarding.Tag) *agentv1.DeviceInfo {
	d := u.opts.Device()
	d.AgentVersion = u.opts.Version
	d.MachineGuid, d.HardwareId = u.opts.Identity.MachineGUID(), u.opts.Identity.HardwareID()
	for _, t := range append(slices.Clone(tags), u.opts.Tags()...) {
		d.Tags = append(d.Tags, &agentv1.Tag{Key: t.Key, Value: t.Value})
	}
	return d
}

// DeviceInfo collects what the system tells about the host; root is the root of
// its file system. What cannot be read stays empty.
func DeviceInfo(root string) *agentv1.DeviceInfo {
	d := &agentv1.DeviceInfo{OsPlatform: "Linux", Architecture: runtime.GOARCH}
	if name, err := os.Hostname(); err == nil {
		d.HostName = name
	}
	var uts unix.Utsname
	if unix.Uname(&uts) == nil {
		d.Kernel = unix.ByteSliceToString(uts.Release[:])
	}
	release := readSmall(filepath.Join(root, "etc/os-release"))
	if release == nil {
		release = readSmall(filepath.Join(root, "usr/lib/os-release"))
	}
	os := osRelease(release)
	d.OsDistribution, d.OsVersion, d.OsPrettyName = os["ID"], os["VERSION_ID"], os["PRETTY_NAME"]
	dmi := func(name string) string {
		return strings.TrimSpace(string(readSmall(filepath.Join(root, "sys/class/dmi/id", name))))
	}
	d.Vendor, d.Model = dmi("sys_vendor"), dmi("product_name")
	d.VirtualMachine = bytes.Contains(readSmall(filepath.Join(root, "proc/cpuinfo")), []byte(" hypervisor"))
	d.IpAddresses = addresses()
	return d
}

// readSmall returns at most 64 KiB of a file, nil when it cannot be read.
func readSmall(path string) []byte {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 64<<10))
	if err != nil {
		return nil
	}
	return b
}

// osRelease reads os-release(5): NAME=value lines, the value perhaps quoted as
// in a shell.
func osRelease(text []byte) map[string]string {
	m := map[string]string{}
	lines := bufio.NewScanner(bytes.NewReader(text))
	lines.Buffer(nil, 64<<10+1)
	for lines.Scan() {
		key, value, ok := strings.Cut(strings.TrimSpace(lines.Text()), "=")
		if !ok || strings.HasPrefix(key, "#") {
			continue
		}
		if n := len(value); n >= 2 && (value[0] == '"' || value[0] == '\'') && value[n-1] == value[0] {
			quote := value[0]
			value = value[1 : n-1]
			if quote == '"' {
				value = strings.NewReplacer(`\"`, `"`, `\\`, `\`, `\$`, `$`, "\\`", "`").Replace(value)
			}
		}
		m[key] = value
	}
	return m
}

// addresses returns the host's addresses besides loopback and link-local.
func addresses() []string {
	list, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	var out []string
	for _, a := range list {
		n, ok := a.(*net.IPNet)
		if ok && n.IP.IsGlobalUnicast() && len(out) < 32 {
			out = append(out, n.IP.String())
		}
	}
	return out
}
