package unpack

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// unar reads ar archives, Debian packages among them: 60-byte headers, data
// padded to even length.
func unar(w *Walker, o Object) error {
	var h [60]byte
	var long []byte // names of GNU archives
	for at := int64(8); at+60 <= o.Size; {
		if err := w.check(); err != nil {
			return err
		}
		if _, err := o.Data.ReadAt(h[:], at); err != nil {
			return err
		}
		size, err := strconv.ParseInt(strings.TrimSpace(string(h[48:58])), 10, 64)
		if err != nil || size < 0 || h[58] != '`' || h[59] != '\n' {
			return fmt.Errorf("%w: ar header at %d", errDamaged, at)
		}
		name := strings.TrimRight(string(h[:16]), " ")
		at += 60
		switch name {
		case "//":
			long = make([]byte, min(size, 1<<20))
			n, _ := o.Data.ReadAt(long, at)
			long = long[:n]
		case "/", "/SYM64/":
		default:
			if i, err := strconv.Atoi(strings.TrimPrefix(name, "/")); err == nil && name[0] == '/' && i >= 0 && i < len(long) {
				name, _, _ = strings.Cut(string(long[i:]), "\n")
			}
			if err := w.Section(strings.TrimSuffix(name, "/"), o, at, size); err != nil {
				return err
			}
		}
		if size > o.Size-at {
			return nil // noted by Section
		}
		at += size + size&1
	}
	return nil
}

var errCPIO = errors.New("not a cpio header")

// uncpio reads the new (070701, 070702), old portable (070707) and binary forms
// of cpio.
func uncpio(w *Walker, o Object) error {
	for at := int64(0); at < o.Size; {
		if err := w.check(); err != nil {
			return err
		}
		e, err := cpioHeader(o, at)
		if err != nil {
			if at == 0 || !errors.Is(err, errCPIO) {
				return err
			}
			w.damaged()
			return nil
		}
		if e.name == "TRAILER!!!" {
			return nil
		}
		if e.mode&0o170000 == 0o100000 {
			if err := w.Section(e.name, o, e.data, e.size); err != nil {
				return err
			}
		}
		if e.next <= at {
			return errCPIO
		}
		at = e.next
	}
	return nil
}

type cpioEntry struct {
	name             string
	mode             uint64
	data, size, next int64
}

func cpioHeader(o Object, at int64) (cpioEntry, error) {
	var h [110]byte
	n, _ := o.Data.ReadAt(h[:], at)
	b := h[:n]
	var e cpioEntry
	var nameLen, head, pad int64
	field := func(off, width, base int) int64 {
		v, err := strconv.ParseUint(string(b[off:off+width]), base, 40)
		if err != nil {
			return -1
		}
		return int64(v)
	}
	switch {
	case n >= 110 && (string(b[:6]) == "070701" || string(b[:6]) == "070702"):
		e.mode, e.size, nameLen, head, pad = uint64(field(14, 8, 16)), field(54, 8, 16), field(94, 8, 16), 110, 4
	case n >= 76 && string(b[:6]) == "070707":
		e.mode, e.size, nameLen, head, pad = uint64(field(18, 6, 8)), field(65, 11, 8), field(59, 6, 8), 76, 1
	case n >= 26 && (b[0] == 0xc7 && b[1] == 0x71 || b[0] == 0x71 && b[1] == 0xc7):
		var order binary.ByteOrder = binary.LittleEndian
		if b[0] == 0x71 {
			order = binary.BigEndian
		}
		e.mode, nameLen, head, pad = uint64(order.Uint16(b[6:])), int64(order.Uint16(b[20:])), 26, 2
		e.size = int64(order.Uint16(b[22:]))<<16 | int64(order.Uint16(b[24:]))
	default:
		return e, errCPIO
	}
	if nameLen <= 0 || nameLen > 4096 || e.size < 0 {
		return e, fmt.Errorf("%w: cpio entry at %d", errDamaged, at)
	}
	name := make([]byte, nameLen)
	if _, err := o.Data.ReadAt(name, at+head); err != nil {
		return e, fmt.Errorf("%w: cpio name at %d", errDamaged, at)
	}
	up := func(v int64) int64 { return (v + pad - 1) / pad * pad }
	e.name = strings.TrimRight(string(name), "\x00")
	e.data = at + up(head+nameLen)
	e.next = e.data + up(e.size)
	return e, nil
}
