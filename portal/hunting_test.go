package portal

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/bulwarkhq/bulwark/portal/access"
)

// TestHunting asks for events, alerts and devices in one query each, as a
// program and as a person, with data of a hostile device.
func TestHunting(t *testing.T) {
	w := newWorld(t)
	doc := readDescription(t)
	token := w.token(t, access.HuntingRead)
	ask := func(query string) (int, map[string]any) {
		t.Helper()
		body, err := json.Marshal(map[string]string{"Query": query})
		if err != nil {
			t.Fatal(err)
		}
		return w.apiCall(t, doc, token, http.MethodPost, "/api/advancedqueries/run", "/api/advancedqueries/run", string(body))
	}
	for _, tc := range []struct{ query, want string }{
		{"union Device*Events | count", `[{"Count":90}]`},
		{"AlertInfo | join kind=inner AlertEvidence on AlertId | where EntityType == 'Process' | project ProcessId", `[{"ProcessId":7}]`},
		{"DeviceInfo | project DeviceId, DeviceType", fmt.Sprintf(`[{"DeviceId":%q,"DeviceType":"Server"}]`, w.device)},
		{"DeviceProcessEvents | where Timestamp > datetime(1970-01-01) | summarize dcount(DeviceId), take_any(isnotempty(FileName))", `[{"dcount_DeviceId":1,"isnotempty":true}]`},
		{"DeviceEvents | where AdditionalFields.nothing == 'x' | count", `[{"Count":0}]`},
		{
			"BehaviorInfo | project BehaviorId, ActionType, t = parse_json(AttackTechniques)[0], EndTime >= StartTime, tostring(AdditionalFields.Tactic)",
			fmt.Sprintf(`[{"ActionType":"SystemInformation","AdditionalFields_Tactic":"Discovery","BehaviorId":%q,"Column4":true,"t":"T1082"}]`, w.alert),
		},
		{
			"BehaviorEntities | where BehaviorId in ((BehaviorInfo | project BehaviorId)) | summarize Known = countif(isnotempty(FolderPath)), Addresses = make_set(RemoteIP), Size = max(FileSize) by EntityType | order by EntityType asc",
			`[{"Addresses":[""],"EntityType":"File","Known":1,"Size":3},{"Addresses":["192.0.2.7"],"EntityType":"Ip","Known":0,"Size":null},{"Addresses":[""],"EntityType":"Machine","Known":0,"Size":null},` +
				`{"Addresses":[""],"EntityType":"Process","Known":1,"Size":null},{"Addresses":[""],"EntityType":"User","Known":0,"Size":null}]`,
		},
		{"AlertInfo | project t = parse_json(AttackTechniques)[0]", `[{"t":"T1059.004"}]`},
	} {
		status, answer := ask(tc.query)
		got, err := json.Marshal(answer["Results"])
		if err != nil {
			t.Fatal(err)
		}
		want := tc.want
		if strings.Contains(tc.query, "take_any") {
			var rows []map[string]any
			if json.Unmarshal(got, &rows) != nil || len(rows) != 1 || rows[0]["dcount_DeviceId"] != 1.0 {
				t.Errorf("%s: %d %s", tc.query, status, got)
			}
			continue
		}
		if status != http.StatusOK || string(got) != want {
			t.Errorf("%s: %d %s, want %s (%v)", tc.query, status, got, want, answer["error"])
		}
	}
	status, answer := ask("DeviceProcessEvents\n| where Nme == 1")
	if status != http.StatusBadRequest || !strings.Contains(fmt.Sprint(answer["error"]), "line 2, column 9: there is no column Nme") {
		t.Errorf("%d %v", status, answer)
	}
	// What is no query in KQL stays one that fails.
	for _, q := range []string{"SELECT * FROM losses", "losses | take 1", "DeviceEvents; DROP TABLE losses", `print x = '\'' | where x == "');DROP TABLE losses;--"`} {
		if status, answer := ask(q); status == http.StatusInternalServerError || status == http.StatusOK && !strings.HasPrefix(q, "print") {
			t.Errorf("%s: %d %v", q, status, answer)
		}
	}
	if status, _ := w.apiCall(t, doc, w.token(t, access.AlertRead), http.MethodPost, "/api/advancedqueries/run", "/api/advancedqueries/run", `{"Query":"DeviceEvents"}`); status != http.StatusForbidden {
		t.Errorf("without the scope: %d", status)
	}
}

