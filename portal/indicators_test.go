package portal

import (
	"bytes"
	"fmt"
	"log/slog"
	"mime/multipart"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	agentv1 "github.com/bulwarkhq/bulwark/api/agent/v1"
	api "github.com/bulwarkhq/bulwark/api/indicator"
	"github.com/bulwarkhq/bulwark/portal/access"
	"github.com/bulwarkhq/bulwark/portal/fleet"
	"github.com/bulwarkhq/bulwark/portal/indicator"
	"github.com/bulwarkhq/bulwark/portal/ingest"
	"github.com/bulwarkhq/bulwark/portal/query"
)

// checkIn is a check-in of the world's device with a list of indicators; it
// returns the version that the device should have.
func (w *world) checkIn(t testing.TB, reported string, count int) string {
	t.Helper()
	s := newSink(w.cfg.Events, w.alerts, w.inventory, slog.New(slog.DiscardHandler), w.metrics)
	s.fleet, s.indicators = w.fleet, w.indicators
	r, err := s.CheckIn(t.Context(), &ingest.CheckIn{
		DeviceID: w.device, Info: &agentv1.DeviceInfo{HostName: "web1", OsDistribution: "debian"}, Received: time.Now(), Health: []byte("{}"),
		IndicatorsVersion: reported, IndicatorsCount: count,
	})
	if err != nil {
		t.Fatal(err)
	}
	return r.IndicatorsVersion
}

// listed brings the list that the device should have until it is as wanted:
// lists that took long to make on a busy machine are kept for a while.
func (w *world) listed(t *testing.T, what, reported string, count int, wanted func(api.List) bool) string {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(100 * time.Millisecond) {
		version := w.checkIn(t, reported, count)
		l := w.fetch(t, version)
		if wanted(l) {
			return version
		}
		if time.Now().After(end) {
			t.Fatalf("%s: the list has %s", what, values(l))
		}
	}
}

