package definitions

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"os"
	"slices"
	"time"
	"unsafe"

	"github.com/bulwarkhq/bulwark/engine/match"
)

// tables is everything of a set but its hashes, while it is built.
type tables struct {
	names    []byte
	sources  []string
	variants []Variant
	parts    []Part
	forms    []Form
	strings  []String
	rules    []Rule
	progs    []byte
	code     []byte
	always   []AlwaysRule
	globals  []uint32
	loose    []uint32

	guards     []Guard
	guardOf    map[Guard]uint32
	ruleGuards []uint32
}

// name adds a text and returns its place; texts are cut at 64 KB.
func (t *tables) name(s string) uint32 {
	if s == "" || len(t.names)+2+len(s) > math.MaxUint32 {
		return 0
	}
	at := uint32(len(t.names))
	s = s[:min(len(s), math.MaxUint16)]
	t.names = binary.LittleEndian.AppendUint16(t.names, uint16(len(s)))
	t.names = append(t.names, s...)
	return at
}

var errTooMuch = errors.New("the signatures do not fit into one file")

func (t *tables) addProg(p []byte) (uint32, error) {
	for len(t.progs)%4 != 0 {
		t.progs = append(t.progs, 0)
	}
	if len(t.progs)+len(p) > math.MaxUint32 {
		return 0, errTooMuch
	}
	at := uint32(len(t.progs))
	t.progs = append(t.progs, p...)
	return at, nil
}

func (t *tables) addCode(c []byte) (at, n uint32) {
	at = uint32(len(t.code))
	t.code = append(t.code, c...)
	return at, uint32(len(c))
}

// hashBuilder collects the records of one hash table.
type hashBuilder struct {
	recs  []byte
	width int
	sizes map[uint32]struct{}
}

func (h *hashBuilder) add(sum []byte, size, name, tail uint32) {
	h.width = len(sum) + hashExtra
	h.recs = append(h.recs, sum...)
	h.recs = binary.LittleEndian.AppendUint32(h.recs, size)
	h.recs = binary.LittleEndian.AppendUint32(h.recs, name)
	h.recs = binary.LittleEndian.AppendUint32(h.recs, tail)
	if h.sizes == nil {
		h.sizes = map[uint32]struct{}{}
	}
	h.sizes[size] = struct{}{}
}

func (h *hashBuilder) Len() int { return len(h.recs) / max(h.width, 1) }

// sort orders the records by hash, then size, so that the file does not depend
// on the order of the sources' lines.
func (h *hashBuilder) sort() {
	type key struct {
		prefix uint64
		at     uint32
	}
	keys := make([]key, h.Len())
	for i := range keys {
		keys[i] = key{binary.BigEndian.Uint64(h.recs[i*h.width:]), uint32(i)}
	}
	record := func(k key) []byte { return h.recs[int(k.at)*h.width : (int(k.at)+1)*h.width] }
	n := h.width - 8
	slices.SortFunc(keys, func(a, b key) int {
		if c := cmp.Compare(a.prefix, b.prefix); c != 0 {
			return c
		}
		return bytes.Compare(record(a)[:n], record(b)[:n])
	})
	sorted := make([]byte, 0, len(h.recs))
	for _, k := range keys {
		sorted = append(sorted, record(k)...)
	}
	h.recs = sorted
}

// finish sorts the table and returns its fan-out and its sizes.
func (h *hashBuilder) finish() (fanout, sizes []uint32) {
	h.sort()
	fanout = make([]uint32, 65537)
	for i := range h.Len() {
		fanout[uint32(binary.BigEndian.Uint16(h.recs[i*h.width:]))+1]++
	}
	for i := 1; i < len(fanout); i++ {
		fanout[i] += fanout[i-1]
	}
	for s := range h.sizes {
		sizes = append(sizes, s)
	}
	slices.Sort(sizes)
	return fanout, sizes
}

// section is a section to write.
type section struct {
	id   uint32
	data []byte
}

func raw[T any](s []T) []byte {
	if len(s) == 0 {
		return nil
	}
	var zero T
	return unsafe.Slice((*byte)(unsafe.Pointer(&s[0])), len(s)*int(unsafe.Sizeof(zero)))
}

