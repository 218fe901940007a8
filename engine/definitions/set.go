package definitions

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"os"
	"slices"
	"sort"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/bulwarkhq/bulwark/engine/match"
	"github.com/bulwarkhq/bulwark/engine/pattern"
)

// Set is an open file of compiled definitions. It is immutable and safe for
// concurrent use until Close; the slices lie in the mapping.
type Set struct {
	Meta     Meta
	Matchers [Groups]*match.Matcher // nil where a group has no literals
	Variants []Variant
	Parts    []Part
	Forms    []Form
	Strings  []String
	Rules    []Rule
	Always   []AlwaysRule
	Globals  []uint32
	// Guards are what files must be like for rules; Loose are the variants
	// without a literal, all of strings that are searched late.
	Guards []Guard
	Loose  []uint32

	ruleGuards    []uint32
	variantGuards []uint16

	data   []byte
	names  []byte
	progs  []byte
	code   []byte
	hashes [lists][Algorithms]hashTable
	extra  extra
	// targets are the ClamAV target types that signatures name, as bits.
	targets uint16
}

type hashTable struct {
	recs   []byte
	width  int
	fanout []uint32
	sizes  []uint32
}

// Open maps a file of compiled definitions; f may be closed afterwards. It
// checks the file's checksums and every reference in it.
func Open(f *os.File) (*Set, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	size := st.Size()
	if !st.Mode().IsRegular() && size == 0 {
		return nil, fmt.Errorf("%w: not a regular file", ErrFormat)
	}
	if size < headerBytes || size != int64(int(size)) {
		return nil, fmt.Errorf("%w: %d bytes are no header", ErrFormat, size)
	}
	data, err := unix.Mmap(int(f.Fd()), 0, int(size), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("mapping definitions: %w", err)
	}
	// The filters are read all over. Where the kernel has no large pages of files
	// this does nothing, or is an error, and nothing is lost.
	_ = unix.Madvise(data, unix.MADV_HUGEPAGE)
	s, err := parse(data)
	if err != nil {
		_ = unix.Munmap(data)
		return nil, err
	}
	s.data = data
	return s, nil
}

// Close unmaps the file. Nothing of the Set may be in use.
func (s *Set) Close() error {
	if s.data == nil {
		return nil
	}
	d := s.data
	*s = Set{}
	return unix.Munmap(d)
}

func littleEndian() bool {
	x := uint16(1)
	return *(*byte)(unsafe.Pointer(&x)) == 1
}

// parse reads the structure of a file in memory.
func parse(data []byte) (*Set, error) {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s", ErrFormat, fmt.Sprintf(format, args...))
	}
	if !littleEndian() {
		return nil, bad("this machine is big-endian")
	}
	if len(data) < headerBytes || string(data[:8]) != magic {
		return nil, bad("no Bulwark definitions header")
	}
	if v := binary.LittleEndian.Uint32(data[8:]); v != formatVersion {
		return nil, bad("format version %d, this engine reads %d", v, formatVersion)
	}
	n := binary.LittleEndian.Uint32(data[12:])
	if n > maxSections || headerBytes+int(n)*tableEntry > len(data) {
		return nil, bad("%d sections", n)
	}
	if size := binary.LittleEndian.Uint64(data[16:]); size != uint64(len(data)) {
		return nil, bad("%d bytes, its header says %d", len(data), size)
	}
	table := data[headerBytes : headerBytes+int(n)*tableEntry]
	sum := crc32.Update(crc32.Checksum(data[:24], castagnoli), castagnoli, table)
	if sum != binary.LittleEndian.Uint32(data[24:]) {
		return nil, bad("checksum of the header is wrong")
	}
	secs := map[uint32][]byte{}
	for ; len(table) > 0; table = table[tableEntry:] {
		id := binary.LittleEndian.Uint32(table)
		off, length := binary.LittleEndian.Uint64(table[8:]), binary.LittleEndian.Uint64(table[16:])
		if off > uint64(len(data)) || length > uint64(len(data))-off || off%8 != 0 {
			return nil, bad("section %d lies outside", id)
		}
		d := data[off : off+length : off+length]
		if crc32.Checksum(d, castagnoli) != binary.LittleEndian.Uint32(table[4:]) {
			return nil, bad("checksum of section %d is wrong", id)
		}
		secs[id] = d
	}
	s := &Set{names: secs[secNames], progs: secs[secProgs], code: secs[secCode]}
	if err := json.Unmarshal(secs[secMeta], &s.Meta); err != nil {
		return nil, bad("description: %v", err)
	}
	for g := range Groups {
		m, err := match.Load(secs[matcherSection(g)])
		if err != nil {
			return nil, bad("%v", err)
		}
		if m.Atoms() > 0 {
			s.Matchers[g] = m
		}
	}
	s.Variants = cast[Variant](secs[secVariants])
	s.Parts = cast[Part](secs[secParts])
	s.Forms = cast[Form](secs[secForms])
	s.Strings = cast[String](secs[secStrings])
	s.Rules = cast[Rule](secs[secRules])
	s.Always = cast[AlwaysRule](secs[secAlways])
	s.Globals = cast[uint32](secs[secGlobals])
	s.Guards = cast[Guard](secs[secGuards])
	s.ruleGuards = cast[uint32](secs[secRuleGuards])
	s.variantGuards = cast[uint16](secs[secVariantGuards])
	s.Loose = cast[uint32](secs[secLoose])
	for l := range lists {
		for a := range Algorithms {
			r, f, z := hashSections(l, a)
			h := &s.hashes[l][a]
			h.width = a.Size() + hashExtra
			h.recs = secs[r]
			h.fanout = cast[uint32](secs[f])
			h.sizes = cast[uint32](secs[z])
			if len(h.recs) > 0 && (len(h.fanout) != 65537 || !slices.IsSorted(h.fanout) || int(h.fanout[65536]) != len(h.recs)/h.width) {
				return nil, bad("%v table", a)
			}
		}
	}
	if err := s.loadExtra(secs[secExtra]); err != nil {
		return nil, err
	}
	return s, s.check()
}

