package definitions

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/bulwarkhq/bulwark/engine/yara"
)

const (
	maxYaraFile = 64 << 20
	maxInclude  = 16
)

// yaraFile adds the rules of a file.
func (c *compiler) yaraFile(f sourceFile) error {
	file, err := c.parseYara(f.path, map[string]bool{}, 0)
	if err != nil {
		return err
	}
	rules, errs := c.scope.Compile(file, len(c.out.rules))
	for _, e := range errs {
		c.yaraProblem(e)
	}
	base := uint32(len(c.out.rules))
	for _, r := range rules {
		id := c.out.name(r.Rule.Name)
		threat := id
		if t := r.Rule.MetaString("threat"); t != "" {
			threat = c.out.name(t)
		}
		rule := Rule{
			Kind: KindYARA, ID: id, Threat: threat, Source: c.source, Base: base, NBase: uint32(len(rules)),
			Strings: uint32(len(c.out.strings)), NStrings: uint32(len(r.Strings)), MaxSize: -1,
		}
		switch r.Rule.MetaString("type") {
		case "potentially_unwanted_application", "pua":
			rule.Type = TypePUA
		case "test":
			rule.Type = TypeTest
		}
		rule.Code, rule.CodeLen = c.out.addCode(r.Code)
		if r.Rule.Private {
			rule.Flags |= RulePrivate
		}
		if r.Rule.Global {
			rule.Flags |= RuleGlobal
			c.out.globals = append(c.out.globals, uint32(len(c.out.rules)))
		}
		if r.Always {
			rule.Flags |= RuleAlways
			c.out.always = append(c.out.always, AlwaysRule{Rule: uint32(len(c.out.rules)), Guard: c.out.guardNumber(r.AlwaysGuard)})
		}
		c.out.guard(len(c.out.rules), r.Guard)
		c.out.rules = append(c.out.rules, rule)
		for i, s := range r.Strings {
			if s.Loose && len(c.report.Slow) < MaxProblems {
				at := r.Rule.Strings[i].Pos
				c.report.Slow = append(c.report.Slow, Problem{c.file.path, at.Line, at.Column, fmt.Sprintf("rule %s: string %s has no fixed byte to look for", r.Rule.Name, s.ID)})
			}
			var forms []form
			for _, yf := range s.Forms {
				f := form{parts: yf.Parts}
				if yf.FullWord {
					f.Flags |= FormFullWord
				}
				if yf.Wide {
					f.Flags |= FormWide
				}
				forms = append(forms, f)
			}
			flags := uint32(0)
			if s.All {
				flags = StringAll
			}
			if s.Late {
				flags |= StringLate
			}
			if err := c.addString(forms, flags); err != nil {
				return err
			}
		}
		c.report.Counts.YARA++
	}
	return nil
}

func (c *compiler) yaraProblem(e *yara.Error) {
	reason := e.Reason
	if e.Rule != "" {
		reason = "rule " + e.Rule + ": " + reason
	}
	c.problem(e.Pos.Line, e.Pos.Column, reason)
}

// parseYara reads a rule file with its includes, which are sought beside it.
func (c *compiler) parseYara(path string, seen map[string]bool, depth int) (*yara.File, error) {
	seen[path] = true
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	src, err := io.ReadAll(io.LimitReader(&ctxReader{c.ctx, f}, maxYaraFile+1))
	if err != nil {
		return nil, err
	}
	if len(src) > maxYaraFile {
		return nil, errors.New("rule file larger than 64 MB")
	}
	outer := c.file
	c.file.path = path
	defer func() { c.file = outer }()
	file, errs := yara.Parse(src)
	for _, e := range errs {
		c.yaraProblem(e)
	}
	for _, inc := range file.Includes {
		p := filepath.Join(filepath.Dir(path), inc.Name)
		if filepath.IsAbs(inc.Name) || !filepath.IsLocal(inc.Name) {
			c.problem(inc.Pos.Line, inc.Pos.Column, fmt.Sprintf("include %q leaves the folder of the rule file", inc.Name))
			continue
		}
		if depth >= maxInclude || seen[p] {
			c.problem(inc.Pos.Line, inc.Pos.Column, fmt.Sprintf("include %q is read already, or too deep", inc.Name))
			continue
		}
		sub, err := c.parseYara(p, seen, depth+1)
		if err != nil {
			c.problem(inc.Pos.Line, inc.Pos.Column, fmt.Sprintf("include %q: %v", inc.Name, err))
			continue
		}
		file.Imports = append(file.Imports, sub.Imports...)
		file.Rules = append(sub.Rules, file.Rules...)
	}
	return file, nil
}
