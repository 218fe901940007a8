package modules

import (
	"bytes"
	"crypto/md5"
	"encoding/hex"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func open(name string, data []byte) Object {
	n, _ := Find(name)
	return Get(n).Open(whole(data))
}

func TestTypes(t *testing.T) {
	for n := range names {
		m := Get(n)
		if m.Name != names[n] || m.Type.Kind != Struct || len(m.Type.Fields) == 0 {
			t.Errorf("module %d: %+v", n, m)
		}
		// Every function is there for an object that the module describes, or
		// for none.
		for field, ft := range m.Type.Fields {
			if ft.Kind == Function && len(ft.Args) == 0 {
				t.Errorf("%s.%s takes no arguments at all", m.Name, field)
			}
		}
	}
	if Get(-1) != nil || Get(len(names)) != nil {
		t.Error("modules out of nowhere")
	}
	pe := Get(0).Type
	if s := pe.Fields["sections"]; s.Kind != Array || s.Elem.Fields["full_name"].Kind != String {
		t.Errorf("sections %+v", s)
	}
	if f := pe.Fields["imports"]; f.Result != Int || !f.Accepts("iss") || f.Accepts("is0") {
		t.Errorf("imports %+v", f)
	}
	if f := pe.Fields["imphash"]; f.Result != String || !f.Accepts("") {
		t.Errorf("imphash %+v", f)
	}
}

func TestRanges(t *testing.T) {
	data := []byte("aaaabbbbccccdddd")
	m, h := open("math", data), open("hash", data)
	call := func(o Object, name string, args ...any) any { return o[name].(Func)(args) }
	for i, c := range []struct{ got, want any }{
		{call(m, "entropy", int64(0), int64(16)), 2.0},
		{call(m, "entropy", int64(0), int64(4)), 0.0},
		{call(m, "entropy", int64(0), int64(1000)), 2.0}, // cut at the end
		{call(m, "entropy", int64(16), int64(1)), nil},
		{call(m, "entropy", int64(-1), int64(4)), nil},
		{call(m, "entropy", "ab"), 1.0},
		{call(m, "mean", "ac"), 98.0},
		{call(m, "deviation", "ac", 98.0), 1.0},
		{call(m, "count", int64('a')), int64(4)},
		{call(m, "count", int64('a'), int64(2), int64(4)), int64(2)},
		{call(m, "count", int64(256)), nil},
		{call(m, "percentage", int64('a')), 0.25},
		{call(m, "mode", int64(4), int64(12)), int64('b')},
		{call(m, "in_range", 1.0, 0.5, 1.0), int64(1)},
		{call(m, "abs", int64(-3)), int64(3)},
		{call(m, "max", int64(-3), int64(1)), int64(-3)}, // compared as unsigned
		{call(m, "to_number", true), int64(1)},
		{call(m, "to_string", int64(255), int64(16)), "ff"},
		{call(m, "to_string", int64(255), int64(7)), nil},
		{call(m, "serial_correlation", "aaaa"), -100000.0},
		{call(m, "monte_carlo_pi", "abc"), nil},
		{call(h, "md5", int64(0), int64(0)), "d41d8cd98f00b204e9800998ecf8427e"},
		{call(h, "checksum32", "ab"), int64(195)},
		{call(h, "crc32", "123456789"), int64(0xcbf43926)},
		{call(h, "sha1", int64(99), int64(1)), nil},
		{call(open("string", nil), "to_int", " -0x1f"), int64(-31)},
		{call(open("string", nil), "to_int", "z", int64(36)), int64(35)},
		{call(open("string", nil), "to_int", "12x"), nil},
		{call(open("string", nil), "length", "a\x00b"), int64(3)},
		{call(open("console", nil), "log", "x"), int64(1)},
	} {
		if c.got != c.want {
			t.Errorf("%d: %v, want %v", i, c.got, c.want)
		}
	}
	if v := call(m, "monte_carlo_pi", strings.Repeat("\x00", 60)).(float64); math.Abs(v-(4-math.Pi)/math.Pi) > 1e-9 {
		t.Errorf("monte_carlo_pi %v", v)
	}
}

// windowsProgram is a PE file that Go makes.
func windowsProgram(t testing.TB) []byte {
	t.Helper()
	dir := t.TempDir()
	src := filepath.Join(dir, "main.go")
	if err := os.WriteFile(src, []byte("package main\nfunc main() { println(1) }\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, "main.exe")
	cmd := exec.Command("go", "build", "-o", out, src)
	cmd.Env = append(os.Environ(), "GOOS=windows", "GOARCH=amd64", "CGO_ENABLED=0", "GOFLAGS=")
	cmd.Dir = dir
	if msg, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, msg)
	}
	data, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

type anything struct{}

func (anything) Match(b []byte) bool { return bytes.Contains(bytes.ToLower(b), []byte("e")) }

func TestPEFunctions(t *testing.T) {
	o := open("pe", windowsProgram(t))
	call := func(name string, args ...any) any { return o[name].(Func)(args) }
	n := o.Get("number_of_imported_functions").(int64)
	if n < 10 {
		t.Fatalf("%d imports", n)
	}
	dlls := o.Get("\x00imports").([]peDLL)
	var all []string
	for _, d := range dlls {
		for _, f := range d.functions {
			all = append(all, strings.TrimSuffix(strings.ToLower(d.name), ".dll")+"."+strings.ToLower(f.name))
		}
	}
	sum := md5.Sum([]byte(strings.Join(all, ",")))
	for i, c := range []struct{ got, want any }{
		{call("imphash"), hex.EncodeToString(sum[:])},
		{call("imports", "KERNEL32.DLL", "writefile"), int64(1)},
		{call("imports", int64(importDelayed), "KERNEL32.DLL", "writefile"), int64(0)},
		{call("imports", "kernel32.dll"), n},
		{call("imports", "other.dll"), int64(0)},
		{call("imports", anything{}, anything{}).(int64) > 3, true},
		{call("is_dll"), int64(0)},
		{call("is_64bit"), int64(1)},
		{call("section_index", ".text"), int64(0)},
		{call("section_index", "none"), nil},
		{call("exports", "x"), int64(0)},
		{call("exports_index", "x"), nil},
		{call("rva_to_offset", int64(1)<<40), nil},
		{call("language", int64(9)), int64(0)},
	} {
		if c.got != c.want {
			t.Errorf("%d: %v, want %v", i, c.got, c.want)
		}
	}
}

// FuzzModules reads anything as every module and looks at every value.
func FuzzModules(f *testing.F) {
	f.Add([]byte("\x7fELF\x02\x01\x01"))
	head := make([]byte, 600)
	copy(head, "MZ")
	head[60] = 0x40
	copy(head[64:], "PE\x00\x00\x4c\x01\x02\x00")
	head[84] = 0xe0
	f.Add(head)
	if classes, err := os.ReadFile("testdata/classes.exe"); err == nil {
		f.Add(classes)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 1<<16 {
			return
		}
		for n := range names {
			m := Get(n)
			o := m.Open(whole(data))
			visited := 0
			visit(m.Type, o, &visited)
			for name, ft := range m.Type.Fields {
				fn, ok := o.Get(name).(Func)
				if ft.Kind != Function || !ok {
					continue
				}
				for _, letters := range ft.Args {
					var args []any
					for _, l := range letters {
						args = append(args, map[rune]any{'i': int64(3), 'f': 1.5, 's': "kernel32.dll", 'b': true, 'r': anything{}}[l])
					}
					fn(args)
				}
			}
		}
	})
}

// visit touches the values below v, a bounded number of them.
func visit(t *Type, v any, visited *int) {
	if *visited++; *visited > 20000 {
		return
	}
	switch x := v.(type) {
	case Object:
		for name, ft := range t.Fields {
			if ft.Kind != Function {
				visit(ft, x.Get(name), visited)
			}
		}
	case List:
		for i := range min(x.N, 1000) {
			visit(t.Elem, x.At(i), visited)
		}
	case *Dict:
		for _, k := range x.Keys {
			visit(t.Elem, x.Values[k], visited)
		}
	}
}
