package portal

import (
	"context"
	"encoding/csv"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	api "github.com/bulwarkhq/bulwark/api/indicator"
	"github.com/bulwarkhq/bulwark/portal/access"
	"github.com/bulwarkhq/bulwark/portal/indicator"
	"github.com/bulwarkhq/bulwark/portal/query"
)

// feed is a CSV file with n indicators of the kinds that feeds have.
func feed(n int) io.Reader {
	var b strings.Builder
	w := csv.NewWriter(&b)
	_ = w.Write([]string{"IndicatorType", "IndicatorValue", "Action", "Severity", "Title", "Description", "ExpirationTime"})
	for i := range n {
		line := []string{api.FileSHA256, fmt.Sprintf("%064x", 0x9e3779b97f4a7c15*uint64(i+1))}
		switch i % 4 {
		case 1:
			line = []string{api.Domain, fmt.Sprintf("host-%x.campaign-%d.example", i, i%97)}
		case 2:
			line = []string{api.IPAddress, fmt.Sprintf("100.%d.%d.%d", 64+i>>16&63, i>>8&255, i&255)}
		}
		_ = w.Write(append(line, api.Block, "High", fmt.Sprintf("Campaign %d", i%97), "From the feed of the sector's CERT; ask before you take it out.", "2099-01-01"))
	}
	w.Flush()
	return strings.NewReader(b.String())
}

// processorTime is what this process has used, in user and kernel mode.
func processorTime(b *testing.B) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkIndicators measures the organisation's list at its largest, 100,000
// entries, in a portal that serves: the import, the pages that people and
// programs read, and making the list that devices fetch. cpu-ms/op is the
// processor time of client and portal together.
func BenchmarkIndicators(b *testing.B) {
	w := newWorld(b)
	who := indicator.Who{Name: "bench", Source: indicator.SourceUser}
	run := func(name string, f func(b *testing.B)) {
		b.Run(name, func(b *testing.B) {
			before := processorTime(b)
			for range b.N {
				f(b)
			}
			b.ReportMetric(float64((processorTime(b)-before).Microseconds())/1000/float64(b.N), "cpu-ms/op")
		})
	}
	run("import", func(b *testing.B) {
		r, err := w.indicators.Import(b.Context(), feed(api.MaxEntries-1), false, who)
		if err != nil || r.Stored != api.MaxEntries-1 || r.Wrong > 0 {
			b.Fatalf("import: %+v, %v", r, err)
		}
	})
	c, _ := w.signIn(b, "reader", access.Reader)
	page := func(c *http.Client, header map[string]string, path, want string) func(b *testing.B) {
		return func(b *testing.B) {
			if resp, text := w.do(b, c, http.MethodGet, path, nil, header); resp.StatusCode != http.StatusOK || !strings.Contains(text, want) {
				b.Fatalf("%s: %s\n%.300s", path, resp.Status, text)
			}
		}
	}
	total := fmt.Sprint("of ", api.MaxEntries)
	run("page", page(c, nil, "/indicators", total))
	run("page-sorted", page(c, nil, "/indicators?sort=indicatorValue&page=1000", total))
	run("page-search", page(c, nil, "/indicators?q=campaign-42&type=DomainName", "campaign-42"))
	_, token, err := w.accounts.CreateToken(b.Context(), "bench", []access.Permission{access.IndicatorRead}, 0, "test", "")
	if err != nil {
		b.Fatal(err)
	}
	program := map[string]string{"Authorization": "Bearer " + token}
	run("rest-1000", page(w.client(b), program, "/api/indicators?$top=1000&$count=true", `"@odata.count":100000`))
	run("rest-one", page(w.client(b), program, "/api/indicators?$filter=indicatorValue%20eq%20%27100.64.0.2%27", "100.64.0.2"))
	run("export", func(b *testing.B) {
		if err := w.indicators.Export(b.Context(), nil, io.Discard); err != nil {
			b.Fatal(err)
		}
	})
	list, _, err := w.indicators.List(b.Context(), query.Query{Top: 1})
	if err != nil || len(list) != 1 {
		b.Fatal(err)
	}
	run("list-of-devices", func(b *testing.B) {
		// A service of its own, so that it has no list yet, as after a change.
		fresh := indicator.New(w.control.Indicators(), w.fleet, time.Now)
		if version, err := fresh.CheckIn(context.WithoutCancel(b.Context()), w.device, "", "", 0); err != nil || version == "" {
			b.Fatalf("check-in: %q, %v", version, err)
		}
	})
	run("check-in-unchanged", func(b *testing.B) {
		if _, err := w.indicators.CheckIn(b.Context(), w.device, "", "", 0); err != nil {
			b.Fatal(err)
		}
	})
}
