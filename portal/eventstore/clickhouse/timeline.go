package clickhouse

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/bulwarkhq/bulwark/portal/eventstore"
	"github.com/bulwarkhq/bulwark/portal/hunting"
)

// rowColumns are the columns of eventstore.Row behind its time, table, action and
// number: texts, and numbers.
var rowColumns = []struct {
	name   string
	text   func(*eventstore.Row) *string
	number func(*eventstore.Row) *int64
}{
	{"FileName", func(r *eventstore.Row) *string { return &r.FileName }, nil},
	{"FolderPath", func(r *eventstore.Row) *string { return &r.FolderPath }, nil},
	{"SHA256", func(r *eventstore.Row) *string { return &r.SHA256 }, nil},
	{"ProcessId", nil, func(r *eventstore.Row) *int64 { return &r.ProcessID }},
	{"ProcessCommandLine", func(r *eventstore.Row) *string { return &r.CommandLine }, nil},
	{"AccountName", func(r *eventstore.Row) *string { return &r.Account }, nil},
	{"RemoteIP", func(r *eventstore.Row) *string { return &r.RemoteIP }, nil},
	{"RemotePort", nil, func(r *eventstore.Row) *int64 { return &r.RemotePort }},
	{"RemoteUrl", func(r *eventstore.Row) *string { return &r.RemoteURL }, nil},
	{"LocalIP", func(r *eventstore.Row) *string { return &r.LocalIP }, nil},
	{"LocalPort", nil, func(r *eventstore.Row) *int64 { return &r.LocalPort }},
	{"Protocol", func(r *eventstore.Row) *string { return &r.Protocol }, nil},
	{"LogonType", func(r *eventstore.Row) *string { return &r.LogonType }, nil},
	{"FailureReason", func(r *eventstore.Row) *string { return &r.Failure }, nil},
	{"InitiatingProcessFileName", func(r *eventstore.Row) *string { return &r.InitiatingFileName }, nil},
	{"InitiatingProcessFolderPath", func(r *eventstore.Row) *string { return &r.InitiatingFolderPath }, nil},
	{"InitiatingProcessId", nil, func(r *eventstore.Row) *int64 { return &r.InitiatingID }},
	{"InitiatingProcessCommandLine", func(r *eventstore.Row) *string { return &r.InitiatingCommandLine }, nil},
	{"InitiatingProcessAccountName", func(r *eventstore.Row) *string { return &r.InitiatingAccount }, nil},
	{"AdditionalFields", func(r *eventstore.Row) *string { return &r.Additional }, nil},
}

// A page of a timeline reads the firstSpan next to where it begins, and only where
// that does not fill it further back, each time morePerPass times as far, and the
// rest after passes times.
const (
	firstSpan   = 24 * time.Hour
	morePerPass = 4
	passes      = 4
)

// span is a range of times in microseconds: [from, until).
type span struct{ from, until int64 }

// spans are the ranges in which a page is looked for, one after the other.
func spans(q eventstore.TimelineQuery, now time.Time) []span {
	whole := span{math.MinInt64, math.MaxInt64}
	if !q.Since.IsZero() {
		whole.from = ceilMicro(q.Since)
	}
	if !q.Until.IsZero() {
		whole.until = ceilMicro(q.Until)
	}
	at := now.UnixMicro()
	switch {
	case q.After != nil:
		at = q.After.Time.UnixMicro()
		whole.until = min(whole.until, at+1)
		at = min(at, whole.until)
	case q.Before != nil:
		at = q.Before.Time.UnixMicro()
		whole.from = max(whole.from, at)
		at = whole.from
	default:
		at = min(at, whole.until)
	}
	var out []span
	far := firstSpan.Microseconds()
	rest := whole
	for range passes {
		near := rest
		if q.Before != nil {
			near.until = min(rest.until, at+far)
			rest.from = near.until
		} else {
			near.from = max(rest.from, at-far)
			rest.until = near.from
		}
		far *= morePerPass
		if near.from < near.until {
			out = append(out, near)
		}
		if rest.from >= rest.until {
			return out
		}
	}
	return append(out, rest)
}

// ceilMicro is the first microsecond that is not before a time.
func ceilMicro(t time.Time) int64 {
	n := t.UnixMicro()
	if t.Nanosecond()%1000 != 0 {
		n++
	}
	return n
}

