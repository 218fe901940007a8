package engine

import (
	"bytes"
	"compress/gzip"
	"context"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ulikunitz/xz/lzma"
	"golang.org/x/sys/unix"

	"github.com/bulwarkhq/bulwark/test/need"
)

// usedBy is the processor time that the thread has used so far (clock_gettime(2); the id of
// another thread's clock: CPUCLOCK_PERTHREAD and CPUCLOCK_SCHED of the kernel).
func usedBy(b *testing.B, tid int) time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^tid<<3|6), &ts); err != nil {
		b.Error(err)
	}
	return time.Duration(ts.Nano())
}

// packed7z packs data by 7z with the given method.
func packed7z(b *testing.B, format string, data []byte, methods ...string) []byte {
	b.Helper()
	program := need.Command(b, "7z")
	dir := b.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "m"), data, 0o600); err != nil {
		b.Fatal(err)
	}
	cmd := exec.Command(program, append([]string{"a", "-mx=1", "-t" + format, "out." + format, "m"}, methods...)...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("7z: %v\n%s", err, out)
	}
	out, err := os.ReadFile(filepath.Join(dir, "out."+format))
	if err != nil {
		b.Fatal(err)
	}
	return out
}

// slowFiles are files that take long for their size, each in another part of the
// engine.
func slowFiles(b *testing.B) map[string]io.ReaderAt {
	b.Helper()
	words := bytes.Repeat([]byte("words, 012 words; needl \x00\x01\x02 "), 1<<20)
	for i := 0; i < len(words); i += 1 + i%97 {
		words[i] ^= byte(i >> 3)
	}
	var one bytes.Buffer
	w, err := lzma.NewWriter(&one)
	if err == nil {
		_, err = w.Write(words[:8<<20])
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		b.Fatal(err)
	}
	var empty bytes.Buffer
	z := gzip.NewWriter(&empty)
	if err := z.Close(); err != nil {
		b.Fatal(err)
	}
	classes, err := os.ReadFile("yara/modules/testdata/classes.exe")
	if err != nil {
		b.Fatal(err)
	}
	text := func(s string, size int) io.ReaderAt { return strings.NewReader(strings.Repeat(s, size/len(s))) }
	file := func(data []byte) io.ReaderAt { return bytes.NewReader(data) }
	seven := packed7z(b, "7z", words, "-m0=LZMA2", "-mf=BCJ2")
	return map[string]io.ReaderAt{
		"regexes":          text("needleaababcbcabcaab", 8<<20),
		"gaps":             text("abcd", 8<<20),
		"literals":         text("needleneedle", 32<<20),
		"near matches":     text("needlx", 32<<20),
		"LZMA":             file(one.Bytes()),
		"LZMA of zeros":    file(packed7z(b, "7z", make([]byte, 64<<20), "-m0=LZMA")),
		"deflate64":        file(packed7z(b, "zip", words, "-mm=Deflate64")),
		"PPMd":             file(packed7z(b, "7z", words[:8<<20], "-m0=PPMd")),
		"bzip2":            file(packed7z(b, "7z", words, "-m0=BZip2")),
		"7z chain":         file(packed7z(b, "7z", seven, "-m0=Delta", "-m1=BCJ", "-m2=LZMA")),
		"gzip of nothing":  file(bytes.Repeat(empty.Bytes(), 1<<20)),
		"PDF":              text("1 0 obj<</Length 40/Filter[/AHx/A85/LZW/Fl]>>stream\n4142434445464748494a4b4c4d4e4f505152535455\nendstream endobj\n", 16<<20),
		"PDF, one stream":  strings.NewReader("%PDF-1.4\n1 0 obj<</Filter[/AHx/AHx/A85/LZW]>>stream\n" + strings.Repeat("41", 24<<20)),
		"PDF without ends": text("%PDF-1.4 obj<<>>stream\n", 16<<20),
		".NET":             file(bytes.Repeat(classes, 64)),
		"PE beginnings":    text("MZ\x90\x00PE\x00\x00", 16<<20),
		"base64":           text("bmVlZGxlIG5lZWRsZSBuZWVkbGUg", 32<<20),
		"escapes":          text(`\x41%42\u0043`, 32<<20),
		"uuencode":         text("begin", 32<<20),
		"uuencoded files":  text("begin 644 a\n#86)C\n", 32<<20),
		"yEnc":             text("=ybegin name=a ", 32<<20),
		"BinHex":           text("(This file must be converted with BinHex 4.0)\n:", 32<<20),
		"data URIs":        text("<html>data:;base64,", 32<<20),
		"page":             text("<html><a href=x>y&amp;</a><!-- z -->", 32<<20),
		"mailbox":          text("From a\nTo: b\nContent-Type: multipart/mixed; boundary=x\n\n--x\n\nabc\n", 32<<20),
		"deep mail":        strings.NewReader("From: a\nTo: b\n" + strings.Repeat("Content-Type: multipart/mixed; boundary=x\n\n--x\n", 1<<19)),
		"RTF":              text("{\\rtf1{\\objdata 41}", 32<<20),
		"hash of zeros":    readerFunc(func(p []byte, _ int64) (int, error) { clear(p); return len(p), nil }),
	}
}

