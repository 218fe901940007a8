package unpack

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/engine/filetype"
	"github.com/bulwarkhq/bulwark/engine/verdict"
)

// The names that disk images give their files, and that nothing is missing.
func TestDiskImages(t *testing.T) {
	all := seeds(t)
	for name, want := range map[string]string{
		"s.fat": "SUB/a long name.txt", "s.ext2": "sub/f.txt", "s.ext4": "sub/f.txt", "s.mbr": "partition 1", "s.Z": "content",
	} {
		r := open(all[name], budget(all[name]))
		if r.err != nil || len(r.limits) > 0 || !slices.Equal(r.order, []string{want}) {
			t.Errorf("%s: %v %v %v", name, r.order, r.limits, r.err)
		}
		if name != "s.mbr" && !bytes.HasPrefix([]byte(r.files[want]), []byte("the text of a small file")) {
			t.Errorf("%s: %.40q", name, r.files[want])
		}
	}
}

// patched is a seed with changes: each of four bytes, two for the place, one for
// how many places it is written to, one for what.
func patched(data, changes []byte) []byte {
	data = bytes.Clone(data)
	for ; len(changes) >= 4; changes = changes[4:] {
		at := int(changes[0]) | int(changes[1])<<8
		for k := range 1 + int(changes[2]&7) {
			if at+k < len(data) {
				data[at+k] = changes[3]
			}
		}
	}
	return data
}

// Directories that lead to themselves, files that share their blocks and maps that
// run in circles end by the size of the image, not by time.
func TestDiskImageCircles(t *testing.T) {
	all := seeds(t)
	for name, change := range map[string]func(d []byte){
		// The subdirectory's entry in the root leads to itself: cluster 2 is SUB.
		"s.fat": func(d []byte) {
			at := bytes.Index(d, []byte("ALONGN"))
			copy(d[at:], "LOOP       \x10")
			d[at+26], d[at+27] = 2, 0
		},
		// The name of the file becomes one of the root directory.
		"s.ext4": func(d []byte) {
			at := bytes.Index(d, []byte("f.txt"))
			copy(d[at-8:], "\x02\x00\x00\x00")
		},
	} {
		data := bytes.Clone(all[name])
		change(data)
		b := budget(data)
		if r := open(data, b); r.err != nil || len(r.order) > 2 || slices.Contains(r.limits, verdict.LimitFiles) {
			t.Errorf("%s: %v %v %v", name, r.order, r.limits, r.err)
		}
	}
}

func FuzzDiskImages(f *testing.F) {
	kinds := []string{"s.fat", "s.ext2", "s.ext4", "s.mbr"}
	all := seeds(f)
	for i := range kinds {
		f.Add(byte(i), []byte{13, 0, 0, 8, 28, 4, 3, 0xff})
	}
	f.Fuzz(func(t *testing.T, which byte, changes []byte) {
		data := patched(all[kinds[int(which)%len(kinds)]], changes[:min(len(changes), 256)])
		kind := filetype.Detect(data)
		b := NewBudget(int64(len(data)), 100, 4<<20, 250, time.Now().Add(time.Minute))
		r := open(data, b)
		if r.err != nil || slices.Contains(r.limits, verdict.LimitTime) {
			t.Fatalf("%s: %v %v", kind, r.err, r.limits)
		}
		if b.held != 0 || b.Bytes < 0 || b.Files < 0 {
			t.Errorf("budget %+v", b)
		}
	})
}
