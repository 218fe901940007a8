package engine

import (
	"cmp"
	"fmt"
	"hash"
	"io"
	"slices"

	"github.com/bulwarkhq/bulwark/engine/clamdb"
	"github.com/bulwarkhq/bulwark/engine/definitions"
	"github.com/bulwarkhq/bulwark/engine/exefmt"
	"github.com/bulwarkhq/bulwark/engine/filetype"
	"github.com/bulwarkhq/bulwark/engine/pattern"
	"github.com/bulwarkhq/bulwark/engine/unpack"
	"github.com/bulwarkhq/bulwark/engine/yara"
	"github.com/bulwarkhq/bulwark/engine/yara/modules"
)

const (
	window = 256 << 10 // bytes that are searched at a time
	margin = 4 << 10   // bytes kept on both sides of them
	// slowSize is the buffer for what lies outside of the window.
	slowSize = 64 << 10
	// maxSpans bounds the remembered matches of one string or part.
	maxSpans = 1 << 16
)

// worker is the working memory of one scan at a time; it is pooled. While an
// object is looked at it is also the pattern.Input over that object.
type worker struct {
	set  *definitions.Set
	s    *scan
	o    *object
	size int64

	buf      []byte // the window with its margins
	bufAt    int64
	head     []byte // the first bytes of the object
	slow     []byte // the last piece read from elsewhere
	slowAt   int64
	fileType string

	scratch   yara.Scratch
	unpacking unpack.Scratch
	targets   [16]bool // which ClamAV target types the object is of
	program   *exefmt.Layout
	laidOut   bool // program is what there is
	// The perceptual hash of a picture, once asked for.
	hashed, isImage bool
	imageHash       uint64

	regexps clamdb.Regexps
	ticks   int
	halted  bool

	// found and seen are bit sets over strings and rules.
	found   []uint64
	seen    []uint64
	strings []uint32 // found strings
	rulesIn []uint32 // rules to evaluate
	first   map[uint32]int64
	spans   map[uint32][]yara.Span // of strings whose every match is wanted
	sorted  map[uint32]bool
	parts   map[uint32][]yara.Span
	forms   []uint32 // forms with spans in parts
	inForms map[uint32]bool
	results map[uint32]bool // evaluated YARA rules
	modules map[int]modules.Object
	spent   int64                    // bytes that functions of modules looked at
	passing []bool                   // which guards the object passes
	groups  [definitions.Groups]bool // of which some guard passes

	loose   *loose
	late    lateSearch
	chained int // how many of forms are joined

	cur         uint32 // part whose program is running
	emit        func(start, end int64) bool
	collect     func(id uint32, pos int64)
	collectLate func(id uint32, pos int64)
}

func newWorker(set *definitions.Set, l *loose) *worker {
	w := &worker{
		set:     set,
		buf:     make([]byte, 0, window+2*margin),
		head:    make([]byte, 0, filetype.HeadSize),
		slow:    make([]byte, 0, slowSize),
		found:   make([]uint64, (len(set.Strings)+63)/64),
		seen:    make([]uint64, (len(set.Rules)+63)/64),
		first:   map[uint32]int64{},
		spans:   map[uint32][]yara.Span{},
		sorted:  map[uint32]bool{},
		parts:   map[uint32][]yara.Span{},
		inForms: map[uint32]bool{},
		results: map[uint32]bool{},
		modules: map[int]modules.Object{},
		passing: make([]bool, max(1, len(set.Guards))),
		loose:   l,
		late:    lateSearch{rule: noRule, searched: make([]uint64, (len(set.Strings)+63)/64)},
	}
	w.emit = w.matched
	w.collect = w.candidate
	w.collectLate = w.lateCandidate
	w.late.groups[0].matcher = set.Matchers[definitions.GroupLate]
	w.late.groups[1].matcher = set.Matchers[definitions.GroupCommon]
	return w
}

func (w *worker) begin(s *scan, o *object) {
	w.s, w.o, w.size = s, o, o.Size
	w.buf, w.bufAt = w.buf[:0], 0
	w.head = w.head[:0]
	w.slow, w.slowAt = w.slow[:0], 0
	w.halted, w.ticks = false, 0
	w.hashed, w.isImage = false, false
	w.program, w.laidOut = nil, false
	w.scratch.Pattern.Begin()
}

// end forgets what was found.
func (w *worker) end() {
	for _, st := range w.strings {
		w.found[st>>6] = 0
	}
	for _, r := range w.rulesIn {
		w.seen[r>>6] = 0
	}
	w.strings, w.rulesIn, w.forms = w.strings[:0], w.rulesIn[:0], w.forms[:0]
	clear(w.first)
	clear(w.spans)
	clear(w.sorted)
	clear(w.parts)
	clear(w.inForms)
	clear(w.results)
	clear(w.modules)
	w.late.reset()
	w.chained, w.spent = 0, 0
	w.s, w.o = nil, nil
}

// Size of the object.
func (w *worker) Size() int64 { return w.size }

// Slice is pattern.Input: from the window, the head, or read again.
func (w *worker) Slice(off int64, n int) []byte {
	if off < 0 || off >= w.size || n <= 0 {
		return nil
	}
	n = int(min(int64(n), w.size-off))
	end := off + int64(n)
	if off >= w.bufAt && end <= w.bufAt+int64(len(w.buf)) {
		return w.buf[off-w.bufAt : end-w.bufAt]
	}
	if end <= int64(len(w.head)) {
		return w.head[off:end]
	}
	if off >= w.slowAt && end <= w.slowAt+int64(len(w.slow)) {
		return w.slow[off-w.slowAt : end-w.slowAt]
	}
	// Read some before and behind: neighbours are asked for next.
	from := max(0, off-margin)
	to := min(w.size, max(end, from+4*margin))
	if to-from > int64(cap(w.slow)) {
		w.slow = make([]byte, 0, to-from)
	}
	k, _ := w.o.Data.ReadAt(w.slow[:to-from], from)
	w.slow, w.slowAt = w.slow[:k], from
	if off-from >= int64(k) {
		return nil
	}
	return w.slow[off-from : min(end-from, int64(k))]
}

// fill moves the window so that it begins at pos, and returns the bytes that
// were not in it before.
func (w *worker) fill(pos int64) ([]byte, error) {
	from := max(0, pos-margin)
	to := min(w.size, pos+window+margin)
	have := w.bufAt + int64(len(w.buf))
	if len(w.buf) == 0 {
		have = from
	}
	kept := copy(w.buf[:cap(w.buf)], w.buf[min(int64(len(w.buf)), from-w.bufAt):])
	w.bufAt = from
	w.buf = w.buf[:to-from]
	fresh := w.buf[kept:]
	n, err := w.o.Data.ReadAt(fresh, have)
	if n < len(fresh) {
		if err != nil && err != io.EOF {
			return nil, fmt.Errorf("reading at %d: %w", have, err)
		}
		// The file is shorter than it was said to be.
		w.size = have + int64(n)
		w.o.Size = w.size
		w.buf = w.buf[:kept+n]
		fresh = fresh[:n]
	}
	return fresh, nil
}

// pass goes over the object once: hashes, file type and patterns.
func (w *worker) pass() error {
	var hashes [definitions.Algorithms]hash.Hash
	for a := range definitions.Algorithms {
		if w.o.normal == 0 && w.set.Needs(definitions.Detect, a, w.size) {
			hashes[a] = newHash(a)
		}
	}
	for pos := int64(0); pos == 0 || pos < w.size; pos += window {
		if w.s.stop() {
			return nil
		}
		fresh, err := w.fill(pos)
		if err != nil {
			return err
		}
		for _, h := range hashes {
			if h != nil {
				_, _ = h.Write(fresh) // never fails
			}
		}
		if pos == 0 {
			w.head = append(w.head, w.buf[:min(len(w.buf), filetype.HeadSize)]...)
			w.fileType = w.o.fileType
			if w.o.normal == 0 {
				w.fileType = w.detect()
				w.o.fileType = w.fileType
			}
			for i := range w.targets {
				w.targets[i] = w.isTarget(i)
			}
		}
		if pos == 0 {
			w.guards()
		}
		from := int(pos - w.bufAt)
		for g, m := range w.set.Matchers {
			if m != nil && w.groups[g] {
				m.Scan(w.buf, w.bufAt, from, min(from+window, len(w.buf)), w.collect)
			}
		}
	}
	for a, h := range hashes {
		if h != nil {
			w.o.sums[a] = h.Sum(nil)
		}
	}
	w.chains()
	return nil
}

