package indicator

import (
	"bufio"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	api "github.com/bulwarkhq/bulwark/api/indicator"
	"github.com/bulwarkhq/bulwark/portal/fleet"
	"github.com/bulwarkhq/bulwark/portal/query"
)

// Limits of an import.
const (
	MaxCSV = 64 << 20 // bytes
	// MaxProblems is how many lines that are wrong a report names.
	MaxProblems = 1000

	byteOrderMark = "\ufeff"
)

// Columns of the CSV form, as the reference product has them, and Application and
// EducateUrl: what is exported is all that is kept. Category and MitreTechniques
// are read over.
func Columns() []string {
	return []string{
		"IndicatorType", "IndicatorValue", "ExpirationTime", "Action", "Severity", "Title", "Description", "RecommendedActions", "RbacGroups",
		"Category", "MitreTechniques", "GenerateAlert", "Application", "EducateUrl",
	}
}

// Problem is a line of an import that is wrong.
type Problem struct {
	Line   int // from 1, the header's
	Value  string
	Reason string
}

// Report says what an import did.
type Report struct {
	Read, Stored, Wrong int
	Problems            []Problem // the first MaxProblems
}

func (r *Report) wrong(line int, value, format string, args ...any) {
	if r.Wrong++; len(r.Problems) < MaxProblems {
		r.Problems = append(r.Problems, Problem{line, value, fmt.Sprintf(format, args...)})
	}
}

// Import reads a CSV file. The lines that are right are kept, the others
// reported; with check nothing is kept. The error is an *Invalid for a file of
// which nothing can be read.
func (s *Service) Import(ctx context.Context, r io.Reader, check bool, who Who) (Report, error) {
	list, lines, report, err := parseCSV(r)
	if err != nil || len(list) == 0 {
		return report, err
	}
	var results []Result
	if check {
		groups, err := s.groups.Groups(ctx)
		if err != nil {
			return report, err
		}
		results = make([]Result, len(list))
		for n := range list {
			results[n] = Result{Value: list[n].Value, Err: list[n].normalize(s.now(), groups)}
		}
	} else if results, err = s.PutAll(ctx, list, who); err != nil {
		return report, err
	}
	for n, one := range results {
		if one.Err != nil {
			report.wrong(lines[n], one.Value, "%v", one.Err)
			continue
		}
		report.Stored++
	}
	slices.SortFunc(report.Problems, func(a, b Problem) int { return a.Line - b.Line })
	return report, nil
}

// parseCSV reads the lines; those that cannot be read are in the report.
func parseCSV(r io.Reader) (list []Indicator, lines []int, report Report, err error) {
	text := bufio.NewReader(io.LimitReader(r, MaxCSV+1))
	// Before the reader of CSV, which wants a quote to be the first of a field.
	if bom, _ := text.Peek(len(byteOrderMark)); string(bom) == byteOrderMark {
		_, _ = text.Discard(len(bom)) // what was peeked is there
	}
	in := csv.NewReader(text)
	in.FieldsPerRecord, in.ReuseRecord = -1, true
	header, err := in.Read()
	if err != nil {
		return nil, nil, report, invalid("", "the file has no header that can be read: %v", err)
	}
	header = slices.Clone(header)
	at := map[string]int{}
	for n, name := range header {
		name = strings.ToLower(strings.TrimSpace(name))
		if !slices.ContainsFunc(Columns(), func(c string) bool { return strings.EqualFold(c, name) }) {
			return nil, nil, report, invalid("", "the column %.64q is unknown: the columns are %s", header[n], strings.Join(Columns(), ", "))
		}
		if _, ok := at[name]; ok {
			return nil, nil, report, invalid("", "the column %.64q is there twice", header[n])
		}
		at[name] = n
	}
	for _, name := range []string{"IndicatorType", "IndicatorValue", "Action", "Title"} {
		if _, ok := at[strings.ToLower(name)]; !ok {
			return nil, nil, report, invalid("", "the column %s is missing", name)
		}
	}
	for {
		record, err := in.Read()
		// Never a part of a file: who imports it believes that all of it is there.
		if in.InputOffset() > MaxCSV {
			return nil, nil, report, invalid("", "the file is larger than %d MiB", MaxCSV>>20)
		}
		if errors.Is(err, io.EOF) {
			return list, lines, report, nil
		}
		var broken *csv.ParseError
		if errors.As(err, &broken) {
			report.Read++
			if broken.Line > broken.StartLine {
				report.wrong(broken.StartLine, "", "%v: the lines %d to %d were taken for one", broken.Err, broken.StartLine, broken.Line)
			} else {
				report.wrong(broken.StartLine, "", "%v", broken.Err)
			}
			continue
		}
		if err != nil {
			return nil, nil, report, invalid("", "the file cannot be read: %v", err)
		}
		line, _ := in.FieldPos(0)
		report.Read++
		if report.Read > api.MaxEntries {
			return nil, nil, report, invalid("", "the file has more than %d lines", api.MaxEntries)
		}
		get := func(column string) string {
			n, ok := at[column]
			if !ok || n >= len(record) {
				return ""
			}
			return unguard(strings.TrimSpace(record[n]))
		}
		if len(record) > len(header) {
			report.wrong(line, get("indicatorvalue"), "the line has %d fields, the header %d", len(record), len(header))
			continue
		}
		i, err := fromCSV(get)
		if err != nil {
			report.wrong(line, get("indicatorvalue"), "%v", err)
			continue
		}
		list, lines = append(list, i), append(lines, line)
	}
}

