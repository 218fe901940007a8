package engine

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"

	"github.com/bulwarkhq/bulwark/engine/clamdb"
	"github.com/bulwarkhq/bulwark/engine/filetype"
	"github.com/bulwarkhq/bulwark/engine/normalize"
	"github.com/bulwarkhq/bulwark/engine/unpack"
	"github.com/bulwarkhq/bulwark/engine/verdict"
)

// isTarget reports whether an object is of a ClamAV target type: a normalised
// one of that it was normalised for, others by their file type.
func (w *worker) isTarget(t int) bool {
	if n := w.o.normal; n != 0 {
		return t == clamdb.TargetAny || t == n
	}
	switch t {
	case clamdb.TargetHTML, clamdb.TargetText, clamdb.TargetUnused, clamdb.TargetInternal:
		return false
	case clamdb.TargetGraphics:
		return filetype.IsGraphics(w.fileType)
	case clamdb.TargetOther:
		return isOther(w.fileType)
	}
	want, ok := clamdb.Target(t)
	return ok && (want == "" || want == w.fileType)
}

// isOther reports whether ClamAV takes a file of that type for binary data, of
// which it knows no more.
func isOther(fileType string) bool {
	switch fileType {
	case filetype.Data, filetype.AR, filetype.RPM, filetype.LZ4, filetype.LZMA, filetype.Lzip, filetype.Squashfs, filetype.WIM, filetype.Zstd,
		"flac", "installshield", "mp4", "wasm":
		return true
	}
	return false
}

// isText reports whether ClamAV would normalise a file of that type as a text.
func isText(fileType string) bool {
	switch fileType {
	case filetype.Text, filetype.Script, "xml":
		return true
	}
	return false
}

// normalised looks at the normalised forms of a text or page, and returns what
// was found in them beyond found.
func (s *scan) normalised(o *object, found []verdict.Match) ([]verdict.Match, error) {
	page := o.fileType == filetype.HTML
	most := int64(normalize.MaxText)
	target := clamdb.TargetText
	if page {
		most, target = normalize.MaxHTML, clamdb.TargetHTML
	}
	if !page && !isText(o.fileType) || o.Size > most || !s.set.Targets(clamdb.TargetAny, target) || s.stop() {
		return found, nil
	}
	r := stoppable{s.ctx, io.NewSectionReader(o.Data, 0, o.Size)}
	var forms [][]byte
	if page {
		p, err := normalize.HTML(r)
		if err != nil {
			return nil, fmt.Errorf("reading: %w", err)
		}
		forms = append(forms, p.NoComment, p.NoTags)
	} else {
		text, err := normalize.Text(r)
		if err != nil {
			return nil, fmt.Errorf("reading: %w", err)
		}
		forms = append(forms, text)
	}
	for _, f := range forms {
		more, err := s.content(&object{
			Object: unpack.Object{Name: o.Name, Data: bytes.NewReader(f), Size: int64(len(f))},
			parent: o.parent, depth: o.depth, container: o.container, normal: target, fileType: o.fileType,
		})
		if err != nil {
			return nil, err
		}
		for _, m := range more {
			same := func(have verdict.Match) bool { return have.Signature == m.Signature && have.Source == m.Source }
			if !slices.ContainsFunc(found, same) {
				// Its place in the normalised form says nothing about the file.
				m.Offset = -1
				found = append(found, m)
			}
		}
	}
	return found, nil
}

// stoppable is a reader that fails once the context has ended.
type stoppable struct {
	ctx context.Context
	*io.SectionReader
}

func (s stoppable) Read(p []byte) (int, error) {
	if err := s.ctx.Err(); err != nil {
		return 0, err
	}
	return s.SectionReader.Read(p)
}
