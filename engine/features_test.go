package engine

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/bulwarkhq/bulwark/engine/definitions"
	"github.com/bulwarkhq/bulwark/test/need"
)

// featureRules use what random rules do not.
const featureRules = `
import "pe" import "elf" import "math" import "hash" import "time" import "console" import "dotnet"
rule b1 { strings: $a = /\b#x/ condition: $a }
rule b2 { strings: $a = /\Bax/ condition: $a }
rule b3 { strings: $a = /x#\b/ condition: $a }
rule w1 { strings: $a = /\bax/ wide condition: $a }
rule w2 { strings: $a = /ax\B/ wide ascii condition: $a }
rule w3 { strings: $a = /\Bax\b/ wide condition: $a }
rule w4 { strings: $a = /\b#x/ wide condition: $a }
rule loose1 { strings: $a = /[0-9]{4}/ condition: #a == 3 and @a[2] == 4 }
rule loose2 { strings: $a = { ?? ?? } condition: #a == filesize - 1 and filesize < 60000 }
rule loose3 { strings: $a = /[a-f][0-4]+/ condition: any of them }
rule loose4 { strings: $a = { 4? ?? [1-3] 7? } condition: $a }
rule loose5 { strings: $a = /x*/ condition: $a }
rule loose6 { strings: $a = /[^a]\d?$/ condition: $a }
rule late1 { strings: $a = "a" $b = "needle" condition: $b and #a > 2 }
rule late2 { strings: $a = "e" $b = "needle" $c = { 00 ?? 00 } condition: 2 of them and not $c }
rule late3 { strings: $a = "ee" $b = "needle" condition: for any i in (1..#a) : (@a[i] > @b) }
rule late4 { strings: $a = "x" $b = "needle" condition: $b and none of ($a) }
rule b64a { strings: $a = "needle" base64 condition: $a }
rule b64b { strings: $a = "needle" base64("!@#$%^&*(){}[].,|ABCDEFGHIJ\x09LMNOPQRSTUVWXYZabcdefghijklmnopqrstu") condition: $a }
rule b64c { strings: $a = "needle" base64wide condition: $a }
rule xor1 { strings: $a = "needle" xor(1-9) wide ascii condition: $a }
rule xor2 { strings: $a = "needle" xor fullword condition: $a }
rule priv { strings: $a = "needle" private condition: $a }
rule iter2 { condition: for 2 i in (0, 1, 2) : (uint8(i) == 0x61) }
rule iter3 { condition: for any s in pe.sections : (s.name == ".text" and s.raw_data_size > 0) }
rule iter4 { condition: for all s in pe.sections : (s.virtual_size > 0) }
rule iter5 { condition: for any k, v in pe.version_info : (k != v) }
rule iter7 { condition: for any i in (0..elf.number_of_sections - 1) : (elf.sections[i].type == elf.SHT_STRTAB) }
rule undef1 { condition: not pe.is_dll() }
rule undef2 { condition: pe.machine != 0 or filesize > 10 }
rule undef3 { condition: not defined pe.machine and pe.is_pe == 0 }
rule undef4 { condition: pe.sections[1000].name == "" or not pe.sections[1000].name == "" }
rule undef5 { condition: pe.number_of_sections == 1 \ (filesize - filesize) or elf.machine > 0 }
rule undef6 { condition: not (pe.timestamp > 0 and true) }
rule pe1 { condition: pe.imports("KERNEL32.dll", "ExitProcess") or pe.imports(/kernel/i, /exit/i) > 0 }
rule pe2 { condition: pe.imphash() == "x" or pe.exports("x") or pe.section_index(".data") == 1 or pe.rva_to_offset(0x1000) > 0 }
rule pe3 { condition: pe.is_64bit() and not pe.is_32bit() and pe.characteristics & pe.EXECUTABLE_IMAGE }
rule pe4 { condition: pe.calculate_checksum() == pe.checksum or pe.checksum == 0 }
rule pe5 { condition: pe.linker_version.major >= 2 and pe.rich_signature.length == 0 or pe.overlay.size > 0 }
rule pe6 { condition: pe.language(9) or pe.locale(0x409) or pe.number_of_resources > 2 }
rule entry1 { condition: entrypoint > 0 and uint8(entrypoint) != 0 }
rule entry2 { strings: $a = { 55 } condition: $a at entrypoint }
rule elf1 { condition: elf.type == elf.ET_DYN and elf.machine == elf.EM_X86_64 }
rule elf2 { condition: elf.symtab_entries > 2 or elf.dynsym_entries > 10 }
rule elf3 { condition: for any s in elf.segments : (s.type == elf.PT_LOAD and s.flags & elf.PF_X) }
rule math1 { condition: math.entropy(0, filesize) > 5.0 }
rule math2 { condition: math.in_range(math.mean(0, filesize), 50.0, 100.0) }
rule math3 { condition: math.deviation(0, filesize, math.MEAN_BYTES) > 60.0 or math.serial_correlation(0, filesize) > 0.2 }
rule math4 { condition: math.monte_carlo_pi(0, filesize) < 0.3 and math.max(1, 2) == 2 and math.min(filesize, 3) <= 3 }
rule math5 { condition: math.entropy(filesize, 10) > 0.0 or math.mean(0, 0) >= 0.0 }
rule math6 { condition: math.abs(0 - 5) == 5 and math.count(0x61, 0, filesize) > 1 and math.percentage(0x61) > 0.01 and math.mode() >= 0 }
rule math7 { condition: math.to_number(filesize > 10) == 1 }
rule hash1 { condition: hash.md5(0, filesize) == "0cc175b9c0f1b6a831c399e269772661" }
rule hash2 { condition: hash.sha1(0, 1) == "86f7e437faa5a7fce15d1ddcb9eaeaea377667b8" or hash.sha256("a") == "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb" and filesize > 5 }
rule hash3 { condition: hash.crc32(0, filesize) == 0xe8b7be43 or hash.checksum32(0, filesize) == 97 }
rule time1 { condition: time.now() > 1700000000 }
rule console1 { condition: console.log("x", filesize) and filesize > 3 }
rule dotnet1 { condition: dotnet.version == "v4.0.30319" or not dotnet.is_dotnet }
rule guard1 { condition: uint16be(0) == 0x4d5a or uint32(0) == 0x464c457f }
rule guard2 { condition: filesize < 100 and filesize >= 3 and uint8(1) == 0x62 }
rule guard3 { condition: (uint16(0) == 0x6261 or uint16(2) == 0x6261) and not uint8(0) == 0x4d }
rule refs1 { condition: guard1 or b64a }
rule refs2 { condition: any of (late*) and not guard2 }
rule refs3 { condition: 50% of (math*, hash1) }
rule text1 { condition: filename matches /^needle\.[a-z]{3}$/ and filepath icontains "TMP" and extension iequals ".EXE" }
rule text2 { condition: owner startswith "ro" and not owner endswith "x" and filetype != "" }
rule of1 { strings: $a = "needle" $c = "abc" condition: all of ($a, $c) in (0..filesize) }
rule of2 { strings: $a = "needle" $b = "other" condition: for all of them : (# == 1) or for 1 of ($a*) : ($ at 3) }
rule of3 { strings: $a1 = "needle" $a2 = "other" $a3 = "abc" condition: 66% of ($a*) }
`

