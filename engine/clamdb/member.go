package clamdb

import (
	"encoding/hex"
	"regexp"
	"strings"

	"github.com/bulwarkhq/bulwark/engine/filetype"
)

// Member is a signature about a member of a container (.cdb).
type Member struct {
	Name string
	// Container is the container's type (CL_TYPE_...), empty for any.
	Container string
	// File is the expression, in the syntax of package regexp, that the member's
	// name matches; empty for any.
	File string
	// ContainerSize, Packed and Size bound the bytes of the container, of the
	// member in it and of the member itself, Position the member's number from 1;
	// nil: any.
	ContainerSize, Packed, Size, Position *Range
	// Encrypted: 1 demands an encrypted member, 0 one that is not, -1 either.
	Encrypted int
	// CRC is the CRC-32 of the member; meant where HasCRC is set.
	CRC    uint32
	HasCRC bool
}

// parseMember reads name:container:container size:file name:packed
// size:size:encrypted:position:crc:reserved[:min[:max]].
func parseMember(text string) (*Member, error) {
	f := strings.Split(text, ":")
	if len(f) < 10 || len(f) > 12 || f[0] == "" {
		return nil, bad(1, "expected name:container:size:file name:packed size:size:encrypted:position:crc:reserved")
	}
	col := make([]int, len(f))
	col[0] = 1
	for i := 1; i < len(f); i++ {
		col[i] = col[i-1] + len(f[i-1]) + 1
	}
	if len(f) > 10 {
		if err := level(strings.Join(f[10:], ":"), col[10]); err != nil {
			return nil, err
		}
	}
	m := &Member{Name: f[0], Encrypted: -1}
	if f[1] != "*" {
		if !strings.HasPrefix(f[1], "CL_TYPE_") {
			return nil, bad(col[1], "container type %q does not begin with CL_TYPE_", f[1])
		}
		m.Container = canonicalType(f[1])
	}
	if f[3] != "*" {
		m.File = f[3]
		if _, err := regexp.Compile(m.File); err != nil {
			return nil, bad(col[3], "file name: %s", strings.TrimPrefix(err.Error(), "error parsing regexp: "))
		}
	}
	for i, to := range map[int]**Range{2: &m.ContainerSize, 4: &m.Packed, 5: &m.Size, 7: &m.Position} {
		if f[i] == "*" {
			continue
		}
		r, err := parseRange(f[i], col[i])
		if err != nil {
			return nil, err
		}
		*to = r
	}
	switch f[6] {
	case "*":
	case "0", "1":
		m.Encrypted = int(f[6][0] - '0')
	default:
		return nil, bad(col[6], "encrypted is %q, not 0, 1 or *", f[6])
	}
	if f[8] != "*" && f[8] != "" {
		b, err := hex.DecodeString(f[8])
		if err != nil || len(b) != 4 {
			return nil, bad(col[8], "CRC %q is not eight hexadecimal digits", f[8])
		}
		m.CRC, m.HasCRC = uint32(b[0])<<24|uint32(b[1])<<16|uint32(b[2])<<8|uint32(b[3]), true
	}
	return m, nil
}

// Magic is a line of file type magic (.ftm).
type Magic struct {
	// Offset of Bytes in the file, -1 for anywhere (type 1).
	Offset int64
	Bytes  []byte
	Name   string
	Type   string // CL_TYPE_...
}

// parseMagic reads magictype:offset:bytes:name:required:type[:min[:max]].
// Types 0 and 4, plain bytes at an offset, are used; for the patterns of type 1
// the engine relies on its own recognition.
func parseMagic(text string) (*Magic, error) {
	f := strings.SplitN(text, ":", 7)
	if len(f) < 6 {
		return nil, bad(1, "expected magictype:offset:bytes:name:required type:type")
	}
	col := [7]int{1}
	for i := 1; i < len(f); i++ {
		col[i] = col[i-1] + len(f[i-1]) + 1
	}
	if len(f) == 7 {
		if err := level(f[6], col[6]); err != nil {
			return nil, err
		}
	}
	m := &Magic{Name: f[3], Type: f[5], Offset: -1}
	if !strings.HasPrefix(m.Type, "CL_TYPE_") {
		return nil, bad(col[5], "type %q does not begin with CL_TYPE_", m.Type)
	}
	switch f[0] {
	case "0", "4":
		v, ok := number([]byte(f[1]))
		if !ok || v > 1<<20 {
			return nil, bad(col[1], "offset %q is not a number", f[1])
		}
		b, err := hex.DecodeString(f[2])
		if err != nil || len(b) == 0 || len(b) > 256 {
			return nil, bad(col[2], "the bytes are not hexadecimal, 1 to 256 of them")
		}
		m.Offset, m.Bytes = v, b
	case "1":
		if _, err := parseHex(f[2], col[2]); err != nil {
			return nil, err
		}
	default:
		return nil, bad(col[0], "magic type %q is not 0, 1 or 4", f[0])
	}
	return m, nil
}

// canonicalType is one name for the types that the engine does not tell apart.
func canonicalType(t string) string {
	if ours := filetype.OfClam(t); ours != "" {
		return filetype.ClamType(ours)
	}
	return t
}
