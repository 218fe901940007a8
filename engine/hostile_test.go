package engine

import (
	"archive/zip"
	"bytes"
	"compress/flate"
	"encoding/base64"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/engine/definitions"
	"github.com/bulwarkhq/bulwark/engine/verdict"
	"github.com/bulwarkhq/bulwark/test/need"
)

// The depth is a limit only where something is left unopened: a text that carries
// nothing is all there is.
func TestDepthLimit(t *testing.T) {
	e, _ := compile(t)
	hidden := base64.StdEncoding.EncodeToString([]byte(strings.Repeat("words that were hidden. ", 20)))
	for _, c := range []struct {
		name, inside string
		limited      bool
	}{
		{"plain text", "nothing in here\n", false},
		{"page", "<html><body>nothing</body></html>", false},
		{"encoded text", hidden, true},
		{"zip", string(zipOf(t, "x", []byte("y"))), true},
		{"empty zip", string(zipOf(t)), false},
	} {
		v := scanBytes(t, e, zipOf(t, "m", []byte(c.inside)), Options{Archives: true, Limits: Limits{Depth: 1}})
		if slices.Contains(v.Limits, verdict.LimitDepth) != c.limited {
			t.Errorf("%s: limits %v", c.name, v.Limits)
		}
	}
}

// petabyte is a zip of zips, five levels of sixteen, with a gigabyte of zeros in
// each of the last: 1 PB in a file of some kilobytes.
func petabyte(t *testing.T) []byte {
	t.Helper()
	var block bytes.Buffer
	w, err := flate.NewWriter(&block, 9)
	if err != nil {
		t.Fatal(err)
	}
	megabyte := make([]byte, 1<<20)
	if _, err := w.Write(megabyte); err != nil {
		t.Fatal(err)
	}
	if err := w.Flush(); err != nil { // ends at a byte, without a last block
		t.Fatal(err)
	}
	zeros := append(bytes.Repeat(block.Bytes(), 1024), 3, 0)
	sum := crc32.NewIEEE()
	for range 1024 {
		sum.Write(megabyte)
	}
	level := func(members int, data []byte, raw bool) []byte {
		var b bytes.Buffer
		z := zip.NewWriter(&b)
		for i := range members {
			name := fmt.Sprintf("%d.zip", i)
			var f io.Writer
			var err error
			if raw {
				f, err = z.CreateRaw(&zip.FileHeader{
					Name: name, Method: zip.Deflate, CRC32: sum.Sum32(),
					CompressedSize64: uint64(len(data)), UncompressedSize64: 1 << 30,
				})
			} else {
				f, err = z.Create(name)
			}
			if err == nil {
				_, err = f.Write(data)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	data := level(1, zeros, true)
	for range 5 {
		data = level(16, data, false)
	}
	return data
}

func TestPetabyte(t *testing.T) {
	data := petabyte(t)
	if len(data) > 100_000 {
		t.Fatalf("%d bytes", len(data))
	}
	e, _ := compile(t)
	limits := Limits{Bytes: 8 << 20, Time: time.Minute}
	v := scanBytes(t, e, data, Options{Archives: true, Limits: limits})
	if v.Primary().Type != verdict.ArchiveBomb || !slices.Contains(v.Limits, verdict.LimitBytes) || !slices.Contains(v.Limits, verdict.LimitRatio) {
		t.Errorf("%+v", v)
	}
	// What is looked at is what the limit allows and the file itself.
	if v.Bytes > limits.Bytes+int64(len(data)) {
		t.Errorf("%d bytes looked at", v.Bytes)
	}
}

// A file of zips without end: each member is the first again, because its header
// leads back to it (a quine costs its author more, and the engine the same).
func TestEndless(t *testing.T) {
	e, _ := compile(t)
	// A stored member whose data is the archive from its own beginning.
	inner := zipOf(t, "readme", []byte("hello"), "eicar", definitions.EICAR())
	data := zipOf(t, "a.zip", inner, "b.zip", inner)
	for i := 0; i+46 < len(data); i++ {
		if string(data[i:i+4]) == "PK\x01\x02" { // stored, all of the file, at 0
			copy(data[i+10:], []byte{0, 0})
			copy(data[i+20:], []byte{byte(len(data)), byte(len(data) >> 8), 0, 0, byte(len(data)), byte(len(data) >> 8), 0, 0})
			copy(data[i+42:], []byte{0, 0, 0, 0})
		}
	}
	v := scanBytes(t, e, data, Options{Archives: true, Limits: Limits{Time: time.Minute}})
	if len(v.Limits) == 0 || v.Bytes > DefaultLimits().Bytes+int64(len(data)) || v.Objects > DefaultLimits().Files+1 {
		t.Errorf("%d objects, %d bytes, limits %v", v.Objects, v.Bytes, v.Limits)
	}
}

// A condition that asks for more than it may is given up, and the verdict says
// so; other rules count as ever.
func TestConditionGivenUp(t *testing.T) {
	need.NoRaceDetector(t) // nothing in it runs in parallel, and it copies gigabytes
	e, rep := build(t, map[string]string{"r.yar": `import "hash"
rule Endless { strings: $a = "needle" condition: $a and for all i in (0..0xffffffff) : (hash.crc32(i & 0xffff, filesize) != -1) }
rule Needle { strings: $a = "needle" condition: $a and hash.crc32(0, filesize) != -1 }`})
	if len(rep.Problems) > 0 {
		t.Fatal(rep.Problems)
	}
	data := append(make([]byte, 1<<20), "needle"...)
	v := scanBytes(t, e, data, Options{Limits: Limits{Time: 10 * time.Minute}})
	if got := names(v); !slices.Equal(got, []string{"Needle"}) || !slices.Equal(v.Limits, []verdict.Limit{verdict.LimitSteps}) || v.Complete() {
		t.Errorf("found %v, limits %v", got, v.Limits)
	}
}
