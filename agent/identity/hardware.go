package identity

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/bulwarkhq/bulwark/event"
)

// maxSource bounds what is read of an identity source.
const maxSource = 4 << 10

// HardwareID returns the SHA-256, in hex, over what tells this host from its
// clones: the firmware's UUID, the cloud's instance id, and machine-id. root is
// the root of the file system, "/" except in tests. Sources that are missing
// are left out, so a host has an id in any case, but one without any source
// shares it with others of its kind (sources tells how many there were).
//
// The instance id of cloud-init is only used where the firmware tells no UUID:
// it appears late in the boot, and an id must not change between two starts.
func HardwareID(root string) (id string, sources int) {
	uuid := dmi(root, "product_uuid")
	if !usable(uuid) {
		uuid = ""
	}
	cloud := dmi(root, "board_asset_tag") // the instance id on EC2
	if !strings.HasPrefix(cloud, "i-") {
		cloud = ""
	}
	if uuid == "" && cloud == "" {
		cloud = read(filepath.Join(root, "var/lib/cloud/data/instance-id"))
	}
	machine := read(filepath.Join(root, "etc/machine-id"))
	if machine == "" || machine == "uninitialized" {
		machine = read(filepath.Join(root, "var/lib/dbus/machine-id"))
	}
	h := sha256.New()
	for _, s := range []struct{ name, value string }{{"dmi", uuid}, {"cloud", cloud}, {"machine-id", machine}} {
		if s.value == "" {
			continue
		}
		sources++
		io.WriteString(h, s.name+"\x00"+strings.ToLower(s.value)+"\x00") //nolint:errcheck // a hash does not fail
	}
	return hex.EncodeToString(h.Sum(nil)), sources
}

// usable reports whether a firmware's UUID says anything: vendors ship zeros,
// ones and counting digits.
func usable(uuid string) bool {
	digits := strings.ToLower(strings.ReplaceAll(uuid, "-", ""))
	if !event.IsHex(digits, 32) {
		return false
	}
	if strings.Count(digits, digits[:1]) == 32 {
		return false
	}
	return digits != "03000200040005000006000700080009" && digits != "00020003000400050006000700080009"
}

func dmi(root, name string) string { return read(filepath.Join(root, "sys/class/dmi/id", name)) }

// read returns the first line of a small regular file; empty when it cannot be
// read.
func read(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return ""
	}
	b, err := io.ReadAll(io.LimitReader(f, maxSource))
	if err != nil {
		return ""
	}
	line, _, _ := bytes.Cut(b, []byte("\n"))
	return strings.TrimSpace(string(line))
}

// Open is Load with the hardware id of this host.
func Open(dir string) (*Identity, error) {
	hw, _ := HardwareID("/")
	return Load(dir, hw)
}
