package hunting

import (
	"strings"

	"github.com/bulwarkhq/bulwark/event"
)

// Type is a scalar type of KQL.
type Type uint8

// The types. Null is that of a null literal; it fits every other one.
const (
	Null Type = iota
	Bool
	Int
	Long
	Real
	String
	DateTime
	Timespan
	Dynamic
	GUID
)

var typeNames = [...]string{"null", "bool", "int", "long", "real", "string", "datetime", "timespan", "dynamic", "guid"}

func (t Type) String() string { return typeNames[t] }

// numeric reports whether arithmetic is possible.
func (t Type) numeric() bool { return t == Int || t == Long || t == Real || t == Null }

// textual: a guid is kept as a text.
func (t Type) textual() bool { return t == String || t == GUID }

// typeOf finds the type of a name that is written in a query.
func typeOf(name string) (Type, bool) {
	switch strings.ToLower(name) {
	case "bool", "boolean":
		return Bool, true
	case "int":
		return Int, true
	case "long":
		return Long, true
	case "real", "double", "decimal":
		return Real, true
	case "string":
		return String, true
	case "datetime", "date":
		return DateTime, true
	case "timespan", "time":
		return Timespan, true
	case "dynamic":
		return Dynamic, true
	case "guid", "uuid", "uniqueid":
		return GUID, true
	}
	return Null, false
}

// SQL is how DuckDB keeps the type. A timespan is a number of microseconds.
func (t Type) SQL() string {
	switch t {
	case Bool:
		return "BOOLEAN"
	case Int:
		return "INTEGER"
	case Long, Timespan:
		return "BIGINT"
	case Real:
		return "DOUBLE"
	case DateTime:
		return "TIMESTAMP"
	case Dynamic:
		return "JSON"
	}
	return "VARCHAR"
}

// FromEvent is the type that a column of a table of events has in queries.
func FromEvent(t event.Type) Type {
	switch t {
	case event.Long:
		return Long
	case event.Int:
		return Int
	case event.Bool:
		return Bool
	case event.DateTime:
		return DateTime
	}
	return String
}

// Column is a column of a table or of a result.
type Column struct {
	Name string
	Type Type
}

// Table is a table that queries can read.
type Table struct {
	Name    string
	Columns []Column
	// Source is what SQL reads the rows from; the table itself when empty. In it
	// sourceRows stands, any number of times, for the rows of the table Of.
	Source, Of string
}

// sourceRows is a placeholder that SQL cannot contain.
const sourceRows = "\x00"

// EventTables lists the tables of events, as they are in the event store.
func EventTables() []Table {
	var out []Table
	for _, et := range event.Tables() {
		t := Table{Name: et.Name}
		for _, c := range et.Columns {
			if !c.Hidden {
				t.Columns = append(t.Columns, Column{c.Name, FromEvent(c.Type)})
			}
		}
		out = append(out, t)
	}
	return append(out, behaviorEntities())
}

func quoteName(s string) string { return `"` + strings.ReplaceAll(s, `"`, `""`) + `"` }

// quoteText makes a string literal of SQL. Text of a query never reaches SQL in
// another way.
func quoteText(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }
