package docpage

import (
	"slices"
	"testing"
)

func TestBlocks(t *testing.T) {
	const page = "Text\n\n1. First\n\n   ```sh\n   one \\\n     two\n   ```\n\n```sh rpm\nthree\n```\n\n```text\nnot this\n```\n\n```yaml files/x.yml\na: b\n```\n"
	first, file := Block{"", "one \\\n  two\n"}, Block{"files/x.yml", "a: b\n"}
	if got, want := Blocks(page), []Block{first, file}; !slices.Equal(got, want) {
		t.Errorf("for everybody: %q, want %q", got, want)
	}
	if got, want := Blocks(page, "deb", "rpm"), []Block{first, {"", "three\n"}, file}; !slices.Equal(got, want) {
		t.Errorf("for two kinds: %q, want %q", got, want)
	}
}
