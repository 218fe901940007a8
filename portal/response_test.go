package portal

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"mime/multipart"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/api/response"
	"github.com/bulwarkhq/bulwark/portal/access"
	"github.com/bulwarkhq/bulwark/portal/action"
	"github.com/bulwarkhq/bulwark/portal/ingest"
)

// TestResponse gives every order as a program, plays the device, and looks what
// becomes of it.
func TestResponse(t *testing.T) {
	w, doc := newWorld(t), readDescription(t)
	_, token, err := w.accounts.CreateToken(t.Context(), "all", access.Scopes(), 0, "test", "")
	if err != nil {
		t.Fatal(err)
	}
	call := func(method, template, path, body string) (int, map[string]any) {
		t.Helper()
		return w.apiCall(t, doc, token, method, template, path, body)
	}
	order := func(verb, body string) (int, map[string]any) {
		t.Helper()
		return call("POST", "/api/machines/{id}/"+verb, "/api/machines/"+w.device+"/"+verb, body)
	}
	target := func(m map[string]any) any {
		e, _ := m["error"].(map[string]any)
		return e["target"]
	}
	for _, c := range []struct{ verb, body, target string }{
		{"isolate", `{"Comment":"x","IsolationType":"Selective"}`, "IsolationType"},
		{"isolate", `{"Comment":"x","IsolationType":"Full","Allow":["0.0.0.0/0"]}`, "Allow"},
		{"isolate", `{"IsolationType":"Full"}`, "Comment"},
		{"StopAndQuarantineFile", `{"Comment":"x"}`, "Sha1"},
		{"StopAndQuarantineFile", `{"Comment":"x","Sha1":"12"}`, "Sha1"},
		{"StopAndQuarantineFile", `{"Comment":"x","Path":"/a/../etc/passwd"}`, "Path"},
		{"stopProcess", `{"Comment":"x","ProcessId":1}`, "ProcessId"},
		{"stopProcess", `{"Comment":"x","ProcessId":5,"ProcessCreationTime":"yesterday"}`, "Started"},
		{"restoreFile", `{"Comment":"x"}`, "ItemId"},
		{"restoreFile", `{"Comment":"x","ItemId":"../x"}`, "ItemId"},
		{"removeQuarantinedFile", `{"Comment":"x","Sha256":"12"}`, "Sha256"},
		{"offboard", `{}`, "Comment"},
	} {
		if status, m := order(c.verb, c.body); status != 400 || target(m) != c.target {
			t.Errorf("%s %s: %d %v", c.verb, c.body, status, m)
		}
	}

	hash := strings.Repeat("ab", 32)
	for _, c := range []struct{ verb, body, kind, parameters string }{
		{"isolate", `{"Comment":"lateral movement","IsolationType":"Full","Allow":["10.1.0.0/16:22"]}`, response.Isolate, ""},
		{"StopAndQuarantineFile", `{"Comment":"x","Sha256":"` + strings.ToUpper(hash) + `","Path":"/tmp/x"}`, response.StopAndQuarantineFile, `{"Path":"/tmp/x","Sha256":"` + hash + `"}`},
		{"StopAndQuarantineFile", `{"Comment":"x","Path":"/tmp/y","KeepRunning":true}`, response.QuarantineFile, `{"Path":"/tmp/y"}`},
		{"stopProcess", `{"Comment":"x","ProcessId":77}`, response.StopProcess, `{"ProcessID":77}`},
		{"restoreFile", `{"Comment":"x","Sha256":"` + hash + `"}`, response.RestoreFile, `{"Sha256":"` + hash + `"}`},
		{"removeQuarantinedFile", `{"Comment":"x","Sha256":"` + hash + `"}`, response.RemoveQuarantinedFile, `{"Sha256":"` + hash + `"}`},
		{"updateDefinitions", `{"Comment":"x"}`, response.UpdateDefinitions, `{}`},
		{"collectInvestigationPackage", `{"Comment":"x"}`, response.CollectInvestigationPackage, `{}`},
		{"offboard", `{"Comment":"x"}`, response.Offboard, `{}`},
	} {
		if status, m := order(c.verb, c.body); status != 201 || m["type"] != c.kind {
			t.Errorf("%s: %d %v", c.verb, status, m)
		}
		pending, err := w.control.Commands().Pending(t.Context(), w.device)
		if err != nil {
			t.Fatal(err)
		}
		last := pending[len(pending)-1]
		for _, p := range pending {
			if p.Type == c.kind {
				last = p
			}
		}
		if c.parameters != "" && string(last.Parameters) != c.parameters {
			t.Errorf("%s: the device gets %s, want %s", c.verb, last.Parameters, c.parameters)
		}
	}
	// One isolation or release at a time; files as many as there are.
	if status, m := order("unisolate", `{"Comment":"x"}`); status != 400 {
		t.Errorf("a release beside an isolation: %d %v", status, m)
	}
	if status, m := order("stopProcess", `{"Comment":"x","ProcessId":78}`); status != 201 {
		t.Errorf("a second process: %d %v", status, m)
	}

	// The isolation's token, which only its key makes.
	pending, err := w.control.Commands().Pending(t.Context(), w.device)
	if err != nil {
		t.Fatal(err)
	}
	byType := map[string]ingest.Command{}
	for _, p := range pending {
		byType[p.Type] = p
	}
	isolation := byType[response.Isolate]
	var p response.IsolateParameters
	if err := json.Unmarshal(isolation.Parameters, &p); err != nil || p.Order != isolation.ID || len(p.ReleaseKey) == 0 {
		t.Fatalf("%s: %v", isolation.Parameters, err)
	}
	const tokenPath = "/api/machineactions/{id}/releaseToken"
	status, m := call("POST", tokenPath, strings.Replace(tokenPath, "{id}", isolation.ID, 1), `{"Comment":"on site","Hours":2}`)
	if status != 200 {
		t.Fatalf("%d %v", status, m)
	}
	if err := response.CheckRelease(p.ReleaseKey, m["token"].(string), w.device, isolation.ID, time.Now()); err != nil {
		t.Error(err)
	}
	if err := response.CheckRelease(p.ReleaseKey, m["token"].(string), w.device, isolation.ID, time.Now().Add(3*time.Hour)); err == nil {
		t.Error("the token is good for longer than was asked")
	}
	collect := byType[response.CollectInvestigationPackage]
	for body, path := range map[string]string{`{"Comment":"x","Hours":100}`: isolation.ID, `{"Comment":"x","Hours":1}`: collect.ID} {
		if status, m := call("POST", tokenPath, strings.Replace(tokenPath, "{id}", path, 1), body); status != 400 {
			t.Errorf("%s %s: %d %v", path, body, status, m)
		}
	}

	// The package arrives in parts, one of them twice.
	content := bytes.Repeat([]byte("0123456789abcdef"), 100_000)
	sum := sha256.Sum256(content)
	send := func(device string, from, to int, sum string) (uint64, error) {
		return transfers{w.files}.ReceivePart(t.Context(), device, collect.ID, ingest.FilePart{Name: "package.tar.gz", Offset: uint64(from), Data: content[from:to], Last: to == len(content), SHA256: sum})
	}
	if err := w.control.Commands().Complete(t.Context(), w.device, ingest.Completion{ID: collect.ID, Status: action.InProgress}); err != nil {
		t.Fatal(err)
	}
	if _, err := send(strings.Repeat("0", 40), 0, 10, ""); err == nil {
		t.Error("another device's part was taken")
	}
	good := hex.EncodeToString(sum[:])
	for _, part := range []struct {
		from, to int
		sum      string
		next     uint64
	}{
		{0, 1 << 20, "", 1 << 20},
		{0, 1 << 20, "", 1 << 20},
		{1<<20 + 5, 1<<20 + 6, "", 1 << 20},
		{1 << 20, len(content), strings.Repeat("0", 64), 0},
		{0, 1 << 20, "", 1 << 20},
		{1 << 20, len(content), good, uint64(len(content))},
		{1 << 20, len(content), good, uint64(len(content))},
	} {
		if next, err := send(w.device, part.from, part.to, part.sum); err != nil || next != part.next {
			t.Fatalf("part %d to %d: next is %d, want %d, %v", part.from, part.to, next, part.next, err)
		}
	}
	if err := w.control.Commands().Complete(t.Context(), w.device, ingest.Completion{ID: collect.ID, Status: action.Succeeded}); err != nil {
		t.Fatal(err)
	}
	if _, err := send(w.device, 0, 10, ""); err == nil {
		t.Error("a part of an action that has ended was taken")
	}
	if status, m := call("GET", "/api/machineactions/{id}/GetPackageUri", "/api/machineactions/"+collect.ID+"/GetPackageUri", ""); status != 200 || m["value"] != "/api/machineactions/"+collect.ID+"/package" {
		t.Errorf("%d %v", status, m)
	}
	resp, text := w.do(t, w.client(t), "GET", "/api/machineactions/"+collect.ID+"/package", nil, map[string]string{"Authorization": "Bearer " + token})
	if resp.StatusCode != 200 || text != string(content) || !strings.Contains(resp.Header.Get("Content-Disposition"), "package.tar.gz") {
		t.Errorf("the package: %s, %d bytes, %s", resp.Status, len(text), resp.Header.Get("Content-Disposition"))
	}

	// People: an analyst may isolate and not offboard; everything is on record.
	c, csrf := w.signIn(t, "ann", access.Analyst)
	if resp, _ := w.post(t, c, "/devices/"+w.device+"/offboard", url.Values{"csrf": {csrf}, "comment": {"x"}}); resp.StatusCode != http.StatusForbidden {
		t.Errorf("an analyst offboards: %s", resp.Status)
	}
	if resp, _ := w.post(t, c, "/actions/"+byType[response.Offboard].ID+"/cancel", url.Values{"csrf": {csrf}, "comment": {"x"}}); resp.StatusCode != http.StatusForbidden {
		t.Errorf("an analyst cancels offboarding: %s", resp.Status)
	}
	if resp, _ := w.post(t, c, "/actions/"+isolation.ID+"/cancel", url.Values{"csrf": {csrf}, "comment": {"false alarm"}}); resp.StatusCode != http.StatusSeeOther {
		t.Errorf("an analyst cancels an isolation: %s", resp.Status)
	}
	for _, f := range []struct{ path, fields, to string }{
		{"isolate", "allow=10.0.0.1, 10.0.0.2:22", response.Isolate},
		{"quarantine", "path=/tmp/z&stop=1", response.StopAndQuarantineFile},
		{"quarantine", "hash=" + strings.Repeat("c", 40), response.QuarantineFile},
		{"stop-process", "pid=99", response.StopProcess},
		{"restore", "sha256=" + hash, response.RestoreFile},
		{"remove-quarantined", "sha256=" + hash, response.RemoveQuarantinedFile},
	} {
		values, err := url.ParseQuery(f.fields)
		if err != nil {
			t.Fatal(err)
		}
		values.Set("csrf", csrf)
		values.Set("comment", hostileText)
		resp, _ := w.post(t, c, "/devices/"+w.device+"/"+f.path, values)
		if resp.StatusCode != http.StatusSeeOther {
			t.Errorf("%s by form: %s", f.path, resp.Status)
			continue
		}
		resp, text := w.get(t, c, resp.Header.Get("Location"))
		if resp.StatusCode != 200 || strings.Contains(text, "<script>window") || !strings.Contains(text, "Why") {
			t.Errorf("the page of %s: %s", f.path, resp.Status)
		}
		if f.to != response.Isolate {
			continue
		}
		_, text = w.post(t, c, resp.Request.URL.Path+"/release-token", url.Values{"csrf": {csrf}, "comment": {"x"}, "hours": {"4"}})
		if !strings.Contains(text, "bulwark isolation release --token bulwark-release-v1.") {
			t.Errorf("no token on the page: %.2000s", text)
		}
	}
	admin, _ := w.signIn(t, "admin", access.Administrator)
	_, text = w.get(t, admin, "/audit")
	for _, want := range []string{"action.order", "action.cancel", "action.release-token", "action.download", "lateral movement"} {
		if !strings.Contains(text, want) {
			t.Errorf("the audit log lacks %s", want)
		}
	}
}

