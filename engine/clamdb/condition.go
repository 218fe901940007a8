package clamdb

import (
	"encoding/binary"

	"github.com/bulwarkhq/bulwark/engine/exefmt"
	"github.com/bulwarkhq/bulwark/engine/imagehash"
)

// Env is an object as a logical signature sees it.
type Env interface {
	// Matches is how often the pattern of sub-signature n was found, Start where
	// its i-th match begins, in order.
	Matches(n int) int
	Start(n, i int) int64
	// Size and Slice are the object's bytes, as pattern.Input.
	Size() int64
	Slice(off int64, n int) []byte
	// Layout is that of the program; nil where it is none.
	Layout() *exefmt.Layout
	// Containers are the types (CL_TYPE_...) of the containers the object lies
	// in, the outermost first.
	Containers() []string
	// ImageHash is the perceptual hash of the object; ok is false where it is no
	// picture.
	ImageHash() (hash uint64, ok bool)
	// Regexps is the cache of compiled expressions.
	Regexps() *Regexps
	// Stop reports that the time for the object is over.
	Stop() bool
}

const (
	hasEntry = 1 << iota
	hasSections
	hasContainers
	isDirect
)

const (
	specialCompare = iota
	specialMacro
	specialRegex
	specialImage
)

// AppendCode appends the condition of the signature in the form Eval reads: the
// target description, the special sub-signatures, the expression.
func (l *Logical) AppendCode(code []byte) []byte {
	flags := byte(0)
	var ranges []*Range
	if l.Entry != nil {
		flags |= hasEntry
		ranges = append(ranges, l.Entry)
	}
	if l.Sections != nil {
		flags |= hasSections
		ranges = append(ranges, l.Sections)
	}
	if l.Containers != nil {
		flags |= hasContainers
	}
	if l.Direct {
		flags |= isDirect
	}
	code = append(code, flags)
	for _, r := range ranges {
		code = binary.AppendUvarint(code, uint64(r.Min))
		code = binary.AppendUvarint(code, uint64(r.Max))
	}
	if l.Containers != nil {
		code = binary.AppendUvarint(code, uint64(len(l.Containers)))
		for _, c := range l.Containers {
			code = appendText(code, c)
		}
	}
	specials := 0
	for i := range l.Subs {
		if b := &l.Subs[i]; b.Compare != nil || b.Macro != nil || b.Regex != nil || b.Image != nil {
			specials++
		}
	}
	code = binary.AppendUvarint(code, uint64(specials))
	for i := range l.Subs {
		switch b := &l.Subs[i]; {
		case b.Compare != nil:
			code = b.Compare.appendCode(append(code, specialCompare, byte(i)))
		case b.Macro != nil:
			code = append(code, specialMacro, byte(i))
			code = binary.AppendUvarint(code, uint64(b.Macro.Min))
			code = binary.AppendUvarint(code, uint64(b.Macro.Max))
		case b.Regex != nil:
			code = b.Regex.appendCode(append(code, specialRegex, byte(i)), b.Offset)
		case b.Image != nil:
			code = append(code, specialImage, byte(i), byte(b.Image.Distance))
			code = binary.AppendUvarint(code, b.Image.Hash)
		}
	}
	return l.Expr.AppendCode(code)
}

func appendText(code []byte, s string) []byte {
	return append(binary.AppendUvarint(code, uint64(len(s))), s...)
}

func appendBool(code []byte, flags ...bool) []byte {
	b := byte(0)
	for i, f := range flags {
		if f {
			b |= 1 << i
		}
	}
	return append(code, b)
}

func (c *Compare) appendCode(code []byte) []byte {
	code = append(code, byte(c.Trigger), c.Form, byte(c.Bytes))
	code = appendBool(code, c.Little, c.Exact)
	code = binary.AppendVarint(code, c.N)
	code = append(code, byte(len(c.Tests)))
	for _, t := range c.Tests {
		code = binary.AppendUvarint(append(code, t.Op), t.Value)
	}
	return code
}

func (r *Regex) appendCode(code []byte, o Offset) []byte {
	code = appendBool(code, r.Global, r.Rolling, r.Encompass)
	code = append(code, byte(o.Kind))
	code = binary.AppendVarint(code, o.N)
	code = binary.AppendUvarint(code, uint64(o.Section))
	code = binary.AppendUvarint(code, uint64(o.Shift))
	code = appendText(code, string(r.Trigger.AppendCode(nil)))
	return appendText(code, r.Source)
}

// Always reports whether the signature may match where none of its patterns was
// found, so that it must be evaluated for every object.
func (l *Logical) Always() bool {
	zero := func(int) int64 { return 0 }
	if ok, _ := EvalLogical(l.Expr.AppendCode(nil), zero); ok {
		return true
	}
	for i := range l.Subs {
		if l.Subs[i].Image != nil {
			return true
		}
		if r := l.Subs[i].Regex; r != nil {
			if ok, _ := EvalLogical(r.Trigger.AppendCode(nil), zero); ok {
				return true
			}
		}
	}
	return false
}