func (c *compiler) write(out *os.File, opts CompileOptions) error {
	t := &c.out
	secs := []section{
		{secNames, t.names},
		{secVariants, raw(t.variants)},
		{secParts, raw(t.parts)},
		{secForms, raw(t.forms)},
		{secStrings, raw(t.strings)},
		{secRules, raw(t.rules)},
		{secProgs, t.progs},
		{secCode, t.code},
		{secAlways, raw(t.always)},
		{secGlobals, raw(t.globals)},
		{secGuards, raw(t.guards)},
		{secRuleGuards, raw(t.ruleGuards)},
		{secVariantGuards, raw(t.variantGuards())},
		{secLoose, raw(t.loose)},
	}
	for g := range Groups {
		matcher, err := match.Build(c.atoms[g])
		if err != nil {
			return err
		}
		secs = append(secs, section{matcherSection(g), matcher})
	}
	if !c.extra.empty() {
		data, err := json.Marshal(c.extra)
		if err != nil {
			return fmt.Errorf("definitions: %w", err)
		}
		secs = append(secs, section{secExtra, data})
	}
	for l := range lists {
		for a := range Algorithms {
			h := &c.hashes[l][a]
			if h.Len() == 0 {
				continue
			}
			if err := c.ctx.Err(); err != nil {
				return err
			}
			fanout, sizes := h.finish()
			r, f, z := hashSections(l, a)
			secs = append(secs, section{r, h.recs}, section{f, raw(fanout)}, section{z, raw(sizes)})
		}
	}
	created := opts.Created
	if created.IsZero() {
		created = time.Now()
	}
	created = created.UTC().Truncate(time.Second)
	version := opts.Version
	if version == "" {
		sum := sha256.New()
		for _, s := range secs {
			_, _ = sum.Write(s.data) // never fails
		}
		version = created.Format("2006.0102.") + hex.EncodeToString(sum.Sum(nil)[:4])
	}
	c.report.Version = version
	meta, err := json.Marshal(Meta{Version: version, Created: created, Counts: c.report.Counts, Sources: t.sources, Unsupported: c.report.Unsupported})
	if err != nil {
		return fmt.Errorf("definitions: %w", err)
	}
	secs = append([]section{{secMeta, meta}}, secs...)
	c.report.Bytes, err = writeSections(out, secs)
	if err != nil {
		return fmt.Errorf("writing definitions: %w", err)
	}
	return nil
}

// writeSections writes the file from its beginning and syncs it.
func writeSections(out *os.File, secs []section) (int64, error) {
	at := int64(headerBytes + len(secs)*tableEntry)
	table := make([]byte, 0, len(secs)*tableEntry)
	place := make([]int64, len(secs))
	for i, s := range secs {
		at = (at + align - 1) / align * align
		place[i] = at
		table = binary.LittleEndian.AppendUint32(table, s.id)
		table = binary.LittleEndian.AppendUint32(table, crc32.Checksum(s.data, castagnoli))
		table = binary.LittleEndian.AppendUint64(table, uint64(at))
		table = binary.LittleEndian.AppendUint64(table, uint64(len(s.data)))
		at += int64(len(s.data))
	}
	head := make([]byte, 0, headerBytes)
	head = append(head, magic...)
	head = binary.LittleEndian.AppendUint32(head, formatVersion)
	head = binary.LittleEndian.AppendUint32(head, uint32(len(secs)))
	head = binary.LittleEndian.AppendUint64(head, uint64(at))
	head = binary.LittleEndian.AppendUint32(head, crc32.Checksum(append(bytes.Clone(head), table...), castagnoli))
	head = binary.LittleEndian.AppendUint32(head, 0)
	if _, err := out.WriteAt(append(head, table...), 0); err != nil {
		return 0, err
	}
	for i, s := range secs {
		if len(s.data) == 0 {
			continue
		}
		if _, err := out.WriteAt(s.data, place[i]); err != nil {
			return 0, err
		}
	}
	if err := out.Truncate(at); err != nil {
		return 0, err
	}
	return at, out.Sync()
}
