package modules

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sort"
	"strings"
	"testing"

	"github.com/bulwarkhq/bulwark/test/need"
)

// whole is an object in memory.
type whole []byte

func (w whole) Size() int64 { return int64(len(w)) }
func (w whole) Stop() bool  { return false }
func (w whole) Spend(int)   {}
func (w whole) Slice(off int64, n int) []byte {
	if off < 0 || off >= int64(len(w)) || n <= 0 {
		return nil
	}
	return w[off:min(int64(len(w)), off+int64(n))]
}

// dump writes every defined value with its path.
func dump(out map[string]string, path string, t *Type, v any) {
	if o, ok := v.(Object); ok && t.Kind == Struct {
		for name, ft := range t.Fields {
			if ft.Kind != Function {
				dump(out, path+"."+name, ft, o.Get(name))
			}
		}
		return
	}
	switch x := v.(type) {
	case nil:
	case List:
		for i := range x.N {
			dump(out, fmt.Sprintf("%s[%d]", path, i), t.Elem, x.At(i))
		}
	case *Dict:
		for _, k := range x.Keys {
			dump(out, path+"."+k, t.Elem, x.Values[k])
		}
	case string:
		var s strings.Builder
		s.WriteByte('"')
		for _, c := range []byte(x) {
			if c >= ' ' && c <= '~' {
				s.WriteByte(c)
			} else {
				fmt.Fprintf(&s, "\\x%02x", c)
			}
		}
		out[path] = s.String() + "\""
	case float64:
		out[path] = fmt.Sprintf("%f", x)
	default:
		out[path] = fmt.Sprint(x)
	}
}

var dumpLine = regexp.MustCompile(`^(\t*)(\[?[^ ]*)(?: = (.*))?$`)

// oracleDump is what yara -D says, in the form of dump.
func oracleDump(t *testing.T, yara, module, file string) map[string]string {
	t.Helper()
	rules := filepath.Join(t.TempDir(), "r.yar")
	if err := os.WriteFile(rules, fmt.Appendf(nil, "import %q\nrule r { condition: false }", module), 0o600); err != nil {
		t.Fatal(err)
	}
	text, err := exec.Command(yara, "-D", rules, file).Output()
	if err != nil {
		t.Fatalf("yara -D %s: %v", file, err)
	}
	out := map[string]string{}
	var path []string
	for line := range strings.Lines(string(text)) {
		m := dumpLine.FindStringSubmatch(strings.TrimSuffix(line, "\n"))
		if m == nil {
			continue
		}
		depth := len(m[1])
		if depth > len(path) {
			continue
		}
		name := m[2]
		if !strings.HasPrefix(name, "[") && depth > 0 {
			name = "." + name
		}
		if strings.HasPrefix(name, "[\"") {
			name = "[" + strings.Trim(name, "[]\"") + "]"
		}
		path = append(path[:depth], name)
		if m[3] != "" && m[3] != "YR_UNDEFINED" {
			out[strings.Join(path, "")] = m[3]
		}
	}
	return out
}

// samples are files of the formats that the machine happens to have.
func samples(t *testing.T, most int, globs ...string) []string {
	t.Helper()
	var out []string
	for _, g := range globs {
		names, _ := filepath.Glob(g)
		for _, n := range names[:min(len(names), most)] {
			if st, err := os.Stat(n); err == nil && st.Mode().IsRegular() && st.Size() < 4<<20 {
				out = append(out, n)
			}
		}
	}
	return out
}

// escapes differ in form only: yara writes some of them with letters.
var escapes = strings.NewReplacer(`\t`, `\x09`, `\n`, `\x0a`, `\r`, `\x0d`, `\v`, `\x0b`, `\f`, `\x0c`, `\a`, `\x07`, `\b`, `\x08`, `\"`, `"`, `\'`, `'`, `\\`, `\`)

func compareDumps(t *testing.T, yara, module, file string, ignore *regexp.Regexp) int {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	want := oracleDump(t, yara, module, file)
	got := map[string]string{}
	n, _ := Find(module)
	m := Get(n)
	dump(got, module, m.Type, m.Open(whole(data)))
	var keys []string
	for k := range want {
		keys = append(keys, k)
	}
	for k := range got {
		if _, ok := want[k]; !ok {
			keys = append(keys, k)
		}
	}
	sort.Strings(keys)
	faults := 0
	for _, k := range keys {
		if ignore.MatchString(k) || escapes.Replace(got[k]) == escapes.Replace(want[k]) {
			continue
		}
		if faults++; faults <= 12 {
			t.Errorf("%s: %s is %s, yara says %s", file, k, got[k], want[k])
		}
	}
	return len(keys)
}

// TestAgainstYara compares every value of every module with those of Debian's
// yara 4.2.3, for programs of this system and those in BULWARK_PE_SAMPLES.
func TestAgainstYara(t *testing.T) {
	yara := need.Command(t, "yara")
	goroot, err := exec.Command("go", "env", "GOROOT", "GOMODCACHE").Output()
	if err != nil {
		t.Fatal(err)
	}
	roots := strings.Fields(string(goroot))
	values := 0
	for _, f := range samples(t, 40, "/usr/bin/*", "/usr/lib/x86_64-linux-gnu/*.so*", roots[0]+"/src/debug/elf/testdata/*") {
		// yara 4.2.3 knows no import hash.
		values += compareDumps(t, yara, "elf", f, regexp.MustCompile(`^$`))
	}
	globs := []string{
		roots[0] + "/src/debug/pe/testdata/*", roots[1] + "/golang.org/x/sys@*/windows/testdata/*.exe",
		roots[1] + "/github.com/*/*/testdata/*.exe", roots[1] + "/github.com/*/*/testdata/windows/*.sys",
		"/usr/share/clamav-testfiles/clam.exe", "/usr/lib/python3*/*-packages/*/*.exe",
	}
	if more := os.Getenv("BULWARK_PE_SAMPLES"); more != "" {
		globs = append(globs, strings.Split(more, ":")...)
	}
	for _, f := range samples(t, 40, globs...) {
		// 4.2.3 goes on counting functions where the library before ended, and
		// lacks the fields after these.
		ignore := regexp.MustCompile(`^pe\.(delayed_import_details|(delay_)?import_details\[\d+\]\.(functions|number_of_functions)|rich_signature\.version_data|export_details\[\d+\]\.rva|is_signed$|signatures\[\d+\]\.(number_of_certificates|certificates.*|verified|digest|digest_alg|file_digest|signer_info.*))`)
		values += compareDumps(t, yara, "pe", f, ignore)
		// 4.2.3 cuts the last byte of these, and reads no tables of more than
		// 10,000 rows.
		values += compareDumps(t, yara, "dotnet", f, regexp.MustCompile(`^dotnet\.(constants\[|assembly_refs\[\d+\]\.public_key)`))
	}
	t.Logf("%d values", values)
	if values < 2000 {
		t.Errorf("only %d values", values)
	}
}
