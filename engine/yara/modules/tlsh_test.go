package modules

import (
	"bytes"
	"debug/elf"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/bulwarkhq/bulwark/test/need"
)

// TestTLSH compares with what Debian's python3-tlsh 3.4.4 says (which has no
// version before the digits, and no digests of less than 256 bytes).
func TestTLSH(t *testing.T) {
	for _, c := range []struct {
		n, seed, letters int
		want             string
	}{
		{49, 1, 26, ""},
		{300, 3, 26, "E6E07D8C95196D6263700C0D83A412EC1FC5AE01C608487061D0DA56978EF1C0F63444"},
		{656, 5, 20, "91F083D1FF10321839F3116283DF210D50984E36041405E4A1BDC688823620F5FC2412"},
		{657, 5, 20, "C90183E1FF10321839F3116283DF210D50984E36041405E4A1BDC688823620F5FC2416"},
		{3199, 9, 26, "A9616CFD69A32AFF2C188F0045BD6CBB8427FC0429311577841BE40B6B58E27621985F"},
		{3200, 9, 26, "60616CFE69A32AFF2C188F0045BD6CBB8427FC1429311577841BE40B6B58E27621985F"},
		{20000, 11, 26, "8492BFB453190DBE5F3DA189C6DE2E050C9E69737C3114B9D14B3C4E8329AABA7C1C2B"},
		{1000, 1, 2, ""},
		{1000, 1, 1, ""},
		{437, 2, 26, "24E0237415D2102A115530B0C7EF62148AD8320C051997F88887CA864434AF571971BA"},
		{70000, 8, 158, "DD63019894D73D6C4B043DDE1B4AE4B65EA43C32344CA8A5FE7050F93BB38D6256B498"},
	} {
		text := make([]byte, c.n)
		x := uint32(c.seed)
		for i := range text {
			x = (x*1103515245 + 12345) & 0x7fffffff
			text[i] = 'a' + byte(x>>16%uint32(c.letters))
		}
		want := c.want
		if want != "" {
			want = "T1" + want
		}
		if got := tlsh(text); got != want {
			t.Errorf("%d bytes of %d letters: %s, want %s", c.n, c.letters, got, want)
		}
	}
}

// TestTelfhash reads the symbols of this system's programs with debug/elf.
func TestTelfhash(t *testing.T) {
	files := samples(t, 40, "/usr/bin/*", "/usr/lib/x86_64-linux-gnu/*.so.*")
	if len(files) == 0 {
		need.Missing(t, "no programs in /usr/bin")
	}
	digests := map[string]bool{}
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		f, err := elf.NewFile(bytes.NewReader(data))
		if err != nil {
			continue
		}
		symbols, err := f.DynamicSymbols()
		if err != nil || len(symbols) == 0 {
			continue
		}
		var names []string
		for _, s := range symbols {
			if elf.ST_BIND(s.Info) != elf.STB_GLOBAL || elf.ST_TYPE(s.Info) != elf.STT_FUNC || elf.ST_VISIBILITY(s.Other) != elf.STV_DEFAULT {
				continue
			}
			out := slices.Contains(strings.Fields("main abort cachectl cacheflush puts atol malloc_trim"), s.Name)
			for _, glob := range strings.Fields("_* .* str* mem* *64") {
				match, _ := filepath.Match(glob, s.Name)
				out = out || match
			}
			if !out {
				names = append(names, strings.ToLower(s.Name))
			}
		}
		slices.Sort(names)
		var want any
		if len(names) > 0 {
			want = tlsh([]byte(strings.Join(names, ",")))
			digests[want.(string)] = true
		}
		if got := open("elf", data)["telfhash"].(Func)(nil); got != want {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
	if len(digests) < 5 {
		t.Errorf("only %d different digests", len(digests))
	}
}

// A million symbols with one long name are not put together.
func TestNamesBound(t *testing.T) {
	const each = 24
	n := maxNames/maxName + 2
	data := make([]byte, n*each)
	for i := range n {
		data[i*each] = 1 // the name
		data[i*each+4] = 1<<4 | 2
	}
	strings := "\x00" + strings.Repeat("a", maxName-1) + "\x00"
	f := &elfFile{in: whole(slices.Concat(data, []byte(strings))), order: le, wide: true}
	f.symtab = &elfSymbols{0, uint64(len(data)), uint64(len(data)), uint64(len(strings))}
	all := func(*elfSymbol) bool { return true }
	if got := f.names(all); got != "" {
		t.Errorf("%d bytes of names", len(got))
	}
	f.symtab.size /= 2
	if got := f.names(all); len(got) != n/2*maxName-1 {
		t.Errorf("%d bytes of names", len(got))
	}
}
