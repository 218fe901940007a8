package kql

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"
)

// queries that are well-formed, in the manner of public hunting collections.
var good = []string{
	"DeviceProcessEvents | take 10",
	"DeviceProcessEvents\n| where Timestamp > ago(7d)\n| where FileName in~ (\"curl\", \"wget\") and ProcessCommandLine has_any ('http://', @'\\d')\n| project Timestamp, DeviceName, FileName, cmd = ProcessCommandLine // why\n| sort by Timestamp desc, FileName asc nulls last\n| limit 50",
	"let suspicious = dynamic(['a', \"b\"]);\nlet since = 1d;\nlet f = (x:string, n:long = 3) { strlen(x) > n };\nDeviceEvents | where f(ActionType) and ActionType in (suspicious) | summarize n = count(), dcount(DeviceId), (first, last) = arg_min(Timestamp, *) by bin(Timestamp, 1h), DeviceName",
	"let T = materialize(DeviceFileEvents | where FolderPath startswith \"/tmp\");\nT | join kind=leftanti hint.strategy=broadcast (DeviceProcessEvents | project SHA256, InitiatingProcessFileName) on $left.SHA256 == $right.SHA256, InitiatingProcessFileName",
	"union isfuzzy=true withsource=Kind Device*Events, (AlertInfo | where Severity == 'High') | count",
	"DeviceEvents | extend d = parse_json(AdditionalFields) | extend a = d.x.y[0]['z w'], b = tostring(d['q']) | mv-expand item = d.list to typeof(string), d.other limit 100",
	"DeviceProcessEvents | parse kind=regex flags=i ProcessCommandLine with * \"user=\" User:string \" port=\" Port:int *",
	"DeviceNetworkEvents | make-series n = count() default=0 on Timestamp from ago(1d) to now() step 1h by DeviceName | render timechart with (title=\"a b\", ysplit=none)",
	"print a = 1 + 2 * -3, b = strcat(\"x\", 'y'), t = 1.5h, u = datetime(2026-01-31T10:00:00Z), v = timespan(1.02:03:04), w = dynamic({\"a\": [1, 2]})",
	"range x from 1 to 10 step 1 | where x between (3 .. 5) or x !between (1 .. 9) | project-away x",
	"datatable(a:string, b:long) ['x', 1, 'y', 2,] | top 1 by b asc",
	"search in (DeviceEvents, DeviceFile*) \"eicar\"",
	"DeviceEvents | project-keep Device*, Timestamp | project-rename When = Timestamp | project-reorder Device* asc, When | distinct *",
	"DeviceEvents | where ActionType !has_any (\"a\") and not(DeviceName !~ \"x\") and ActionType matches regex @\"^a.*\\.b$\" and isnotempty(['DeviceName'])",
	"DeviceEvents | mv-apply e = parse_json(AdditionalFields) on (where tostring(e) != '' | summarize make_list(e))",
	"DeviceEvents | evaluate bag_unpack(d, 'p_') | top-hitters 5 of DeviceName by x | sample-distinct 3 of DeviceName | getschema",
	"set notruncation;\nlet x = view () { DeviceEvents }; x | as y | serialize r = row_number() | invoke f(3) | lookup kind=leftouter (T) on a",
	"DeviceEvents | where Timestamp >= datetime(2026-01-01) and Timestamp < todatetime('2026-02-01') and 7zip == 0x1F and Name == h@\"secret\"",
	"T | where a == ```several\nlines \"of\" text```",
	"let a = 5; let b = toscalar(T | summarize max(x)); print a, b",
}

func TestParse(t *testing.T) {
	for _, q := range good {
		if _, err := Parse(q); err != nil {
			var e *Error
			if errors.As(err, &e) {
				line, col := LineColumn(q, e.Pos)
				t.Errorf("%d:%d: %v in\n%s", line, col, e, q)
			} else {
				t.Error(err)
			}
		}
	}
}

func TestParseErrors(t *testing.T) {
	for _, tc := range []struct {
		query, want string
		line, col   int
	}{
		{"", "the query has no table", 1, 1},
		{"T | wher x == 1", "no operator wher; did you mean where?", 1, 5},
		{"T | where x = 1", "= gives a name to a column; a comparison is written ==", 1, 13},
		{"T\n| where x == ", "a value is expected here, not the end of the query", 2, 14},
		{"T | where (x == 1", ") is expected here, not the end of the query", 1, 18},
		{"T | where x == \"abc", "has no end", 1, 16},
		{"T | where x == “abc”", "use plain quotes", 1, 16},
		{"T | take 1 T2", "stands after the end of the query", 1, 12},
		{"T | join kind=inner2 (U) on x", "one of innerunique", 1, 15},
		{"T | where x && y", "the operator is called and", 1, 13},
		{"T | top-nested 3 of x by count()", "is not supported", 1, 5},
		{"find in (T) where x", "find is not supported", 1, 1},
		{"T | where t > datetime(2026-99-01)", "cannot read datetime(2026-99-01); write it like", 1, 15},
		{`T | where x == "\q"`, "unknown escape sequence", 1, 17},
		{"let x 5; T", "= is expected here, not “5”", 1, 7},
		{strings.Repeat("(", 200) + "T", "nested more than", 1, 0},
		{"T | where " + strings.Repeat("-", 200) + "x > 1", "nested more than", 1, 0},
		{"T | extend y = x" + strings.Repeat(".a", 200), "nested more than", 1, 0},
		{"T | where \xff", "not valid UTF-8", 1, 1},
		{"T | where x == 99999999999999999999999999e999", "out of range", 1, 16},
	} {
		_, err := Parse(tc.query)
		var e *Error
		if !errors.As(err, &e) || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%.60q: %v, want %q", tc.query, err, tc.want)
			continue
		}
		if line, col := LineColumn(tc.query, e.Pos); tc.col > 0 && (line != tc.line || col != tc.col) {
			t.Errorf("%.60q: error at %d:%d, want %d:%d", tc.query, line, col, tc.line, tc.col)
		}
	}
}

