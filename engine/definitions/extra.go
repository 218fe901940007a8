package definitions

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"

	"github.com/bulwarkhq/bulwark/engine/clamdb"
	"github.com/bulwarkhq/bulwark/engine/filetype"
)

const maxMagic = 4096

// extra are the few signatures that are no patterns and no hashes.
type extra struct {
	Members []memberRule `json:"members,omitempty"`
	Magic   []magicRule  `json:"magic,omitempty"`
}

func (e *extra) empty() bool { return len(e.Members) == 0 && len(e.Magic) == 0 }

type memberRule struct {
	clamdb.Member
	Source uint32
	name   *regexp.Regexp
}

type magicRule struct {
	Offset int64
	Bytes  []byte
	Type   string // as package filetype calls it
}

// magic keeps a line of file type magic whose type the engine knows.
func (c *compiler) magic(line int, m *clamdb.Magic) {
	c.report.Counts.Magic++
	t := filetype.OfClam(m.Type)
	if t == "" || m.Offset < 0 || m.Offset+int64(len(m.Bytes)) > filetype.HeadSize {
		return // what it names needs no type here, or is recognised by itself
	}
	if len(c.extra.Magic) >= maxMagic {
		c.problem(line, 0, fmt.Sprintf("more than %d lines of file type magic", maxMagic))
		return
	}
	c.extra.Magic = append(c.extra.Magic, magicRule{m.Offset, m.Bytes, t})
}

func (s *Set) loadExtra(data []byte) error {
	if len(data) == 0 {
		return nil
	}
	if err := json.Unmarshal(data, &s.extra); err != nil {
		return fmt.Errorf("%w: extra signatures: %w", ErrFormat, err)
	}
	for i := range s.extra.Members {
		m := &s.extra.Members[i]
		if m.File == "" {
			continue
		}
		var err error
		if m.name, err = regexp.Compile(m.File); err != nil {
			return fmt.Errorf("%w: signature %s: %w", ErrFormat, m.Name, err)
		}
	}
	for _, m := range s.extra.Magic {
		if m.Offset < 0 || m.Offset > filetype.HeadSize || len(m.Bytes) == 0 {
			return fmt.Errorf("%w: magic of %s", ErrFormat, m.Type)
		}
	}
	return nil
}

// FileType is the type that file type magic gives a file that begins with head,
// "" where there is none.
func (s *Set) FileType(head []byte) string {
	for _, m := range s.extra.Magic {
		if int(m.Offset) < len(head) && bytes.HasPrefix(head[m.Offset:], m.Bytes) {
			return m.Type
		}
	}
	return ""
}

// Member describes a member of a container to the signatures about members.
type Member struct {
	Name      string
	Container string // CL_TYPE_...
	// Position counts from 1. Packed is -1 where it is not known.
	ContainerSize, Packed, Size, Position int64
	Encrypted                             bool
	CRC                                   uint32
	HasCRC                                bool
}

// HasMembers reports whether there are signatures about members.
func (s *Set) HasMembers() bool { return len(s.extra.Members) > 0 }

// MatchMember returns the signatures that a member matches.
func (s *Set) MatchMember(m Member) []HashMatch {
	var out []HashMatch
	within := func(r *clamdb.Range, v int64) bool { return r == nil || v >= r.Min && v <= r.Max }
	for i := range s.extra.Members {
		r := &s.extra.Members[i]
		switch {
		case r.Container != "" && r.Container != m.Container,
			!within(r.ContainerSize, m.ContainerSize), !within(r.Packed, m.Packed),
			!within(r.Size, m.Size), !within(r.Position, m.Position),
			r.Encrypted >= 0 && (r.Encrypted == 1) != m.Encrypted,
			r.HasCRC && (!m.HasCRC || r.CRC != m.CRC),
			r.name != nil && !r.name.MatchString(m.Name):
			continue
		}
		out = append(out, HashMatch{Name: r.Name, Source: s.SourceName(r.Source), PUA: isPUA(r.Name)})
	}
	return out
}
