package unpack

import (
	"encoding/binary"
	"fmt"
)

// untnef reads winmail.dat ([MS-OXTNEF]): a stream of attributes, of which those
// with titles and contents of attachments, and the message's own properties, are
// looked at.
func untnef(w *Walker, o Object) error {
	const (
		attachTitle = 0x8010
		attachData  = 0x800f
		attachment  = 0x9005
		messageBody = 0x800c
		properties  = 0x9003
	)
	le := binary.LittleEndian
	name := "attachment"
	for at := int64(6); at < o.Size; {
		if err := w.check(); err != nil {
			return err
		}
		h := o.piece(at, 9)
		if len(h) < 9 {
			if at > 6 { // some writers pad the file
				return nil
			}
			return fmt.Errorf("%w: TNEF attribute", errDamaged)
		}
		size := int64(le.Uint32(h[5:]))
		part := o.sub("", at+9, size)
		var err error
		switch le.Uint16(h[1:]) {
		case attachTitle:
			if t := cString(part.piece(0, 1024)); t != "" {
				name = t
			}
		case attachData:
			err = w.Section(name, part, 0, size)
			name = "attachment"
		case attachment:
			err = w.Section(name+"/properties", part, 0, size)
		case messageBody:
			err = w.Section("body", part, 0, size)
		case properties:
			err = w.Section("properties", part, 0, size)
		}
		if err != nil {
			return err
		}
		at += 9 + size + 2
	}
	return nil
}
