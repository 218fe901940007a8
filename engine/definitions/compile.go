package definitions

import (
	"bufio"
	"context"
	"crypto/md5"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/bulwarkhq/bulwark/engine/clamdb"
	"github.com/bulwarkhq/bulwark/engine/match"
	"github.com/bulwarkhq/bulwark/engine/pattern"
	"github.com/bulwarkhq/bulwark/engine/yara"
)

// CompileOptions are the options of Compile.
type CompileOptions struct {
	// Version to write; empty: YYYY.MMDD.<hash of the contents>.
	Version string
	// Created is the time to write; zero: now.
	Created time.Time
	// Externals are external variables of YARA rules with fixed values: string,
	// int64, float64 or bool. Those of yara.Externals are known anyway.
	Externals map[string]any
	// ContainerKey verifies .cvd files; nil is the key that ClamAV publishes.
	ContainerKey *clamdb.Key
}

// Problem is a line or rule that was left out.
type Problem struct {
	File         string
	Line, Column int // from 1; 0 where the whole file or line is meant
	Reason       string
}

func (p Problem) String() string {
	switch {
	case p.Line == 0:
		return fmt.Sprintf("%s: %s", p.File, p.Reason)
	case p.Column == 0:
		return fmt.Sprintf("%s:%d: %s", p.File, p.Line, p.Reason)
	}
	return fmt.Sprintf("%s:%d:%d: %s", p.File, p.Line, p.Column, p.Reason)
}

// Report says what Compile did.
type Report struct {
	Version string
	Counts  Counts
	// Problems are at most MaxProblems; Dropped counts them all.
	Problems []Problem
	Dropped  int
	// Files are the sources that were read, Unknown those whose extension says
	// nothing to us.
	Files   []string
	Unknown []string
	// Unsupported counts the signatures that are correct but need what is not
	// supported, by its name.
	Unsupported map[string]int
	// Slow are strings without a fixed byte, at most MaxProblems: they are
	// tried at many places of every file.
	Slow []Problem
	// Bytes is the length of the compiled file.
	Bytes int64
	// Sources says of every file of Files what came out of it.
	Sources []SourceReport
}

// MaxProblems bounds the problems a Report lists.
const MaxProblems = 10000

type compiler struct {
	ctx    context.Context
	report Report
	out    tables
	hashes [lists][Algorithms]hashBuilder
	atoms  [Groups][]match.Atom
	ignore map[string][]string // name -> MD5s of the lines, "" for any
	source uint32
	file   sourceFile
	scope  yara.Scope
	extra  extra
	key    *clamdb.Key
	// marks are the counts at the beginning of every source, inside the member
	// of a container that is being read.
	marks  []mark
	inside string
	// macros are the patterns of the macro groups; logical signatures that use
	// them wait in later until all sources are read.
	macros map[int][]*pattern.Node
	later  []func()
}

// Compile reads the sources and writes one compiled file to out, which should
// be empty and is not closed. A bad line or rule is left out and reported; a
// source that cannot be read at all is an error that names it.
func Compile(ctx context.Context, out *os.File, sources []Source, opts CompileOptions) (Report, error) {
	c := &compiler{ctx: ctx, ignore: map[string][]string{}, scope: yara.Scope{Externals: opts.Externals}}
	c.out.names = append(c.out.names, 0, 0) // name 0 is empty
	if c.key = opts.ContainerKey; c.key == nil {
		c.key = clamdb.PublishedKey()
	}
	files, unknown, err := find(ctx, sources)
	if err != nil {
		return c.report, err
	}
	c.report.Unknown = unknown
	c.report.Counts.BuiltIn = BuiltInRules
	if len(files) > sourceMask {
		return c.report, fmt.Errorf("definitions: %d source files, at most %d", len(files), sourceMask)
	}
	for _, f := range files {
		if err := ctx.Err(); err != nil {
			return c.report, err
		}
		c.file = f
		c.source = uint32(len(c.out.sources))
		c.out.sources = append(c.out.sources, f.name)
		c.report.Files = append(c.report.Files, f.path)
		c.beginSource(f)
		if err = c.read(f); err != nil {
			return c.report, fmt.Errorf("definitions source %s: %w", f.path, err)
		}
	}
	c.finishSources()
	for _, do := range c.later {
		do()
	}
	return c.report, c.write(out, opts)
}