// Eval evaluates the condition of a logical signature.
func Eval(code []byte, env Env) (bool, error) {
	r := &codeReader{code: code}
	flags := r.byte()
	ok := true
	if flags&hasEntry != 0 {
		lo, hi := r.num(), r.num()
		l := env.Layout()
		ok = l != nil && l.Entry >= lo && l.Entry <= hi
	}
	if flags&hasSections != 0 {
		lo, hi := r.num(), r.num()
		l := env.Layout()
		ok = ok && l != nil && int64(len(l.Sections)) >= lo && int64(len(l.Sections)) <= hi
	}
	if flags&hasContainers != 0 {
		n := r.num()
		var want []string
		for ; n > 0 && !r.bad; n-- {
			want = append(want, string(r.text()))
		}
		ok = ok && contained(want, env.Containers(), flags&isDirect != 0)
	}
	if r.bad {
		return false, ErrCode
	}
	if !ok {
		return false, nil
	}
	special, err := specials(r, env)
	if err != nil {
		return false, err
	}
	return EvalLogical(r.code, func(n int) int64 {
		if s, ok := special[n]; ok {
			return s
		}
		return int64(env.Matches(n))
	})
}

// contained compares the containers with those that are asked for: the last
// ones in order, where CL_TYPE_ANY stands for any; or, of Container, the
// innermost one, where CL_TYPE_ANY is none at all.
func contained(want, have []string, direct bool) bool {
	if direct {
		if want[0] == "CL_TYPE_ANY" {
			return len(have) == 0
		}
		return len(have) > 0 && have[len(have)-1] == want[0]
	}
	if len(have) < len(want) {
		return false
	}
	have = have[len(have)-len(want):]
	for i, w := range want {
		if w != "CL_TYPE_ANY" && w != have[i] {
			return false
		}
	}
	return true
}

type codeReader struct {
	code []byte
	bad  bool
}

func (r *codeReader) byte() byte {
	if len(r.code) == 0 {
		r.bad = true
		return 0
	}
	b := r.code[0]
	r.code = r.code[1:]
	return b
}

func (r *codeReader) uint64() uint64 {
	v, n := binary.Uvarint(r.code)
	if n <= 0 {
		r.bad = true
		return 0
	}
	r.code = r.code[n:]
	return v
}

func (r *codeReader) num() int64 {
	v := r.uint64()
	if v > 1<<62 {
		r.bad = true
		return 0
	}
	return int64(v)
}

func (r *codeReader) signed() int64 {
	v, n := binary.Varint(r.code)
	if n <= 0 {
		r.bad = true
		return 0
	}
	r.code = r.code[n:]
	return v
}

func (r *codeReader) text() []byte {
	n := r.num()
	if r.bad || n > int64(len(r.code)) {
		r.bad = true
		return nil
	}
	t := r.code[:n]
	r.code = r.code[n:]
	return t
}

// specials counts the matches of the special sub-signatures: first those that
// look at patterns only, then the regular expressions, whose triggers may name
// all that stands before them.
func specials(r *codeReader, env Env) (map[int]int64, error) {
	n := r.num()
	if n == 0 && !r.bad {
		return nil, nil
	}
	counts := map[int]int64{}
	count := func(n int) int64 {
		if s, ok := counts[n]; ok {
			return s
		}
		return int64(env.Matches(n))
	}
	var regexes []func()
	for ; n > 0; n-- {
		kind, sub := r.byte(), int(r.byte())
		switch kind {
		case specialCompare:
			trigger := int(r.byte())
			c := &Compare{Form: r.byte(), Bytes: int(r.byte())}
			flags := r.byte()
			c.Little, c.Exact = flags&1 != 0, flags&2 != 0
			c.N = r.signed()
			for t := r.byte(); t > 0 && !r.bad; t-- {
				c.Tests = append(c.Tests, CompareTest{r.byte(), r.uint64()})
			}
			if !r.bad {
				counts[sub] = compared(c, trigger, env)
			}
		case specialMacro:
			lo, hi := r.num(), r.num()
			if !r.bad {
				counts[sub] = near(env, sub, lo, hi)
			}
		case specialRegex:
			flags := r.byte()
			s := search{env: env, global: flags&1 != 0, rolling: flags&2 != 0, encompass: flags&4 != 0}
			s.offset = Offset{Kind: OffsetKind(r.byte()), N: r.signed(), Section: int(r.num()), Shift: r.num()}
			trigger, source := r.text(), r.text()
			counts[sub] = 0
			regexes = append(regexes, func() {
				if ok, err := EvalLogical(trigger, count); ok && err == nil {
					counts[sub] = s.count(source)
				}
			})
		case specialImage:
			distance, hash := int(r.byte()), r.uint64()
			counts[sub] = 0
			if have, ok := env.ImageHash(); ok && imagehash.Distance(have, hash) <= distance {
				counts[sub] = 1
			}
		default:
			r.bad = true
		}
		if r.bad {
			return nil, ErrCode
		}
	}
	for _, f := range regexes {
		f()
	}
	return counts, nil
}

// compared is 1 where the number behind the last match of the trigger is right:
// clamscan looks at that one only.
func compared(c *Compare, trigger int, env Env) int64 {
	n := env.Matches(trigger)
	if n == 0 {
		return 0
	}
	at := env.Start(trigger, n-1) + c.N
	if at >= 0 && at < env.Size() && c.Holds(env.Slice(at, c.Bytes)) {
		return 1
	}
	return 0
}

// near counts the matches of a macro's patterns that begin lo to hi bytes
// behind the beginning of a match of the sub-signature before it.
func near(env Env, sub int, lo, hi int64) int64 {
	n, i := int64(0), 0
	before := env.Matches(sub - 1)
	for k := range env.Matches(sub) {
		at := env.Start(sub, k)
		for i < before && env.Start(sub-1, i)+hi < at {
			i++
		}
		if i < before && env.Start(sub-1, i)+lo <= at {
			n++
		}
	}
	return n
}
