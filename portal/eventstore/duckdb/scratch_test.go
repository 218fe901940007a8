package duckdb

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/portal/hunting"
)

// given is a source with some rows.
type given struct {
	scans []hunting.Scan
	times int64
	rows  int
}

// Scan gives rows whose values say where they are.
func (g *given) Scan(_ context.Context, s hunting.Scan, counted bool, each func(*hunting.Block) error) error {
	g.scans = append(g.scans, s)
	b := &hunting.Block{Rows: g.rows}
	if s.Groups != nil {
		// Each row is a group, of so many rows.
		for _, k := range s.Groups.Keys {
			s.Columns = append(s.Columns, k.Column)
		}
		counted = len(s.Groups.Parts) == 1 && s.Groups.Parts[0].Func == "count"
	}
	for _, c := range s.Columns {
		var v hunting.Vector
		for i := range g.rows {
			if c.Type == hunting.String {
				v.Texts = append(v.Texts, fmt.Sprintf("%s of the row %d", c.Name, i))
			} else {
				v.Ints = append(v.Ints, int64(i))
				v.Nulls = append(v.Nulls, i == 1)
			}
		}
		b.Columns = append(b.Columns, v)
	}
	if counted {
		times := hunting.Vector{Ints: slices.Repeat([]int64{g.times}, g.rows)}
		b.Columns = append(b.Columns, times)
	}
	return each(b)
}

func scratch(t *testing.T, g *given, cfg ScratchConfig) *hunting.Hunter {
	t.Helper()
	cfg.Dir = t.TempDir()
	s, err := OpenScratch(t.Context(), cfg, g)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return hunting.New(s, func() time.Time { return time.Date(2026, 11, 29, 0, 0, 0, 0, time.UTC) })
}

func answer(t *testing.T, h *hunting.Hunter, query string) string {
	t.Helper()
	r, err := h.Run(t.Context(), "ann", query, hunting.Limits{})
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return fmt.Sprint(r.Rows)
}

func TestScratch(t *testing.T) {
	g := &given{rows: 5000, times: 200}
	h := scratch(t, g, ScratchConfig{})
	for _, tc := range []struct{ query, want, columns string }{
		{"DeviceProcessEvents | count", "[[1000000]]", ""},
		{"DeviceProcessEvents | summarize n = count() by FileName | top 1 by FileName asc", "[[FileName of the row 0 200]]", "FileName"},
		{"DeviceProcessEvents | extend x = strcat(FileName, '') | summarize n = count() by DeviceId | count", "[[5000]]", "DeviceId"},
		{"DeviceProcessEvents | summarize count(), countif(isnull(ProcessId)), sum(ProcessId)", "[[5000 1 12497499]]", "ProcessId"},
		{"DeviceProcessEvents | where Timestamp > ago(1h) | top 1 by ReportId | project ReportId, SHA1", "[[4999 SHA1 of the row 4999]]", "ReportId SHA1"},
		{"union DeviceProcessEvents, DeviceFileEvents | extend x = strcat(SHA1, DeviceName) | summarize count() by DeviceId | where count_ == 400 | count", "[[5000]]", "DeviceId"},
		{"union DeviceProcessEvents, DeviceFileEvents | count", "[[2000000]]", ""},
		{"DeviceProcessEvents | distinct DeviceId, FileName | project FileName | distinct FileName | count", "[[5000]]", "DeviceId FileName"},
		{"BehaviorEntities | distinct EntityType | count", "[[5]]", "all"},
	} {
		g.scans = nil
		if got := answer(t, h, tc.query); got != tc.want {
			t.Errorf("%s: %s, want %s", tc.query, got, tc.want)
		}
		var columns []string
		for _, c := range g.scans[0].Columns {
			columns = append(columns, c.Name)
		}
		if groups := g.scans[0].Groups; groups != nil {
			for _, k := range groups.Keys {
				columns = append(columns, k.Column.Name)
			}
		}
		slices.Sort(columns)
		if got := strings.Join(columns, " "); got != tc.columns && tc.columns != "all" {
			t.Errorf("%s: reads %q, want %q", tc.query, got, tc.columns)
		}
	}
}

func TestScratchBounds(t *testing.T) {
	h := scratch(t, &given{rows: 1001}, ScratchConfig{MaxRows: 1000})
	if _, err := h.Run(t.Context(), "ann", "DeviceProcessEvents | project ProcessCommandLine", hunting.Limits{}); err == nil || !strings.Contains(err.Error(), "narrow its time range") {
		t.Errorf("more rows than may be brought: %v", err)
	}
	h = scratch(t, &given{rows: 1000}, ScratchConfig{MaxBytes: 20_000})
	if _, err := h.Run(t.Context(), "ann", "DeviceProcessEvents | project ProcessCommandLine", hunting.Limits{}); err == nil || !strings.Contains(err.Error(), "narrow its time range") {
		t.Errorf("more bytes than may be brought: %v", err)
	}
}