// lacks counts signatures that need something that is not supported.
func (c *compiler) lacks(what string, n int) {
	if c.report.Unsupported == nil {
		c.report.Unsupported = map[string]int{}
	}
	c.report.Unsupported[what] += n
}

func (c *compiler) problem(line, column int, reason string) {
	c.report.Dropped++
	if len(c.report.Problems) < MaxProblems {
		file := c.file.path
		if c.inside != "" {
			file += "/" + c.inside
		}
		c.report.Problems = append(c.report.Problems, Problem{file, line, column, reason})
	}
}

func (c *compiler) ignored(name string, line []byte) bool {
	lines, ok := c.ignore[name]
	if !ok {
		return false
	}
	sum := ""
	for _, want := range lines {
		if want == "" {
			return true
		}
		if sum == "" {
			s := md5.Sum(line)
			sum = hex.EncodeToString(s[:])
		}
		if sum == want {
			return true
		}
	}
	return false
}

func (c *compiler) clamFile(f sourceFile) error {
	file, err := os.Open(f.path)
	if err != nil {
		return err
	}
	defer file.Close()
	return c.clamText(bufio.NewReaderSize(file, 1<<20), f.clam)
}

// clamText reads the lines of one text database.
func (c *compiler) clamText(r io.Reader, format clamdb.Format) error {
	pua := format.PUA()
	skipped, err := clamdb.Read(&ctxReader{c.ctx, r}, format,
		func(line int, text []byte, rec clamdb.Record) {
			switch {
			case rec.Ignore != nil:
				c.ignore[rec.Ignore.Name] = append(c.ignore[rec.Ignore.Name], rec.Ignore.Line)
			case rec.Magic != nil:
				c.magic(line, rec.Magic)
			case c.ignored(rec.Name(), text):
				c.report.Counts.Ignored++
			case rec.Hash != nil:
				c.hash(line, rec.Hash, pua)
			case rec.Member != nil:
				c.extra.Members = append(c.extra.Members, memberRule{Member: *rec.Member, Source: c.source})
				c.report.Counts.Members++
			case rec.Body != nil:
				if err := c.body(rec.Body, pua); err != nil {
					c.problem(line, 0, err.Error())
				}
			case rec.Logical != nil:
				c.logicalLine(line, rec.Logical, pua)
			}
		},
		func(p clamdb.Problem) {
			c.problem(p.Line, p.Column, p.Reason)
			if p.Unsupported != "" {
				c.lacks(p.Unsupported, 1)
			}
		})
	c.report.Counts.Level += skipped.Level
	return err
}

// logicalLine adds a logical signature, now or, where it refers to macros, when
// all of them are known.
func (c *compiler) logicalLine(line int, l *clamdb.Logical, pua bool) {
	add := func() {
		if err := c.logical(l, pua); err != nil {
			c.problem(line, 0, err.Error())
		}
	}
	if !slices.ContainsFunc(l.Subs, func(b clamdb.Body) bool { return b.Macro != nil }) {
		add()
		return
	}
	source, file, inside := c.source, c.file, c.inside
	c.later = append(c.later, func() {
		c.source, c.file, c.inside = source, file, inside
		before := c.now()
		add()
		c.report.Sources[source].late(before, c.now())
	})
}

// ctxReader ends reading when the context ends.
type ctxReader struct {
	ctx context.Context
	r   io.Reader
}

func (r *ctxReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}

