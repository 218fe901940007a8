package query

import (
	"strings"
	"testing"
	"time"
)

func TestCheck(t *testing.T) {
	s := Schema{"name": String, "age": Int, "on": Bool, "seen": Time, "tags": Collection}
	deep := Expr(Compare{"name", Eq, "a"})
	for range 40 {
		deep = Not{deep}
	}
	wide := Expr(Compare{"name", Eq, "a"})
	for range 100 {
		wide = Or{wide, Compare{"name", Eq, "a"}}
	}
	tooWide := Either(wide, wide)
	for _, x := range []struct {
		q    Query
		want string
	}{
		{Query{}, ""},
		{Query{Filter: wide, Order: []Order{{"seen", true}}}, ""},
		{Query{Filter: All(Compare{"age", Gt, int64(1)}, nil, In{"name", []any{"a"}}, Text{"name", Contains, "x"}, Any{"tags", 0, "x"}, Compare{"seen", Lt, time.Now()}, Compare{"on", Ne, true}, Compare{"name", Eq, nil})}, ""},
		{Query{Filter: deep}, "deeper"},
		{Query{Filter: tooWide}, "more than 200"},
		{Query{Filter: Compare{"nope", Eq, "a"}}, "no field"},
		{Query{Filter: Compare{"age", Eq, "a"}}, "cannot be compared"},
		{Query{Filter: Compare{"age", Gt, nil}}, "cannot be compared"},
		{Query{Filter: Compare{"tags", Eq, "a"}}, "cannot be compared"},
		{Query{Filter: Text{"age", Contains, "1"}}, "integer"},
		{Query{Filter: Any{"name", 0, "1"}}, "string"},
		{Query{Filter: In{"name", nil}}, "no values"},
		{Query{Order: []Order{{"tags", false}}}, "collection"},
		{Query{Order: []Order{{"nope", false}}}, "no field"},
		{Query{Skip: -1}, "skip"},
	} {
		err := s.Check(x.q)
		if (err == nil) != (x.want == "") || (err != nil && !strings.Contains(err.Error(), x.want)) {
			t.Errorf("%+v: %v, want %q", x.q, err, x.want)
		}
	}
	if (Query{}).Limit() != DefaultTop || (Query{Top: 1 << 30}).Limit() != MaxTop || (Query{Top: 3}).Limit() != 3 {
		t.Error("Limit")
	}
}
