package engine

import (
	"crypto/md5"
	"fmt"
	"io"

	"github.com/bulwarkhq/bulwark/engine/clamdb"
	"github.com/bulwarkhq/bulwark/engine/definitions"
	"github.com/bulwarkhq/bulwark/engine/exefmt"
	"github.com/bulwarkhq/bulwark/engine/filetype"
	"github.com/bulwarkhq/bulwark/engine/verdict"
)

// layout is the structure of the object where it is a program, else nil.
func (w *worker) layout() *exefmt.Layout {
	if !w.laidOut {
		w.laidOut = true
		switch w.fileType {
		case filetype.PE, filetype.ELF, filetype.MachO:
			if l, err := exefmt.Read(w.o.Data, w.size, w.fileType); err == nil {
				w.program = l
			}
		}
	}
	return w.program
}

// anchored checks the offset that a ClamAV signature demands.
func (w *worker) anchored(f *definitions.Form, start int64) bool {
	kind := clamdb.OffsetKind(f.Anchor)
	if kind == clamdb.Anywhere {
		return true
	}
	o := clamdb.Offset{Kind: kind, N: f.N, Shift: int64(f.Shift)}
	var l *exefmt.Layout
	if kind >= clamdb.FromEntry {
		o.Section, o.N = clamdb.Unpack(f.N)
		l = w.layout()
	}
	return o.Allows(start, w.size, l)
}

// programHashes looks up the hashes of the sections and imports of a PE file.
func (w *worker) programHashes() ([]verdict.Match, error) {
	sections, imports := w.set.Has(definitions.Sections), w.set.Has(definitions.Imports)
	if w.fileType != filetype.PE || !sections && !imports {
		return nil, nil
	}
	l := w.layout()
	if l == nil {
		return nil, nil
	}
	var out []verdict.Match
	add := func(list definitions.List, a definitions.Algorithm, sum []byte, size int64) {
		for _, h := range w.set.Lookup(list, a, sum, size) {
			out = append(out, hashMatch(h))
		}
	}
	if imports {
		if text := l.ImportText(); text != "" {
			sum := md5.Sum([]byte(text))
			add(definitions.Imports, definitions.MD5, sum[:], int64(len(text)))
		}
	}
	if !sections {
		return out, nil
	}
	// Sections may overlap: what is read for them in all is bounded.
	left := 2*w.size + 1<<20
	for _, s := range l.Sections {
		if s.Size == 0 || s.Size > left || w.s.stop() {
			continue
		}
		for a := range definitions.Algorithms {
			if !w.set.Needs(definitions.Sections, a, s.Size) {
				continue
			}
			left -= s.Size
			h := newHash(a)
			if _, err := io.Copy(h, io.NewSectionReader(w.o.Data, s.Offset, s.Size)); err != nil {
				return nil, fmt.Errorf("reading a section at %d: %w", s.Offset, err)
			}
			add(definitions.Sections, a, h.Sum(nil), s.Size)
		}
	}
	return out, nil
}

func hashMatch(h definitions.HashMatch) verdict.Match {
	m := verdict.Match{Threat: h.Name, Type: verdict.Malware, Signature: h.Name, Source: h.Source, Offset: -1}
	if h.PUA {
		m.Type = verdict.PUA
	}
	return m
}
