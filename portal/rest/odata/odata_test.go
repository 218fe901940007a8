package odata

import (
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bulwarkhq/bulwark/portal/query"
)

var schema = query.Schema{"name": query.String, "age": query.Int, "on": query.Bool, "seen": query.Time, "tags": query.Collection}

func TestFilter(t *testing.T) {
	eq := func(f string, v any) query.Expr { return query.Compare{Field: f, Op: query.Eq, Value: v} }
	at := time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)
	for in, want := range map[string]query.Expr{
		`name eq 'a'`:                               eq("name", "a"),
		`name eq 'O''Brien'`:                        eq("name", "O'Brien"),
		`name ne null`:                              query.Compare{Field: "name", Op: query.Ne},
		`age ge -5`:                                 query.Compare{Field: "age", Op: query.Ge, Value: int64(-5)},
		`on eq true`:                                eq("on", true),
		`seen gt 2026-01-31T12:00:00Z`:              query.Compare{Field: "seen", Op: query.Gt, Value: at},
		`seen le 2026-01-31T13:00:00+01:00`:         query.Compare{Field: "seen", Op: query.Le, Value: at},
		`seen lt '2026-01-31T12:00:00Z'`:            query.Compare{Field: "seen", Op: query.Lt, Value: at},
		`name in ('a', 'b')`:                        query.In{Field: "name", Values: []any{"a", "b"}},
		`age in (1)`:                                query.In{Field: "age", Values: []any{int64(1)}},
		`contains(name, 'x,y)')`:                    query.Text{Field: "name", Match: query.Contains, Value: "x,y)"},
		`startswith(name,'x')`:                      query.Text{Field: "name", Match: query.StartsWith, Value: "x"},
		`endswith(name,'x')`:                        query.Text{Field: "name", Match: query.EndsWith, Value: "x"},
		`tags/any(t: t eq 'x')`:                     query.Any{Field: "tags", Value: "x"},
		`tags/any(t:contains(t,'x'))`:               query.Any{Field: "tags", Match: query.Contains, Value: "x"},
		`not name eq 'a'`:                           query.Not{Operand: eq("name", "a")},
		`name eq 'a' or name eq 'b' and age eq 1`:   query.Or{Left: eq("name", "a"), Right: query.And{Left: eq("name", "b"), Right: eq("age", int64(1))}},
		`(name eq 'a' or name eq 'b') and age eq 1`: query.And{Left: query.Or{Left: eq("name", "a"), Right: eq("name", "b")}, Right: eq("age", int64(1))},
	} {
		got, err := Filter(in, schema)
		if err != nil {
			t.Errorf("%s: %v", in, err)
			continue
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s: %s", in, d)
		}
	}
}

func TestFilterErrors(t *testing.T) {
	for in, want := range map[string]string{
		``:                                       "at character 1: a field",
		`name`:                                   "at character 5: after name one of eq",
		`Name eq 'a'`:                            "did you mean name",
		`nope eq 'a'`:                            "known: age, name, on, seen, tags",
		`name eq a`:                              "put quotes around it: 'a'",
		`name eq 'a`:                             "closing quote",
		`age eq 'a'`:                             "age has the type integer",
		`age eq 99999999999999999999`:            "does not fit",
		`on eq 1`:                                "does not fit",
		`seen gt yesterday`:                      "for example 2026-01-31T12:00:00Z",
		`name eq 'a' name`:                       "at character 13",
		`name gt null`:                           "null can only",
		`name in ()`:                             "a value is expected",
		`name in ('a',null)`:                     "null cannot be in a list",
		`contains(age,'1')`:                      "text functions need a string",
		`tags eq 'a'`:                            "use tags/any",
		`name/any(x: x eq 'a')`:                  "no collection",
		`tags/any(x: y eq 'a')`:                  "x is expected",
		`(name eq 'a'`:                           `")" is expected`,
		`name eq 'a' ; drop`:                     `";"`,
		strings.Repeat("(", 100) + "name eq 'a'": "nests deeper",
		strings.Repeat("not ", 100) + "name eq 'a'":            "nests deeper",
		"name eq 'a'" + strings.Repeat(" or name eq 'a'", 300): "more than 200 terms",
		"name in ('a'" + strings.Repeat(",'a'", 300) + ")":     "more than 200 terms",
		"name eq '" + strings.Repeat("a", 9000) + "'":          "longer than",
	} {
		_, err := Filter(in, schema)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60s: %v, want something with %q", in, err, want)
		}
	}
}

func TestParse(t *testing.T) {
	q := func(s string) url.Values { v, _ := url.ParseQuery(s); return v }
	o, err := Parse(q("$top=5&$skip=2&$count=true&$orderby=name desc,age&$expand=evidence&$filter=age gt 1&other=1"), schema, "evidence")
	want := Options{Expand: []string{"evidence"}, Query: query.Query{
		Top: 5, Skip: 2, Count: true,
		Order: []query.Order{{Field: "name", Descending: true}, {Field: "age"}}, Filter: query.Compare{Field: "age", Op: query.Gt, Value: int64(1)},
	}}
	if d := cmp.Diff(want, o); err != nil || d != "" {
		t.Errorf("%v %s", err, d)
	}
	for _, bad := range []string{
		"$top=-1", "$top=0", "$top=10001", "$top=x", "$skip=-1", "$count=1", "$orderby=tags", "$orderby=nope", "$orderby=name up",
		"$orderby=name,name,name,name,name,name", "$expand=evidence", "$select=name", "$top=1&$top=2", "$orderby=",
	} {
		if _, err := Parse(q(bad), schema); err == nil {
			t.Errorf("%s was accepted", bad)
		}
	}
}

func FuzzFilter(f *testing.F) {
	for _, s := range []string{`name eq 'a' and (age gt 1 or not on eq true)`, `tags/any(t: contains(t,'x'))`, `seen lt 2026-01-31T12:00:00Z`, `name in ('a','b''c')`, `((`, `'`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		e, err := Filter(s, schema)
		if err != nil {
			return
		}
		if e == nil {
			t.Fatal("no expression and no error")
		}
		if err := schema.Check(query.Query{Filter: e}); err != nil {
			t.Fatalf("%q was read into what the schema refuses: %v", s, err)
		}
	})
}
