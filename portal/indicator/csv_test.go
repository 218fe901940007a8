package indicator

import (
	"bytes"
	"encoding/csv"
	"errors"
	"io"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/portal/fleet"
)

const csvHeader = "IndicatorType,IndicatorValue,Action,Title\n"

func TestParseCSV(t *testing.T) {
	for _, x := range []struct {
		name, text string
		values     string // of the lines that can be read
		problems   string // line and reason
		err        string
	}{
		{"as it is meant", csvHeader + "IpAddress,192.0.2.1,Block,a\n", "192.0.2.1", "", ""},
		{"byte order mark and quotes", "\ufeff\"IndicatorType\",\"IndicatorValue\",\"Action\",\"Title\"\r\n\"IpAddress\",\"192.0.2.1\",\"Block\",\"a\"\r\n", "192.0.2.1", "", ""},
		{"other order and case", "title,ACTION, indicatorvalue ,indicatorType\na,Block,192.0.2.1,IpAddress\n", "192.0.2.1", "", ""},
		{"too many fields", csvHeader + "IpAddress,192.0.2.1,Block,a,b\nIpAddress,192.0.2.2,Block,a\n", "192.0.2.2", "2 the line has 5 fields, the header 4", ""},
		{"a quote within", csvHeader + "IpAddress,192.0.2.1,Block,\"a\"b\nIpAddress,192.0.2.2,Block,a\n", "192.0.2.2", "2 extraneous or missing \" in quoted-field", ""},
		{"a quote that does not end", csvHeader + "IpAddress,192.0.2.1,Block,a\nIpAddress,192.0.2.2,Block,\"a\nIpAddress,192.0.2.3,Block,a\n", "192.0.2.1", "3 extraneous or missing \" in quoted-field: the lines 3 to 4 were taken for one", ""},
		{"empty", "", "", "", "no header"},
		{"unknown column", "IndicatorType;IndicatorValue;Action;Title\n", "", "", `"IndicatorType;IndicatorValue;Action;Title" is unknown`},
		{"twice", "IndicatorType,IndicatorValue,Action,Title,title\n", "", "", `"title" is there twice`},
		{"missing column", "IndicatorType,IndicatorValue,Action\n", "", "", "Title is missing"},
	} {
		t.Run(x.name, func(t *testing.T) {
			list, lines, report, err := parseCSV(strings.NewReader(x.text))
			if x.err != "" {
				var wrong *Invalid
				if !errors.As(err, &wrong) || !strings.Contains(err.Error(), x.err) {
					t.Fatalf("error %v, want one with %q", err, x.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var values []string
			for _, i := range list {
				values = append(values, i.Value)
			}
			if got := strings.Join(values, " "); got != x.values || len(lines) != len(list) {
				t.Errorf("read %q of the lines %v, want %q", got, lines, x.values)
			}
			var problems []string
			for _, p := range report.Problems {
				problems = append(problems, string(rune('0'+p.Line))+" "+p.Reason)
			}
			if got := strings.Join(problems, "; "); got != x.problems {
				t.Errorf("problems %q, want %q", got, x.problems)
			}
		})
	}
}

// repeated gives text again and again, n bytes in all.
type repeated struct {
	text string
	at   int
}

func (r *repeated) Read(p []byte) (int, error) {
	n := copy(p, r.text[r.at%len(r.text):])
	r.at += n
	return n, nil
}

// TestLargeCSV wants a file that is too large refused, not read in part.
func TestLargeCSV(t *testing.T) {
	line := "IpAddress,192.0.2.1,Block,a," + strings.Repeat("x", 1<<20) + "\n"
	_, _, _, err := parseCSV(io.MultiReader(strings.NewReader("IndicatorType,IndicatorValue,Action,Title,Description\n"), io.LimitReader(&repeated{text: line}, MaxCSV)))
	if err == nil || !strings.Contains(err.Error(), "larger than 64 MiB") {
		t.Errorf("error %v", err)
	}
}

// FuzzCSV reads any bytes: every line is counted once, and what can be kept is
// the same after it was exported and imported again.
func FuzzCSV(f *testing.F) {
	full := strings.Join(Columns(), ",") + "\n"
	for _, s := range []string{
		full + "IpAddress,192.0.2.1,2099-01-01,Block,High,'=t,\"two\nlines\",r,web;db,c,T1059,false\n",
		full + "IpAddress,192.0.2.1,2099-01-01,Audit,High,t,d,r,web,,,true,=app,https://intern.example/why\n",
		full + "FileMd5,d41d8cd98f00b204e9800998ecf8427e,2099-01-01T10:00:00Z,Allowed,,-t,''@d,,,,,\n",
		"\ufeff" + csvHeader + "DomainName,*.evil.example,Warn,\"a\"b\nUrl,http://x.example/y,Audit,t\n",
		csvHeader + "FilePath,/tmp/*,Audit,\"x\nIpAddress,::1,Block,t,,,\n", "", "\"", "a,b\n",
	} {
		f.Add([]byte(s))
	}
	groups := []fleet.Group{{ID: "1", Name: "web"}, {ID: "2", Name: "d;b"}, {ID: "3", Name: "=x"}}
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	f.Fuzz(func(t *testing.T, data []byte) {
		list, lines, report, err := parseCSV(bytes.NewReader(data))
		if err != nil {
			var wrong *Invalid
			if !errors.As(err, &wrong) || len(list) > 0 {
				t.Fatalf("%v, with %d indicators", err, len(list))
			}
			return
		}
		if report.Read != len(list)+report.Wrong || len(lines) != len(list) || !slices.IsSorted(lines) || len(lines) > 0 && lines[0] < 2 {
			t.Fatalf("%+v with %d indicators of the lines %v", report, len(list), lines)
		}
		var kept []Indicator
		var out bytes.Buffer
		w := csv.NewWriter(&out)
		_ = w.Write(Columns())
		for _, i := range list {
			// The names of groups in the file are divided by semicolons.
			if i.normalize(now, groups) != nil || slices.Contains(i.Groups, "2") {
				continue
			}
			kept = append(kept, i)
			_ = w.Write(record(&i, groups))
		}
		if w.Flush(); w.Error() != nil {
			t.Fatal(w.Error())
		}
		again, _, report, err := parseCSV(&out)
		if err != nil || report.Wrong > 0 || len(again) != len(kept) {
			t.Fatalf("exported and imported: %d of %d, %+v, %v", len(again), len(kept), report, err)
		}
		for n := range again {
			if err := again[n].normalize(now, groups); err != nil || !reflect.DeepEqual(again[n], kept[n]) {
				t.Fatalf("exported and imported: %+v, %v, it was %+v", again[n], err, kept[n])
			}
		}
	})
}