func (c *compiler) hash(line int, h *clamdb.Hash, pua bool) {
	list, alg := Detect, MD5
	switch len(h.Sum) {
	case 20:
		alg = SHA1
	case 32:
		alg = SHA256
	}
	size := uint32(anySize)
	if h.Size >= anySize {
		c.problem(line, 0, "files of four gigabytes and more cannot be named by size")
		return
	}
	if h.Size >= 0 {
		size = uint32(h.Size)
	}
	switch {
	case h.Allow:
		list = Allow
		c.report.Counts.Allow++
	case h.Of == clamdb.OfSection:
		list = Sections
		c.report.Counts.Sections++
	case h.Of == clamdb.OfImports:
		list = Imports
		c.report.Counts.Imports++
	case alg == MD5:
		c.report.Counts.MD5++
	case alg == SHA1:
		c.report.Counts.SHA1++
	case alg == SHA256:
		c.report.Counts.SHA256++
	}
	tail := c.source
	if pua || isPUA(h.Name) {
		tail |= flagPUA
	}
	c.hashes[list][alg].add(h.Sum, size, c.out.name(h.Name), tail)
}

// isPUA knows ClamAV's naming of potentially unwanted applications.
func isPUA(name string) bool { return strings.HasPrefix(name, "PUA.") }

func typeOf(name string, pua bool) uint8 {
	if pua || isPUA(name) {
		return TypePUA
	}
	return TypeMalware
}

func (c *compiler) body(b *clamdb.Body, pua bool) error {
	if b.Group > 0 {
		if c.macros == nil {
			c.macros = map[int][]*pattern.Node{}
		}
		c.macros[b.Group-1] = append(c.macros[b.Group-1], b.Pattern)
		c.report.Counts.Macros++
		return nil
	}
	forms, err := bodyForms(b, false)
	if err != nil {
		return err
	}
	name := c.out.name(b.Name)
	rule := Rule{
		Kind: KindBody, Type: typeOf(b.Name, pua), Target: uint8(b.Target), ID: name, Threat: name,
		Source: c.source, Strings: uint32(len(c.out.strings)), NStrings: 1, MaxSize: -1,
	}
	c.out.rules = append(c.out.rules, rule)
	if err := c.addString(forms, StringTrigger); err != nil {
		return err
	}
	c.report.Counts.Body++
	return nil
}

// form is a form with its parts, before it gets its place in the tables.
type form struct {
	Form
	parts []pattern.Part
}

// common reports whether the form has a variant that no rare literal stands for.
func (f form) common() bool {
	return slices.ContainsFunc(f.parts, func(p pattern.Part) bool {
		return slices.ContainsFunc(p.Variants, func(v pattern.Variant) bool {
			return len(v.Context) > 0 && !match.Rare(atomOf(v, 0))
		})
	})
}

func atomOf(v pattern.Variant, id uint32) match.Atom {
	return match.Atom{Bytes: v.Context, Mask: v.ContextMask, Lead: v.Lead, ID: id}
}

// bodyForms are the ways in which a pattern may stand in a file. Where its
// matches are counted they are counted as clamscan does, by the last of the
// pieces between gaps of variable length, if each piece has a literal to find.
func bodyForms(b *clamdb.Body, counted bool) ([]form, error) {
	var out []form
	for i, n := range []*pattern.Node{b.Pattern, b.Also} {
		if n == nil {
			continue
		}
		var parts []pattern.Part
		if counted {
			parts, _ = pattern.Compile(n.Clone(), pattern.Options{Split: true, SplitAll: true})
		}
		var err error
		if parts == nil || slices.ContainsFunc(parts, poorPart) {
			parts, err = pattern.Compile(n, pattern.Options{Split: true})
		}
		if err != nil {
			return nil, fmt.Errorf("the pattern %w", err)
		}
		f := form{parts: parts}
		f.Anchor, f.N, f.Shift = uint8(b.Offset.Kind), b.Offset.Packed(), uint32(b.Offset.Shift)
		if b.FullWord {
			f.Flags |= FormFullWord
		}
		if i == 1 || b.Wide {
			f.Flags |= FormWide
		}
		out = append(out, f)
	}
	return out, nil
}