// TestHuntingParquet downloads the result of a query as a Parquet file, from the
// page and by API.
func TestHuntingParquet(t *testing.T) {
	w := newWorld(t)
	c, csrf := w.signIn(t, "ann", access.Reader)
	if _, text := w.get(t, c, "/hunting"); !strings.Contains(text, `value="parquet"`) {
		t.Error("the page offers no Parquet file")
	}
	isFile := func(resp *http.Response, text, name string) {
		t.Helper()
		if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "application/vnd.apache.parquet" || !strings.HasPrefix(text, "PAR1") || !strings.HasSuffix(text, "PAR1") ||
			!strings.Contains(resp.Header.Get("Content-Disposition"), `"`+name+`"`) || resp.ContentLength != int64(len(text)) {
			t.Errorf("%s %v, %d bytes, begins %.40q", resp.Status, resp.Header, len(text), text)
		}
	}
	ask := func(query string) (*http.Response, string) {
		t.Helper()
		return w.post(t, c, "/hunting/export", url.Values{"csrf": {csrf}, "q": {query}, "format": {"parquet"}})
	}
	resp, text := ask("union Device*Events\r\n| project Timestamp, DeviceId, ActionType")
	isFile(resp, text, "hunting.parquet")
	resp, text = ask("range x from 1 to 200000 step 1")
	isFile(resp, text, "hunting-first-100000-rows.parquet")
	for format, rows := range map[string]string{"csv": "10001", "json": "10000"} {
		want := map[string]string{"csv": `"hunting-first-10000-rows.csv"`, "json": `"hunting.json"`}[format]
		resp, _ := w.post(t, c, "/hunting/export", url.Values{"csrf": {csrf}, "q": {"range x from 1 to " + rows + " step 1"}, "format": {format}})
		if resp.StatusCode != http.StatusOK || !strings.Contains(resp.Header.Get("Content-Disposition"), want) {
			t.Errorf("%s of %s rows: %s %q, want %s", format, rows, resp.Status, resp.Header.Get("Content-Disposition"), want)
		}
	}
	if resp, text := ask("Nope | take 1"); resp.StatusCode != http.StatusBadRequest || !strings.Contains(text, "Line 1, column 1") {
		t.Errorf("a query that is wrong: %s %.500s", resp.Status, text)
	}

	token := w.token(t, access.HuntingRead)
	call := func(token, body string) (*http.Response, string) {
		t.Helper()
		return w.do(t, w.client(t), "POST", "/api/advancedqueries/export", strings.NewReader(body), map[string]string{"Authorization": "Bearer " + token, "Content-Type": "application/json"})
	}
	resp, text = call(token, `{"Query":"AlertInfo | join AlertEvidence on AlertId","Format":"Parquet"}`)
	isFile(resp, text, "hunting.parquet")
	if n := resp.Header.Get("Bulwark-Row-Count"); n == "" || n == "0" || resp.Header.Get("Bulwark-Truncated") != "" {
		t.Errorf("%v", resp.Header)
	}
	for body, status := range map[string]int{
		`{"Query":"AlertInfo","Format":"csv"}`: 400, `{"Query":" ","Format":"Parquet"}`: 400, `{"Query":"AlertInfo | where x","Format":"Parquet"}`: 400, `{"Query":"AlertInfo"}`: 400,
	} {
		if resp, text := call(token, body); resp.StatusCode != status || !strings.Contains(text, `"error"`) {
			t.Errorf("%s: %s %s", body, resp.Status, text)
		}
	}
	if resp, _ := call(w.token(t, access.AlertRead), `{"Query":"AlertInfo","Format":"Parquet"}`); resp.StatusCode != http.StatusForbidden {
		t.Errorf("without the scope: %s", resp.Status)
	}
	admin, _ := w.signIn(t, "admin", access.Administrator)
	if _, text := w.get(t, admin, "/audit"); !strings.Contains(text, "hunting.export") || !strings.Contains(text, "parquet: AlertInfo | join") {
		t.Error("the exports are not in the audit log")
	}
}

func (w *world) token(t testing.TB, scope access.Permission) string {
	t.Helper()
	_, secret, err := w.accounts.CreateToken(t.Context(), string(scope), []access.Permission{scope}, 0, "test", "")
	if err != nil {
		t.Fatal(err)
	}
	return secret
}
