package clamdb

import (
	"slices"
	"strconv"
	"strings"

	"github.com/bulwarkhq/bulwark/engine/exefmt"
)

// OffsetKind says from where an Offset counts.
type OffsetKind uint8

// The offset kinds. The last five need the layout of a program.
const (
	Anywhere        OffsetKind = iota
	FromStart                  // N bytes from the beginning
	FromEnd                    // N bytes before the end
	FromEntry                  // N bytes behind the entry point (before it: N < 0)
	FromSection                // N bytes behind the beginning of section Section
	FromLastSection            // the same with the last section
	InSection                  // anywhere in section Section
	VersionInfo                // at a key of the version information of a PE file
)

// Offset is where a body signature must begin: in [N, N+Shift] counted from
// what Kind says.
type Offset struct {
	Kind    OffsetKind
	N       int64
	Shift   int64
	Section int
}

const sectionShift = 40

// Packed is N with the section in its upper bits, for tables of fixed width.
func (o Offset) Packed() int64 { return o.N&(1<<sectionShift-1) | int64(o.Section)<<sectionShift }

// Unpack reverses Packed for the kinds that have a section.
func Unpack(packed int64) (section int, n int64) {
	return int(packed >> sectionShift & 0xffff), packed << (64 - sectionShift) >> (64 - sectionShift)
}

// fileTypes are the target types with the file types (package filetype) they
// stand for; the engine decides the others by itself.
var fileTypes = map[int]string{
	0: "", 1: "pe", 2: "ole2", 3: "html", 4: "mail", 5: "graphics", 6: "elf", 7: "text", 9: "macho", 10: "pdf",
	11: "swf", 12: "java", 13: "internal", 14: "other",
}

// The target types that are more than a file type.
const (
	TargetAny      = 0
	TargetHTML     = 3 // the normalised forms of HTML
	TargetMail     = 4
	TargetGraphics = 5
	TargetText     = 7 // the normalised form of text
	TargetUnused   = 8
	TargetInternal = 13 // ClamAV's descriptions of file properties
	TargetOther    = 14 // files of no other target type
)

// Target returns the name of the file type that a target number stands for (""
// for every type).
func Target(n int) (fileType string, ok bool) {
	t, ok := fileTypes[n]
	return t, ok
}

func parseTarget(s string, col int) (int, error) {
	v, ok := number([]byte(s))
	if !ok || v > 14 {
		return 0, bad(col, "target type %q is not a number from 0 to 14", s)
	}
	return int(v), nil
}

// parseOffset reads *, n, EOF-n, EP+n, EP-n, Sx+n, SEx, SL+n, VI, each with an
// optional ,maxshift where it makes sense.
func parseOffset(s string, col, target int) (Offset, error) {
	var o Offset
	if s == "*" || s == "" {
		return o, nil
	}
	base, shift, shifted := strings.Cut(s, ",")
	if shifted {
		v, ok := number([]byte(shift))
		if !ok || v > 1<<31 {
			return o, bad(col+len(base)+1, "maximum shift %q is not a number", shift)
		}
		o.Shift = v
	}
	num := func(from int) error {
		v, ok := number([]byte(base[from:]))
		if !ok || v >= 1<<(sectionShift-1) {
			return bad(col+from, "offset %q is not a number", base[from:])
		}
		o.N = v
		return nil
	}
	program := func() error {
		switch target {
		case 1, 6, 9:
			return nil
		}
		return bad(col, "offset %q needs target type 1, 6 or 9 (programs)", s)
	}
	var err error
	switch {
	case strings.HasPrefix(base, "EOF-"):
		o.Kind = FromEnd
		err = num(4)
	case base != "" && base[0] >= '0' && base[0] <= '9':
		o.Kind = FromStart
		err = num(0)
	case base == "VI":
		o.Kind = VersionInfo
		if target != 1 {
			err = bad(col, "offset VI needs target type 1")
		}
	case strings.HasPrefix(base, "EP+"), strings.HasPrefix(base, "EP-"):
		o.Kind = FromEntry
		if err = num(3); err == nil {
			if base[2] == '-' {
				o.N = -o.N
			}
			err = program()
		}
	case strings.HasPrefix(base, "SL+"):
		o.Kind = FromLastSection
		if err = num(3); err == nil {
			err = program()
		}
	case strings.HasPrefix(base, "SE"):
		o.Kind = InSection
		v, e := strconv.ParseUint(base[2:], 10, 16)
		if e != nil {
			return o, bad(col+2, "section %q is not a number", base[2:])
		}
		o.Section = int(v)
		err = program()
	case strings.HasPrefix(base, "S"):
		o.Kind = FromSection
		n, rest, ok := strings.Cut(base[1:], "+")
		v, e := strconv.ParseUint(n, 10, 16)
		if !ok || e != nil {
			return o, bad(col, "offset %q is not known", s)
		}
		o.Section = int(v)
		if err = num(len(base) - len(rest)); err == nil {
			err = program()
		}
	default:
		err = bad(col, "offset %q is not known", s)
	}
	return o, err
}

// Base is the place that an offset counts to, its shift not added; ok is false
// where there is none, as without a program or such a section.
func (o Offset) Base(size int64, l *exefmt.Layout) (at int64, ok bool) {
	section := func(i int) (int64, bool) {
		if l == nil || i < 0 || i >= len(l.Sections) {
			return 0, false
		}
		return l.Sections[i].Offset + o.N, true
	}
	switch o.Kind {
	case FromStart:
		return o.N, true
	case FromEnd:
		return size - o.N, o.N <= size
	case FromEntry:
		if l == nil || l.Entry < 0 {
			return 0, false
		}
		return l.Entry + o.N, true
	case FromSection, InSection:
		return section(o.Section)
	case FromLastSection:
		if l == nil {
			return 0, false
		}
		return section(len(l.Sections) - 1)
	}
	return 0, o.Kind == Anywhere
}

// length is how many bytes the section of InSection has.
func (o Offset) length(l *exefmt.Layout) int64 {
	if l == nil || o.Section >= len(l.Sections) {
		return 0
	}
	return l.Sections[o.Section].Size
}

// Allows reports whether a match may begin at start.
func (o Offset) Allows(start, size int64, l *exefmt.Layout) bool {
	if o.Kind == Anywhere {
		return true
	}
	if o.Kind == VersionInfo {
		if l == nil {
			return false
		}
		_, found := slices.BinarySearch(l.VersionTexts(), start)
		return found
	}
	at, ok := o.Base(size, l)
	if !ok || start < at {
		return false
	}
	if o.Kind == InSection {
		return start <= at+o.length(l) // the byte behind it counts, as in clamscan
	}
	return start <= at+o.Shift
}
