package main

import (
	"bytes"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	api "github.com/bulwarkhq/bulwark/api/control"
)

// screen is what a terminal shows after the output: it knows the sequences that
// the bar uses, and nothing else.
func screen(t *testing.T, out string) []string {
	t.Helper()
	lines := []string{""}
	row, col := 0, 0
	for len(out) > 0 {
		switch {
		case strings.HasPrefix(out, "\x1b[K"):
			lines[row] = string([]rune(lines[row])[:col])
			out = out[3:]
		case strings.HasPrefix(out, "\x1b[1A"):
			row = max(0, row-1)
			out = out[4:]
		case out[0] == '\r':
			col, out = 0, out[1:]
		case out[0] == '\n':
			row, col, out = row+1, 0, out[1:]
			if row == len(lines) {
				lines = append(lines, "")
			}
		default:
			r, size := utf8.DecodeRuneInString(out)
			if r < ' ' {
				t.Fatalf("control character %q on the terminal", r)
			}
			runes := []rune(lines[row])
			for len(runes) < col {
				runes = append(runes, ' ')
			}
			lines[row] = string(append(runes[:col], append([]rune{r}, runes[min(len(runes), col+1):]...)...))
			col, out = col+1, out[size:]
		}
	}
	return lines
}

func TestBar(t *testing.T) {
	var out bytes.Buffer
	a := newApp("bulwark", &out, &bytes.Buffer{})
	clock := start
	a.terminal, a.width, a.now = true, 80, func() time.Time { return clock }
	v := a.newScanView()
	scan := api.Scan{State: api.ScanRunning, Start: start}

	clock = clock.Add(2 * time.Second)
	scan.Files, scan.Bytes = 1500, 3_000_000
	v.show(api.ScanProgress{Scan: scan, Current: "/usr/a\x1b[2J"})
	got := screen(t, out.String())
	if len(got) != 2 || !strings.Contains(got[0], "1,500 files, 3.0 MB, 1.5 MB/s, 0 threats, 2.0 s") || got[1] != `/usr/a\x1b[2J` {
		t.Errorf("while counting: %q", got)
	}
	scan.Threats = 1
	v.show(api.ScanProgress{
		Scan: scan, FilesTotal: 3000, BytesTotal: 6_000_000, Counted: true,
		Current:    api.Path("/usr/" + strings.Repeat("ä", 100) + "/end"),
		Detections: []api.ScanDetection{{Name: "EICAR", Path: "/tmp/e", Action: "quarantined"}},
	})
	got = screen(t, out.String())
	if len(got) != 3 || got[0] != "Threat: EICAR in /tmp/e: quarantined" || !strings.Contains(got[1], " 50%") || !strings.Contains(got[1], "1,500 of 3,000 files") ||
		!strings.HasPrefix(got[2], "...") || !strings.HasSuffix(got[2], "/end") || utf8.RuneCountInString(got[2]) > 79 || utf8.RuneCountInString(got[1]) > 79 {
		t.Errorf("half-way: %q", got)
	}
	// The bar leaves nothing behind.
	v.clear()
	got = screen(t, out.String())
	if strings.TrimSpace(strings.Join(got[1:], "")) != "" {
		t.Errorf("left on the screen: %q", got)
	}
}

func TestBarWidths(t *testing.T) {
	scan := api.Scan{State: api.ScanRunning, Start: start, Files: 123456789, Bytes: 1 << 50}
	for _, width := range []int{1, 10, 40, 80, 300} {
		for _, counted := range []bool{false, true} {
			var out bytes.Buffer
			a := newApp("bulwark", &out, &bytes.Buffer{})
			a.terminal, a.width, a.now = true, width, func() time.Time { return start.Add(time.Hour) }
			a.newScanView().show(api.ScanProgress{Scan: scan, Current: "/日本語/日本語/日本語/日本語/日本語/日本語", FilesTotal: 1, BytesTotal: 1, Counted: counted})
			for _, line := range screen(t, out.String()) {
				if n := utf8.RuneCountInString(line); n > max(20, width) {
					t.Errorf("width %d: a line of %d: %q", width, n, line)
				}
			}
		}
	}
}

func TestPlainLines(t *testing.T) {
	var out bytes.Buffer
	a := newApp("bulwark", &out, &bytes.Buffer{})
	clock := start
	a.now = func() time.Time { return clock }
	v := a.newScanView()
	scan := api.Scan{State: api.ScanRunning, Start: start, Files: 10}
	for range 25 {
		clock = clock.Add(time.Second)
		v.show(api.ScanProgress{Scan: scan})
	}
	v.clear()
	if got := strings.Count(out.String(), "\n"); got != 2 || strings.ContainsAny(out.String(), "\x1b\r") {
		t.Errorf("%d lines: %q", got, out.String())
	}
}

func TestFormats(t *testing.T) {
	for got, want := range map[string]string{
		bytesText(999): "999 B", bytesText(1500): "1.5 KB", bytesText(1 << 62): "4.6 EB",
		countText(0): "0", countText(999): "999", countText(1234567): "1,234,567", countText(-1234): "-1,234",
		durationText(1500 * time.Microsecond): "1 ms", durationText(61 * time.Second): "1 min 01 s", durationText(2*time.Hour + 5*time.Minute): "2 h 05 min",
		visible("ä b"): "ä b", visible("a\nb"): `a\nb`, visible("\xff"): `\xff`, visible(`say "x"` + "\t"): `say "x"\t`,
		visible("a\u202eb"): `a\u202eb`,
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func FuzzVisible(f *testing.F) {
	f.Add("a\x1b[2J\n\u202e\xff")
	f.Fuzz(func(t *testing.T, s string) {
		for _, r := range visible(s) {
			if r < ' ' || r == 0x7f || r == 0x9b {
				t.Fatalf("%q shows control character %q", s, r)
			}
		}
		fitEnd(fit(s, 10), 5)
	})
}
