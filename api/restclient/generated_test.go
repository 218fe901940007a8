package restclient

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/bulwarkhq/bulwark/test/need"
)

const root = "../.."

// version is that of the generator in .ci/setup-tools.
func version(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, ".ci", "setup-tools"))
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`"oapi-codegen \S+ (v\S+)"`).FindSubmatch(text)
	if m == nil {
		t.Fatal(".ci/setup-tools does not name oapi-codegen")
	}
	return string(m[1])
}

// The committed client was made of the committed document with the pinned
// generator. The sums say so where the generator is not installed
// (docs/decisions/0009-tools-outside-go-mod.md).
func TestGeneratedFromDocument(t *testing.T) {
	const help = "run `go generate ./api/restclient` after a change of the document or of the settings; never edit client_gen.go"
	sums, err := os.Open("generated.sum")
	if err != nil {
		t.Fatal(err)
	}
	defer sums.Close()
	var names []string
	for lines := bufio.NewScanner(sums); lines.Scan(); {
		sum, name, ok := strings.Cut(lines.Text(), "  ")
		if !ok {
			t.Fatalf("generated.sum: %q", lines.Text())
		}
		names = append(names, name)
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if got := sha256.Sum256(text); hex.EncodeToString(got[:]) != sum {
			t.Errorf("%s is not what it was when the client was generated: %s", name, help)
		}
	}
	if want := []string{"../openapi/portal.json", "codegen.yaml", "overlay.yaml", "client_gen.go"}; !slices.Equal(names, want) {
		t.Errorf("generated.sum is of %v, want %v", names, want)
	}
	code, err := os.ReadFile("client_gen.go")
	if err != nil {
		t.Fatal(err)
	}
	if v := version(t); !bytes.Contains(code, []byte("oapi-codegen/v2 version "+v+" DO NOT EDIT.")) {
		t.Errorf("client_gen.go was not made by version %s, which .ci/setup-tools names: %s", v, help)
	}
	if bytes.Contains(code, []byte(`"<nil>"`)) {
		t.Error("an enumeration has null as one of its texts: overlay.yaml must take it out")
	}
}

// The pinned generator makes the committed client.
func TestGeneratorMakesTheSame(t *testing.T) {
	tools, err := filepath.Abs(filepath.Join(root, ".tools"))
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(tools, "bin", "oapi-codegen")
	for _, needed := range []string{program, filepath.Join(tools, "oapi-codegen-"+version(t))} { // as .ci/setup-tools does
		if _, err := os.Stat(needed); err != nil {
			need.Missing(t, "needs the generator (.ci/setup-tools oapi-codegen): %v", err)
		}
	}
	out := filepath.Join(t.TempDir(), "client_gen.go")
	if text, err := exec.CommandContext(t.Context(), program, "-config", "codegen.yaml", "-o", out, "../openapi/portal.json").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	made, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	committed, err := os.ReadFile("client_gen.go")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(made, committed) {
		t.Error("the generator makes something else: run `go generate ./api/restclient`")
	}
}
