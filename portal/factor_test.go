package portal

import (
	"html"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/pquerna/otp/totp"

	"github.com/bulwarkhq/bulwark/portal/access"
	"github.com/bulwarkhq/bulwark/portal/account"
	"github.com/bulwarkhq/bulwark/portal/securitykey/keytest"
)

var (
	qrText       = regexp.MustCompile(`<p class="mono qr-text">([A-Z2-7 ]+)</p>`)
	recoveryCode = regexp.MustCompile(`<li>([a-z0-9-]{19})</li>`)
	keyOptions   = regexp.MustCompile(`data-key-create="([^"]+)"`)
	oneTimeText  = regexp.MustCompile(`<code>([a-z0-9-]{23})</code>`)
)

// The whole way with a browser: an administrator makes an account, which must
// set up a second factor, signs in with it, loses it, and has it reset.
func TestSecondFactorPages(t *testing.T) {
	w := newWorldWith(t, func(c *Config) { c.SecondFactor = []access.Role{access.Analyst} })
	admin, csrf := w.signIn(t, "admin", access.Administrator)
	resp, text := w.post(t, admin, "/users", url.Values{"csrf": {csrf}, "name": {"eve"}, "role": {"analyst"}, "devices": {"all"}})
	found := oneTimeText.FindStringSubmatch(text)
	if resp.StatusCode != http.StatusOK || found == nil {
		t.Fatalf("a new account: %s %s", resp.Status, text)
	}
	for body, want := range map[string]int{
		"name=EVE&role=reader&devices=all": http.StatusConflict, "name=a+b&role=reader&devices=all": http.StatusBadRequest, "name=x&role=king&devices=all": http.StatusBadRequest, "name=x&role=reader": http.StatusBadRequest,
		"name=x&role=reader&devices=groups": http.StatusBadRequest, "name=x&role=reader&devices=groups&group=x": http.StatusBadRequest,
	} {
		form, err := url.ParseQuery(body + "&csrf=" + csrf)
		if err != nil {
			t.Fatal(err)
		}
		if resp, _ := w.post(t, admin, "/users", form); resp.StatusCode != want {
			t.Errorf("%s: %s", body, resp.Status)
		}
	}
	c := w.client(t)
	w.post(t, c, "/sign-in", url.Values{"name": {"eve"}, "password": {found[1]}})
	_, text = w.get(t, c, "/account/password")
	own := csrfField.FindStringSubmatch(text)[1]
	if resp, _ := w.post(t, c, "/account/password", url.Values{"csrf": {own}, "current": {found[1]}, "new": {testPassword}, "again": {testPassword}}); resp.StatusCode != http.StatusSeeOther {
		t.Fatal(resp.Status)
	}
	if resp, _ := w.get(t, c, "/devices"); resp.Header.Get("Location") != "/account/second-factor" {
		t.Errorf("before it is set up: %s to %q", resp.Status, resp.Header.Get("Location"))
	}
	_, text = w.get(t, c, "/account/second-factor")
	own = csrfField.FindStringSubmatch(text)[1]
	factor := func(do, code, password string) (*http.Response, string) {
		return w.post(t, c, "/account/second-factor", url.Values{"csrf": {own}, "do": {do}, "code": {code}, "password": {password}})
	}
	factor("begin", "", "")
	_, text = w.get(t, c, "/account/second-factor")
	shown := qrText.FindStringSubmatch(text)
	if shown == nil || !strings.Contains(text, `<svg class="qr" viewBox="-4 -4 `) || !strings.Contains(text, `<path d="M0 0h7v1h-7z`) {
		t.Fatalf("no QR code: %s", text)
	}
	secret := strings.ReplaceAll(shown[1], " ", "")
	code := func(steps int) string {
		s, err := totp.GenerateCode(secret, time.Now().Add(time.Duration(steps)*30*time.Second))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	if resp, _ := factor("confirm", "000000", testPassword); resp.StatusCode != http.StatusBadRequest {
		t.Errorf("a wrong code: %s", resp.Status)
	}
	if resp, _ := factor("confirm", code(0), "wrong"); resp.StatusCode != http.StatusBadRequest {
		t.Errorf("a wrong password: %s", resp.Status)
	}
	// The next step: it is good for a minute at least.
	resp, text = factor("confirm", code(1), testPassword)
	codes := recoveryCode.FindAllStringSubmatch(text, -1)
	if resp.StatusCode != http.StatusOK || len(codes) != account.RecoveryCodes {
		t.Fatalf("confirming: %s %s", resp.Status, text)
	}
	if resp, _ := w.get(t, c, "/devices"); resp.StatusCode != http.StatusOK {
		t.Errorf("after it is set up: %s", resp.Status)
	}
	if _, text := w.get(t, c, "/account/second-factor"); strings.Contains(text, shown[1]) || strings.Contains(text, codes[0][1]) {
		t.Error("the secret or a code is shown again")
	}
	_, text = w.get(t, c, "/account/second-factor")
	if strings.Contains(text, `value="remove-`) {
		t.Error("the only second factor can be removed")
	}
	key, err := keytest.New(w.cfg.URL)
	if err != nil {
		t.Fatal(err)
	}
	made, err := key.Create([]byte(html.UnescapeString(keyOptions.FindStringSubmatch(text)[1])))
	if err != nil {
		t.Fatal(err)
	}
	resp, _ = w.post(t, c, "/account/second-factor", url.Values{"csrf": {own}, "do": {"add-key"}, "name": {"desk"}, "created": {made}, "code": {codes[9][1]}, "password": {testPassword}})
	if resp.StatusCode != http.StatusSeeOther {
		t.Fatalf("a key beside the authenticator: %s", resp.Status)
	}
	if _, text := w.get(t, c, "/account/second-factor"); strings.Count(text, `value="remove-key `) != 1 || !strings.Contains(text, `value="remove-authenticator"`) {
		t.Error("one of two second factors cannot be removed")
	}
	if resp, _ := factor("disable", codes[0][1], testPassword); resp.StatusCode != http.StatusBadRequest {
		t.Errorf("turned off in a role that needs it: %s", resp.Status)
	}
	// Sign in.
	c = w.client(t)
	if resp, _ := w.get(t, c, "/sign-in/code"); resp.StatusCode != http.StatusBadRequest {
		t.Errorf("a code before the password: %s", resp.Status)
	}
	begin := func() {
		t.Helper()
		resp, _ := w.post(t, c, "/sign-in", url.Values{"name": {"eve"}, "password": {testPassword}, "next": {"/devices?q=a"}})
		if resp.Header.Get("Location") != "/sign-in/code?next=%2Fdevices%3Fq%3Da" || strings.Contains(strings.Join(resp.Header["Set-Cookie"], " "), "bulwark-session") {
			t.Fatalf("the password: %s, %v", resp.Header.Get("Location"), resp.Header["Set-Cookie"])
		}
	}
	begin()
	// The password alone opens nothing.
	for _, path := range []string{"/", "/account/password", "/account/second-factor"} {
		if resp, _ := w.get(t, c, path); !strings.HasPrefix(resp.Header.Get("Location"), "/sign-in") {
			t.Errorf("%s with a password only: %s", path, resp.Status)
		}
	}
	if resp, text := w.get(t, c, "/sign-in/code?next=/devices"); resp.StatusCode != http.StatusOK || !strings.Contains(text, `name="next" value="/devices"`) {
		t.Errorf("the page for the code: %s", resp.Status)
	}
	if resp, text := w.post(t, c, "/sign-in/code", url.Values{"code": {"000000"}}); resp.StatusCode != http.StatusUnauthorized || !strings.Contains(text, "wrong or was used") {
		t.Errorf("a wrong code: %s", resp.Status)
	}
	for i, next := range []string{"https://evil.example/", "/devices?q=a"} {
		want := []string{"/", "/devices?q=a"}[i]
		if i > 0 {
			begin()
		}
		resp, text := w.post(t, c, "/sign-in/code", url.Values{"code": {codes[i][1]}, "next": {next}})
		if resp.Header.Get("Location") != want {
			t.Errorf("a recovery code, next %s: %s to %s %.300s", next, resp.Status, resp.Header.Get("Location"), text)
		}
		if resp, _ := w.get(t, c, "/devices"); resp.StatusCode != http.StatusOK {
			t.Errorf("signed in: %s", resp.Status)
		}
	}
	// The administrator resets it.
	_, text = w.get(t, admin, "/users")
	u, err := w.control.Accounts().UserByName(t.Context(), "eve")
	if err != nil || !strings.Contains(text, "Reset the second factor of eve") {
		t.Fatalf("the page of users: %v %s", err, text)
	}
	change := func(id, do, role string) *http.Response {
		resp, _ := w.post(t, admin, "/users/"+id, url.Values{"csrf": {csrf}, "do": {do}, "role": {role}})
		return resp
	}
	if resp := change(u.ID, "reset-second-factor", ""); resp.Header.Get("Location") != "/users" {
		t.Errorf("resetting: %s", resp.Status)
	}
	if resp := change(u.ID, "reset-second-factor", ""); resp.StatusCode != http.StatusConflict {
		t.Errorf("resetting again: %s", resp.Status)
	}
	if resp, _ := w.get(t, c, "/devices"); !strings.HasPrefix(resp.Header.Get("Location"), "/sign-in") {
		t.Errorf("the session after the reset: %s", resp.Status)
	}
	c = w.client(t)
	signIn := func() *http.Response {
		resp, _ := w.post(t, c, "/sign-in", url.Values{"name": {"eve"}, "password": {testPassword}})
		return resp
	}
	if resp := signIn(); resp.Header.Get("Location") != "/" {
		t.Errorf("after the reset: %s to %s", resp.Status, resp.Header.Get("Location"))
	}
	change(u.ID, "role", "reader")
	if resp, _ := w.get(t, c, "/devices"); resp.StatusCode != http.StatusOK {
		t.Errorf("a role without: %s", resp.Status)
	}
	change(u.ID, "disable", "")
	if resp := signIn(); resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("a disabled account: %s", resp.Status)
	}
	change(u.ID, "enable", "")
	if resp := signIn(); resp.StatusCode != http.StatusSeeOther {
		t.Errorf("an account that was enabled: %s", resp.Status)
	}
	self, err := w.control.Accounts().UserByName(t.Context(), "admin")
	if err != nil {
		t.Fatal(err)
	}
	for _, do := range []string{"role", "disable"} {
		if resp := change(self.ID, do, "reader"); resp.StatusCode != http.StatusConflict {
			t.Errorf("%s of oneself: %s", do, resp.Status)
		}
	}
	if resp := change("nobody", "disable", ""); resp.StatusCode != http.StatusNotFound {
		t.Errorf("nobody: %s", resp.Status)
	}
}