func TestPrecedence(t *testing.T) {
	q, err := Parse("T | where a == 1 or b == 2 and c + 2 * d > -1")
	if err != nil {
		t.Fatal(err)
	}
	or := q.Body.Ops[0].(*Where).Cond.(*Binary)
	and, ok := or.R.(*Binary)
	if or.Op != "or" || !ok || and.Op != "and" {
		t.Fatalf("or %+v", or)
	}
	greater := and.R.(*Binary)
	plus, ok := greater.L.(*Binary)
	if greater.Op != ">" || !ok || plus.Op != "+" || plus.R.(*Binary).Op != "*" {
		t.Fatalf("%+v", greater)
	}
}

func TestTimespans(t *testing.T) {
	for _, tc := range []struct {
		in   string
		want time.Duration
		out  string
	}{
		{"1.5h", 90 * time.Minute, "01:30:00"},
		{"2d", 48 * time.Hour, "2.00:00:00"},
		{"10ms", 10 * time.Millisecond, "00:00:00.0100000"},
		{"-00:00:01", -time.Second, "-00:00:01"},
		{"1.02:03:04.5", 26*time.Hour + 3*time.Minute + 4500*time.Millisecond, "1.02:03:04.5000000"},
		{"5", 120 * time.Hour, "5.00:00:00"},
		{"10ticks", time.Microsecond, "00:00:00.0000010"},
	} {
		got, ok := ParseTimespan(tc.in)
		if !ok || got != tc.want || FormatTimespan(got) != tc.out {
			t.Errorf("%s: %v %v, %s", tc.in, got, ok, FormatTimespan(got))
		}
	}
	for _, bad := range []string{"", "x", "1y", "999999999999d", "1:2:3:4:5"} {
		if d, ok := ParseTimespan(bad); ok {
			t.Errorf("%q is read as %v", bad, d)
		}
	}
}

func TestLiterals(t *testing.T) {
	for src, want := range map[string]any{
		"0x1F": int64(31), "007": int64(7), "1e3": 1000.0, "2.5": 2.5, "long(-7)": int64(-7), "int(null)": nil,
		`"a\t\"\u00e9\x41"`: "a\t\"éA", `@'a\b''c'`: `a\b'c`, `h"x"`: "x",
		"true": true, "bool(0)": false, "dynamic([1,'a',{\"b\":null}])": JSON(`[1,"a",{"b":null}]`),
		"dynamic(null)": nil, "guid(74BE27DE-1E4E-49D9-B579-FE0B331D3642)": GUID("74be27de-1e4e-49d9-b579-fe0b331d3642"),
		"datetime(2026-01-31 10:20)": time.Date(2026, 1, 31, 10, 20, 0, 0, time.UTC), "real(nan)": nil,
	} {
		q, err := Parse("print x = " + src)
		if err != nil {
			t.Errorf("%s: %v", src, err)
			continue
		}
		l, ok := q.Body.Source.(*Print).Columns[0].(*Named).X.(*Literal)
		if !ok {
			t.Errorf("%s is no literal", src)
			continue
		}
		if src == "real(nan)" {
			continue
		}
		if !reflect.DeepEqual(l.Value, want) {
			t.Errorf("%s: %#v, want %#v", src, l.Value, want)
		}
	}
}

func TestClosest(t *testing.T) {
	names := []string{"DeviceName", "DeviceId", "Timestamp"}
	for word, want := range map[string]string{"DevcieName": "DeviceName", "deviceid": "DeviceId", "Timestmp": "Timestamp", "Foo": ""} {
		if got := Closest(word, names); got != want {
			t.Errorf("%s: %q, want %q", word, got, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, q := range good {
		f.Add(q)
	}
	f.Fuzz(func(t *testing.T, src string) {
		q, err := Parse(src)
		if err != nil {
			var e *Error
			if !errors.As(err, &e) || e.Message == "" || int(e.Pos) > len(src) || e.Pos < 0 {
				t.Fatalf("%v", err)
			}
			LineColumn(src, e.Pos)
			return
		}
		if q.Body == nil {
			t.Fatal("a query without a body")
		}
		for _, op := range q.Body.Ops {
			if p, ok := op.(*MvExpand); ok {
				for _, item := range p.Items {
					if l, ok := item.X.(*Literal); ok && l.Type == "dynamic" && l.Value != nil && !json.Valid([]byte(l.Value.(JSON))) {
						t.Fatalf("dynamic %q", l.Value)
					}
				}
			}
		}
	})
}