// detect names the type of the object. File type magic of the definitions
// counts where the engine itself sees only data or text.
func (w *worker) detect() string {
	t := filetype.Detect(w.head)
	if t == filetype.Data || t == filetype.Text {
		if m := w.set.FileType(w.head); m != "" {
			return m
		}
	}
	return t
}

// candidate is called by the matcher.
func (w *worker) candidate(id uint32, pos int64) {
	if !w.passing[w.set.VariantGuard(id)] {
		return
	}
	v := w.set.Variants[id]
	part := &w.set.Parts[v.Part]
	str := w.set.Forms[part.Form].String
	st := w.set.Strings[str]
	if st.Flags&definitions.StringAll == 0 && w.found[str>>6]>>(str&63)&1 != 0 {
		return
	}
	if w.ticks++; w.ticks&0xff == 0 || w.scratch.Pattern.Steps > 1<<20 {
		w.scratch.Pattern.Steps = 0
		w.halted = w.s.stop()
	}
	if w.halted {
		return
	}
	r := &w.set.Rules[st.Rule]
	if r.Kind != definitions.KindYARA && !w.targets[r.Target&15] || r.Kind == definitions.KindYARA && w.o.normal != 0 {
		return
	}
	w.cur = v.Part
	pattern.Match(w.set.Prog(v), w, pos, &w.scratch.Pattern, w.emit)
}

// matched is called by a pattern program for a match of part w.cur; it says
// whether further starts matter.
func (w *worker) matched(start, end int64) bool {
	part := &w.set.Parts[w.cur]
	form := &w.set.Forms[part.Form]
	if part.Index == 0 && !w.anchored(form, start) {
		return true
	}
	if form.Parts > 1 {
		if form.Flags&definitions.FormFullWord != 0 && w.clam(form) {
			// A gap is none of its ends.
			if part.Index == 0 && !w.fullWord(form, start, -1) || part.Index == uint32(form.Parts)-1 && !w.fullWord(form, -1, end) {
				return true
			}
		}
		if !w.inForms[part.Form] {
			w.inForms[part.Form] = true
			w.forms = append(w.forms, part.Form)
		}
		list := w.parts[w.cur]
		if len(list) >= maxSpans {
			// The last place counts most for what may follow anywhere.
			list[len(list)-1] = yara.Span{Start: start, End: end}
			return true
		}
		w.parts[w.cur] = append(list, yara.Span{Start: start, End: end})
		return true
	}
	return w.record(form, start, end)
}

// record notes a match of a whole form; it says whether more are wanted.
func (w *worker) record(form *definitions.Form, start, end int64) bool {
	if end <= start {
		return true // a match of nothing is none
	}
	if form.Flags&definitions.FormFullWord != 0 && (form.Parts == 1 || !w.clam(form)) && !w.fullWord(form, start, end) {
		return true
	}
	str := form.String
	st := w.set.Strings[str]
	if w.found[str>>6]>>(str&63)&1 == 0 {
		w.found[str>>6] |= 1 << (str & 63)
		w.strings = append(w.strings, str)
		w.first[str] = start
		w.want(st.Rule)
	} else if start < w.first[str] {
		w.first[str] = start
	}
	if st.Flags&definitions.StringAll == 0 {
		return false
	}
	if form.Parts == 1 && w.clam(form) {
		end = start + 1 // however long it is, it counts once
	}
	if list := w.spans[str]; len(list) < maxSpans {
		w.spans[str] = append(list, yara.Span{Start: start, End: end})
	}
	return true
}

// want puts a rule on the list of those to evaluate.
func (w *worker) want(r uint32) {
	if w.seen[r>>6]>>(r&63)&1 == 0 {
		w.seen[r>>6] |= 1 << (r & 63)
		w.rulesIn = append(w.rulesIn, r)
	}
}

func alnum(b []byte) bool {
	if len(b) != 1 {
		return false
	}
	c := b[0]
	return c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'z'
}

