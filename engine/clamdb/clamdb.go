// Package clamdb reads the text signature databases of ClamAV: hash lists
// (.hdb .hsb .hdu .hsu, exceptions in .fp .sfp), hashes of sections and imports
// of PE files (.mdb .mdu .msb .msu .imp), body signatures (.ndb .ndu .db),
// logical signatures (.ldb .ldu), descriptions of members of containers (.cdb),
// file type magic (.ftm) and lists of ignored names (.ign .ign2), and opens the
// containers in which they are published (.cvd .cld .cud). The formats are those
// of the chapters under "Creating signatures for ClamAV" of the ClamAV manual.
//
// A bad line never ends the reading: it is handed to the caller as a Problem.
package clamdb

import (
	"bufio"
	"bytes"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/bulwarkhq/bulwark/engine/pattern"
)

// FunctionalityLevel is the ClamAV level this reader stands for (1.4.6). Lines
// that demand a higher level, or end at a lower one, are skipped, as ClamAV
// does.
const FunctionalityLevel = 216

// maxLine bounds one line; the longest published signatures have some ten
// thousand characters.
const maxLine = 1 << 20

// Format is the kind of a database file.
type Format string

// FormatOf tells the format by the file's extension; ok is false for others.
func FormatOf(ext string) (f Format, ok bool) {
	f = Format(strings.ToLower(strings.TrimPrefix(ext, ".")))
	switch f {
	case "hdb", "hsb", "hdu", "hsu", "fp", "sfp", "ndb", "ndu", "db", "ldb", "ldu", "ign", "ign2",
		"mdb", "mdu", "msb", "msu", "imp", "cdb", "ftm":
		return f, true
	}
	return "", false
}

// PUA reports whether the format holds potentially unwanted applications.
func (f Format) PUA() bool {
	switch f {
	case "hdu", "hsu", "ndu", "ldu", "mdu", "msu":
		return true
	}
	return false
}

// Hash is a signature over a whole file.
type Hash struct {
	Name string
	Sum  []byte // 16 bytes MD5, 20 SHA-1, 32 SHA-256; valid during the call
	Size int64  // -1: any
	// Allow marks known good files, whose detections are dropped.
	Allow bool
	// Of is what the sum was made of.
	Of HashOf
}

// HashOf is what a hash signature is about.
type HashOf uint8

// What hashes are about.
const (
	OfFile    HashOf = iota
	OfSection        // the bytes of a section of a PE file
	OfImports        // the import table of a PE file
)

// Body is a body signature.
type Body struct {
	Name    string
	Target  int
	Offset  Offset
	Pattern *pattern.Node
	// Also is a second form of the pattern (its wide one), or nil.
	Also *pattern.Node
	// Wide says that Pattern itself is such a form.
	Wide bool
	// FullWord demands a non-alphanumeric byte, or nothing, on both sides.
	FullWord bool
	// Group is the macro group that the pattern belongs to, plus one; 0: none.
	// Such a signature is nothing by itself.
	Group int
	// Sub-signatures of a logical signature may be one of these instead of a
	// Pattern.
	Regex   *Regex
	Compare *Compare
	Macro   *Macro
	Image   *Image
}

// Ignore names a signature to leave out; Line, when not empty, limits that to
// the entry whose text has this MD5 (lower-case hex).
type Ignore struct {
	Name string
	Line string
}

// Record is one entry; exactly one field is set.
type Record struct {
	Hash    *Hash
	Body    *Body
	Logical *Logical
	Ignore  *Ignore
	Member  *Member
	Magic   *Magic
}

// Name is the name of the signature; empty for records that are none.
func (r Record) Name() string {
	switch {
	case r.Hash != nil:
		return r.Hash.Name
	case r.Body != nil:
		return r.Body.Name
	case r.Logical != nil:
		return r.Logical.Name
	case r.Member != nil:
		return r.Member.Name
	}
	return ""
}

