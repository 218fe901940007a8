package identity

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const hw = "aa"

func load(t *testing.T, dir, hardware string) *Identity {
	t.Helper()
	id, err := Load(dir, hardware)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// issue signs the request of id as a portal does.
func issue(t *testing.T, id *Identity, name string) []byte {
	t.Helper()
	der, err := id.Request()
	if err != nil {
		t.Fatal(err)
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour)}
	c, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, csr.PublicKey, ca)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestLifeOfAnIdentity(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "identity")
	id := load(t, dir, hw)
	st, err := os.Stat(filepath.Join(dir, fileName))
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Fatalf("file %v, %v", st, err)
	}
	if _, ok := id.Enrollment(); ok || id.Certificate() != nil {
		t.Fatal("enrolled from the start")
	}
	device := strings.Repeat("0f", 20)
	if err := id.SetEnrollment(Enrollment{DeviceID: device}, issue(t, id, "somebody else")); err == nil {
		t.Error("a certificate for somebody else was taken")
	}
	if err := id.SetEnrollment(Enrollment{DeviceID: device, OrgID: "o", Portal: "https://p"}, issue(t, id, device)); err != nil {
		t.Fatal(err)
	}
	again := load(t, dir, hw)
	e, ok := again.Enrollment()
	if !ok || e.DeviceID != device || e.OrgID != "o" || again.Certificate() == nil || again.MachineGUID() != id.MachineGUID() || again.Replaced != "" {
		t.Fatalf("after a restart: %+v", e)
	}
	if err := again.Forget(); err != nil {
		t.Fatal(err)
	}
	third := load(t, dir, hw)
	if _, ok := third.Enrollment(); ok || third.MachineGUID() != id.MachineGUID() {
		t.Fatal("Forget did not last, or the machine GUID changed")
	}
}

func TestClonedDisk(t *testing.T) {
	dir := t.TempDir()
	id := load(t, dir, hw)
	clone := load(t, dir, "bb")
	if clone.MachineGUID() == id.MachineGUID() || !strings.Contains(clone.Replaced, "other hardware") {
		t.Fatalf("clone has GUID %s, replaced %q", clone.MachineGUID(), clone.Replaced)
	}
	if _, err := os.Stat(filepath.Join(dir, fileName+".old")); err != nil {
		t.Error(err)
	}
}

func TestDamagedFile(t *testing.T) {
	for name, data := range map[string]string{
		"empty": "", "cut": `{"machine_guid":"`, "no key": `{"machine_guid":"6ba7b810-9dad-11d1-80b4-00c04fd430c8"}`,
		"bad guid": `{"machine_guid":"x"}`, "huge": strings.Repeat(" ", maxFile+5),
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, fileName), []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
		if id := load(t, dir, hw); id.MachineGUID() == "" || !strings.Contains(id.Replaced, "damaged") {
			t.Errorf("%s: replaced %q", name, id.Replaced)
		}
	}
}

func TestHardwareID(t *testing.T) {
	write := func(root, path, value string) {
		path = filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(value+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	host := func(files map[string]string) (string, int) {
		root := t.TempDir()
		for p, v := range files {
			write(root, p, v)
		}
		return HardwareID(root)
	}
	const uuidFile, machine, cloud, board = "sys/class/dmi/id/product_uuid", "etc/machine-id", "var/lib/cloud/data/instance-id", "sys/class/dmi/id/board_asset_tag"
	a, n := host(map[string]string{uuidFile: "4C4C4544-0042-4810-8051-B9C04F303333", machine: "m1"})
	if len(a) != 64 || n != 2 {
		t.Fatalf("id %s of %d sources", a, n)
	}
	same, _ := host(map[string]string{uuidFile: "4c4c4544-0042-4810-8051-b9c04f303333", machine: "m1", cloud: "late"})
	if same != a {
		t.Error("letter case, or cloud-init's file beside a good UUID, changes the id")
	}
	for name, files := range map[string]map[string]string{
		"other machine-id": {uuidFile: "4C4C4544-0042-4810-8051-B9C04F303333", machine: "m2"},
		"other UUID":       {uuidFile: "4C4C4544-0042-4810-8051-B9C04F303334", machine: "m1"},
		"EC2":              {uuidFile: "4C4C4544-0042-4810-8051-B9C04F303333", machine: "m1", board: "i-0123"},
		"no UUID":          {machine: "m1"},
	} {
		if b, _ := host(files); b == a {
			t.Errorf("%s: same id", name)
		}
	}
	zero, n := host(map[string]string{uuidFile: "00000000-0000-0000-0000-000000000000", machine: "m1", cloud: "i-1"})
	if none, m := host(map[string]string{machine: "m1", cloud: "i-1"}); none != zero || n != 2 || m != 2 {
		t.Error("a UUID of zeros counts")
	}
	if _, n := host(nil); n != 0 {
		t.Errorf("%d sources on an empty host", n)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"machine_guid":"6ba7b810-9dad-11d1-80b4-00c04fd430c8","key":"-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, key, _, err := parse(b); err == nil && key == nil {
			t.Fatal("no key and no error")
		}
	})
}
