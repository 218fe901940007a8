package unpack

import (
	"encoding/binary"
	"fmt"
)

// unrpm reads RPM packages (Linux Standard Base, "Package File Format"): a lead
// of 96 bytes, two headers of an index and data, and the payload, which is a
// compressed cpio archive and given as it stands.
func unrpm(w *Walker, o Object) error {
	at := int64(96)
	for i := range 2 {
		h := o.piece(at, 16)
		if len(h) < 16 || h[0] != 0x8e || h[1] != 0xad || h[2] != 0xe8 {
			return fmt.Errorf("%w: RPM header at %d", errDamaged, at)
		}
		entries, data := int64(binary.BigEndian.Uint32(h[8:])), int64(binary.BigEndian.Uint32(h[12:]))
		size := 16 + entries*16 + data
		if i == 1 { // scripts stand in here
			if err := w.Section("header", o, at, min(size, o.Size-at)); err != nil {
				return err
			}
		}
		at += size
		if i == 0 {
			at = (at + 7) &^ 7
		}
		if at > o.Size {
			return fmt.Errorf("%w: RPM header cut short", errDamaged)
		}
	}
	return w.Section("payload", o, at, o.Size-at)
}
