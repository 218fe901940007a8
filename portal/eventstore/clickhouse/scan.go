package clickhouse

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/bulwarkhq/bulwark/portal/hunting"
)

// Scan implements hunting.Source.
func (s *Store) Scan(ctx context.Context, scan hunting.Scan, counted bool, each func(*hunting.Block) error) error {
	t := s.byName[scan.Table]
	if t == nil {
		return fmt.Errorf("event store: there is no table %.64q", scan.Table)
	}
	void, err := s.voids(ctx)
	if err != nil {
		return fmt.Errorf("event store: %w", err)
	}
	beside := sets{in: s.in()}
	query, err := t.scanSQL(scan, counted, void, &beside)
	if err != nil {
		return fmt.Errorf("event store: %s: %w", scan.Table, err)
	}
	if err := s.client.query(ctx, query, "", each, beside.list...); err != nil {
		return fmt.Errorf("event store: %s: %w", scan.Table, err)
	}
	return nil
}

// scanSQL is the statement of a scan. Columns that are not stored are null, as are
// those of no table.
func (t *eventTable) scanSQL(scan hunting.Scan, counted bool, void voids, beside *sets) (string, error) {
	var list []string
	for _, c := range scan.Columns {
		list = append(list, t.expression(c))
	}
	group := ""
	if counted {
		if len(list) > 0 {
			group = " GROUP BY " + strings.Join(list, ", ")
		}
		list = append(list, "toInt64(count())")
	} else if len(list) == 0 {
		list = []string{"toUInt8(1)"}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "SELECT %s FROM %s WHERE 1", strings.Join(list, ", "), t.name)
	if !scan.Since.IsZero() {
		fmt.Fprintf(&b, " AND %s >= %d AND %s >= %s", columnIngestion, ceilMicro(scan.Since), columnDay, literal(dayText(dayOf(scan.Since))))
	}
	for _, p := range scan.Where {
		condition, err := t.predicate(p, beside)
		if err != nil {
			return "", err
		}
		b.WriteString(" AND " + condition)
	}
	b.WriteString(void.condition(columnGroup))
	b.WriteString(group)
	if scan.Limit > 0 && !counted {
		if scan.Newest != "" {
			if !t.stores(scan.Newest) {
				return "", fmt.Errorf("there is no column %.64q to sort by", scan.Newest)
			}
			fmt.Fprintf(&b, " ORDER BY %s DESC", scan.Newest)
		}
		fmt.Fprintf(&b, " LIMIT %d", scan.Limit)
	}
	return b.String(), nil
}

// expression is the value of a column.
func (t *eventTable) expression(c hunting.Column) string {
	switch {
	case t.stores(c.Name):
		return c.Name
	case c.Name == columnIngestion:
		return c.Name
	case c.Type == hunting.Long, c.Type == hunting.DateTime:
		return "CAST(NULL AS Nullable(Int64))"
	case c.Type == hunting.Int:
		return "CAST(NULL AS Nullable(Int32))"
	case c.Type == hunting.Bool:
		return "CAST(NULL AS Nullable(UInt8))"
	}
	return "''"
}

// predicate is a condition in SQL; it is 0 or 1, never null.
func (t *eventTable) predicate(p hunting.Predicate, beside *sets) (string, error) {
	switch p.Op {
	case "and", "or":
		var list []string
		for _, of := range p.Of {
			one, err := t.predicate(of, beside)
			if err != nil {
				return "", err
			}
			list = append(list, one)
		}
		if len(list) == 0 {
			return "", fmt.Errorf("a condition %s of nothing", p.Op)
		}
		return "(" + strings.Join(list, " "+strings.ToUpper(p.Op)+" ") + ")", nil
	}
	column := t.expression(p.Column)
	if texts := allTexts(p.Values); p.Op == "in" && len(texts) > mostListed {
		return "ifNull(" + column + " " + beside.in + " " + beside.add(texts) + ", 0)", nil
	}
	values := make([]string, len(p.Values))
	for i, v := range p.Values {
		switch v := v.(type) {
		case string:
			values[i] = literal(v)
		case int64:
			values[i] = "toInt64(" + strconv.FormatInt(v, 10) + ")"
		case bool:
			values[i] = map[bool]string{true: "1", false: "0"}[v]
		default:
			return "", fmt.Errorf("column %s: a value of type %T cannot be compared", p.Column.Name, v)
		}
	}
	if len(values) == 0 || (p.Op != "in" && p.Op != "!in" && len(values) != 1) {
		return "", fmt.Errorf("column %s: %d values for %s", p.Column.Name, len(values), p.Op)
	}
	is := func(condition string) string { return "ifNull(" + condition + ", 0)" }
	switch p.Op {
	case "==":
		return is(column + " = " + values[0]), nil
	case "!=":
		return "ifNull(" + column + " != " + values[0] + ", 1)", nil
	case "<", "<=", ">", ">=":
		condition := is(column + " " + p.Op + " " + values[0])
		if n, ok := p.Values[0].(int64); ok && p.Column.Name == "Timestamp" {
			// The hour grows with the time; the index has it.
			condition = fmt.Sprintf("(%s %s %s AND %s %s %d)", column, p.Op, values[0], columnHour, p.Op[:1]+"=", hourOf(n))
		}
		return condition, nil
	case "in":
		return is(column + " IN (" + strings.Join(values, ", ") + ")"), nil
	case "!in":
		return "ifNull(" + column + " NOT IN (" + strings.Join(values, ", ") + "), 1)", nil
	}
	text, ok := p.Values[0].(string)
	if !ok {
		return "", fmt.Errorf("column %s: %s needs a text", p.Column.Name, p.Op)
	}
	switch p.Op {
	case "contains_cs":
		return "position(" + column + ", " + values[0] + ") > 0", nil
	case "startswith_cs":
		return fmt.Sprintf("substring(%s, 1, %d) = %s", column, len(text), values[0]), nil
	case "endswith_cs":
		return fmt.Sprintf("(length(%[1]s) >= %[2]d AND substring(%[1]s, length(%[1]s) - %[3]d, %[2]d) = %[4]s)", column, len(text), len(text)-1, values[0]), nil
	case "contains":
		// Some letters beyond ASCII are those of ASCII in another case: what has
		// letters of several bytes is looked at by the query itself.
		return fmt.Sprintf("(positionCaseInsensitive(%[1]s, %[2]s) > 0 OR length(%[1]s) != lengthUTF8(%[1]s))", column, values[0]), nil
	}
	return "", fmt.Errorf("there is no comparison %.20q", p.Op)
}

// allTexts are the values if all are texts.
func allTexts(values []any) []string {
	out := make([]string, 0, len(values))
	for _, v := range values {
		text, ok := v.(string)
		if !ok {
			return nil
		}
		out = append(out, text)
	}
	return out
}

var _ hunting.Source = (*Store)(nil)
