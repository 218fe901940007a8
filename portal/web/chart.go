package web

import (
	"fmt"
	"math"
	"sort"
	"strings"
	"time"

	"github.com/bulwarkhq/bulwark/portal/hunting"
)

// Charts are drawn as SVG by the portal: they need no script, print, and obey
// the page's content security policy.

// Sizes of a chart in its own units.
const (
	chartWidth, chartHeight = 900.0, 260.0
	chartLeft, chartBottom  = 64.0, 26.0
	chartRight              = 44.0 // half a label
	maxSeries               = 8
	maxPoints               = 2000
	maxBars                 = 60
)

type chart struct {
	Kind   string // line, bar or pie
	Title  string
	Lines  []chartLine
	Bars   []chartBar
	Ticks  []chartTick // of the vertical axis
	Labels []chartTick // of the horizontal axis
	// Summary says in words what is drawn, for those who cannot see it.
	Summary string
}

type chartLine struct {
	Name   string
	Points string
	Class  string
}

type chartBar struct {
	Name, Value    string
	X, Y, W, H     float64
	Width, Percent float64
	Class          string
}

type chartTick struct {
	At   float64
	Text string
}

// newChart draws what render asks for, if the columns fit; else nil.
func newChart(res *hunting.Result) *chart {
	if res.Render == nil || len(res.Rows) == 0 {
		return nil
	}
	title := res.Render.Props["title"]
	switch res.Render.Kind {
	case "timechart", "linechart", "areachart", "scatterchart":
		return lineChart(res, title)
	case "columnchart", "barchart", "piechart", "stackedareachart":
		return barChart(res, title)
	}
	return nil
}

func numberOf(v any) (float64, bool) {
	switch v := v.(type) {
	case int64:
		return float64(v), true
	case float64:
		return v, !math.IsNaN(v) && !math.IsInf(v, 0)
	case time.Time:
		return float64(v.UnixMicro()), true
	case time.Duration:
		return v.Seconds(), true
	}
	return 0, false
}

// lineChart draws numbers over the first column that is a time or a number; a
// column of texts makes a line for each of its values.
func lineChart(res *hunting.Result, title string) *chart {
	x, group := -1, -1
	var ys []int
	for i, c := range res.Columns {
		switch c.Type {
		case hunting.DateTime:
			if x < 0 || res.Columns[x].Type != hunting.DateTime {
				x = i
			}
		case hunting.Long, hunting.Int, hunting.Real, hunting.Timespan:
			ys = append(ys, i)
		case hunting.String:
			if group < 0 {
				group = i
			}
		}
	}
	if x < 0 && len(ys) > 1 {
		x, ys = ys[0], ys[1:]
	}
	if x < 0 || len(ys) == 0 {
		return nil
	}
	type point struct{ x, y float64 }
	series := map[string][]point{}
	var names []string
	minX, maxX, maxY := math.Inf(1), math.Inf(-1), 0.0
	for n, row := range res.Rows {
		if n == maxPoints {
			break
		}
		at, ok := numberOf(row[x])
		if !ok {
			continue
		}
		for _, y := range ys {
			v, ok := numberOf(row[y])
			if !ok {
				continue
			}
			name := res.Columns[y].Name
			if group >= 0 {
				name = textOf(row[group])
				if len(ys) > 1 {
					name += ": " + res.Columns[y].Name
				}
			}
			if _, known := series[name]; !known {
				if len(names) == maxSeries {
					continue
				}
				names = append(names, name)
			}
			series[name] = append(series[name], point{at, v})
			minX, maxX, maxY = min(minX, at), max(maxX, at), max(maxY, v)
		}
	}
	if len(names) == 0 {
		return nil
	}
	if maxX == minX {
		maxX++
	}
	c := &chart{Kind: "line", Title: title}
	top := c.vertical(maxY)
	for i, name := range names {
		ps := series[name]
		sort.SliceStable(ps, func(a, b int) bool { return ps[a].x < ps[b].x })
		var b strings.Builder
		for _, p := range ps {
			fmt.Fprintf(&b, "%.1f,%.1f ", chartLeft+(p.x-minX)/(maxX-minX)*(chartWidth-chartLeft-chartRight), (chartHeight-chartBottom)-max(p.y, 0)/top*(chartHeight-chartBottom-12))
		}
		c.Lines = append(c.Lines, chartLine{name, strings.TrimSpace(b.String()), fmt.Sprintf("s%d", i)})
	}
	isTime := res.Columns[x].Type == hunting.DateTime
	for i := range 5 {
		v := minX + (maxX-minX)*float64(i)/4
		text := shortNumber(v)
		if isTime {
			layout := "2 Jan 15:04"
			if maxX-minX > 7*86400e6 {
				layout = "2 Jan 2006"
			}
			text = time.UnixMicro(int64(v)).UTC().Format(layout)
		}
		c.Labels = append(c.Labels, chartTick{chartLeft + float64(i)/4*(chartWidth-chartLeft-chartRight), text})
	}
	c.Summary = fmt.Sprintf("Lines over %s: %s", res.Columns[x].Name, strings.Join(names, ", "))
	return c
}

// barChart draws the first number for each value of the first other column.
func barChart(res *hunting.Result, title string) *chart {
	label, y := -1, -1
	for i, c := range res.Columns {
		switch c.Type {
		case hunting.Long, hunting.Int, hunting.Real:
			if y < 0 {
				y = i
			}
		default:
			if label < 0 {
				label = i
			}
		}
	}
	if y < 0 || label < 0 {
		return nil
	}
	c := &chart{Kind: "bar", Title: title}
	var sum, most float64
	n := min(len(res.Rows), maxBars)
	for _, row := range res.Rows[:n] {
		v, _ := numberOf(row[y])
		sum, most = sum+max(v, 0), max(most, v)
	}
	if most == 0 {
		return nil
	}
	for _, row := range res.Rows[:n] {
		v, _ := numberOf(row[y])
		c.Bars = append(c.Bars, chartBar{Name: textOf(row[label]), Value: textOf(row[y]), Width: max(v, 0) / most * 100, Percent: max(v, 0) / sum * 100})
	}
	c.Summary = fmt.Sprintf("%s by %s", res.Columns[y].Name, res.Columns[label].Name)
	return c
}

// vertical makes the ticks of the vertical axis and returns its end.
func (c *chart) vertical(most float64) float64 {
	if most <= 0 {
		most = 1
	}
	step := math.Pow(10, math.Floor(math.Log10(most/4)))
	for _, k := range []float64{1, 2, 5, 10} {
		if most/(step*k) <= 5 {
			step *= k
			break
		}
	}
	top := math.Ceil(most/step) * step
	for v := 0.0; v <= top+step/2; v += step {
		c.Ticks = append(c.Ticks, chartTick{(chartHeight - chartBottom) - v/top*(chartHeight-chartBottom-12), shortNumber(v)})
	}
	return top
}

func shortNumber(v float64) string {
	for _, u := range []struct {
		size float64
		name string
	}{{1e9, "G"}, {1e6, "M"}, {1e3, "k"}} {
		if math.Abs(v) >= u.size {
			return strings.TrimSuffix(fmt.Sprintf("%.1f", v/u.size), ".0") + u.name
		}
	}
	return strings.TrimSuffix(fmt.Sprintf("%.2f", v), ".00")
}
