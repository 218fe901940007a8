package engine

import (
	"bytes"
	"compress/zlib"
	"encoding/base64"
	"encoding/binary"
	"slices"
	"strings"
	"testing"
)

// diskImage is one of Apple's with a single block of deflated data, before which
// the file has other bytes.
func diskImage(t *testing.T, before, contents []byte) []byte {
	t.Helper()
	be := binary.BigEndian
	var packed bytes.Buffer
	z := zlib.NewWriter(&packed)
	if _, err := z.Write(contents); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	table, trailer := make([]byte, 284), make([]byte, 512)
	copy(table, "mish")
	be.PutUint32(table[200:], 2)
	be.PutUint32(table[204:], 0x80000005)
	be.PutUint64(table[220:], uint64(len(contents)/512))
	be.PutUint64(table[236:], uint64(packed.Len()))
	be.PutUint32(table[244:], 0xffffffff)
	list := "<key>blkx</key><array><dict><key>Data</key><data>" + base64.StdEncoding.EncodeToString(table) + "</data></dict></array>"
	copy(trailer, "koly")
	be.PutUint32(trailer[4:], 4)
	be.PutUint32(trailer[8:], 512)
	be.PutUint64(trailer[24:], uint64(len(before)))
	be.PutUint64(trailer[32:], uint64(packed.Len()))
	be.PutUint64(trailer[216:], uint64(len(before)+packed.Len()))
	be.PutUint64(trailer[224:], uint64(len(list)))
	return slices.Concat(before, packed.Bytes(), []byte(list), trailer)
}

// A disk image is told by its end, and opened besides what its beginning says.
func TestDiskImage(t *testing.T) {
	e, _ := build(t, map[string]string{"r.yar": `rule inside { strings: $a = "what is in the image" condition: $a } rule packed { strings: $a = "what is in the archive" condition: $a }`})
	contents := []byte(strings.Repeat("what is in the image    ", 512)[:4096])
	v := scanBytes(t, e, diskImage(t, nil, contents), Options{Archives: true})
	if !slices.Equal(names(v), []string{"inside"}) || len(v.Matches[0].Inside) != 1 || v.Matches[0].Inside[0] != "partition 0" {
		t.Errorf("%+v", v)
	}
	// A zip archive with an image behind it: both are opened.
	archive := zipOf(t, "a.txt", []byte("what is in the archive"))
	v = scanBytes(t, e, diskImage(t, archive, contents), Options{Archives: true})
	if got := names(v); !slices.Contains(got, "inside") || !slices.Contains(got, "packed") {
		t.Errorf("an archive that is a disk image, too: %v, limits %v", got, v.Limits)
	}
	if v := scanBytes(t, e, diskImage(t, archive, contents), Options{}); len(names(v)) != 0 {
		t.Errorf("without archives: %v", names(v))
	}
}

// Signatures about members and containers know an image by that type.
func TestDiskImageAsContainer(t *testing.T) {
	e, _ := build(t, map[string]string{
		"m.cdb": "Member.Yes:CL_TYPE_DMG:*:*:*:*:*:*:*:*\nMember.No:CL_TYPE_BINARY_DATA:*:*:*:*:*:*:*:*\n",
		"m.ldb": "In.Yes;Engine:81-255,Container:CL_TYPE_DMG,Target:0;0;6e6565646c65\nIn.No;Engine:81-255,Container:CL_TYPE_BINARY_DATA,Target:0;0;6e6565646c65\n",
	})
	contents := append(bytes.Repeat([]byte("x"), 4090), "needle"...)
	got := names(scanBytes(t, e, diskImage(t, nil, contents), Options{Archives: true}))
	if want := []string{"In.Yes", "Member.Yes"}; !slices.Equal(got, want) {
		t.Errorf("found %q, want %q", got, want)
	}
}
