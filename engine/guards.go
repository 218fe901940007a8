package engine

import (
	"encoding/binary"

	"github.com/bulwarkhq/bulwark/engine/definitions"
	"github.com/bulwarkhq/bulwark/engine/yara"
)

// guards decides which guards the object passes. The window holds its
// beginning.
func (w *worker) guards() {
	var head [4]byte
	copy(head[:], w.Slice(0, 4))
	formats := uint32(0)
	switch {
	case string(head[:2]) == "MZ":
		if b := w.Slice(60, 4); len(b) == 4 {
			if sig := w.Slice(int64(binary.LittleEndian.Uint32(b)), 4); string(sig) == "PE\x00\x00" {
				formats |= yara.NeedPE
			}
		}
	case string(head[:]) == "\x7fELF":
		formats |= yara.NeedELF
	}
	first := binary.LittleEndian.Uint32(head[:])
	w.passing[0] = true
	w.groups = [definitions.Groups]bool{definitions.GroupAny: true}
	for i := range w.set.Guards {
		g := &w.set.Guards[i]
		w.passing[i] = g.Pass(w.size, first, formats)
		if w.passing[i] {
			w.groups[g.Group()] = true
		}
	}
}
