package yara

import (
	"github.com/bulwarkhq/bulwark/engine/pattern"
	"github.com/bulwarkhq/bulwark/engine/yara/modules"
)

// loopVar is a variable of a for loop.
type loopVar struct {
	name string
	typ  *modules.Type
}

var scalarTypes = map[modules.Kind]valueType{
	modules.Int: typeInt, modules.Float: typeFloat, modules.String: typeText, modules.Bool: typeBool,
}

var scalarKinds = map[valueType]modules.Kind{
	typeInt: modules.Int, typeFloat: modules.Float, typeText: modules.String, typeBool: modules.Bool,
}

// reference compiles a name with its members, indexes and calls, and returns
// its type.
func (c *compiler) reference(e *Expr) (*modules.Type, *Error) {
	switch e.Op {
	case OpName:
		return c.root(e)
	case OpMember:
		c.code = append(c.code, codeMember)
		c.text(e.Str)
		t, err := c.reference(e.Args[0])
		if err != nil {
			return nil, err
		}
		f, ok := t.Fields[e.Str]
		if !ok {
			if t.Kind != modules.Struct {
				return nil, errAt(e.Pos, "%v has no members", t.Kind)
			}
			return nil, errAt(e.Pos, "there is no member %q", e.Str)
		}
		return f, nil
	case OpIndex:
		c.code = append(c.code, codeIndex)
		t, err := c.reference(e.Args[0])
		if err != nil {
			return nil, err
		}
		want := typeInt
		switch t.Kind {
		case modules.Array:
		case modules.Map:
			want = typeText
		default:
			return nil, errAt(e.Pos, "%v has no elements", t.Kind)
		}
		_, err = c.want(e.Args[1], want)
		return t.Elem, err
	case OpCall:
		return c.call(e)
	}
	return nil, errAt(e.Pos, "this value has no members")
}

// root compiles the name at the beginning of a reference.
func (c *compiler) root(e *Expr) (*modules.Type, *Error) {
	for i := len(c.vars) - 1; i >= 0; i-- {
		if c.vars[i].name == e.Str {
			c.code = append(c.code, codeVar)
			c.num(i)
			return c.vars[i].typ, nil
		}
	}
	if c.imports[e.Str] {
		n, ok := modules.Find(e.Str)
		if !ok {
			return nil, errAt(e.Pos, "module %q is not supported", e.Str)
		}
		c.code = append(c.code, codeModule)
		c.num(n)
		c.modules |= 1 << n
		return modules.Get(n).Type, nil
	}
	if _, known := modules.Find(e.Str); known {
		return nil, errAt(e.Pos, "module %q is not imported", e.Str)
	}
	if _, err := c.name(e); err != nil {
		return nil, err
	}
	return nil, errAt(e.Pos, "%q has no members and cannot be called", e.Str)
}

func (c *compiler) text(s string) {
	c.num(len(s))
	c.code = append(c.code, s...)
}

func (c *compiler) call(e *Expr) (*modules.Type, *Error) {
	c.code = append(c.code, codeCall)
	c.num(len(e.Args) - 1)
	t, err := c.reference(e.Args[0])
	if err != nil {
		return nil, err
	}
	if t.Kind != modules.Function {
		return nil, errAt(e.Pos, "%v cannot be called", t.Kind)
	}
	if len(e.Args)-1 > maxArguments {
		return nil, errAt(e.Pos, "more than %d arguments", maxArguments)
	}
	var letters []byte
	for _, a := range e.Args[1:] {
		if a.Op == OpRegex {
			c.code = append(c.code, codeRegex)
			if err := c.regex(a); err != nil {
				return nil, err
			}
			letters = append(letters, modules.Regex.Letter())
			continue
		}
		vt, err := c.expr(a)
		if err != nil {
			return nil, err
		}
		letters = append(letters, scalarKinds[vt].Letter())
	}
	if !t.Accepts(string(letters)) {
		return nil, errAt(e.Pos, "wrong arguments for this function")
	}
	return &modules.Type{Kind: t.Result}, nil
}

// maxArguments of a call.
const maxArguments = 8

// regex appends the program of a regular expression.
func (c *compiler) regex(e *Expr) *Error {
	prog, err := pattern.CompileSearch(e.Node.Clone())
	if err != nil {
		return errAt(e.Pos, "the regular expression %v", err)
	}
	c.num(len(prog))
	c.code = append(c.code, prog...)
	return nil
}

// value compiles a reference that must be a plain value.
func (c *compiler) value(e *Expr) (valueType, *Error) {
	t, err := c.reference(e)
	if err != nil {
		return 0, err
	}
	v, ok := scalarTypes[t.Kind]
	if !ok {
		return 0, errAt(e.Pos, "%v is no value", t.Kind)
	}
	return v, nil
}

// forValue compiles a loop over an array or a dictionary of a module.
func (c *compiler) forValue(e *Expr) (valueType, *Error) {
	c.code = append(c.code, codeForValue)
	if err := c.quantifier(e.Quant); err != nil {
		return 0, err
	}
	c.num(len(c.vars))
	c.num(len(e.Vars))
	t, err := c.reference(e.Iter.Value)
	if err != nil {
		return 0, err
	}
	switch {
	case t.Kind == modules.Array && len(e.Vars) == 1:
		return c.body(e, loopVar{e.Vars[0], t.Elem})
	case t.Kind == modules.Map && len(e.Vars) == 2:
		return c.body(e, loopVar{e.Vars[0], &modules.Type{Kind: modules.String}}, loopVar{e.Vars[1], t.Elem})
	case t.Kind == modules.Array || t.Kind == modules.Map:
		return 0, errAt(e.Pos, "a loop over %v has %d variables", t.Kind, map[modules.Kind]int{modules.Array: 1, modules.Map: 2}[t.Kind])
	}
	return 0, errAt(e.Pos, "a loop cannot run over %v", t.Kind)
}

// body compiles what a loop repeats, with its variables in scope.
func (c *compiler) body(e *Expr, vars ...loopVar) (valueType, *Error) {
	if len(c.vars)+len(vars) > maxVars {
		return 0, errAt(e.Pos, "more than %d loop variables", maxVars)
	}
	n := len(c.vars)
	c.vars = append(c.vars, vars...)
	_, err := c.sized(e.Args[0], typeBool, typeInt, typeFloat, typeText)
	c.vars = c.vars[:n]
	return typeBool, err
}