// poorPart reports whether a part is found only by a single byte.
func poorPart(p pattern.Part) bool {
	return slices.ContainsFunc(p.Variants, func(v pattern.Variant) bool { return len(v.Atom) < 2 })
}

func (c *compiler) logical(l *clamdb.Logical, pua bool) error {
	var forms [][]form
	counted := l.Expr.Counts()
	for i := range l.Subs {
		f, err := c.subForms(&l.Subs[i], counted)
		if err != nil {
			return fmt.Errorf("sub-signature %d: %w", i, err)
		}
		forms = append(forms, f)
	}
	code := l.AppendCode(nil)
	none := l.Always()
	name := c.out.name(l.Name)
	rule := Rule{
		Kind: KindLogical, Type: typeOf(l.Name, pua), Target: uint8(l.Target), ID: name, Threat: name,
		Source: c.source, Strings: uint32(len(c.out.strings)), NStrings: uint32(len(forms)),
		MinSize: l.MinSize, MaxSize: l.MaxSize,
	}
	rule.Code, rule.CodeLen = c.out.addCode(code)
	if none {
		rule.Flags |= RuleAlways
		c.out.always = append(c.out.always, AlwaysRule{Rule: uint32(len(c.out.rules))})
	}
	c.out.rules = append(c.out.rules, rule)
	for _, f := range forms {
		if err := c.addString(f, StringAll); err != nil {
			return err
		}
	}
	c.report.Counts.Logical++
	return nil
}

// subForms are the forms of a sub-signature: none for those that are no
// patterns, of a macro those of its whole group.
func (c *compiler) subForms(b *clamdb.Body, counted bool) ([]form, error) {
	if b.Macro == nil {
		return bodyForms(b, counted)
	}
	group := c.macros[b.Macro.Group]
	if len(group) == 0 {
		return nil, fmt.Errorf("macro group %d has no signatures", b.Macro.Group)
	}
	var out []form
	for _, n := range group {
		f, err := bodyForms(&clamdb.Body{Pattern: n.Clone()}, counted)
		if err != nil {
			return nil, err
		}
		out = append(out, f...)
	}
	return out, nil
}

// addString gives a string of the last rule its place in the tables.
func (c *compiler) addString(forms []form, flags uint32) error {
	s := uint32(len(c.out.strings))
	if flags&StringLate != 0 && slices.ContainsFunc(forms, form.common) {
		flags |= StringCommon
	}
	c.out.strings = append(c.out.strings, String{Rule: uint32(len(c.out.rules) - 1), Flags: flags})
	for _, f := range forms {
		f.Form.String = s
		f.FirstPart = uint32(len(c.out.parts))
		f.Form.Parts = uint16(len(f.parts))
		fi := uint32(len(c.out.forms))
		c.out.forms = append(c.out.forms, f.Form)
		for i, p := range f.parts {
			part := Part{Form: fi, Index: uint32(i), GapMin: uint32(p.GapMin), GapMax: noOffset}
			if p.GapMax >= 0 {
				part.GapMax = uint32(p.GapMax)
			}
			pi := uint32(len(c.out.parts))
			c.out.parts = append(c.out.parts, part)
			for _, v := range p.Variants {
				at, err := c.out.addProg(v.Prog)
				if err != nil {
					return err
				}
				if id := uint32(len(c.out.variants)); len(v.Context) > 0 {
					g := c.out.group(flags)
					c.atoms[g] = append(c.atoms[g], atomOf(v, id))
				} else {
					c.out.loose = append(c.out.loose, id)
				}
				c.out.variants = append(c.out.variants, Variant{Prog: at, Part: pi})
			}
		}
	}
	return nil
}