// patience is how long a scan goes on if it is not ended.
const patience = 2 * time.Second

// BenchmarkStop ends scans at random moments and reports the most processor time
// that it took until Scan returned, which is to be 50 ms at most.
func BenchmarkStop(b *testing.B) {
	e, _ := build(b, map[string]string{
		"h.hsb": "0000000000000000000000000000000000000000:*:Any:73\n",
		"n.ndb": "N1:0:*:6e6565646c65{-9}21\nN2:0:*:61{1-200}62{1-200}63646162*65656565\nN3:7:*:776f726473*6e6576657274686572\nN4:3:*:6e6f74686572652a\n",
		"l.ldb": "L1;Engine:81-255,Target:0;0&1;6e6565646c65;0/(a+)+b$/g\nL2;Engine:81-255,Target:0;(0|1)>100000,2;61626364;6263\n",
		"y.yar": `import "dotnet" import "pe" import "math" import "hash"
rule r { strings: $a = /need(le)+[a-z]*q/ $b = { 61 [0-200] 7a } $c = /(ab|a)(b|c)*(abc|bca)+d/ condition: #a > 5 or for any i in (0..1000) : (uint8(i) == 300) or $b or $c }
rule n { condition: for any c in dotnet.classes : (c.name == "none") }
rule m { condition: math.entropy(0, filesize) > 9 or hash.md5(0, filesize) == "x" or math.serial_correlation(0, filesize) > 2 }
rule p { condition: pe.number_of_sections > 1000 }`,
	})
	files := slowFiles(b)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		r := files[name]
		size := int64(1 << 30)
		if s, ok := r.(interface{ Size() int64 }); ok {
			size = s.Size()
		}
		b.Run(strings.ReplaceAll(name, " ", "-"), func(b *testing.B) {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			tid := unix.Gettid()
			opts := Options{Archives: true, Limits: Limits{MaxSize: 1 << 30, Bytes: 1 << 30, Time: time.Hour}}
			run := func(after time.Duration) (took, late time.Duration, stopped bool) {
				ctx, cancel := context.WithCancel(b.Context())
				defer cancel()
				var at atomic.Int64
				start := usedBy(b, tid)
				timer := time.AfterFunc(after, func() {
					at.Store(int64(usedBy(b, tid)))
					cancel()
				})
				_, err := e.Scan(ctx, r, size, opts)
				end := usedBy(b, tid)
				timer.Stop()
				if took = end - start; err == nil {
					return took, 0, false
				}
				return took, end - time.Duration(at.Load()), true
			}
			begin := time.Now()
			whole, _, cut := run(patience)
			length := time.Since(begin)
			longest, stopped := time.Duration(0), 0
			for b.Loop() {
				_, late, was := run(time.Duration(rand.Int64N(int64(length))))
				if was {
					longest = max(longest, late)
					stopped++
				}
			}
			b.ReportMetric(float64(longest.Microseconds())/1e3, "longest-ms")
			b.ReportMetric(float64(stopped), "stopped")
			b.ReportMetric(whole.Seconds(), "whole-s")
			if cut {
				b.Logf("%v of processor time in the first %v, not done", whole, patience)
			}
		})
	}
}
