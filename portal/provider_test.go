package portal

import (
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/portal/access"
	"github.com/bulwarkhq/bulwark/portal/account"
	"github.com/bulwarkhq/bulwark/portal/fleet"
	"github.com/bulwarkhq/bulwark/portal/identity"
	"github.com/bulwarkhq/bulwark/portal/identity/identitytest"
)

// People sign in with a provider: accounts that come of themselves, roles that
// follow the groups, and the ways that are closed.
func TestProviderSignIn(t *testing.T) {
	idp := identitytest.New(t)
	behave := func(subject, name string, groups ...string) {
		idp.Behave(identitytest.Behaviour{SignOut: true, Claims: map[string]any{"sub": subject, "preferred_username": name, "groups": groups}})
	}
	behave("1", "ann", "soc")
	provider, err := identity.New(identity.Config{
		Issuer: idp.URL, ClientID: identitytest.ClientID, Secret: identitytest.Secret, Redirect: "https://localhost:1/sign-in/provider/callback", SignedOut: "https://localhost:1/sign-in",
		Name: hostileText, NameClaim: "preferred_username", RoleClaim: "groups", CA: idp.CA, Roles: map[string]access.Role{"soc": access.Analyst, "admins": access.Administrator},
	}, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	w := newWorldWith(t, func(c *Config) {
		c.Provider, c.SecondFactor = provider, []access.Role{access.Analyst, access.Administrator}
	})
	if _, err := w.accounts.CreateUser(t.Context(), "ann", access.Administrator, "test", ""); err != nil {
		t.Fatal(err)
	}
	// signIn returns the answer to what the browser brings from the provider.
	signIn := func(c *http.Client, next string) (*http.Response, string) {
		t.Helper()
		resp, text := w.get(t, c, "/sign-in/provider?next="+url.QueryEscape(next))
		if resp.StatusCode != http.StatusSeeOther || !strings.HasPrefix(resp.Header.Get("Location"), idp.URL+"/authorize?") {
			t.Fatalf("beginning: %s %s", resp.Status, text)
		}
		for _, part := range []string{"__Host-bulwark-provider=", "HttpOnly", "Secure", "SameSite=Lax"} {
			if !strings.Contains(resp.Header.Get("Set-Cookie"), part) {
				t.Errorf("the cookie %q lacks %s", resp.Header.Get("Set-Cookie"), part)
			}
		}
		back := idp.Visit(resp.Header.Get("Location"))
		// The browser comes from another site.
		return w.do(t, c, http.MethodGet, back.RequestURI(), nil, map[string]string{"Sec-Fetch-Site": "cross-site"})
	}
	user := func(subject string) account.User {
		t.Helper()
		u, err := w.control.Accounts().UserBySubject(t.Context(), idp.URL, subject)
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	c := w.client(t)
	if _, text := w.get(t, c, "/sign-in?next=/devices"); !strings.Contains(text, `href="/sign-in/provider?next=%2fdevices"`) || strings.Contains(text, "<script>window") || !strings.Contains(text, `name="password"`) {
		t.Errorf("the sign-in page: %s", text)
	}
	// The name is taken by a local account: it becomes another, not that one.
	if resp, text := signIn(c, "/devices?q=a"); resp.Header.Get("Location") != "/devices?q=a" {
		t.Fatalf("the first sign-in: %s %s", resp.Status, text)
	}
	ann := user("1")
	if ann.Name != "ann@127.0.0.1" || ann.Role != access.Analyst || ann.PasswordHash != "" || ann.LastSignIn.IsZero() {
		t.Errorf("the account: %+v", ann)
	}
	if resp, text := w.get(t, c, "/devices"); resp.StatusCode != http.StatusOK || !strings.Contains(text, "ann@127.0.0.1") || strings.Contains(text, "/account/password") {
		t.Errorf("signed in: %s", resp.Status)
	}
	if resp, _ := w.get(t, c, "/users"); resp.StatusCode != http.StatusForbidden {
		t.Errorf("more than the role: %s", resp.Status)
	}
	for _, next := range []string{"https://evil.example/", "//evil.example", "/sign-out"} {
		if resp, _ := signIn(c, next); resp.Header.Get("Location") != "/" {
			t.Errorf("next %s leads to %q", next, resp.Header.Get("Location"))
		}
	}
	// A new role at the next sign-in; the name stays.
	behave("1", "root", "soc", "admins")
	signIn(c, "/")
	if u := user("1"); u.Name != ann.Name || u.Role != access.Administrator || u.ID != ann.ID {
		t.Errorf("with other groups: %+v", u)
	}
	_, text := w.get(t, c, "/users")
	csrf := csrfField.FindStringSubmatch(text)[1]
	if strings.Contains(text, "Reset the password of "+ann.Name) {
		t.Error("a password of an account that has none")
	}
	// Another person, who loses all groups.
	bob := w.client(t)
	behave("2", `"><script>window.pwned=1</script>`, "soc")
	signIn(bob, "/")
	if u := user("2"); u.Name != "script-window.pwned-1--script-" {
		t.Errorf("a hostile name: %+v", u)
	}
	for _, do := range []string{"role", "reset-password"} {
		if resp, _ := w.post(t, c, "/users/"+user("2").ID, url.Values{"csrf": {csrf}, "do": {do}, "role": {"reader"}}); resp.StatusCode == http.StatusSeeOther || resp.StatusCode == http.StatusOK {
			t.Errorf("%s of an account of the provider: %s", do, resp.Status)
		}
	}
	behave("2", "bob", "others")
	if resp, text := signIn(bob, "/"); resp.StatusCode != http.StatusForbidden || !strings.Contains(text, "none of your groups") {
		t.Errorf("without a role: %s %s", resp.Status, text)
	}
	// A disabled account stays out.
	behave("2", "bob", "soc")
	if resp, _ := w.post(t, c, "/users/"+user("2").ID, url.Values{"csrf": {csrf}, "do": {"disable"}}); resp.StatusCode != http.StatusSeeOther {
		t.Errorf("disabling: %s", resp.Status)
	}
	if resp, _ := w.get(t, bob, "/devices"); !strings.HasPrefix(resp.Header.Get("Location"), "/sign-in") {
		t.Errorf("the session of a disabled account: %s", resp.Status)
	}
	if resp, text := signIn(bob, "/"); resp.StatusCode != http.StatusForbidden || !strings.Contains(text, "disabled") {
		t.Errorf("a disabled account: %s", resp.Status)
	}
	// No password of such an account works.
	for _, password := range []string{"", testPassword} {
		if resp, _ := w.post(t, w.client(t), "/sign-in", url.Values{"name": {ann.Name}, "password": {password}}); resp.StatusCode != http.StatusUnauthorized {
			t.Errorf("the password %q: %s", password, resp.Status)
		}
	}
	if resp, _ := w.post(t, c, "/account/password", url.Values{"csrf": {csrf}, "current": {""}, "new": {testPassword}, "again": {testPassword}}); resp.StatusCode != http.StatusBadRequest {
		t.Errorf("a password for the account: %s", resp.Status)
	}
	// Answers that nobody asked for.
	for _, path := range []string{"", "?state=a&code=b", "?error=access_denied"} {
		if resp, _ := w.get(t, w.client(t), "/sign-in/provider/callback"+path); resp.StatusCode != http.StatusForbidden {
			t.Errorf("callback%s: %s", path, resp.Status)
		}
	}
	idp.Behave(identitytest.Behaviour{Down: true})
	resp, _ := w.get(t, c, "/sign-in/provider") // it is known for an hour
	if resp.StatusCode != http.StatusSeeOther {
		t.Fatalf("a provider that is away: %s", resp.Status)
	}
	idp.Behave(identitytest.Behaviour{})
	back := idp.Visit(resp.Header.Get("Location"))
	idp.Behave(identitytest.Behaviour{Down: true})
	if resp, text := w.get(t, c, back.RequestURI()); resp.StatusCode != http.StatusBadGateway || !strings.Contains(text, "does not answer") {
		t.Errorf("a provider that is away: %s", resp.Status)
	}
	// Sign out, and at the provider too.
	resp, _ = w.post(t, c, "/sign-out", url.Values{"csrf": {csrf}})
	if resp.Header.Get("Location") != "/sign-in?signed-out=1" {
		t.Errorf("sign-out: %s", resp.Header.Get("Location"))
	}
	if _, text := w.get(t, c, "/sign-in?signed-out=1"); !strings.Contains(text, `href="`+idp.URL+`/bye?a=b&amp;client_id=bulwark`) {
		t.Errorf("after the sign-out: %s", text)
	}
	entries, err := w.accounts.AuditEntries(t.Context(), 0, 500)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	for _, e := range entries {
		if e.Actor == ann.Name || e.Action == "sign-in.failed" {
			seen[e.Action]++
		}
	}
	for action, n := range map[string]int{"user.create": 1, "user.role": 1, "sign-in": 5, "sign-in.failed": 4} {
		if seen[action] != n {
			t.Errorf("%d entries %s, want %d: %v", seen[action], action, n, seen)
		}
	}
	if log := w.log.String(); !strings.Contains(log, "none of the groups") || strings.Contains(log, identitytest.Secret) {
		t.Error("the log lacks the reason, or has the secret")
	}
}

// With the provider as the only way, passwords open nothing.
func TestLocalAccountsOff(t *testing.T) {
	idp := identitytest.New(t)
	provider, err := identity.New(identity.Config{Issuer: idp.URL, ClientID: "x", Secret: "y", Name: "Example", NameClaim: "sub", RoleClaim: "groups", CA: idp.CA, Roles: map[string]access.Role{"soc": access.Reader}}, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	w := newWorldWith(t, func(c *Config) { c.Provider, c.LocalOff = provider, true })
	password, err := w.accounts.CreateUser(t.Context(), "ann", access.Administrator, "test", "")
	if err != nil {
		t.Fatal(err)
	}
	c := w.client(t)
	if _, text := w.get(t, c, "/sign-in"); strings.Contains(text, `name="password"`) || !strings.Contains(text, "/sign-in/provider?") {
		t.Errorf("the sign-in page: %s", text)
	}
	if resp, _ := w.post(t, c, "/sign-in", url.Values{"name": {"ann"}, "password": {password}}); resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("the right password: %s", resp.Status)
	}
	cfg := w.cfg
	cfg.Provider = nil
	if _, err := New(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "nobody could sign in") {
		t.Errorf("neither: %v", err)
	}
}

// The device groups of an account follow the groups of the identity provider at each
// sign-in, for all its sessions; whose groups have none stays out.
func TestProviderDevices(t *testing.T) {
	idp := identitytest.New(t)
	behave := func(subject string, groups ...string) {
		idp.Behave(identitytest.Behaviour{Claims: map[string]any{"sub": subject, "preferred_username": subject, "groups": groups}})
	}
	devices, err := identity.ParseDevices("admins=*;web=Web servers;gone=Nowhere;web=Nowhere;many=Web servers;many=Databases")
	if err != nil {
		t.Fatal(err)
	}
	provider, err := identity.New(identity.Config{
		Issuer: idp.URL, ClientID: identitytest.ClientID, Secret: identitytest.Secret, Redirect: "https://localhost:1/sign-in/provider/callback",
		Name: "Example", NameClaim: "preferred_username", RoleClaim: "groups", CA: idp.CA, Devices: devices,
		Roles: map[string]access.Role{"soc": access.Analyst, "admins": access.Administrator},
	}, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	w := newWorldWith(t, func(c *Config) { c.Provider = provider })
	group := func(name, tag string) string {
		t.Helper()
		g, err := w.fleet.PutGroup(t.Context(), fleet.Group{Name: name, Rank: len(tag), Rule: "machineTags/any(t: t eq '" + tag + "')"}, "test", "")
		if err != nil {
			t.Fatal(err)
		}
		return g.ID
	}
	web, databases := group("Web servers", "web"), group("Databases", "db")
	signIn := func(c *http.Client) (*http.Response, string) {
		t.Helper()
		resp, text := w.get(t, c, "/sign-in/provider?next=/devices")
		if resp.StatusCode != http.StatusSeeOther {
			t.Fatalf("beginning: %s %s", resp.Status, text)
		}
		return w.do(t, c, http.MethodGet, idp.Visit(resp.Header.Get("Location")).RequestURI(), nil, map[string]string{"Sec-Fetch-Site": "cross-site"})
	}
	groupsOf := func(subject string) []string {
		t.Helper()
		u, err := w.control.Accounts().UserBySubject(t.Context(), idp.URL, subject)
		if err != nil {
			t.Fatal(err)
		}
		return u.Groups
	}
	status := func(c *http.Client) int {
		resp, _ := w.get(t, c, "/devices/"+w.device)
		return resp.StatusCode
	}
	first, second := w.client(t), w.client(t)
	behave("ann", "soc", "admins", "web")
	signIn(first)
	if g := groupsOf("ann"); len(g) != 0 || status(first) != http.StatusOK {
		t.Errorf("all devices: groups %v, the device answers %d", g, status(first))
	}
	// A group is taken away: at the next sign-in, for the other session too.
	behave("ann", "soc", "web")
	if status(first) != http.StatusOK {
		t.Error("before the next sign-in something has changed")
	}
	signIn(second)
	if g := groupsOf("ann"); !slices.Equal(g, []string{web}) || status(first) != http.StatusNotFound || status(second) != http.StatusNotFound {
		t.Errorf("one group, one that is not there: groups %v, the device answers %d and %d", g, status(first), status(second))
	}
	if !strings.Contains(w.log.String(), "Nowhere") {
		t.Error("a device group that is not there is not in the log")
	}
	behave("ann", "soc", "many")
	signIn(second)
	if g := groupsOf("ann"); len(g) != 2 || !slices.Contains(g, databases) || !slices.Contains(g, web) {
		t.Errorf("two groups: %v", g)
	}
	// Nobody without devices comes in, nor becomes somebody for all.
	for _, groups := range [][]string{{"soc"}, {"soc", "gone"}} {
		behave("bob", groups...)
		if resp, text := signIn(w.client(t)); resp.StatusCode != http.StatusForbidden || (!strings.Contains(text, "none of your groups has devices") && !strings.Contains(text, "are not there")) {
			t.Errorf("%v: %s %.300s", groups, resp.Status, text)
		}
	}
	if _, err := w.control.Accounts().UserBySubject(t.Context(), idp.URL, "bob"); !errors.Is(err, account.ErrNotFound) {
		t.Errorf("somebody who was refused has an account: %v", err)
	}
	// The page says who decides it, and changes nothing of it.
	admin, csrf := w.signIn(t, "admin", access.Administrator)
	u, err := w.control.Accounts().UserBySubject(t.Context(), idp.URL, "ann")
	if err != nil {
		t.Fatal(err)
	}
	if _, text := w.get(t, admin, "/users"); strings.Contains(text, "Set the devices of ann") || !strings.Contains(text, "counts from the next one on") {
		t.Error("the page of users offers to set the devices, or does not say when groups count")
	}
	if resp, _ := w.post(t, admin, "/users/"+u.ID, url.Values{"csrf": {csrf}, "do": {"groups"}, "devices": {"all"}}); resp.StatusCode != http.StatusConflict || len(groupsOf("ann")) != 2 {
		t.Errorf("setting the devices of an account of the provider: %s, %v", resp.Status, groupsOf("ann"))
	}
	entries, err := w.accounts.AuditEntries(t.Context(), 0, 500)
	if err != nil {
		t.Fatal(err)
	}
	var said []string
	for _, e := range entries {
		if e.Action == "user.groups" || e.Action == "user.create" && e.Actor == "ann" || e.Action == "sign-in.failed" {
			said = append(said, e.Action+" "+e.Detail)
		}
	}
	all := strings.Join(said, "\n")
	for _, want := range []string{"user.groups all devices to device groups " + web + " by the identity provider", "user.create role administrator, all devices, subject ann", "none of the groups of bob has devices", "none of the device groups of bob is there"} {
		if !strings.Contains(all, want) {
			t.Errorf("the audit log lacks %q:\n%s", want, all)
		}
	}
}