// Problem is a line that could not be used. Column counts bytes from 1 and is 0
// where the whole line is meant.
type Problem struct {
	Line, Column int
	Reason       string
	// Unsupported names what this reader cannot use in a line that is correct;
	// empty where the line is at fault.
	Unsupported string
}

// syntax is an error with a column.
type syntax struct {
	col    int
	reason string
	lacks  string // what is not supported
}

func (e *syntax) Error() string { return e.reason }

func bad(col int, format string, args ...any) error {
	return &syntax{col: col, reason: fmt.Sprintf(format, args...)}
}

// lacks is the error for something that is correct but not supported; why may
// be empty.
func lacks(col int, what, why string) error {
	if why != "" {
		why = ": " + why
	}
	return &syntax{col, what + " is not supported" + why, what}
}

// errLevel marks a line meant for other versions of ClamAV: no problem, only
// not for us.
var errLevel = errors.New("meant for another functionality level")

// Skipped counts lines that Read passed over without fault.
type Skipped struct {
	Level int // for another functionality level
}

// Read parses one database. add receives every good entry with its line number
// and text, problem every bad one. The error is that of reading.
func Read(r io.Reader, f Format, add func(line int, text []byte, rec Record), problem func(Problem)) (Skipped, error) {
	var skipped Skipped
	br := bufio.NewReaderSize(r, 64<<10)
	var long []byte
	var hash Hash
	var sum [32]byte
	for n := 1; ; n++ {
		line, err := br.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			long = append(long[:0], line...)
			for errors.Is(err, bufio.ErrBufferFull) {
				line, err = br.ReadSlice('\n')
				if len(long) <= maxLine {
					long = append(long, line...)
				}
			}
			line = long
		}
		if err != nil && err != io.EOF {
			return skipped, err
		}
		text := bytes.TrimRight(line, "\r\n")
		if len(text) > 0 && text[0] != '#' {
			var rec Record
			perr := error(nil)
			if len(text) > maxLine {
				perr = bad(0, "line longer than %d bytes", maxLine)
			} else {
				rec, perr = parseLine(text, f, &hash, sum[:])
			}
			var s *syntax
			switch {
			case perr == nil:
				add(n, text, rec)
			case errors.Is(perr, errLevel):
				skipped.Level++
			case errors.As(perr, &s):
				problem(Problem{n, s.col, s.reason, s.lacks})
			default:
				problem(Problem{Line: n, Reason: perr.Error()})
			}
		}
		if err == io.EOF {
			return skipped, nil
		}
	}
}

func parseLine(text []byte, f Format, hash *Hash, sum []byte) (Record, error) {
	switch f {
	case "hdb", "hsb", "hdu", "hsu", "fp", "sfp":
		err := parseHash(text, hash, sum)
		hash.Allow, hash.Of = f == "fp" || f == "sfp", OfFile
		return Record{Hash: hash}, err
	case "imp":
		err := parseHash(text, hash, sum)
		hash.Allow, hash.Of = false, OfImports
		return Record{Hash: hash}, err
	case "mdb", "mdu", "msb", "msu":
		err := parseSectionHash(text, hash, sum)
		hash.Allow, hash.Of = false, OfSection
		return Record{Hash: hash}, err
	case "cdb":
		m, err := parseMember(string(text))
		return Record{Member: m}, err
	case "ftm":
		m, err := parseMagic(string(text))
		return Record{Magic: m}, err
	case "ndb", "ndu":
		b, err := parseNdb(string(text))
		return Record{Body: b}, err
	case "db":
		b, err := parseDB(string(text))
		return Record{Body: b}, err
	case "ldb", "ldu":
		l, err := parseLdb(string(text))
		return Record{Logical: l}, err
	case "ign", "ign2":
		ig, err := parseIgnore(string(text))
		return Record{Ignore: ig}, err
	}
	return Record{}, bad(0, "format %q is not known", f)
}