func cast[T any](b []byte) []T {
	var zero T
	n := len(b) / int(unsafe.Sizeof(zero))
	if n == 0 {
		return nil
	}
	return unsafe.Slice((*T)(unsafe.Pointer(&b[0])), n)
}

// check makes sure that every reference leads somewhere, so that scanning needs
// no checks of its own.
func (s *Set) check() error {
	bad := func(what string, i int) error { return fmt.Errorf("%w: %s %d leads nowhere", ErrFormat, what, i) }
	for _, m := range s.Matchers {
		if m == nil {
			continue
		}
		if err := m.EachID(func(id uint32) bool { return int(id) < len(s.Variants) }); err != nil {
			return fmt.Errorf("%w: %w", ErrFormat, err)
		}
	}
	for i, v := range s.Variants {
		if i > 0 && v.Part < s.Variants[i-1].Part {
			return bad("disordered pattern", i)
		}
		if int(v.Part) >= len(s.Parts) || int64(v.Prog) >= int64(len(s.progs)) {
			return bad("pattern", i)
		}
		if _, err := pattern.Check(s.progs[v.Prog:]); err != nil {
			return fmt.Errorf("%w: pattern %d: %w", ErrFormat, i, err)
		}
	}
	if !s.checkGuards() {
		return bad("guard or pattern without literal", 0)
	}
	for i, p := range s.Parts {
		if int(p.Form) >= len(s.Forms) || p.Index >= uint32(s.Forms[p.Form].Parts) || s.Forms[p.Form].FirstPart+p.Index != uint32(i) {
			return bad("part", i)
		}
	}
	for i, f := range s.Forms {
		if i > 0 && (f.String < s.Forms[i-1].String || f.FirstPart < s.Forms[i-1].FirstPart) {
			return bad("disordered form", i)
		}
		if int(f.String) >= len(s.Strings) || uint64(f.FirstPart)+uint64(f.Parts) > uint64(len(s.Parts)) || f.Parts == 0 {
			return bad("form", i)
		}
	}
	for i, st := range s.Strings {
		if int(st.Rule) >= len(s.Rules) {
			return bad("string", i)
		}
	}
	for i := range s.Rules {
		r := &s.Rules[i]
		if r.Kind != KindYARA {
			s.targets |= 1 << (r.Target & 15)
		}
		if uint64(r.Strings)+uint64(r.NStrings) > uint64(len(s.Strings)) || uint64(r.Code)+uint64(r.CodeLen) > uint64(len(s.code)) ||
			uint64(r.Base)+uint64(r.NBase) > uint64(len(s.Rules)) || int(r.Source) >= len(s.Meta.Sources) || r.Kind > KindYARA {
			return bad("rule", i)
		}
	}
	for i, r := range s.Globals {
		if int(r) >= len(s.Rules) {
			return bad("global rule", i)
		}
	}
	return nil
}

