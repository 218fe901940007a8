// Package query is the small language in which the portal's readers (the REST
// API's $filter, the web pages' search fields) ask the control store for rows:
// a filter over named fields, an order and a window. Consumers publish the
// fields they offer as a Schema; a store maps those names to its own columns.
// So there is one way from a question to SQL, and nothing that a user typed is
// ever part of the SQL text.
package query

import (
	"fmt"
	"time"
)

// Type of a field's values.
type Type uint8

// The types. A Collection holds strings and is asked with Any.
const (
	String Type = iota + 1
	Int
	Bool
	Time
	Collection
)

// String names the type as error messages show it.
func (t Type) String() string {
	switch t {
	case String:
		return "string"
	case Int:
		return "integer"
	case Bool:
		return "boolean"
	case Time:
		return "date and time"
	case Collection:
		return "collection of strings"
	}
	return "unknown type"
}

// Schema is the fields that may be filtered and ordered by, with their types.
type Schema map[string]Type

// Op compares a field with a value.
type Op uint8

// The comparison operators.
const (
	Eq Op = iota + 1
	Ne
	Gt
	Ge
	Lt
	Le
)

// Match is a way in which a text can match.
type Match uint8

// The text matches; all ignore case.
const (
	Contains Match = iota + 1
	StartsWith
	EndsWith
)

// Expr is a filter: one of And, Or, Not, Compare, In, Text, Any.
type Expr interface{ isExpr() }

// And holds when both sides do.
type And struct{ Left, Right Expr }

// Or holds when one of the sides does.
type Or struct{ Left, Right Expr }

// Not holds when its operand does not.
type Not struct{ Operand Expr }

// Compare holds when the field stands in relation Op to Value, which has the
// Go type of the field (string, int64, bool, time.Time) or is nil for "has no
// value" (only Eq and Ne).
type Compare struct {
	Field string
	Op    Op
	Value any
}

// In holds when the field equals one of the values.
type In struct {
	Field  string
	Values []any
}

// Text holds when a string field matches.
type Text struct {
	Field string
	Match Match
	Value string
}

// Any holds when one element of a Collection equals Value (Match zero) or
// matches it.
type Any struct {
	Field string
	Match Match
	Value string
}

func (And) isExpr()     {}
func (Or) isExpr()      {}
func (Not) isExpr()     {}
func (Compare) isExpr() {}
func (In) isExpr()      {}
func (Text) isExpr()    {}
func (Any) isExpr()     {}

// Order is one sort key.
type Order struct {
	Field      string
	Descending bool
}

// Query asks for rows. The zero Query asks for the first DefaultTop rows.
type Query struct {
	Filter Expr // nil for all
	Order  []Order
	Top    int // at most MaxTop; zero for DefaultTop
	Skip   int
	// Count asks also for the number of rows that the filter holds for.
	Count bool
}

// Limits of one query.
const (
	DefaultTop = 1000
	MaxTop     = 10000
	MaxSkip    = 10_000_000
	// MaxDepth bounds how deep a filter may nest, MaxTerms how many
	// comparisons it may hold.
	MaxDepth = 32
	MaxTerms = 200
)

// Limit is the number of rows to return.
func (q Query) Limit() int {
	switch {
	case q.Top <= 0:
		return DefaultTop
	case q.Top > MaxTop:
		return MaxTop
	}
	return q.Top
}

// All joins filters with And; nil members are left out.
func All(exprs ...Expr) Expr {
	var out Expr
	for _, e := range exprs {
		switch {
		case e == nil:
		case out == nil:
			out = e
		default:
			out = And{out, e}
		}
	}
	return out
}

// Either joins filters with Or; nil members are left out.
func Either(exprs ...Expr) Expr {
	var out Expr
	for _, e := range exprs {
		switch {
		case e == nil:
		case out == nil:
			out = e
		default:
			out = Or{out, e}
		}
	}
	return out
}

// Check reports the first thing in the query that the schema does not allow,
// so that a store can rely on names and types.
func (s Schema) Check(q Query) error {
	terms := 0
	if q.Filter != nil {
		if err := s.check(q.Filter, 0, &terms); err != nil {
			return err
		}
	}
	for _, o := range q.Order {
		t, ok := s[o.Field]
		if !ok {
			return fmt.Errorf("there is no field %q to order by", o.Field)
		}
		if t == Collection {
			return fmt.Errorf("field %q is a collection and cannot be ordered by", o.Field)
		}
	}
	if q.Skip < 0 || q.Skip > MaxSkip {
		return fmt.Errorf("cannot skip %d rows: 0 to %d", q.Skip, MaxSkip)
	}
	return nil
}

func (s Schema) check(e Expr, depth int, terms *int) error {
	if depth > MaxDepth {
		return fmt.Errorf("the filter nests deeper than %d", MaxDepth)
	}
	switch e := e.(type) {
	case And:
		return s.both(e.Left, e.Right, depth, terms)
	case Or:
		return s.both(e.Left, e.Right, depth, terms)
	}
	if *terms++; *terms > MaxTerms {
		return fmt.Errorf("the filter has more than %d terms", MaxTerms)
	}
	switch e := e.(type) {
	case Not:
		return s.check(e.Operand, depth+1, terms)
	case Compare:
		return s.value(e.Field, e.Value, e.Op == Eq || e.Op == Ne)
	case In:
		if len(e.Values) == 0 {
			return fmt.Errorf("in: no values for field %q", e.Field)
		}
		if *terms += len(e.Values); *terms > MaxTerms {
			return fmt.Errorf("the filter has more than %d terms", MaxTerms)
		}
		for _, v := range e.Values {
			if err := s.value(e.Field, v, false); err != nil {
				return err
			}
		}
		return nil
	case Text:
		return s.want(e.Field, String)
	case Any:
		return s.want(e.Field, Collection)
	}
	return fmt.Errorf("unknown filter %T", e)
}

// both walks the left side without counting it as nested: "a and b and c" is a
// long list, not a deep one.
func (s Schema) both(l, r Expr, depth int, terms *int) error {
	if err := s.check(l, depth, terms); err != nil {
		return err
	}
	return s.check(r, depth+1, terms)
}

func (s Schema) want(field string, want Type) error {
	t, ok := s[field]
	if !ok {
		return fmt.Errorf("there is no field %q", field)
	}
	if t != want {
		return fmt.Errorf("field %q is a %s, not a %s", field, t, want)
	}
	return nil
}

func (s Schema) value(field string, v any, nilAllowed bool) error {
	t, ok := s[field]
	if !ok {
		return fmt.Errorf("there is no field %q", field)
	}
	fits := false
	switch v.(type) {
	case nil:
		fits = nilAllowed && t != Collection
	case string:
		fits = t == String
	case int64:
		fits = t == Int
	case bool:
		fits = t == Bool
	case time.Time:
		fits = t == Time
	}
	if !fits {
		return fmt.Errorf("field %q is a %s and cannot be compared with %v", field, t, v)
	}
	return nil
}