// TestYaraFeatures compares verdicts with Debian's yara on rules about modules,
// undefined values, strings without literals and the like.
func TestYaraFeatures(t *testing.T) {
	yara := need.Command(t, "yara")
	fixed := map[string]any{"filename": "needle.exe", "filepath": "/tmp/needle.exe", "extension": ".exe", "filetype": "data", "owner": "root"}
	rules := filepath.Join(t.TempDir(), "r.yar")
	if err := os.WriteFile(rules, []byte(featureRules), 0o600); err != nil {
		t.Fatal(err)
	}
	e, rep := compileWith(t, definitions.CompileOptions{Externals: fixed}, definitions.Source{Path: rules})
	for _, p := range rep.Problems {
		t.Error(p)
	}
	if len(rep.Slow) < 5 {
		t.Errorf("slow strings: %v", rep.Slow)
	}
	dir := t.TempDir()
	files := map[string][]byte{}
	add := func(data []byte) {
		name := filepath.Join(dir, fmt.Sprint(len(files)))
		files[name] = data
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range []string{
		"", "a", "abab", "#x", "ax", "x#", " ax ", " #x", "a#x", "bax", "axb", "#\x00x\x00", "a\x00x\x00", "b\x00a\x00x\x00", "ba\x00x\x00",
		".a\x00x\x00", ".\x00a\x00x\x00", "a\x00x\x00b", "a\x00x\x00b\x00", "a\x00x\x00.\x00", "b\x00#\x00x\x00", ".\x00#\x00x\x00",
		"bbb 123456", "abc 12", "aaa needle ee", "needle", "needle\x00y\x00", "needle x", "abc needle other", "otherneedle",
		"bmVlZGxl", "xbmVlZGxlx", "b\x00m\x00V\x00l\x00Z\x00G\x00x\x00l\x00", "odggnd", " odggnd ", "MZ", "\x7fELF", "\x7fELF\x02\x01\x01",
		"@Az@z@q", "A..7777.q", strings.Repeat("aab", 100), strings.Repeat("\x00\xff", 40), "ab12 needle x ee\x00z\x00",
	} {
		add([]byte(s))
	}
	add(smallest(t, "src/debug/pe/testdata/gcc-amd64-mingw-exec"))
	add(smallest(t, "src/debug/pe/testdata/gcc-386-mingw-exec"))
	add(smallest(t, "src/debug/pe/testdata/gcc-386-mingw-obj"))
	add(smallest(t, "src/debug/elf/testdata/go-relocation-test-gcc424-x86-64.obj"))
	add(smallest(t, "src/debug/elf/testdata/gcc-386-freebsd-exec"))
	if data, err := os.ReadFile("/bin/true"); err == nil {
		add(data)
	}
	args := []string{"-w", "-p", "1"}
	for k, v := range fixed {
		args = append(args, "-d", fmt.Sprintf("%s=%v", k, v))
	}
	want := map[string][]string{}
	for name := range files {
		// One file at a time: yara carries the entry point on to the next.
		out, err := exec.Command(yara, append(args, rules, name)...).Output()
		if err != nil {
			t.Fatalf("yara: %v\n%s", err, out)
		}
		for line := range strings.Lines(string(out)) {
			if rule, path, ok := strings.Cut(strings.TrimSpace(line), " "); ok && path == name {
				want[name] = append(want[name], rule)
			}
		}
	}
	hits := 0
	for name, data := range files {
		slices.Sort(want[name])
		got := names(scanBytes(t, e, data, Options{Name: name}))
		hits += len(got)
		if !slices.Equal(got, want[name]) {
			t.Errorf("%.60q:\n  we %v\nyara %v", data, got, want[name])
		}
	}
	if hits < 400 {
		t.Errorf("only %d hits", hits)
	}
}

// smallest is a file of the Go distribution.
func smallest(t *testing.T, pattern string) []byte {
	t.Helper()
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(root)), pattern))
	if err != nil {
		t.Fatal(err)
	}
	return data
}
