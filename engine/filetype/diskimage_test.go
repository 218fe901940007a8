package filetype

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Disk images have marks of two bytes; near-misses are data.
func TestDiskImages(t *testing.T) {
	for name, want := range map[string]string{"s.fat": FAT, "s.ext2": Ext, "s.ext4": Ext, "s.mbr": Partitions} {
		data, err := os.ReadFile(filepath.Join("..", "unpack", "testdata", "seeds", name))
		if err != nil {
			t.Fatal(err)
		}
		if got := Detect(data[:min(len(data), HeadSize)]); got != want {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
		for cut, at := range map[string]int{"the mark": 510, "ext's mark": 1024 + 56, "what is before": 0} {
			if at == 510 && want == Ext || at == 1080 && want != Ext || at == 0 && want != FAT {
				continue
			}
			bad := []byte(strings.Clone(string(data)))
			bad[at] ^= 0x13
			if got := Detect(bad[:min(len(bad), HeadSize)]); got == want {
				t.Errorf("%s without %s is still %s", name, cut, got)
			}
		}
	}
	// A boot sector's mark alone is nothing.
	head := []byte(strings.Repeat("\xeb\x3c\x90\x01", 512))
	head[510], head[511] = 0x55, 0xaa
	if got := Detect(head); got == FAT || got == Partitions || got == Ext {
		t.Errorf("a mark alone is %s", got)
	}
}
