// Package definitions compiles signatures of all kinds into one file and uses
// that file in place.
//
// The file is a header, a table of sections and the sections, each aligned to
// 64 bytes and covered by a CRC-32C. All numbers are little-endian. A Set maps
// the file read-only; scanner processes that open the same file share its
// pages. Hash signatures are sorted tables of fixed width; patterns, rules and
// the matcher are flat arrays. Opening a file makes no object per signature.
package definitions

import (
	"errors"
	"hash/crc32"
	"time"
)

// ErrFormat is the error for files that are not compiled definitions of this
// version, or are damaged.
var ErrFormat = errors.New("not usable as compiled definitions")

const (
	magic         = "BULWARK\x01"
	formatVersion = 9
	headerBytes   = 32 // magic, version, sections, file size, CRC of the table, unused
	tableEntry    = 24 // id, CRC, offset, length
	maxSections   = 64
	align         = 64
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// The sections.
const (
	secMeta     = 1 // JSON of Meta
	secNames    = 2 // texts: 16-bit length, bytes
	secMatcher  = 3
	secVariants = 4
	secParts    = 5
	secForms    = 6
	secStrings  = 7
	secRules    = 8
	secProgs    = 9
	secCode     = 10
	secAlways   = 11 // AlwaysRules
	secGlobals  = 12 // global YARA rules
	secExtra    = 13 // JSON of extra
	secGuards   = 14
	// The guards of rules and of variants, by number; what is not listed has
	// none.
	secRuleGuards    = 15
	secVariantGuards = 80
	secMatchers      = 90 // those of the groups behind the first
	secLoose         = 81 // variants without a literal
	secHash          = 16 // + 4*list + algorithm
	secFanout        = 24 // + 4*list + algorithm
	secSizes         = 32 // + 4*list + algorithm: sorted distinct sizes; anySize last
	// secMoreLists begins the same for the lists from Sections on.
	secMoreLists = 40
)

func matcherSection(g Group) uint32 {
	if g == 0 {
		return secMatcher
	}
	return secMatchers + uint32(g)
}

// Algorithm is a hash function of hash signatures.
type Algorithm int

// The algorithms.
const (
	MD5 Algorithm = iota
	SHA1
	SHA256
	Algorithms // how many there are
)

// Size is the length of a hash in bytes.
func (a Algorithm) Size() int { return [...]int{16, 20, 32}[a] }

func (a Algorithm) String() string { return [...]string{"md5", "sha1", "sha256"}[a] }

// List is what a hash table says about a file.
type List int

// The lists.
const (
	Detect   List = iota
	Allow         // known good: its detections are dropped
	Sections      // of sections of PE files
	Imports       // of the imports of PE files
	lists
)

// hashSections are the numbers of the three sections of a hash table.
func hashSections(l List, a Algorithm) (recs, fanout, sizes uint32) {
	if l >= Sections {
		k := secMoreLists + uint32(4*int(l-Sections))
		return k + uint32(a), k + 8 + uint32(a), k + 16 + uint32(a)
	}
	k := uint32(4*int(l) + int(a))
	return secHash + k, secFanout + k, secSizes + k
}

const (
	anySize    = 0xffffffff
	hashExtra  = 12 // size, name, source and flags
	noOffset   = 0xffffffff
	flagPUA    = 1 << 16
	sourceMask = 0xffff
)

// Variant is one literal of the matcher: the program to run where it stands.
type Variant struct {
	Prog uint32 // offset into the programs
	Part uint32
}

// Part is a piece of a form between wide gaps.
type Part struct {
	Form   uint32
	Index  uint32 // of the part in its form
	GapMin uint32
	GapMax uint32 // 0xffffffff: any
}

// Gap returns the bounds of the gap before the part; max < 0 is without bound.
func (p Part) Gap() (lo, hi int64) {
	if p.GapMax == noOffset {
		return int64(p.GapMin), -1
	}
	return int64(p.GapMin), int64(p.GapMax)
}

// Flags of a Form.
const (
	FormFullWord = 1 << iota
	FormWide
)

// Form is one way a string may stand in a file.
type Form struct {
	String    uint32
	FirstPart uint32
	Parts     uint16
	Flags     uint8
	Anchor    uint8 // as clamdb.OffsetKind
	Shift     uint32
	N         int64 // the offset the anchor counts
}

// Flags of a String.
const (
	StringAll     = 1 << iota // every match is wanted, not only the first
	StringTrigger             // finding it settles its rule (ClamAV body signatures)
	StringLate                // is searched when a condition asks for it
	StringCommon              // late, and of GroupCommon
)

// String is a string of a rule.
type String struct {
	Rule  uint32
	Flags uint32
}

// Kind is the language of a rule.
type Kind uint8

// The kinds of rules.
const (
	KindBody Kind = iota
	KindLogical
	KindYARA
)

// Flags of a Rule.
const (
	RulePrivate = 1 << iota // is not reported
	RuleGlobal
	RuleAlways
)

// The types of threats in a rule.
const (
	TypeMalware = iota
	TypePUA
	TypeTest
)

// Rule is a signature other than a hash.
type Rule struct {
	Kind     Kind
	Type     uint8
	Flags    uint8
	Target   uint8  // ClamAV target type
	ID       uint32 // name: of the signature
	Threat   uint32 // name: to show
	Source   uint32 // index into Meta.Sources
	Code     uint32
	CodeLen  uint32
	Strings  uint32 // first string
	NStrings uint32
	Base     uint32 // first rule of the YARA file
	NBase    uint32 // how many rules that file has
	MinSize  int64
	MaxSize  int64 // -1: any
}

// AlwaysRule is a rule that can hold although none of its strings was found, in
// files that pass the guard.
type AlwaysRule struct{ Rule, Guard uint32 }

// Counts says how many signatures of each kind a set has.
type Counts struct {
	MD5     int `json:"md5"`
	SHA1    int `json:"sha1"`
	SHA256  int `json:"sha256"`
	Allow   int `json:"allow"`
	Body    int `json:"body"`
	Logical int `json:"logical"`
	// Sections and Imports are hashes of parts of PE files, Members signatures
	// about members of containers.
	Sections int `json:"pe_sections"`
	Imports  int `json:"pe_imports"`
	Members  int `json:"members"`
	YARA     int `json:"yara"`
	// BuiltIn are the rules of the engine itself; they are not in the others.
	BuiltIn int `json:"built_in"`
	// Ignored were left out because an ignore list names them, Level because
	// they are meant for another version of ClamAV. Neither is in the set.
	Ignored int `json:"ignored"`
	Level   int `json:"other_level"`
	// Macros are patterns that logical signatures refer to, Magic lines of file
	// type magic; neither detects anything by itself. Unsupported were left out
	// because nothing here can use them (bytecode, phishing lists).
	Macros      int `json:"macros"`
	Magic       int `json:"magic"`
	Unsupported int `json:"unsupported"`
}

// Total is the number of signatures in the set.
func (c Counts) Total() int {
	return c.MD5 + c.SHA1 + c.SHA256 + c.Sections + c.Imports + c.Members + c.Body + c.Logical + c.YARA + c.BuiltIn
}

// Meta describes a set.
type Meta struct {
	Version string    `json:"version"`
	Created time.Time `json:"created"`
	Counts  Counts    `json:"counts"`
	Sources []string  `json:"sources"`
	// Unsupported counts what was left out because it is not supported, by name.
	Unsupported map[string]int `json:"unsupported,omitempty"`
}
