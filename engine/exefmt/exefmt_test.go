package exefmt

import (
	"bytes"
	"crypto/md5"
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/bulwarkhq/bulwark/engine/exefmt/sample"
	"github.com/bulwarkhq/bulwark/test/need"
)

var version = [][2]string{{"CompanyName", "Example Ltd"}, {"ProductName", "Sample"}}

func samplePE() []byte { return sample.PE(bytes.Repeat([]byte("text"), 100), version) }

func TestPE(t *testing.T) {
	data := samplePE()
	l, err := Read(bytes.NewReader(data), int64(len(data)), "pe")
	if err != nil {
		t.Fatal(err)
	}
	if l.Entry != sample.TextAt+sample.EntryIn || len(l.Sections) != 3 || l.Sections[0].Offset != sample.TextAt || l.Sections[0].Size != 512 {
		t.Errorf("%+v", l)
	}
	if got := l.ImportText(); got != "kernel32.exitprocess,kernel32.sleep,ws2_32.socket,ws2_32.wsasend" {
		t.Errorf("imports %q", got)
	}
	texts := l.VersionTexts()
	if len(texts) != len(version) {
		t.Fatalf("version texts %v", texts)
	}
	for i, at := range texts {
		var want []byte
		for _, u := range utf16.Encode([]rune(version[i][0])) {
			want = append(want, byte(u), byte(u>>8))
		}
		if !bytes.HasPrefix(data[at:], want) {
			t.Errorf("at %d there is no %s", at, version[i][0])
		}
	}
}

// TestSigtool compares import and section hashes with Debian's sigtool.
func TestSigtool(t *testing.T) {
	sigtool := need.Command(t, "sigtool")
	path := filepath.Join(t.TempDir(), "sample.exe")
	data := samplePE()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := Read(bytes.NewReader(data), int64(len(data)), "pe")
	if err != nil {
		t.Fatal(err)
	}
	said, err := exec.Command(sigtool, "--debug", "--imp", path).CombinedOutput()
	if err != nil {
		t.Fatal(err)
	}
	sum := md5.Sum([]byte(l.ImportText()))
	if !strings.Contains(string(said), hex.EncodeToString(sum[:])) {
		t.Errorf("import hash %x is not in what sigtool says: %s", sum, said)
	}
	if said, err = exec.Command(sigtool, "--debug", "--mdb", path).CombinedOutput(); err != nil {
		t.Fatal(err)
	}
	for i, s := range l.Sections {
		sum := md5.Sum(data[s.Offset : s.Offset+s.Size])
		if !strings.Contains(string(said), hex.EncodeToString(sum[:])) {
			t.Errorf("hash %x of section %d is not in what sigtool says: %s", sum, i, said)
		}
	}
}

func TestELF(t *testing.T) {
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	l, err := Read(f, st.Size(), "elf")
	if err != nil {
		t.Fatal(err)
	}
	if l.Entry <= 0 || len(l.Sections) < 5 {
		t.Errorf("entry %d, %d sections", l.Entry, len(l.Sections))
	}
	if got := l.VersionTexts(); got != nil || l.ImportText() != "" || l.Offset(1) != -1 {
		t.Error("an ELF file has no parts of PE files")
	}
}

func TestDamaged(t *testing.T) {
	for _, c := range []struct{ typ, data string }{
		{"pe", ""},
		{"pe", "MZ"},
		{"elf", "\x7fELF"},
		{"macho", "\xcf\xfa\xed\xfe"},
		{"zip", "PK\x03\x04"},
		{"macho", "\xca\xfe\xba\xbe" + strings.Repeat("\x00", 40)},
	} {
		if _, err := Read(strings.NewReader(c.data), int64(len(c.data)), c.typ); err == nil {
			t.Errorf("%s %q was read", c.typ, c.data)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add("pe", samplePE())
	f.Add("elf", []byte("\x7fELF\x02\x01\x01"+strings.Repeat("\x00", 60)))
	f.Add("macho", []byte("\xcf\xfa\xed\xfe\x07\x00\x00\x01"+strings.Repeat("\x01", 100)))
	f.Fuzz(func(t *testing.T, typ string, data []byte) {
		l, err := Read(bytes.NewReader(data), int64(len(data)), typ)
		if err != nil {
			return
		}
		if l.Entry >= int64(len(data)) {
			t.Errorf("entry %d of %d bytes", l.Entry, len(data))
		}
		for _, s := range l.Sections {
			if s.Offset < 0 || s.Size < 0 || s.Offset+s.Size > int64(len(data)) {
				t.Errorf("section %+v of %d bytes", s, len(data))
			}
		}
		l.ImportText()
		for _, at := range l.VersionTexts() {
			if at < 0 || at >= int64(len(data)) {
				t.Errorf("text at %d of %d bytes", at, len(data))
			}
		}
	})
}