// Name is the text at a place that a record names; "" for none.
func (s *Set) Name(at uint32) string {
	if int64(at)+2 > int64(len(s.names)) {
		return ""
	}
	n := int64(binary.LittleEndian.Uint16(s.names[at:]))
	if int64(at)+2+n > int64(len(s.names)) {
		return ""
	}
	return string(s.names[at+2 : int64(at)+2+n])
}

// SourceName is the source file with that index.
func (s *Set) SourceName(i uint32) string {
	if int(i) < len(s.Meta.Sources) {
		return s.Meta.Sources[i]
	}
	return ""
}

// StringVariants are the numbers of the variants of a string: from first, before
// behind.
func (s *Set) StringVariants(str uint32) (first, behind uint32) {
	variant := func(str uint32) uint32 {
		form := sort.Search(len(s.Forms), func(i int) bool { return s.Forms[i].String >= str })
		if form == len(s.Forms) {
			return uint32(len(s.Variants))
		}
		part := s.Forms[form].FirstPart
		return uint32(sort.Search(len(s.Variants), func(i int) bool { return s.Variants[i].Part >= part }))
	}
	return variant(str), variant(str + 1)
}

// Prog is the pattern program of a variant.
func (s *Set) Prog(v Variant) []byte { return s.progs[v.Prog:] }

// Code is the condition of a rule.
func (s *Set) Code(r *Rule) []byte { return s.code[r.Code : r.Code+r.CodeLen] }

// Targets reports whether there are ClamAV signatures of any of these target
// types.
func (s *Set) Targets(types ...int) bool {
	for _, t := range types {
		if s.targets>>(t&15)&1 != 0 {
			return true
		}
	}
	return false
}

// Has reports whether a list has any hashes.
func (s *Set) Has(l List) bool {
	for a := range Algorithms {
		if len(s.hashes[l][a].recs) > 0 {
			return true
		}
	}
	return false
}

// Needs reports whether a file of this size needs its hash computed.
func (s *Set) Needs(l List, a Algorithm, size int64) bool {
	sizes := s.hashes[l][a].sizes
	if len(sizes) == 0 {
		return false
	}
	if sizes[len(sizes)-1] == anySize {
		return true
	}
	if size >= anySize {
		return false
	}
	_, ok := slices.BinarySearch(sizes, uint32(size))
	return ok
}

// HashMatch is an entry of a hash table.
type HashMatch struct {
	Name   string
	Source string
	PUA    bool
}

// Lookup returns the entries for a hash and size.
func (s *Set) Lookup(l List, a Algorithm, sum []byte, size int64) []HashMatch {
	h := &s.hashes[l][a]
	if len(h.recs) == 0 || len(sum) != a.Size() {
		return nil
	}
	b := binary.BigEndian.Uint16(sum)
	lo, hi := int(h.fanout[b]), int(h.fanout[int(b)+1])
	n := len(sum)
	i := lo + searchRecords(h.recs[lo*h.width:hi*h.width], h.width, sum)
	var out []HashMatch
	for ; i < hi; i++ {
		rec := h.recs[i*h.width : (i+1)*h.width]
		if !bytes.Equal(rec[:n], sum) {
			break
		}
		want := binary.LittleEndian.Uint32(rec[n:])
		if want != anySize && int64(want) != size {
			continue
		}
		tail := binary.LittleEndian.Uint32(rec[n+8:])
		out = append(out, HashMatch{
			Name:   s.Name(binary.LittleEndian.Uint32(rec[n+4:])),
			Source: s.SourceName(tail & sourceMask),
			PUA:    tail&flagPUA != 0,
		})
	}
	return out
}

// searchRecords finds the first record that is not below sum.
func searchRecords(recs []byte, width int, sum []byte) int {
	lo, hi := 0, len(recs)/width
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		if bytes.Compare(recs[mid*width:mid*width+len(sum)], sum) < 0 {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo
}
