package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// usage is what a process has used of the processor, in seconds.
type usage struct {
	name           string
	own, collected float64 // collected: of children that have ended
}

// processorTime logs which processes used the processor most since boot: an
// emulated machine has little of it.
func (g *guest) processorTime() {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return
	}
	var all []usage
	for _, f := range stats {
		b, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		first, last := strings.IndexByte(string(b), '('), strings.LastIndexByte(string(b), ')')
		if first < 0 || last < first {
			continue
		}
		// From the state on; utime is field 14 of the line. See proc_pid_stat(5).
		fields := strings.Fields(string(b[last+1:]))
		if len(fields) < 15 {
			continue
		}
		seconds := func(from int) (sum float64) {
			for _, s := range fields[from : from+2] {
				n, _ := strconv.ParseFloat(s, 64)
				sum += n / 100
			}
			return sum
		}
		all = append(all, usage{string(b[:last+1]), seconds(11), seconds(13)})
	}
	slices.SortFunc(all, func(a, b usage) int { return int(100 * (b.own + b.collected - a.own - a.collected)) })
	var out strings.Builder
	for _, u := range all[:min(len(all), 8)] {
		fmt.Fprintf(&out, " %s %.1f s and children %.1f s;", u.name, u.own, u.collected)
	}
	g.logf("processor time:%s", out.String())
}
