package engine

import (
	"context"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"
	"time"

	"github.com/bulwarkhq/bulwark/engine/definitions"
	"github.com/bulwarkhq/bulwark/engine/filetype"
	"github.com/bulwarkhq/bulwark/engine/unpack"
	"github.com/bulwarkhq/bulwark/engine/verdict"
)

const (
	// maxMatches ends a scan: more names add nothing.
	maxMatches = 64
	// maxInside bounds the length of a member's name in a verdict.
	maxInside = 1024
)

// errEnough ends a scan that has found maxMatches.
var errEnough = errors.New("enough matches")

// object is what is being looked at, with the way to it.
type object struct {
	unpack.Object
	parent *object
	depth  int
	// container is the type as which parent was opened: what its beginning says, or
	// its end.
	container string
	// fileType is known once the object was looked at. normal is the ClamAV
	// target type of a normalised form, 0 for what is as it was.
	fileType string
	normal   int
	sums     [definitions.Algorithms][]byte // those computed
}

func (o *object) inside() []string {
	var way []string
	for ; o.parent != nil; o = o.parent {
		way = append(way, o.Name[:min(len(o.Name), maxInside)])
	}
	slices.Reverse(way)
	return way
}

// scan is one call of Engine.Scan.
type scan struct {
	set      *definitions.Set
	w        *worker
	ctx      context.Context
	opts     Options
	limits   Limits
	deadline time.Time
	budget   *unpack.Budget
	verdict  verdict.Verdict
	halted   bool // the time limit or the context ended the work
}

func (s *scan) run(r io.ReaderAt, size int64) error {
	s.deadline = time.Now().Add(s.limits.Time)
	s.budget = unpack.NewBudget(size, s.limits.Files, s.limits.Bytes, s.limits.Ratio, s.deadline)
	s.budget.Scratch = &s.w.unpacking
	top := &object{Object: unpack.Object{Name: s.opts.Name, Data: r, Size: size}}
	if size > s.limits.MaxSize {
		s.note(verdict.LimitSize)
		top.Size = s.limits.MaxSize
	}
	err := s.object(top)
	if errors.Is(err, errEnough) {
		err = nil
	}
	if err != nil {
		return err
	}
	if s.budget.Bomb() && (s.has(verdict.LimitBytes) || s.has(verdict.LimitFiles)) {
		s.note(verdict.LimitRatio)
		s.match(top, verdict.Match{
			Threat: "ArchiveBomb:Any/Ratio", Type: verdict.ArchiveBomb,
			Signature: "Bulwark-Archive-Bomb", Source: "built-in", Offset: -1,
		})
	}
	if s.verdict.Infected() && top.Size == size {
		if err := s.hash(top, definitions.SHA256); err != nil {
			return err
		}
	}
	s.verdict.MD5 = hex.EncodeToString(top.sums[definitions.MD5])
	s.verdict.SHA1 = hex.EncodeToString(top.sums[definitions.SHA1])
	s.verdict.SHA256 = hex.EncodeToString(top.sums[definitions.SHA256])
	return nil
}

func (s *scan) has(l verdict.Limit) bool { return slices.Contains(s.verdict.Limits, l) }

func (s *scan) note(l verdict.Limit) {
	if !s.has(l) {
		s.verdict.Limits = append(s.verdict.Limits, l)
	}
}

// stop reports whether the work must end; the reason is then an error of the
// context or a noted limit.
func (s *scan) stop() bool {
	if s.halted {
		return true
	}
	if s.ctx.Err() != nil {
		s.halted = true
	} else if time.Now().After(s.deadline) {
		s.note(verdict.LimitTime)
		s.halted = true
	}
	return s.halted
}

// object looks at one object and what is inside it.
func (s *scan) object(o *object) error {
	s.verdict.Objects++
	found, err := s.content(o)
	if err != nil {
		return err
	}
	s.verdict.Bytes += o.Size
	if found, err = s.normalised(o, found); err != nil {
		return err
	}
	if err := s.report(o, o, found); err != nil {
		return err
	}
	fileType := o.fileType
	if o.parent == nil {
		s.verdict.FileType = fileType
	}
	if !s.opts.Archives || s.stop() {
		return s.ctx.Err()
	}
	// The end may say that it is a container besides what the beginning says.
	position := int64(0)
	for _, t := range []string{fileType, unpack.Trailer(o.Object)} {
		if err := s.inside(o, t, &position); err != nil {
			return err
		}
		if s.stop() {
			break
		}
	}
	return s.ctx.Err()
}

// inside looks at what is in an object that is a container of the given type.
// position counts its members.
func (s *scan) inside(o *object, fileType string, position *int64) error {
	if !unpack.Supports(fileType) {
		return nil
	}
	if o.depth >= s.limits.Depth {
		// A text may carry something, but most do not.
		if !s.has(verdict.LimitDepth) && unpack.Any(s.ctx, fileType, o.Object, s.budget) {
			s.note(verdict.LimitDepth)
		}
		return s.ctx.Err()
	}
	return unpack.Open(s.ctx, fileType, o.Object, s.budget, s.note, func(m unpack.Object) error {
		*position++
		member := &object{Object: m, parent: o, depth: o.depth + 1, container: fileType}
		if err := s.member(o, member, *position); err != nil {
			return err
		}
		if m.Entry != nil && m.Entry.Encrypted {
			return nil
		}
		return s.object(member)
	})
}