// parseHash reads hash:size:name[:min[:max]].
func parseHash(text []byte, h *Hash, sum []byte) error {
	i := bytes.IndexByte(text, ':')
	if i < 0 {
		return bad(1, "expected hash:size:name")
	}
	switch i {
	case 32, 40, 64:
	default:
		return bad(1, "hash of %d characters; MD5 has 32, SHA-1 40, SHA-256 64", i)
	}
	for k := 0; k < i; k += 2 {
		hi, lo := unhex(text[k]), unhex(text[k+1])
		if hi|lo > 15 {
			return bad(k+1, "not a hexadecimal digit in the hash")
		}
		sum[k/2] = hi<<4 | lo
	}
	h.Sum = sum[:i/2]
	rest := text[i+1:]
	j := bytes.IndexByte(rest, ':')
	if j < 0 {
		return bad(i+2, "expected size:name after the hash")
	}
	h.Size = -1
	if size := rest[:j]; len(size) != 1 || size[0] != '*' {
		v, ok := number(size)
		if !ok {
			return bad(i+2, "size %q is neither a number nor *", size)
		}
		h.Size = v
	}
	name := rest[j+1:]
	if k := bytes.IndexByte(name, ':'); k >= 0 {
		if err := level(string(name[k+1:]), i+j+k+4); err != nil {
			return err
		}
		name = name[:k]
	}
	if len(name) == 0 {
		return bad(i+j+3, "the name is empty")
	}
	h.Name = string(name)
	return nil
}

// parseSectionHash reads size:hash:name[:min[:max]].
func parseSectionHash(text []byte, h *Hash, sum []byte) error {
	i := bytes.IndexByte(text, ':')
	if i < 0 {
		return bad(1, "expected size:hash:name")
	}
	rest := text[i+1:]
	j := bytes.IndexByte(rest, ':')
	if j < 0 {
		return bad(i+2, "expected hash:name after the size")
	}
	// The same with the first two fields exchanged.
	line := make([]byte, 0, len(text))
	line = append(append(append(line, rest[:j]...), ':'), text[:i]...)
	line = append(line, rest[j:]...)
	err := parseHash(line, h, sum)
	var s *syntax
	if errors.As(err, &s) {
		switch {
		case s.col <= j+1:
			s.col += i + 1
		case s.col <= i+j+2:
			s.col -= j + 1
		}
	}
	return err
}

func unhex(c byte) byte {
	switch {
	case c >= '0' && c <= '9':
		return c - '0'
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10
	case c >= 'A' && c <= 'F':
		return c - 'A' + 10
	}
	return 0xff
}

// number reads a decimal number below 2^62.
func number(b []byte) (int64, bool) {
	if len(b) == 0 || len(b) > 18 {
		return 0, false
	}
	v := int64(0)
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		v = v*10 + int64(c-'0')
	}
	return v, true
}

// level checks min[:max] functionality levels.
func level(s string, col int) error {
	lo, hi, both := strings.Cut(s, ":")
	if lo != "" {
		v, ok := number([]byte(lo))
		if !ok {
			return bad(col, "functionality level %q is not a number", lo)
		}
		if v > FunctionalityLevel {
			return errLevel
		}
	}
	if both && hi != "" {
		v, ok := number([]byte(hi))
		if !ok {
			return bad(col+len(lo)+1, "functionality level %q is not a number", hi)
		}
		if v < FunctionalityLevel {
			return errLevel
		}
	}
	return nil
}

// parseIgnore reads name, name:md5 of the line, or database:line:name; as
// clamscan does, from either kind of list.
func parseIgnore(text string) (*Ignore, error) {
	f := strings.Split(text, ":")
	ig := &Ignore{Name: f[0]}
	switch len(f) {
	case 1:
	case 2:
		ig.Line = strings.ToLower(f[1])
		if b, err := hex.DecodeString(ig.Line); err != nil || len(b) != md5.Size {
			return nil, bad(len(f[0])+2, "%q is not the MD5 of a line", f[1])
		}
	case 3:
		ig.Name = f[2]
	default:
		return nil, bad(1, "expected name, name:md5 or database:line:name")
	}
	if ig.Name == "" {
		return nil, bad(1, "the name is empty")
	}
	return ig, nil
}