// TestLiveResponse uploads a script, types commands, plays the device and reads
// the transcript.
func TestLiveResponse(t *testing.T) {
	w := newWorld(t)
	admin, csrf := w.signIn(t, "admin", access.Administrator)
	responder, csrf2 := w.signIn(t, "rita", access.Responder)
	var form bytes.Buffer
	m := multipart.NewWriter(&form)
	script := []byte("#!/bin/bash\necho hello\n")
	part, err := m.CreateFormFile("file", "../x.sh")
	if err != nil {
		t.Fatal(err)
	}
	_, err = part.Write(script)
	if err := errors.Join(err, m.WriteField("csrf", csrf), m.WriteField("name", "hello.sh"), m.WriteField("description", hostileText), m.Close()); err != nil {
		t.Fatal(err)
	}
	if resp, text := w.do(t, admin, "POST", "/library", bytes.NewReader(form.Bytes()), map[string]string{"Content-Type": m.FormDataContentType()}); resp.StatusCode != http.StatusSeeOther {
		t.Fatalf("upload: %s %.500s", resp.Status, text)
	}
	session := strings.Repeat("ab", 16)
	page := "/devices/" + w.device + "/live"
	typed := func(line string, want int) ingest.Command {
		t.Helper()
		resp, text := w.post(t, responder, page, url.Values{"csrf": {csrf2}, "session": {session}, "comment": {"looking around"}, "folder": {"/tmp"}, "line": {line}})
		if resp.StatusCode != want {
			t.Fatalf("%s: %s %.500s", line, resp.Status, text)
		}
		pending, err := w.control.Commands().Pending(t.Context(), w.device)
		if err != nil || want == http.StatusSeeOther && len(pending) != 1 {
			t.Fatalf("%v %+v", err, pending)
		}
		if len(pending) == 0 {
			return ingest.Command{}
		}
		return pending[0]
	}
	answer := func(c ingest.Command, o response.LiveOutput) {
		t.Helper()
		if err := w.control.Commands().Complete(t.Context(), w.device, ingest.Completion{ID: c.ID, Status: action.Succeeded, Result: []byte(mustJSON(response.LiveResult{Commands: []response.LiveOutput{o}}))}); err != nil {
			t.Fatal(err)
		}
	}
	c := typed("dir", http.StatusSeeOther)
	if p, err := response.DecodeLive(c.Parameters); err != nil || p.Session != session || p.Commands[0].Line != "dir" {
		t.Fatalf("%s %v", c.Parameters, err)
	}
	typed("dir", http.StatusConflict) // one at a time
	_, text := w.get(t, responder, page+"?session="+session)
	if !strings.Contains(text, "every 2s") {
		t.Error("the page does not wait for the answer")
	}
	answer(c, response.LiveOutput{Command: "dir", Status: "Completed", Output: hostileText + "\x1b[2J", Folder: "/var"})
	_, text = w.get(t, responder, page+"?session="+session)
	if strings.Contains(text, "<script>window") || strings.Contains(text, "\x1b") || strings.Contains(text, "every 2s") || !strings.Contains(text, `value="/var"`) || !strings.Contains(text, "&gt; dir") {
		t.Errorf("the transcript: %.4000s", text)
	}
	typed("run nothing.sh", http.StatusBadRequest)
	typed("run hello.sh a;b", http.StatusBadRequest)
	c = typed("run hello.sh one two", http.StatusSeeOther)
	p, err := response.DecodeLive(c.Parameters)
	if err != nil || p.Commands[0].Args != "one two" {
		t.Fatalf("%s %v", c.Parameters, err)
	}
	data, size, err := transfers{w.files}.FetchPart(t.Context(), w.device, c.ID, p.Commands[0].SHA256, 0)
	if err != nil || !bytes.Equal(data, script) || size != uint64(len(script)) {
		t.Errorf("the device gets %q of %d, %v", data, size, err)
	}
	if _, _, err := (transfers{w.files}).FetchPart(t.Context(), strings.Repeat("0", 40), c.ID, p.Commands[0].SHA256, 0); !errors.Is(err, ingest.ErrUnknownCommand) {
		t.Errorf("another device gets it: %v", err)
	}
	if _, _, err := (transfers{w.files}).FetchPart(t.Context(), w.device, c.ID, strings.Repeat("0", 64), 0); !errors.Is(err, ingest.ErrUnknownCommand) {
		t.Errorf("the device gets what its order does not name: %v", err)
	}
	answer(c, response.LiveOutput{Command: "run", Status: "Completed", Output: "hello"})
	c = typed("getfile log", http.StatusSeeOther)
	if p, err := response.DecodeLive(c.Parameters); err != nil || p.Commands[0].Path != "/tmp/log" {
		t.Errorf("%s %v", c.Parameters, err)
	}
	analyst, _ := w.signIn(t, "ann", access.Analyst)
	if resp, _ := w.get(t, analyst, page); resp.StatusCode != http.StatusForbidden {
		t.Errorf("an analyst opens a session: %s", resp.Status)
	}
	if resp, text := w.get(t, analyst, "/actions/"+c.ID); resp.StatusCode != 200 || strings.Contains(text, `class="output"`) {
		t.Errorf("an analyst reads outputs: %s", resp.Status)
	}
	if resp, _ := w.post(t, responder, "/library/delete", url.Values{"csrf": {csrf2}, "name": {"hello.sh"}}); resp.StatusCode != http.StatusForbidden {
		t.Errorf("a responder deletes from the library: %s", resp.Status)
	}
	if resp, _ := w.post(t, admin, "/library/delete", url.Values{"csrf": {csrf}, "name": {"hello.sh"}}); resp.StatusCode != http.StatusSeeOther {
		t.Errorf("delete: %s", resp.Status)
	}
}