// fetch brings the list of a version as an agent does.
func (w *world) fetch(t *testing.T, version string) api.List {
	t.Helper()
	from := indicatorLists{w.fleet, w.indicators}
	var packed []byte
	for {
		data, size, err := from.IndicatorsPart(t.Context(), w.device, version, uint64(len(packed)))
		if err != nil {
			t.Fatal(err)
		}
		if packed = append(packed, data...); uint64(len(packed)) == size {
			break
		}
	}
	dec, err := zstd.NewReader(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer dec.Close()
	data, err := dec.DecodeAll(packed, nil)
	if err != nil {
		t.Fatal(err)
	}
	l, wrong, err := api.Parse(data)
	if err != nil || len(wrong) > 0 || l.Version != version {
		t.Fatalf("the list: version %q, %v, %v", l.Version, wrong, err)
	}
	return l
}

func values(l api.List) string {
	var out []string
	for _, i := range l.Indicators {
		out = append(out, i.Value)
	}
	return strings.Join(out, " ")
}

// TestIndicatorsAPI makes indicators as a program does and looks what a device
// gets.
func TestIndicatorsAPI(t *testing.T) {
	w, doc := newWorld(t), readDescription(t)
	_, token, err := w.accounts.CreateToken(t.Context(), "feed", access.Scopes(), 0, "test", "")
	if err != nil {
		t.Fatal(err)
	}
	call := func(method, template, path, body string) (int, map[string]any) {
		t.Helper()
		return w.apiCall(t, doc, token, method, template, path, body)
	}
	if _, err := w.indicators.Delete(t.Context(), []string{w.indicator}, indicator.Who{Name: "t"}); err != nil {
		t.Fatal(err)
	}
	empty := w.checkIn(t, "", 0)
	if l := w.fetch(t, empty); len(l.Indicators) != 0 {
		t.Fatalf("the first list has %v", l)
	}
	hash := strings.Repeat("Ab", 32)
	status, i := call("POST", "/api/indicators", "/api/indicators", `{"indicatorValue":"`+hash+`","indicatorType":"FileSha256","action":"AlertAndBlock","title":"Implant","description":"d","severity":"High","recommendedActions":"isolate it","expirationTime":"2099-01-01T00:00:00Z","application":"app"}`)
	if status != 200 || i["indicatorValue"] != strings.ToLower(hash) || i["action"] != "Block" || i["generateAlert"] != true || i["createdBy"] != "feed" || i["sourceType"] != "AadApp" || i["recommendedActions"] != "isolate it" || i["expirationTime"] != "2099-01-01T00:00:00Z" {
		t.Fatalf("POST: %d %v", status, i)
	}
	first := w.listed(t, "the first indicator", empty, 0, func(l api.List) bool { return len(l.Indicators) > 0 })
	if l := w.fetch(t, first); first == empty || len(l.Indicators) != 1 || l.Indicators[0].Title != "Implant" || l.Indicators[0].Action != api.Block || l.Indicators[0].Severity != "High" || l.Indicators[0].Silent {
		t.Errorf("the list after the first indicator: %+v", l)
	}
	// The same again is the same indicator, and the same list.
	status, again := call("POST", "/api/indicators", "/api/indicators", `{"indicatorValue":"`+hash+`","indicatorType":"FileSha256","action":"Block","title":"Implant","description":"d","severity":"High","expirationTime":"2099-01-01T00:00:00Z"}`)
	if status != 200 || again["id"] != i["id"] || w.checkIn(t, first, 1) != first {
		t.Errorf("the same again: %d %v", status, again)
	}
	// A batch says of each what became of it.
	status, res := call("POST", "/api/indicators/import", "/api/indicators/import", `{"Indicators":[
		{"indicatorValue":"*.Evil.Example","indicatorType":"DomainName","action":"Warn","title":"n","generateAlert":false},
		{"indicatorValue":"10.0.0.0/8","indicatorType":"IpAddress","action":"Block","title":"n"},
		{"indicatorValue":"x","indicatorType":"IpAddress","action":"Block","title":"n"},
		{"indicatorValue":"ab","indicatorType":"CertificateThumbprint","action":"Block","title":"n"}]}`)
	list, _ := res["value"].([]any)
	if status != 200 || len(list) != 4 || list[0].(map[string]any)["isFailed"] != false || list[2].(map[string]any)["isFailed"] != true || !strings.Contains(fmt.Sprint(list[3]), "hash of the file") {
		t.Fatalf("import: %d %v", status, res)
	}
	w.listed(t, "a batch", first, 1, func(l api.List) bool {
		return values(l) == strings.ToLower(hash)+" evil.example 10.0.0.0/8" && l.Indicators[1].Silent
	})
	if _, _, err := (indicatorLists{w.fleet, w.indicators}).IndicatorsPart(t.Context(), w.device, first, 0); err == nil {
		t.Error("an old version is still given")
	}
	status, page := call("GET", "/api/indicators", "/api/indicators?$count=true&$top=1&$orderby=id&$filter="+url.QueryEscape("indicatorType ne 'IpNetwork' and generateAlert eq true"), "")
	if status != 200 || page["@odata.count"] != float64(1) {
		t.Errorf("list: %d %v", status, page)
	}
	for _, x := range []struct {
		body   string
		target string
	}{
		{`{"indicatorValue":"a.b","indicatorType":"DomainName","action":"Block"}`, "title"},
		{`{"indicatorValue":"a.b","indicatorType":"DomainName","action":"Explode","title":"x"}`, "action"},
		{`{"indicatorValue":"a.b","indicatorType":"DomainName","action":"BlockAndRemediate","title":"x"}`, "action"},
		{`{"indicatorValue":"/opt/x","indicatorType":"FilePath","action":"BlockAndRemediate","title":"x"}`, "action"},
		{`{"indicatorValue":"https://a.b/c","indicatorType":"Url","action":"Block","title":"x"}`, "action"},
		{`{"indicatorValue":"http://a.b/","indicatorType":"Url","action":"Block","title":"x"}`, "action"},
		{`{"indicatorValue":"a.b","indicatorType":"DomainName","action":"Audit","title":"x","generateAlert":false}`, "generateAlert"},
		{`{"indicatorValue":"a.b","indicatorType":"DomainName","action":"Block","title":"x","expirationTime":"2001-01-01T00:00:00Z"}`, "expirationTime"},
		{`{"indicatorValue":"a.b","indicatorType":"DomainName","action":"Block","title":"x","rbacGroupNames":["nope"]}`, "rbacGroupNames"},
		{`{"indicatorValue":"a.b","indicatorType":"DomainName","action":"Block","title":"` + strings.Repeat("x", 201) + `"}`, "title"},
		{`{"indicatorValue":"a b","indicatorType":"DomainName","action":"Block","title":"x"}`, "indicatorValue"},
		{`{"value":"a.b"}`, "value"},
	} {
		status, v := call("POST", "/api/indicators", "/api/indicators", x.body)
		if e, _ := v["error"].(map[string]any); status != 400 || e["target"] != x.target {
			t.Errorf("%.120s: %d %v, want the target %s", x.body, status, v, x.target)
		}
	}
	// Scoped to a group of devices.
	g, err := w.fleet.PutGroup(t.Context(), fleet.Group{Name: "web", Rank: 1, Rule: "computerDnsName eq 'web1'"}, "t", "")
	if err != nil {
		t.Fatal(err)
	}
	other, err := w.fleet.PutGroup(t.Context(), fleet.Group{Name: "db", Rank: 2, Rule: "computerDnsName eq 'db1'"}, "t", "")
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{"WEB": "192.0.2.1", other.ID: "192.0.2.2"} {
		if status, v := call("POST", "/api/indicators", "/api/indicators", `{"indicatorValue":"`+value+`","indicatorType":"IpAddress","action":"Block","title":"x","rbacGroupNames":["`+name+`"]}`); status != 200 || len(v["rbacGroupIds"].([]any)) != 1 {
			t.Errorf("scoped: %d %v", status, v)
		}
	}
	w.listed(t, "a device of the group "+g.Name, first, 1, func(l api.List) bool { return strings.HasSuffix(values(l), " 192.0.2.1") })
	// Deleted: the device should have a list without it at once.
	id := i["id"].(string)
	resp, text := w.do(t, w.client(t), "DELETE", "/api/indicators/"+id, nil, map[string]string{"Authorization": "Bearer " + token})
	if resp.StatusCode != http.StatusNoContent || text != "" {
		t.Errorf("DELETE: %s %s", resp.Status, text)
	}
	w.listed(t, "deleted", first, 1, func(l api.List) bool { return !strings.Contains(values(l), strings.ToLower(hash)) })
	if status, _ := call("GET", "/api/indicators/{id}", "/api/indicators/"+id, ""); status != 404 {
		t.Errorf("a deleted indicator: %d", status)
	}
	resp, _ = w.do(t, w.client(t), "POST", "/api/indicators/BatchDelete", strings.NewReader(`{"IndicatorIds":["`+list[0].(map[string]any)["id"].(string)+`","999"]}`), map[string]string{"Authorization": "Bearer " + token, "Content-Type": "application/json"})
	if resp.StatusCode != http.StatusNoContent {
		t.Errorf("BatchDelete: %s", resp.Status)
	}
	a, err := w.indicators.Applied(t.Context(), w.device)
	if err != nil || a.Wanted == a.Reported || a.Reported != first || a.Count != 1 {
		t.Errorf("applied: %+v, %v", a, err)
	}
	entries, err := w.accounts.AuditEntries(t.Context(), 0, 100)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, e := range entries {
		seen[e.Action] = true
	}
	if !seen["indicator.update"] || !seen["indicator.import"] || !seen["indicator.delete"] {
		t.Errorf("the audit log has %v", seen)
	}
}

// upload posts a form with a file.
func (w *world) upload(t *testing.T, c *http.Client, path, csrf, do, content string) (*http.Response, string) {
	t.Helper()
	var b bytes.Buffer
	m := multipart.NewWriter(&b)
	_ = m.WriteField("csrf", csrf)
	_ = m.WriteField("do", do)
	f, err := m.CreateFormFile("file", "x.csv")
	if err == nil {
		_, err = f.Write([]byte(content))
	}
	if err != nil || m.Close() != nil {
		t.Fatal(err)
	}
	return w.do(t, c, http.MethodPost, path, &b, map[string]string{"Content-Type": m.FormDataContentType()})
}

// TestUploadsLeaveNoFiles: what a form has is larger than what is kept in memory,
// and is gone from the disk after the answer, whatever that is.
func TestUploadsLeaveNoFiles(t *testing.T) {
	w := newWorld(t)
	c, csrf := w.signIn(t, "rita", access.Responder)
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	large := strings.Repeat("# a line without an indicator\n", 3<<20/30)
	for token, want := range map[string]int{csrf: http.StatusBadRequest, "wrong": http.StatusForbidden} {
		if resp, text := w.upload(t, c, "/indicators/import", token, "check", large); resp.StatusCode != want {
			t.Errorf("%s: %s, want %d: %.500s", token, resp.Status, want, text)
		}
	}
	if left, err := filepath.Glob(dir + "/*"); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// TestIndicatorPages makes, imports, exports and deletes indicators as a
// responder does.
func TestIndicatorPages(t *testing.T) {
	w := newWorld(t)
	c, csrf := w.signIn(t, "rita", access.Responder)
	form := func(path string, want int, pairs ...string) (*http.Response, string) {
		t.Helper()
		v := url.Values{"csrf": {csrf}}
		for i := 0; i < len(pairs); i += 2 {
			v.Add(pairs[i], pairs[i+1])
		}
		resp, text := w.post(t, c, path, v)
		if resp.StatusCode != want {
			t.Fatalf("POST %s %v: %s\n%.300s", path, pairs, resp.Status, text)
		}
		return resp, text
	}
	resp, _ := form("/indicators", 303, "type", "DomainName", "value", "Evil.Example", "action", "Block", "title", "Bad", "severity", "High", "alerts", "1", "expires", "2099-01-01T10:00", "recommended", "look at it")
	at := resp.Header.Get("Location")
	if _, text := w.get(t, c, at); !strings.Contains(text, "evil.example") || !strings.Contains(text, `value="2099-01-01T10:00"`) || !strings.Contains(text, "rita") {
		t.Errorf("the page of the indicator: %.2000s", text)
	}
	id := strings.TrimPrefix(at, "/indicators/")
	form("/indicators", 303, "id", id, "type", "DomainName", "value", "worse.example", "action", "Audit", "title", "Bad", "severity", "Low", "alerts", "1")
	i, err := w.indicators.Get(t.Context(), id)
	if err != nil || i.Value != "worse.example" || i.Action != "Audit" || i.UpdatedBy != "rita" || !i.Expires.IsZero() {
		t.Errorf("changed: %+v, %v", i, err)
	}
	if _, text := form("/indicators", 400, "id", id, "type", "DomainName", "value", "no domain", "action", "Audit", "title", "Bad", "alerts", "1"); !strings.Contains(text, "no domain") {
		t.Errorf("a wrong value: %.500s", text)
	}
	form("/indicators", 303, "type", "IpAddress", "value", "192.0.2.7", "action", "Block", "title", "x", "alerts", "1")
	form("/indicators", 409, "id", id, "type", "IpAddress", "value", "192.0.2.7", "action", "Block", "title", "x", "alerts", "1")

	csv := "\ufeffIndicatorType,IndicatorValue,Action,Title,Severity,ExpirationTime,GenerateAlert\n" +
		"IpAddress,198.51.100.1,Block,one,High,2099-01-01,\n" + // 2
		"IpAddress,nope,Block,two,High,,\n" + // 3
		"FileMd5," + strings.Repeat("a", 32) + ",Block,'=three,Low,,false\n" + // 4
		"IpAddress,198.51.100.2,Block,four,High,tomorrow,\n" + // 5
		"IpAddress,198.51.100.3,Block,five,High,,,too many,fields\n" + // 6
		"IpAddress,198.51.100.4,Block,\"si\"x,High,,\n" + // 7
		"DomainName,a.example,Allowed,seven,,,\n" // 8
	resp, text := w.upload(t, c, "/indicators/import", csrf, "check", csv)
	if resp.StatusCode != 200 || !strings.Contains(text, "7 lines read, 3 right, 4 wrong") {
		t.Errorf("checked: %s %.3000s", resp.Status, text)
	}
	if _, n, err := w.indicators.List(t.Context(), indicatorCount()); err != nil || n != 3 {
		t.Errorf("a check stored something: %d, %v", n, err)
	}
	resp, text = w.upload(t, c, "/indicators/import", csrf, "import", csv)
	for _, want := range []string{"7 lines read, 3 stored, 4 wrong", "<td data-label=\"Line\">3<", "<td data-label=\"Line\">5<", "<td data-label=\"Line\">6<", "<td data-label=\"Line\">7<"} {
		if resp.StatusCode != 200 || !strings.Contains(text, want) {
			t.Errorf("imported: %s, without %q", resp.Status, want)
		}
	}
	for _, bad := range []string{"", "a,b\n", "IndicatorType,IndicatorValue\n"} {
		if resp, _ := w.upload(t, c, "/indicators/import", csrf, "import", bad); resp.StatusCode != 400 {
			t.Errorf("%q: %s", bad, resp.Status)
		}
	}
	if resp, _ := w.upload(t, c, "/indicators/import", "wrong", "import", csv); resp.StatusCode != 403 {
		t.Errorf("an upload with a wrong CSRF token: %s", resp.Status)
	}
	// What is exported comes in again as it was.
	_, exported := w.get(t, c, "/indicators/export?format=csv&type=FileMd5")
	if !strings.Contains(exported, "'=three") || strings.Count(exported, "\n") != 2 {
		t.Errorf("exported:\n%s", exported)
	}
	if resp, text := w.upload(t, c, "/indicators/import", csrf, "import", exported); resp.StatusCode != 200 || !strings.Contains(text, "1 line read, 1 stored, 0 wrong") {
		t.Errorf("imported again: %s", resp.Status)
	}
	if _, text := w.get(t, c, "/indicators/export?format=json"); strings.Count(text, `"type"`) != 6 {
		t.Errorf("JSON: %s", text)
	}
	if _, text := w.get(t, c, "/indicators?q=three&action=Block&state=Active&sort=-title"); !strings.Contains(text, "=three") || strings.Contains(text, "198.51.100.1") {
		t.Error("the search does not find its own")
	}
	form("/indicators/delete", 303, "id", id, "id", w.indicator)
	form("/indicators/delete", 400)
	if _, n, err := w.indicators.List(t.Context(), indicatorCount()); err != nil || n != 4 {
		t.Errorf("%d indicators are left, %v", n, err)
	}
	ann, annCSRF := w.signIn(t, "ann", access.Analyst)
	if resp, _ := w.post(t, ann, "/indicators", url.Values{"csrf": {annCSRF}, "type": {"IpAddress"}, "value": {"192.0.2.9"}, "action": {"Block"}, "title": {"x"}}); resp.StatusCode != 403 {
		t.Errorf("an analyst makes an indicator: %s", resp.Status)
	}
}

func indicatorCount() query.Query { return query.Query{Top: 1, Count: true} }
