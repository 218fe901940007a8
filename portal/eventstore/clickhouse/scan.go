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
	var list, group []string
	for _, c := range scan.Columns {
		list = append(list, t.expression(c))
	}
	tail := ""
	switch g := scan.Groups; {
	case g != nil:
		list = nil
		for _, k := range g.Keys {
			list, group = append(list, t.key(k)), append(group, t.differing(k)...)
		}
		for _, p := range g.Parts {
			part, err := t.part(p, beside)
			if err != nil {
				return "", err
			}
			list = append(list, part)
		}
		tail = grouped(group)
	case counted:
		if len(list) > 0 {
			tail = " GROUP BY " + strings.Join(list, ", ") + spill
		}
		list = append(list, "toInt64(count())")
	case scan.First != nil:
		for _, k := range scan.First {
			group = append(group, t.differing(k)...)
		}
		tail = t.order(scan.Order) + " LIMIT 1"
		if len(group) > 0 {
			tail += " BY " + strings.Join(group, ", ")
		}
		tail += spill
	case scan.Limit > 0:
		tail = fmt.Sprintf("%s LIMIT %d", t.order(scan.Order), scan.Limit)
	case scan.Distinct:
		for _, c := range scan.Columns {
			group = append(group, t.differing(hunting.Key{Column: c})...)
		}
		tail = grouped(group)
	}
	if len(list) == 0 {
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
	b.WriteString(tail)
	return b.String(), nil
}

// spill bounds the memory of groups and of sorting; the rest goes to the server's
// disk.
const spill = " SETTINGS max_bytes_before_external_group_by = 1000000000, max_bytes_before_external_sort = 1000000000"

// grouped ends a statement that groups its rows. One without a value that differs has
// one group, or none where there are no rows.
func grouped(by []string) string {
	if len(by) == 0 {
		return " HAVING count() > 0"
	}
	return " GROUP BY " + strings.Join(by, ", ") + spill
}

// differing is key, or nothing where it is the same in all rows.
func (t *eventTable) differing(k hunting.Key) []string {
	if !t.stores(k.Column.Name) && k.Column.Name != columnIngestion {
		return nil
	}
	return []string{t.key(k)}
}

// key is the value that stands for those of its bin.
func (t *eventTable) key(k hunting.Key) string {
	x := t.expression(k.Column)
	if k.Width == 0 {
		return x
	}
	from, to := hunting.BinRange(k.Column.Type)
	within := fmt.Sprintf("%[1]s >= toInt64(%[2]d) AND %[1]s < toInt64(%[3]d)", x, from, to)
	if k.Column.Type == hunting.DateTime {
		// Nothing is before the first bin.
		return fmt.Sprintf("if(%s, intDiv(%s - toInt64(%d), toInt64(%d)) * toInt64(%[4]d) + toInt64(%[3]d), %[2]s)", within, x, hunting.BinStart, k.Width)
	}
	return fmt.Sprintf("if(%s, %s - (%[2]s %% toInt64(%[3]d) + toInt64(%[3]d)) %% toInt64(%[3]d), %[2]s)", within, x, k.Width)
}

// order is the clause for an order; empty for none.
func (t *eventTable) order(o *hunting.Order) string {
	if o == nil || !t.stores(o.Column.Name) { // in one that is not stored all are null
		return ""
	}
	direction := "ASC"
	if o.Descending {
		direction = "DESC"
	}
	return fmt.Sprintf(" ORDER BY %s %s NULLS LAST", o.Column.Name, direction)
}

// part is what is computed of a group.
func (t *eventTable) part(p hunting.Part, beside *sets) (string, error) {
	x := t.expression(p.Column)
	switch p.Func {
	case "count":
		return "toInt64(count())", nil
	case "countif":
		condition, err := t.predicate(p.If, beside)
		if err != nil {
			return "", err
		}
		return "toInt64(countIf(" + condition + "))", nil
	case "present":
		return "toInt64(count(" + x + "))", nil
	case "min", "max":
		return p.Func + "(" + x + ")", nil
	case "high":
		return "sum(bitShiftRight(toInt64(" + x + "), 32))", nil
	case "low":
		return "sum(bitAnd(toInt64(" + x + "), toInt64(4294967295)))", nil
	}
	return "", fmt.Errorf("there is no aggregate %.20q", p.Func)
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
	if p.Op == "matches" {
		// The server takes bytes for letters, and ends at a zero byte: what has letters
		// of several bytes, or such, is looked at by the query itself.
		return fmt.Sprintf(`(match(%[1]s, %[2]s) OR length(%[1]s) != lengthUTF8(%[1]s) OR position(%[1]s, '\0') > 0)`, column, literal("(?-s)"+text)), nil
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