// clam reports whether the form is of a ClamAV signature.
func (w *worker) clam(f *definitions.Form) bool {
	return w.set.Rules[w.set.Strings[f.String].Rule].Kind != definitions.KindYARA
}

// fullWord demands that no letter or digit touches the match; in a wide form a
// letter is one followed by a zero byte. An end below 0 is not looked at.
func (w *worker) fullWord(f *definitions.Form, start, end int64) bool {
	zero := func(off int64) bool {
		b := w.Slice(off, 1)
		return len(b) == 1 && b[0] == 0
	}
	if f.Flags&definitions.FormWide != 0 {
		return !(zero(start-1) && alnum(w.Slice(start-2, 1))) && !(zero(end+1) && alnum(w.Slice(end, 1)))
	}
	return !alnum(w.Slice(start-1, 1)) && !alnum(w.Slice(end, 1))
}

// chains joins the parts of the forms that have several.
func (w *worker) chains() {
	forms := w.forms[w.chained:]
	w.chained = len(w.forms)
	for _, fi := range forms {
		f := &w.set.Forms[fi]
		if w.clam(f) {
			w.clamChain(f)
			continue
		}
		next := w.parts[f.FirstPart+uint32(f.Parts)-1]
		sortSpans(next)
		for k := int(f.Parts) - 2; k >= 0 && len(next) > 0; k-- {
			lo, hi := w.set.Parts[f.FirstPart+uint32(k)+1].Gap()
			list := w.parts[f.FirstPart+uint32(k)]
			sortSpans(list)
			joined := list[:0]
			for _, sp := range list {
				i, _ := slices.BinarySearchFunc(next, sp.End+lo, func(s yara.Span, at int64) int {
					if s.Start < at {
						return -1
					}
					return 1
				})
				if i < len(next) && (hi < 0 || next[i].Start <= sp.End+hi) {
					joined = append(joined, yara.Span{Start: sp.Start, End: next[i].End})
				}
			}
			next = joined
		}
		for _, sp := range next {
			if !w.record(f, sp.Start, sp.End) {
				break
			}
		}
	}
}

// clamChain joins the parts of a form of a ClamAV signature, whose matches
// clamscan counts by their last parts: each counts once, with the first of the
// beginnings that it may have.
func (w *worker) clamChain(f *definitions.Form) {
	prev := w.parts[f.FirstPart]
	for k := uint32(1); k < uint32(f.Parts) && len(prev) > 0; k++ {
		lo, hi := w.set.Parts[f.FirstPart+k].Gap()
		list := w.parts[f.FirstPart+k]
		sortSpans(list)
		slices.SortFunc(prev, func(a, b yara.Span) int { return cmp.Compare(a.End, b.End) })
		joined := list[:0]
		// firsts are the beginnings, ascending, of what may precede a part: a
		// queue of those that no later one undercuts.
		var firsts []yara.Span
		next := 0
		for _, sp := range list {
			for ; next < len(prev) && prev[next].End+lo <= sp.Start; next++ {
				for len(firsts) > 0 && firsts[len(firsts)-1].Start >= prev[next].Start {
					firsts = firsts[:len(firsts)-1]
				}
				firsts = append(firsts, prev[next])
			}
			for hi >= 0 && len(firsts) > 0 && firsts[0].End+hi < sp.Start {
				firsts = firsts[1:]
			}
			if len(firsts) > 0 {
				end := sp.End
				if k == uint32(f.Parts)-1 {
					end = sp.Start + 1 // tells it from others with this beginning
				}
				joined = append(joined, yara.Span{Start: firsts[0].Start, End: end})
			}
		}
		prev = joined
	}
	slices.SortFunc(prev, func(a, b yara.Span) int { return cmp.Compare(a.End, b.End) })
	for _, sp := range prev {
		if !w.record(f, sp.Start, sp.End) {
			return
		}
	}
}

func sortSpans(s []yara.Span) {
	slices.SortFunc(s, func(a, b yara.Span) int {
		switch {
		case a.Start < b.Start:
			return -1
		case a.Start > b.Start:
			return 1
		case a.End < b.End:
			return -1
		case a.End > b.End:
			return 1
		}
		return 0
	})
}
