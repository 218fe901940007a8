// Package unpack opens containers in memory. Every member is handed to the
// caller, which decides whether to open it in turn; all members of one scanned
// file share one Budget, so that no nesting gets around a limit.
//
// A format is one function in one file and one line in formatOf. It reads the
// container through io.ReaderAt and gives its members to the Walker: Section
// for a piece of the container as it stands, Stream for what has to be
// decompressed. It never keeps a member, allocates from a length in the file
// without bound, or starts a goroutine.
package unpack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/bulwarkhq/bulwark/engine/filetype"
	"github.com/bulwarkhq/bulwark/engine/verdict"
)

// Object is something to look at: the scanned file or a member.
type Object struct {
	Name string
	Data io.ReaderAt
	Size int64
	// Entry is what the container says of the member; nil where the format tells
	// nothing.
	Entry *Entry
	// Cut says that a limit, which is noted, ended the member early: that it lacks
	// its end is no damage of it.
	Cut bool
}

// Entry is a container's description of a member.
type Entry struct {
	Packed int64 // bytes in the container
	CRC    uint32
	// Encrypted members have empty Data; their Size is what the container says.
	Encrypted bool
}

// Budget bounds the work on one scanned file.
type Budget struct {
	Files    int   // members left
	Bytes    int64 // extracted bytes left
	Ratio    int   // extracted bytes per byte of the scanned file
	Deadline time.Time
	// MaxMember is the size at which a decompressed member is cut, MaxHeld how
	// many bytes of them may be in memory at a time.
	MaxMember, MaxHeld int64
	// Scratch is memory to work with, of earlier scans where the caller has it.
	Scratch *Scratch

	top       int64 // size of the scanned file
	extracted int64
	held      int64
	steps     int64 // instructions emulated
}

// NewBudget is a budget for a scanned file of the given size.
func NewBudget(size int64, files int, bytes int64, ratio int, deadline time.Time) *Budget {
	return &Budget{
		Files: files, Bytes: bytes, Ratio: ratio, Deadline: deadline,
		MaxMember: 100 << 20, MaxHeld: 256 << 20, top: max(size, 1), Scratch: &Scratch{},
	}
}

// Bomb reports whether more was extracted than the ratio allows.
func (b *Budget) Bomb() bool { return b.Ratio > 0 && b.extracted/int64(b.Ratio) > b.top }

var (
	// errLimit ends a container because a limit was reached; the limit is noted.
	errLimit = errors.New("limit reached")
	// errDamaged is wrapped by formats for contents they cannot read.
	errDamaged = errors.New("damaged container")
)

// Visit receives a member. An error ends the unpacking.
type Visit func(Object) error

// Walker is what a format gives its members to.
type Walker struct {
	ctx    context.Context
	budget *Budget
	visit  Visit
	note   func(verdict.Limit)
	quiet  bool   // damage is not noted
	cut    bool   // nor that of what a limit cut: the container, or what was decoded of it
	entry  *Entry // of the member that is given next
}

type format func(w *Walker, o Object) error

// formatOf is the reader of a file type, nil when there is none.
func formatOf(fileType string) format {
	switch fileType {
	case filetype.Zip:
		return unzip
	case filetype.Tar:
		return untar
	case filetype.Gzip:
		return gunzip
	case filetype.Bzip2:
		return bunzip2
	case filetype.XZ:
		return unxz
	case filetype.LZMA:
		return unlzma
	case filetype.Lzip:
		return unlzip
	case filetype.Zstd:
		return unzstd
	case filetype.LZ4:
		return unlz4
	case filetype.AR:
		return unar
	case filetype.CPIO:
		return uncpio
	case filetype.RPM:
		return unrpm
	case filetype.SevenZ:
		return un7z
	case filetype.RAR:
		return unrar
	case filetype.CAB:
		return uncab
	case filetype.ARJ:
		return unarj
	case filetype.LHA:
		return unlha
	case filetype.SZDD:
		return unszdd
	case filetype.CHM:
		return unchm
	case filetype.SIS:
		return unsis
	case filetype.ISO9660:
		return uniso
	case filetype.DMG:
		return undmg
	case filetype.UDF:
		return unudf
	case filetype.WIM:
		return unwim
	case filetype.Squashfs:
		return unsquash
	case filetype.Compress:
		return uncompress
	case filetype.FAT:
		return unfat
	case filetype.Ext:
		return unext
	case filetype.Partitions:
		return unpartition
	case filetype.TNEF:
		return untnef
	case filetype.OLE2:
		return unole2
	case filetype.RTF:
		return unrtf
	case filetype.PDF:
		return unpdf
	case filetype.Mail:
		return unmail
	case filetype.BinHex:
		return unbinhex
	case filetype.HTML:
		return unhtml
	case filetype.Script, filetype.Text:
		return unscript
	case filetype.ELF:
		return unelf
	case filetype.PE:
		return unpe
	}
	return nil
}