// fromCSV makes an indicator of the fields of a line.
func fromCSV(get func(string) string) (Indicator, error) {
	i := Indicator{
		Type: get("indicatortype"), Value: get("indicatorvalue"), Action: get("action"), Severity: get("severity"), Title: get("title"),
		Description: get("description"), Recommended: get("recommendedactions"), Application: get("application"), EducateURL: get("educateurl"), Alerts: true,
	}
	for g := range strings.SplitSeq(get("rbacgroups"), ";") {
		if g = strings.TrimSpace(g); g != "" {
			i.Groups = append(i.Groups, g)
		}
	}
	switch v := strings.ToLower(get("generatealert")); v {
	case "", "true", "1", "yes":
	case "false", "0", "no":
		i.Alerts = false
	default:
		return i, fmt.Errorf("GenerateAlert is true or false, not %.32q", v)
	}
	if v := get("expirationtime"); v != "" {
		var err error
		if i.Expires, err = time.Parse(time.RFC3339, v); err != nil {
			if i.Expires, err = time.Parse("2006-01-02", v); err != nil {
				return i, fmt.Errorf("ExpirationTime %.40q is not of the form 2027-01-31T12:00:00Z or 2027-01-31", v)
			}
		}
	}
	return i, nil
}

// Spreadsheets take a field that begins so for a formula: it gets an apostrophe
// in front, which an import takes away again. So does text that looks like that
// already, so that it comes back as it was.
const formulas = "=+-@"

func formula(s string) bool {
	s = strings.TrimLeft(s, "'")
	return s != "" && strings.IndexByte(formulas, s[0]) >= 0
}

func guard(s string) string {
	if formula(s) {
		return "'" + s
	}
	return s
}

func unguard(s string) string {
	if strings.HasPrefix(s, "'") && formula(s) {
		return s[1:]
	}
	return s
}

// record is the line of an indicator in the order of Columns.
func record(i *Indicator, groups []fleet.Group) []string {
	expires := ""
	if !i.Expires.IsZero() {
		expires = i.Expires.Format(time.RFC3339)
	}
	return []string{
		i.Type, guard(i.Value), expires, i.Action, i.Severity, guard(i.Title), guard(i.Description), guard(i.Recommended),
		guard(strings.Join(GroupNames(i.Groups, groups), ";")), "", "", fmt.Sprint(i.Alerts), guard(i.Application), guard(i.EducateURL),
	}
}

// Export writes the indicators that a filter holds for as CSV.
func (s *Service) Export(ctx context.Context, filter query.Expr, w io.Writer) error {
	groups, err := s.groups.Groups(ctx)
	if err != nil {
		return err
	}
	out := csv.NewWriter(w)
	if err := out.Write(Columns()); err != nil {
		return err
	}
	err = s.Each(ctx, filter, func(i *Indicator) error {
		return out.Write(record(i, groups))
	})
	out.Flush()
	return errors.Join(err, out.Error())
}

// Each calls f for the indicators that a filter holds for, in the order of
// their ids.
func (s *Service) Each(ctx context.Context, filter query.Expr, f func(*Indicator) error) error {
	last := int64(0)
	for {
		page, _, err := s.List(ctx, query.Query{
			Filter: query.All(query.Compare{Field: "id", Op: query.Gt, Value: last}, filter),
			Order:  []query.Order{{Field: "id"}}, Top: query.MaxTop,
		})
		if err != nil {
			return err
		}
		for n := range page {
			if err := f(&page[n]); err != nil {
				return err
			}
		}
		if len(page) < query.MaxTop {
			return nil
		}
		last = page[len(page)-1].ID
	}
}

// GroupNames returns the names of groups by their ids; those that are gone
// stay ids.
func GroupNames(ids []string, groups []fleet.Group) []string {
	out := make([]string, len(ids))
	for n, id := range ids {
		out[n] = id
		if k := slices.IndexFunc(groups, func(g fleet.Group) bool { return g.ID == id }); k >= 0 {
			out[n] = groups[k].Name
		}
	}
	return out
}
