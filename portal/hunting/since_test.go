package hunting

import (
	"strings"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/portal/hunting/kql"
)

// A bounded query reads of every table of events only what arrived since, also
// of those that are made of another; tables that are loaded stay whole.
func TestSince(t *testing.T) {
	h := New(nil, time.Now, Loaded{Table: Table{Name: "AlertInfo", Columns: []Column{{"AlertId", String}}}})
	since := time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)
	for query, want := range map[string]int{
		"DeviceProcessEvents | count": 1, "union DeviceProcessEvents, DeviceFileEvents": 2, "BehaviorEntities": 5, "BehaviorEntities | where AdditionalFields == 'FROM \"BehaviorInfo\"'": 5, "AlertInfo": 0, "DeviceEvents | join AlertInfo on $left.FileName == $right.AlertId": 1,
	} {
		q, err := kql.Parse(query)
		if err != nil {
			t.Fatal(err)
		}
		st, err := h.translate(t.Context(), q, nil, Limits{Since: since})
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Count(st.sql, `WHERE "IngestionTime" >= TIMESTAMP '2026-05-04 03:02:01.000000'`); got != want {
			t.Errorf("%s is bounded %d times, want %d:\n%s", query, got, want, st.sql)
		}
	}
	for _, table := range EventTables() {
		q, err := kql.Parse(table.Name)
		if err != nil {
			t.Fatal(err)
		}
		if st, err := h.translate(t.Context(), q, nil, Limits{Since: since}); err != nil || !strings.Contains(st.sql, "IngestionTime") {
			t.Errorf("%s is not bounded: %v", table.Name, err)
		}
	}
}