// Supports reports whether a file type can be opened.
func Supports(fileType string) bool { return formatOf(fileType) != nil }

// Open hands every member of a container to visit. Limits that cut it short,
// encryption and damage are noted, not errors: the error is visit's or the
// context's.
func Open(ctx context.Context, fileType string, o Object, b *Budget, note func(verdict.Limit), visit Visit) (err error) {
	f := formatOf(fileType)
	if f == nil {
		return nil
	}
	w := &Walker{ctx: ctx, budget: b, visit: visit, note: note, cut: o.Cut}
	err = w.run(f, o)
	var v *visitError
	switch {
	case errors.As(err, &v):
		return v.err
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, errLimit):
	case err != nil:
		w.damaged()
	}
	return nil
}

// errDeeper ends the search for a member.
var errDeeper = errors.New("there is a member")

// Any reports whether Open would give a member. It looks no further than to the
// first one and takes little of the budget.
func Any(ctx context.Context, fileType string, o Object, b *Budget) bool {
	little := *b
	little.Files, little.Bytes, little.MaxMember = 1, min(b.Bytes, 64<<10), min(b.MaxMember, 64<<10)
	err := Open(ctx, fileType, o, &little, func(verdict.Limit) {}, func(Object) error { return errDeeper })
	b.steps = little.steps
	return errors.Is(err, errDeeper)
}

// visitError carries an error of visit through a format.
type visitError struct{ err error }

func (e *visitError) Error() string { return e.err.Error() }

// run calls a format; a panic in it, or in the library it uses, is damage.
// Panics of visit pass through as its error.
func (w *Walker) run(f format, o Object) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: %v", errDamaged, r)
		}
	}()
	return f(w, o)
}

// check is called between steps of work.
func (w *Walker) check() error {
	if err := w.ctx.Err(); err != nil {
		return err
	}
	if !w.budget.Deadline.IsZero() && time.Now().After(w.budget.Deadline) {
		w.note(verdict.LimitTime)
		return errLimit
	}
	return nil
}

// damaged notes that a member cannot be read as it should. Formats that only
// look for what may be hidden in a file of another kind are quiet: there nothing
// is lost when the search finds nothing.
func (w *Walker) damaged() {
	if !w.quiet && !w.cut {
		w.note(verdict.Damaged)
	}
}

// within says that what is read until restore is called comes from m: nothing
// that is missing there is damage if a limit cut m.
func (w *Walker) within(m *memory) (restore func()) {
	before := w.cut
	w.cut = before || m.cut
	return func() { w.cut = before }
}

// encrypted notes a member that cannot be read.
func (w *Walker) encrypted() { w.note(verdict.Encrypted) }

// locked gives a member that cannot be read without a password to be judged by
// its description.
func (w *Walker) locked(name string, size int64) error {
	w.encrypted()
	if err := w.member(); err != nil {
		return err
	}
	return w.give(Object{Name: name, Data: &memory{}, Size: max(size, 0)})
}

func (w *Walker) member() error {
	if err := w.check(); err != nil {
		return err
	}
	if w.budget.Files <= 0 {
		w.note(verdict.LimitFiles)
		return errLimit
	}
	w.budget.Files--
	return nil
}

// give calls visit; a panic there must not be taken for damage of the
// container.
func (w *Walker) give(o Object) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = &visitError{fmt.Errorf("panic at member %q: %v", o.Name, r)}
		}
	}()
	o.Entry, w.entry = w.entry, nil
	if err := w.visit(o); err != nil {
		return &visitError{err}
	}
	return nil
}

// Section gives a piece of the container as a member. It counts against the
// bytes, so that overlapping members end too, but takes no memory.
func (w *Walker) Section(name string, o Object, off, size int64) error {
	if err := w.member(); err != nil {
		return err
	}
	if off > o.Size && size >= 0 && (o.Cut || w.cut) {
		return nil // nothing of it is there
	}
	if off < 0 || size < 0 || off > o.Size {
		return fmt.Errorf("%w: member %q lies outside", errDamaged, name)
	}
	cut := o.Cut && size >= o.Size-off || w.cut && size > o.Size-off
	if size > o.Size-off {
		if !cut {
			w.damaged()
		}
		size = o.Size - off
	}
	if size > w.budget.Bytes {
		w.note(verdict.LimitBytes)
		return errLimit
	}
	w.budget.Bytes -= size
	w.budget.extracted += size
	var data io.ReaderAt = io.NewSectionReader(o.Data, off, size)
	if _, ok := o.Data.(*unpacked); ok {
		data = &unpacked{data} // copies of the program in its own memory
	}
	return w.give(Object{Name: name, Data: data, Size: size, Cut: cut})
}

// Stream gives what r yields as a member. Reading ends at the limits; what was
// read until then is looked at. A read error is damage of that member only.
func (w *Walker) Stream(name string, r io.Reader) error {
	if err := w.member(); err != nil {
		return err
	}
	m := &memory{scratch: w.budget.Scratch}
	defer w.budget.Scratch.takeBack(m)
	limit := min(w.budget.Bytes, w.budget.MaxMember, w.budget.MaxHeld-w.budget.held)
	var stop error
	for {
		if stop = w.check(); stop != nil {
			break
		}
		if m.size >= limit {
			// One byte more says whether the member ends here.
			var one [1]byte
			if n, _ := io.ReadFull(r, one[:]); n == 0 {
				break
			}
			w.note(verdict.LimitBytes)
			m.cut = true
			if w.budget.Bytes-m.size <= 0 {
				stop = errLimit
			}
			break
		}
		n, err := m.readFrom(r, min(limit-m.size, readStep))
		if err == io.EOF { //nolint:errorlint // the end; a wrapped one is damage
			break
		}
		if err != nil || n == 0 {
			w.damaged()
			m.cut = w.cut
			break
		}
	}
	if stop != nil && !errors.Is(stop, errLimit) {
		return stop
	}
	w.budget.Bytes -= m.size
	w.budget.extracted += m.size
	w.budget.held += m.size
	m.cut = m.cut || stop != nil
	err := w.give(m.object(name))
	w.budget.held -= m.size
	if err != nil {
		return err
	}
	if w.budget.Bomb() && m.size >= limit {
		w.note(verdict.LimitRatio)
		return errLimit
	}
	return stop
}

const (
	memoryChunk = 1 << 20
	// readStep is how much is asked of a decoder at a time, so that one of 10 MB/s
	// does not keep a scan for long that is to end.
	readStep = 128 << 10
)

// memory is a member in memory, in chunks so that growing copies nothing.
type memory struct {
	chunks  [][]byte
	size    int64
	scratch *Scratch // nil has no chunks
	cut     bool     // a limit ended it
}

// object is the memory as something to look into.
func (m *memory) object(name string) Object {
	return Object{Name: name, Data: m, Size: m.size, Cut: m.cut}
}

// readFrom reads up to most bytes, at most a chunk.
func (m *memory) readFrom(r io.Reader, most int64) (int, error) {
	last := m.tail()
	space := (*last)[len(*last):min(int64(cap(*last)), int64(len(*last))+most)]
	for range 100 {
		n, err := r.Read(space)
		if n > 0 {
			*last = (*last)[:len(*last)+n]
			m.size += int64(n)
			if err == io.EOF {
				return n, nil
			}
			return n, err
		}
		if err != nil {
			return 0, err
		}
	}
	return 0, io.ErrNoProgress
}

// tail is the last chunk, with room for at least one byte. All others are full:
// one that nothing was written to is the last one still.
func (m *memory) tail() *[]byte {
	if m.size == int64(len(m.chunks))*memoryChunk {
		var c []byte
		if m.scratch != nil {
			c = m.scratch.chunk()
		}
		switch {
		case c != nil:
		case len(m.chunks) == 0:
			c = make([]byte, 0, 4<<10)
		default:
			c = make([]byte, 0, memoryChunk)
		}
		m.chunks = append(m.chunks, c)
	}
	last := &m.chunks[len(m.chunks)-1]
	if len(*last) == cap(*last) {
		grown := make([]byte, len(*last), min(memoryChunk, 4*cap(*last)))
		copy(grown, *last)
		*last = grown
	}
	return last
}

func (m *memory) push(c byte) {
	last := m.tail()
	*last = append(*last, c)
	m.size++
}

func (m *memory) append(p []byte) {
	for len(p) > 0 {
		last := m.tail()
		n := min(len(p), cap(*last)-len(*last))
		*last = append(*last, p[:n]...)
		m.size += int64(n)
		p = p[n:]
	}
}

// at is the byte at an offset inside.
func (m *memory) at(off int64) byte { return m.chunks[off/memoryChunk][off%memoryChunk] }

func (m *memory) set(off int64, c byte) { m.chunks[off/memoryChunk][off%memoryChunk] = c }

func (m *memory) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("negative offset %d", off)
	}
	n := 0
	for n < len(p) && off < m.size {
		c := m.chunks[off/memoryChunk]
		k := copy(p[n:], c[off%memoryChunk:])
		n += k
		off += int64(k)
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// reader is the whole object as a stream.
func (o Object) reader() *io.SectionReader { return io.NewSectionReader(o.Data, 0, o.Size) }
