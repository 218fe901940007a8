// Package packaging looks at the recipes, scripts and policies of the packages as far
// as that needs no installation.
package packaging

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/bulwarkhq/bulwark/test/need"
)

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), need.Command(t, name), args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

var (
	unitCapabilities = regexp.MustCompile(`(?m)^CapabilityBoundingSet=(.*)$`)
	ruleCapability   = regexp.MustCompile(`(?m)^\s*capability (\w+),$`)
)

// The AppArmor profile compiles, and allows the capabilities of the unit, no
// others.
func TestAppArmor(t *testing.T) {
	const profile = "../../packaging/apparmor/opt.bulwark.bin.bulwarkd"
	run(t, "apparmor_parser", "-Q", "-K", profile)
	text, err := os.ReadFile(profile)
	if err != nil {
		t.Fatal(err)
	}
	unit, err := os.ReadFile("../../packaging/systemd/bulwark.service")
	if err != nil {
		t.Fatal(err)
	}
	m := unitCapabilities.FindSubmatch(unit)
	if m == nil {
		t.Fatal("the unit has no CapabilityBoundingSet")
	}
	want := strings.Fields(strings.ToLower(strings.ReplaceAll(string(m[1]), "CAP_", "")))
	var got []string
	for _, m := range ruleCapability.FindAllStringSubmatch(string(text), -1) {
		got = append(got, m[1])
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("the profile allows the capabilities %q, the unit %q", got, want)
	}
}

// The SELinux modules compile as packaging/build.sh does it; the labels are of
// the first one's types.
func TestSELinux(t *testing.T) {
	dir := t.TempDir()
	module, packed := filepath.Join(dir, "bulwark.mod"), filepath.Join(dir, "bulwark.pp")
	run(t, "checkmodule", "-M", "-m", "-c", "17", "-o", module, "../../packaging/selinux/bulwark.te")
	run(t, "semodule_package", "-o", packed, "-m", module, "-f", "../../packaging/selinux/bulwark.fc")
	watch := filepath.Join(dir, "bulwark_watch.mod")
	run(t, "checkmodule", "-M", "-m", "-c", "17", "-o", watch, "../../packaging/selinux/bulwark_watch.te")
	run(t, "semodule_package", "-o", watch+".pp", "-m", watch)
	for _, name := range []string{packed, watch + ".pp"} {
		if st, err := os.Stat(name); err != nil || st.Size() < 500 {
			t.Fatalf("the module %s: %v, %v", name, st, err)
		}
	}
	te, err := os.ReadFile("../../packaging/selinux/bulwark.te")
	if err != nil {
		t.Fatal(err)
	}
	fc, err := os.ReadFile("../../packaging/selinux/bulwark.fc")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(fc)) {
		_, context, ok := strings.Cut(strings.TrimSpace(line), "\t")
		parts := strings.Split(context, ":")
		if !ok || len(parts) != 4 || !strings.Contains(string(te), "type "+parts[2]+";") {
			t.Errorf("%q has no context of this module", line)
		}
	}
}
