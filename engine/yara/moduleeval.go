package yara

import (
	"runtime"

	"github.com/bulwarkhq/bulwark/engine/pattern"
	"github.com/bulwarkhq/bulwark/engine/yara/modules"
)

// fromModule is a module's value as a value of the evaluator.
func (e *evaluator) fromModule(v any) value {
	switch x := v.(type) {
	case nil:
		return value{}
	case int64:
		return integer(x)
	case float64:
		return value{kind: typeFloat, f: x}
	case string:
		e.chargeBytes(len(x))
		return value{kind: typeText, s: []byte(x)}
	case bool:
		return boolean(x)
	}
	return value{kind: typeObject, o: v}
}

// searcher is a regular expression that a function of a module may use.
type searcher struct {
	prog []byte
	e    *evaluator
}

func (e *evaluator) searcher(prog []byte) searcher { return searcher{prog, e} }

// Match charges the evaluation with what the search cost.
func (s searcher) Match(text []byte) bool {
	scratch := s.e.scratch
	before := scratch.Steps
	found := pattern.Search(s.prog, text, scratch)
	s.e.charge((scratch.Steps - before) / stepMoves)
	return found
}

func (e *evaluator) regex() []byte {
	prog := e.bytes(e.num())
	e.chargeBytes(len(prog))
	if _, err := pattern.Check(prog); err != nil {
		e.fail()
	}
	return prog
}

func (e *evaluator) member() value {
	name := string(e.bytes(e.num()))
	v := e.eval()
	o, ok := v.o.(modules.Object)
	switch {
	case v.kind == typeUnknown:
		return v
	case !ok:
		return value{}
	}
	return e.fromModule(o.Get(name))
}

func (e *evaluator) index() value {
	of, at := e.eval(), e.eval()
	if of.kind == typeUnknown || at.kind == typeUnknown {
		return unknownValue
	}
	switch x := of.o.(type) {
	case modules.List:
		if at.kind == typeInt && at.i >= 0 && at.i < int64(x.N) {
			return e.fromModule(x.At(int(at.i)))
		}
	case *modules.Dict:
		if at.kind == typeText {
			return e.fromModule(x.Values[string(at.s)])
		}
	}
	return value{}
}

func (e *evaluator) call() value {
	n := e.num()
	if n > maxArguments {
		e.fail()
	}
	callee := e.eval()
	args := make([]any, 0, maxArguments)
	defined := true
	for range n {
		a := e.eval()
		switch a.kind {
		case typeInt:
			args = append(args, a.i)
		case typeBool:
			args = append(args, a.i != 0)
		case typeFloat:
			args = append(args, a.f)
		case typeText:
			e.chargeBytes(len(a.s))
			args = append(args, string(a.s))
		case typeRegex:
			args = append(args, e.searcher(a.s))
		default:
			defined = false
		}
	}
	f, ok := callee.o.(modules.Func)
	if e.dry && (ok || callee.kind == typeUnknown) {
		return unknownValue
	}
	if !ok || !defined {
		return value{}
	}
	defer func() {
		// Arguments of other types than the compiler lets through come from
		// damaged code.
		if r := recover(); r != nil {
			if _, ok := r.(*runtime.TypeAssertionError); ok {
				e.fail()
			}
			panic(r)
		}
	}()
	before := e.env.Spent()
	v := f(args)
	e.charge((e.env.Spent() - before) / stepBytes)
	return e.fromModule(v)
}

// entrypoint is the offset at which a program begins to run.
func (e *evaluator) entrypoint() value {
	for _, name := range []string{"pe", "elf"} {
		n, _ := modules.Find(name)
		if o := e.env.Module(n); o != nil {
			if v := e.fromModule(o.Get(modules.EntryPoint)); v.kind == typeInt {
				return v
			}
		}
	}
	return value{}
}

// items are what a loop over a module's value runs over: the number of them,
// and the variables of each.
func (e *evaluator) items(v value) (n int, at func(i int) [2]value) {
	switch x := v.o.(type) {
	case modules.List:
		return x.N, func(i int) [2]value { return [2]value{e.fromModule(x.At(i))} }
	case *modules.Dict:
		return len(x.Keys), func(i int) [2]value {
			k := x.Keys[i]
			return [2]value{{kind: typeText, s: []byte(k)}, e.fromModule(x.Values[k])}
		}
	}
	return 0, nil
}
