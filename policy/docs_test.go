package policy

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const (
	beginTable = "<!-- keys: made by `go test ./policy -run TestDocumentation -update` -->\n"
	endTable   = "<!-- end of keys -->\n"
)

// TestDocumentation holds the table of docs/preferences.md to the keys.
func TestDocumentation(t *testing.T) {
	var b strings.Builder
	section := ""
	for _, k := range Keys() {
		if s := k.Section(); s != section {
			section = s
			fmt.Fprintf(&b, "\n### `%s`\n\n| Key | Values | Default | Meaning |\n|---|---|---|---|\n", s)
		}
		def, err := k.Encode(k.Default)
		if err != nil {
			t.Fatal(err)
		}
		doc := k.Description()
		if k.Deprecated != "" {
			doc += " Deprecated: use `" + k.Deprecated + "`."
		}
		if k.Restart {
			doc += " Needs a restart."
		}
		for _, a := range k.Aliases {
			doc += " Also accepted: `" + a + "`."
		}
		fmt.Fprintf(&b, "| `%s` | %s | `%s` | %s |\n", k.Member(), valuesText(k), def, doc)
	}
	path := filepath.Join("..", "docs", "preferences.md")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(data), beginTable)
	table, after, ok2 := strings.Cut(rest, endTable)
	if !ok || !ok2 {
		t.Fatalf("%s: the marks of the table are gone", path)
	}
	if *update {
		if err := os.WriteFile(path, []byte(before+beginTable+b.String()+"\n"+endTable+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(table, b.String()+"\n"); diff != "" {
		t.Errorf("%s is not what the keys say:\n%s", path, diff)
	}
}

func valuesText(k Key) string {
	switch k.Kind {
	case Bool:
		return "`true`, `false`"
	case Switch:
		return "`enabled`, `disabled`"
	case Enum:
		return "`" + strings.Join(k.Values, "`, `") + "`"
	case Int:
		if k.ZeroOff {
			return fmt.Sprintf("0, %d-%d", k.Min, k.Max)
		}
		return fmt.Sprintf("%d-%d", k.Min, k.Max)
	case String:
		return "string"
	case Strings:
		if k.Values != nil {
			return "list of `" + strings.Join(k.Values, "`, `") + "`"
		}
		return "list of strings"
	case Exclusions:
		return "list of exclusions"
	case ThreatTypes:
		return "list of `{\"key\", \"value\"}`"
	case Tags:
		return "list of one `{\"key\": \"GROUP\", \"value\"}`"
	}
	return ""
}
