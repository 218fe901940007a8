package portal

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"strings"
	"testing"

	"github.com/bulwarkhq/bulwark/api/rest"
	"github.com/bulwarkhq/bulwark/api/restclient"
	"github.com/bulwarkhq/bulwark/portal/access"
)

// restClient is the generated client with a token of the scopes.
func (w *world) restClient(t *testing.T, scopes ...access.Permission) *restclient.ClientWithResponses {
	t.Helper()
	_, token, err := w.accounts.CreateToken(t.Context(), "go", scopes, 0, "test", "")
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(w.cfg.CA.Certificate())
	c, err := restclient.New(w.url, token, roots)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// refusedWith checks that err is a refusal.
func refusedWith(t *testing.T, err error, status int, code, target string) {
	t.Helper()
	var e *restclient.Error
	if !errors.As(err, &e) || e.Status != status || e.Code != code || e.Target != target || e.Message == "" {
		t.Errorf("%#v, want %d %s of %q", err, status, code, target)
	}
}

// TestGeneratedClient walks the API as a program in Go does.
func TestGeneratedClient(t *testing.T) {
	w := newWorld(t)
	for i := range 6 {
		addDevice(t, w.control, strings.Repeat(fmt.Sprintf("1%d", i), 20), fmt.Sprintf("web%d", i))
	}
	c, ctx := w.restClient(t, access.Scopes()...), t.Context()

	// Machines, with options, and page by page.
	filter, order, count := "startswith(computerDnsName,"+rest.Quote("web")+")", "computerDnsName desc", true
	two := 2
	page, err := c.ListMachinesWithResponse(ctx, &restclient.ListMachinesParams{Filter: &filter, Orderby: &order, Top: &two, Count: &count})
	if err != nil {
		t.Fatal(err)
	}
	if l := page.JSON200; len(l.Value) != 2 || l.Value[0].ComputerDNSName != "web5" || l.OdataCount == nil || *l.OdataCount != 6 || l.OdataNextLink == nil {
		t.Errorf("%+v", l)
	}
	asked := 0
	machines := func(limit int) (names []string) {
		for m, err := range restclient.Pages(limit, func(top, skip *int) ([]restclient.Machine, *string, error) {
			asked++
			small := min(*top, 4)
			r, err := c.ListMachinesWithResponse(ctx, &restclient.ListMachinesParams{Filter: &filter, Orderby: &order, Top: &small, Skip: skip})
			if err != nil {
				return nil, nil, err
			}
			return r.JSON200.Value, r.JSON200.OdataNextLink, nil
		}) {
			if err != nil {
				t.Fatal(err)
			}
			names = append(names, m.ComputerDNSName)
		}
		return names
	}
	if got := strings.Join(machines(100), " "); got != "web5 web4 web3 web2 web1 web0" || asked != 2 {
		t.Errorf("%s in %d pages", got, asked)
	}
	if got := machines(5); len(got) != 5 {
		t.Errorf("at most five: %v", got)
	}
	one, err := c.GetMachineWithResponse(ctx, w.device)
	if err != nil {
		t.Fatal(err)
	}
	if m := one.JSON200; m.ID != w.device || m.AgentHealth == nil || (*m.AgentHealth)["events_waiting"] != 3.0 || m.RiskScore != restclient.MachineRiskScoreHigh || m.FirstSeen.IsZero() {
		t.Errorf("%+v", m)
	}

	// An alert: what is null, what is set and what is taken back.
	got, err := c.GetAlertWithResponse(ctx, w.alert)
	if err != nil {
		t.Fatal(err)
	}
	if a := got.JSON200; a.Title != hostileText || a.Severity != restclient.AlertSeverityHigh || a.Status != restclient.AlertStatusNew || a.Classification != nil || a.ResolvedTime != nil || len(a.Evidence) < 4 {
		t.Errorf("%+v", a)
	}
	resolved, mistaken, ann, comment := restclient.AlertChangeStatusResolved, restclient.AlertChangeClassificationFalsePositive, "ann", "checked"
	set, err := c.UpdateAlertWithResponse(ctx, w.alert, restclient.AlertChange{Status: &resolved, Classification: &mistaken, AssignedTo: &ann, Comment: &comment})
	if err != nil {
		t.Fatal(err)
	}
	if a := set.JSON200; a.Status != restclient.AlertStatusResolved || a.Classification == nil || *a.Classification != restclient.AlertClassificationFalsePositive || a.AssignedTo == nil || *a.AssignedTo != ann || a.ResolvedTime == nil || len(a.Comments) != 1 || a.Comments[0].Comment != comment {
		t.Errorf("%+v", a)
	}
	none := restclient.AlertChangeClassificationEmpty
	if set, err = c.UpdateAlertWithResponse(ctx, w.alert, restclient.AlertChange{Classification: &none}); err != nil || set.JSON200.Classification != nil || *set.JSON200.AssignedTo != ann {
		t.Errorf("the classification taken back: %+v, %v", set, err)
	}

	// A query, with a number that a float64 does not hold.
	query := fmt.Sprintf("DeviceInfo | where DeviceId == '%s' | project DeviceId, Big = %d", w.device, int64(math.MaxInt64))
	found, err := c.RunQueryWithResponse(ctx, restclient.RunQueryJSONRequestBody{Query: query})
	if err != nil {
		t.Fatal(err)
	}
	var row struct {
		DeviceID string `json:"DeviceId"`
		Big      int64
	}
	if q := found.JSON200; len(q.Schema) != 2 || q.Schema[1].Type != "Int64" || q.Stats.RowCount != 1 || len(q.Results) != 1 || json.Unmarshal(q.Results[0], &row) != nil || row.DeviceID != w.device || row.Big != math.MaxInt64 {
		t.Errorf("%+v, %+v", q, row)
	}
	_, err = c.RunQueryWithResponse(ctx, restclient.RunQueryJSONRequestBody{Query: "DeviceInfo | nonsense"})
	refusedWith(t, err, http.StatusBadRequest, "BadRequest", "Query")

	// An action, and one that there is already.
	scan := restclient.RunAntiVirusScanJSONRequestBody{Comment: "why", ScanType: restclient.RunAntiVirusScanJSONBodyScanTypeFull}
	ordered, err := c.RunAntiVirusScanWithResponse(ctx, w.device, scan)
	if err != nil {
		t.Fatal(err)
	}
	action, err := c.GetMachineActionWithResponse(ctx, ordered.JSON201.ID)
	if err != nil || action.JSON200.Status != restclient.MachineActionStatusPending || action.JSON200.MachineID != w.device {
		t.Errorf("%+v, %v", action, err)
	}
	_, err = c.RunAntiVirusScanWithResponse(ctx, w.device, scan)
	refusedWith(t, err, http.StatusBadRequest, "ActiveRequestAlreadyExists", "id")
	if cancelled, err := c.CancelMachineActionWithResponse(ctx, ordered.JSON201.ID, restclient.CancelMachineActionJSONRequestBody{Comment: "no"}); err != nil || cancelled.JSON200.Status != restclient.MachineActionStatusCancelled {
		t.Errorf("%+v, %v", cancelled, err)
	}

	// Files go to a writer.
	resp, err := c.GetPackage(ctx, w.action)
	if err != nil {
		t.Fatal(err)
	}
	var file bytes.Buffer
	if _, err := io.Copy(&file, resp.Body); err != nil || resp.Body.Close() != nil || file.String() != "a package" {
		t.Errorf("%q, %v", &file, err)
	}

	// An operation without an answer's body.
	if gone, err := c.DeleteIndicatorWithResponse(ctx, w.indicator); err != nil || gone.StatusCode() != http.StatusNoContent {
		t.Errorf("%+v, %v", gone, err)
	}

	// Refusals.
	wrong := "nope eq 1"
	_, err = c.ListMachinesWithResponse(ctx, &restclient.ListMachinesParams{Filter: &wrong})
	refusedWith(t, err, http.StatusBadRequest, "BadRequest", "$filter")
	_, err = c.GetAlertWithResponse(ctx, strings.Repeat("0", 32))
	refusedWith(t, err, http.StatusNotFound, "ResourceNotFound", "id")
	_, err = c.GetAlertWithResponse(ctx, "../machines?x") // stays an id
	refusedWith(t, err, http.StatusNotFound, "ResourceNotFound", "id")
	reader := w.restClient(t, "Machine.Read.All")
	if _, err := reader.ListMachinesWithResponse(ctx, nil); err != nil {
		t.Error(err)
	}
	_, err = reader.RunAntiVirusScanWithResponse(ctx, w.device, scan)
	refusedWith(t, err, http.StatusForbidden, "Forbidden", "")
}