// Timeline implements eventstore.Store.
func (s *Store) Timeline(ctx context.Context, q eventstore.TimelineQuery) ([]eventstore.Row, error) {
	if err := q.Check(); err != nil {
		return nil, err
	}
	void, err := s.voids(ctx)
	if err != nil {
		return nil, fmt.Errorf("event store: timeline of %s: %w", q.DeviceID, err)
	}
	var out []eventstore.Row
	for _, part := range spans(q, s.cfg.Now()) {
		rows, err := s.timelinePart(ctx, q, part, q.Limit-len(out), void)
		if err != nil {
			return nil, fmt.Errorf("event store: timeline of %s: %w", q.DeviceID, err)
		}
		if out = append(out, rows...); len(out) == q.Limit {
			break
		}
	}
	if q.Before != nil {
		slices.Reverse(out)
	}
	return out, nil
}

// timelinePart reads the rows of a range of times, the nearest first.
func (s *Store) timelinePart(ctx context.Context, q eventstore.TimelineQuery, part span, limit int, void voids) ([]eventstore.Row, error) {
	var b strings.Builder
	order := " DESC"
	if q.Before != nil {
		order = ""
	}
	for _, t := range s.tables {
		if len(q.Tables) > 0 && !slices.Contains(q.Tables, t.name) {
			continue
		}
		if b.Len() > 0 {
			b.WriteString(" UNION ALL ")
		}
		t.timeline(&b, q, part, void)
		fmt.Fprintf(&b, " ORDER BY at%s, report%s LIMIT %d", order, order, limit)
	}
	var out []eventstore.Row
	query := fmt.Sprintf("SELECT * FROM (%s) ORDER BY at%s, report%s LIMIT %d", &b, order, order, limit)
	of := kinds("nttn")
	for _, c := range rowColumns {
		of += map[bool]kinds{true: "t", false: "n"}[c.text != nil]
	}
	err := s.client.query(ctx, query, of, func(b *hunting.Block) error {
		for i := range b.Rows {
			r := eventstore.Row{Time: time.UnixMicro(b.Columns[0].Ints[i]).UTC(), Table: b.Columns[1].Texts[i], Action: b.Columns[2].Texts[i], ReportID: b.Columns[3].Ints[i]}
			for k, c := range rowColumns {
				if c.text != nil {
					*c.text(&r) = b.Columns[4+k].Texts[i]
				} else {
					*c.number(&r) = b.Columns[4+k].Ints[i]
				}
			}
			out = append(out, r)
		}
		return nil
	})
	// The parts of an answer are not promised to come in order.
	slices.SortStableFunc(out, func(a, b eventstore.Row) int {
		c := cmp.Or(b.Time.Compare(a.Time), cmp.Compare(b.ReportID, a.ReportID))
		if q.Before != nil {
			return -c
		}
		return c
	})
	return out, err
}

// timeline writes the SELECT of the table's part.
func (t *eventTable) timeline(b *strings.Builder, q eventstore.TimelineQuery, part span, void voids) {
	fmt.Fprintf(b, "SELECT Timestamp AS at, %s AS kind, ActionType AS action, toInt64(ifNull(ReportId, 0)) AS report", literal(t.name))
	texts := []string{"ActionType"}
	for i, c := range rowColumns {
		value := "''"
		switch {
		case c.text == nil && t.stores(c.name):
			value = "toInt64(ifNull(" + c.name + ", 0))"
		case c.text == nil:
			value = "toInt64(0)"
		case t.stores(c.name):
			value = c.name
			texts = append(texts, c.name)
		}
		fmt.Fprintf(b, ", %s AS r%d", value, i)
	}
	fmt.Fprintf(b, " FROM %s WHERE DeviceId = %s", t.name, literal(valid(q.DeviceID)))
	b.WriteString(part.condition())
	if q.After != nil {
		at := q.After.Time.UnixMicro()
		fmt.Fprintf(b, " AND (Timestamp < %d OR toInt64(ifNull(ReportId, 0)) < %d)", at, q.After.ReportID)
	}
	if q.Before != nil {
		at := q.Before.Time.UnixMicro()
		fmt.Fprintf(b, " AND (Timestamp > %d OR toInt64(ifNull(ReportId, 0)) > %d)", at, q.Before.ReportID)
	}
	if q.Text != "" {
		text := literal(strings.ToLower(valid(q.Text)))
		for i, name := range texts {
			b.WriteString(map[bool]string{true: " AND (", false: " OR "}[i == 0])
			fmt.Fprintf(b, "position(lowerUTF8(%s), %s) > 0", name, text)
		}
		b.WriteString(")")
	}
	b.WriteString(void.condition(columnGroup))
}

// condition bounds the time, and the hour so that the index is used.
func (p span) condition() string {
	var b strings.Builder
	if p.from != math.MinInt64 {
		fmt.Fprintf(&b, " AND Timestamp >= %d AND %s >= %d", p.from, columnHour, hourOf(p.from))
	}
	if p.until != math.MaxInt64 {
		fmt.Fprintf(&b, " AND Timestamp < %d AND %s <= %d", p.until, columnHour, hourOf(p.until))
	}
	return b.String()
}