// member compares a member with the signatures about members.
func (s *scan) member(container, o *object, position int64) error {
	if !s.set.HasMembers() {
		return nil
	}
	m := definitions.Member{
		Name: o.Name, Container: filetype.ClamType(o.container), ContainerSize: container.Size,
		Packed: -1, Size: o.Size, Position: position,
	}
	switch o.container {
	case filetype.Gzip, filetype.Bzip2, filetype.XZ, filetype.Zstd, filetype.LZMA, filetype.LZ4:
		return nil // one compressed file is no member
	case filetype.Tar, filetype.CPIO, filetype.Mail:
		m.Packed = m.Size
	}
	if e := o.Entry; e != nil {
		m.Packed, m.CRC, m.HasCRC, m.Encrypted = e.Packed, e.CRC, true, e.Encrypted
	}
	var found []verdict.Match
	for _, h := range s.set.MatchMember(m) {
		found = append(found, hashMatch(h))
	}
	// What is said of a member is said of its container: a member that is known
	// to be good may still have a bad name.
	return s.report(o, container, found)
}

// report adds what was found in an object to the verdict, unless source, or one
// that it is in, is known to be good.
func (s *scan) report(o, source *object, found []verdict.Match) error {
	if len(found) == 0 {
		return nil
	}
	for a := source; a != nil; a = a.parent {
		allowed, err := s.allowed(a)
		if err != nil || allowed {
			return err
		}
	}
	for _, m := range found {
		s.match(o, m)
	}
	if len(s.verdict.Matches) >= maxMatches {
		return errEnough
	}
	return nil
}

func (s *scan) match(o *object, m verdict.Match) {
	m.Inside = o.inside()
	if len(s.verdict.Matches) < maxMatches {
		s.verdict.Matches = append(s.verdict.Matches, m)
	}
}

// allowed looks an object up in the lists of known good files.
func (s *scan) allowed(o *object) (bool, error) {
	for a := range definitions.Algorithms {
		if !s.set.Needs(definitions.Allow, a, o.Size) {
			continue
		}
		if err := s.hash(o, a); err != nil {
			return false, err
		}
		if len(s.set.Lookup(definitions.Allow, a, o.sums[a], o.Size)) > 0 {
			return true, nil
		}
	}
	return false, nil
}

func newHash(a definitions.Algorithm) hash.Hash {
	switch a {
	case definitions.MD5:
		return md5.New()
	case definitions.SHA1:
		return sha1.New()
	}
	return sha256.New()
}

// hash computes a hash of an object that the pass over it did not.
func (s *scan) hash(o *object, a definitions.Algorithm) error {
	if o.sums[a] != nil {
		return nil
	}
	h := newHash(a)
	buf := s.w.slow[:cap(s.w.slow)]
	s.w.slowAt, s.w.slow = 0, s.w.slow[:0]
	for off := int64(0); off < o.Size; {
		if err := s.ctx.Err(); err != nil {
			return err
		}
		n, err := o.Data.ReadAt(buf[:min(int64(len(buf)), o.Size-off)], off)
		_, _ = h.Write(buf[:n]) // never fails
		off += int64(n)
		if err != nil && (err != io.EOF || n == 0) {
			if err == io.EOF {
				break // the file became shorter
			}
			return fmt.Errorf("reading at %d: %w", off, err)
		}
	}
	o.sums[a] = h.Sum(nil)
	return nil
}

// content passes over the object's bytes once and evaluates what was found.
func (s *scan) content(o *object) ([]verdict.Match, error) {
	w := s.w
	w.begin(s, o)
	defer w.end()
	if err := w.pass(); err != nil {
		return nil, err
	}
	if err := s.ctx.Err(); err != nil {
		return nil, err
	}
	var found []verdict.Match
	if o.Size <= definitions.BuiltInMax && o.Size > 0 && o.normal == 0 {
		if b, ok := definitions.Test(w.head); ok {
			m := verdict.Match{Threat: b.Threat, Type: verdict.Test, Signature: b.ID, Source: "built-in", Offset: 0}
			if b.PUA {
				m.Type = verdict.PUA
			}
			found = append(found, m)
		}
	}
	for a := range definitions.Algorithms {
		if o.sums[a] == nil {
			continue
		}
		for _, h := range s.set.Lookup(definitions.Detect, a, o.sums[a], o.Size) {
			found = append(found, hashMatch(h))
		}
	}
	parts, err := w.programHashes()
	if err != nil {
		return nil, err
	}
	found = append(append(found, parts...), w.rules()...)
	return found, w.late.err
}
