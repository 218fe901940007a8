package siggen

import (
	"archive/zip"
	"bytes"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/bulwarkhq/bulwark/engine/exefmt"
	"github.com/bulwarkhq/bulwark/engine/filetype"
)

// sums are the hashes of data that hash signatures may have.
func sums(data []byte) []string {
	a, b, c := md5.Sum(data), sha1.Sum(data), sha256.Sum256(data)
	return []string{hex.EncodeToString(a[:]), hex.EncodeToString(b[:]), hex.EncodeToString(c[:])}
}

// Plain is a binary file of random contents, Program a PE file.
func (g *Generator) Plain() []byte {
	g.text = false
	return g.carrier(0).data
}

// Program is a PE file.
func (g *Generator) Program() []byte {
	g.text = false
	return g.carrier(1).data
}

// sized is the line of a hash with its size, or with any, which clamscan takes
// from level 73 on; near spoils one of them.
func (g *Generator) sized(sum string, size int, name string, near, sizeFirst bool) string {
	anySize := g.IntN(4) == 0
	if near {
		if anySize || g.IntN(2) == 0 {
			at := g.IntN(len(sum))
			digit := "0"
			if sum[at] == '0' {
				digit = "1"
			}
			sum = sum[:at] + digit + sum[at+1:]
		} else {
			size++
		}
	}
	if g.IntN(4) == 0 {
		sum = strings.ToUpper(sum)
	}
	s, level := fmt.Sprint(size), ""
	if anySize {
		s, level = "*", ":73"
	}
	if sizeFirst {
		return s + ":" + sum + ":" + name + level
	}
	return sum + ":" + s + ":" + name + level
}

// FileHash is a line of an .hdb (MD5) or .hsb for a file; near ones miss it.
func (g *Generator) FileHash(data []byte, name string, near bool) (line, format string) {
	k := g.IntN(3)
	if format = "hsb"; k == 0 {
		format = "hdb"
	}
	return g.sized(sums(data)[k], len(data), name, near, false), format
}

// SectionHash is a line of an .mdb or .msb for a section of a program.
func (g *Generator) SectionHash(data []byte, name string, near bool) (line, format string) {
	l, err := exefmt.Read(bytes.NewReader(data), int64(len(data)), filetype.PE)
	if err != nil || len(l.Sections) == 0 {
		return "", ""
	}
	s := l.Sections[g.IntN(len(l.Sections))]
	k := g.IntN(3)
	if format = "msb"; k == 0 {
		format = "mdb"
	}
	return g.sized(sums(data[s.Offset : s.Offset+s.Size])[k], int(s.Size), name, near, true), format
}

// ImportHash is a line of an .imp for a program.
func (g *Generator) ImportHash(data []byte, name string, near bool) string {
	l, err := exefmt.Read(bytes.NewReader(data), int64(len(data)), filetype.PE)
	if err != nil {
		return ""
	}
	text := l.ImportText()
	return g.sized(sums([]byte(text))[0], len(text), name, near, false)
}

// Member is a line of a .cdb for a member of a zip file; near ones miss it by
// one field.
func (g *Generator) Member(container []byte, f *zip.File, position int, name string, near bool) string {
	span := func(v uint64) string {
		lo := v - min(v, uint64(g.IntN(3)))
		return g.pick(fmt.Sprint(v), fmt.Sprintf("%d-%d", lo, v+uint64(g.IntN(5))), "*")
	}
	quoted := strings.ReplaceAll(f.Name, ".", `\.`)
	field := []string{
		"CL_TYPE_ZIP", span(uint64(len(container))), g.pick("*", quoted, "^"+quoted+"$", f.Name[:2], f.Name[:1]+".*"),
		span(f.CompressedSize64), span(f.UncompressedSize64), g.pick("*", "0"), span(uint64(position)), "*", "*",
	}
	if g.IntN(4) == 0 {
		field[0] = "*"
	}
	if near {
		switch g.IntN(6) {
		case 0:
			field[0] = "CL_TYPE_RAR"
		case 1:
			field[1] = fmt.Sprint(len(container) + 1)
		case 2:
			field[2] = "^" + f.Name[1:]
		case 3:
			field[3] = fmt.Sprintf("%d-%d", f.CompressedSize64+1, f.CompressedSize64+9)
		case 4:
			field[4] = fmt.Sprint(f.UncompressedSize64 + 1)
		case 5:
			field[5] = "1"
		}
	}
	return name + ":" + strings.Join(field, ":")
}
