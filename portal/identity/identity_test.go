package identity_test

import (
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/bulwarkhq/bulwark/portal/access"
	"github.com/bulwarkhq/bulwark/portal/identity"
	"github.com/bulwarkhq/bulwark/portal/identity/identitytest"
)

type fixture struct {
	*identity.Provider
	server *identitytest.Server
	t      *testing.T
	ahead  atomic.Int64 // of the portal's clock
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{server: identitytest.New(t), t: t}
	var err error
	f.Provider, err = identity.New(f.config(), func() time.Time { return time.Now().Add(time.Duration(f.ahead.Load())) })
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func (f *fixture) config() identity.Config {
	return identity.Config{
		Issuer: f.server.URL, ClientID: identitytest.ClientID, Secret: identitytest.Secret, Redirect: "https://portal.example.org/sign-in/provider/callback", SignedOut: "https://portal.example.org/sign-in",
		Scopes: []string{"profile", "openid"}, Name: "Example", NameClaim: "preferred_username", RoleClaim: "groups", CA: f.server.CA,
		Roles: map[string]access.Role{"soc": access.Analyst, "CN=soc admins,O=x": access.Administrator},
	}
}

// good is what a provider should do, with changes.
func good(change func(*identitytest.Behaviour)) identitytest.Behaviour {
	b := identitytest.Behaviour{Claims: map[string]any{"preferred_username": "Ann Example", "groups": []string{"x", "soc"}}}
	if change != nil {
		change(&b)
	}
	return b
}

// begin is a sign-in up to the provider's answer.
func (f *fixture) begin() (keep string, q url.Values) {
	f.t.Helper()
	location, keep, err := f.Begin(f.t.Context(), "/devices?q=1")
	if err != nil {
		f.t.Fatal(err)
	}
	return keep, f.server.Visit(location).Query()
}

func TestSignIn(t *testing.T) {
	f := newFixture(t)
	if f.SignOut() != "" {
		t.Errorf("SignOut before the provider was asked: %s", f.SignOut())
	}
	f.server.Behave(good(func(b *identitytest.Behaviour) { b.SignOut = true }))
	keep, q := f.begin()
	id, next, err := f.Finish(t.Context(), keep, q)
	want := identity.Identity{Issuer: f.server.URL, Subject: "subject-1", Name: "Ann-Example", Role: access.Analyst}
	if err != nil || !reflect.DeepEqual(id, want) || next != "/devices?q=1" {
		t.Fatalf("Finish = %+v, %q, %v, want %+v", id, next, err, want)
	}
	if got := f.SignOut(); got != f.server.URL+"/bye?a=b&client_id=bulwark&post_logout_redirect_uri=https%3A%2F%2Fportal.example.org%2Fsign-in" {
		t.Errorf("SignOut = %s", got)
	}
	// The provider changes its key.
	f.server.Rotate()
	keep, q = f.begin()
	if _, _, err := f.Finish(t.Context(), keep, q); err != nil {
		t.Errorf("after a change of the key: %v", err)
	}
}

func TestRoles(t *testing.T) {
	f := newFixture(t)
	for name, c := range map[string]struct {
		change func(*identity.Config, *identitytest.Behaviour)
		want   access.Role
	}{
		"the highest": {func(_ *identity.Config, b *identitytest.Behaviour) {
			b.Claims["groups"] = []string{"CN=soc admins,O=x", "soc"}
		}, access.Administrator},
		"one text":              {func(_ *identity.Config, b *identitytest.Behaviour) { b.Claims["groups"] = "soc" }, access.Analyst},
		"none":                  {func(_ *identity.Config, b *identitytest.Behaviour) { b.Claims["groups"] = []string{"SOC", "socx", ""} }, ""},
		"no claim":              {func(_ *identity.Config, b *identitytest.Behaviour) { delete(b.Claims, "groups") }, ""},
		"no texts":              {func(_ *identity.Config, b *identitytest.Behaviour) { b.Claims["groups"] = []any{1, nil, true} }, ""},
		"everybody's, not held": {func(_ *identity.Config, b *identitytest.Behaviour) { b.Claims["groups"] = []string{"*"} }, ""},
		"everybody": {func(c *identity.Config, b *identitytest.Behaviour) {
			c.Roles["*"] = access.Reader
			delete(b.Claims, "groups")
		}, access.Reader},
		"a claim within a claim": {func(c *identity.Config, b *identitytest.Behaviour) {
			c.RoleClaim = "realm_access.roles"
			b.Claims["realm_access"] = map[string]any{"roles": []string{"soc"}}
		}, access.Analyst},
		"apart from the token": {func(_ *identity.Config, b *identitytest.Behaviour) {
			delete(b.Claims, "groups")
			b.Info = map[string]any{"sub": "subject-1", "groups": []string{"soc"}}
		}, access.Analyst},
		"apart, of somebody else": {func(_ *identity.Config, b *identitytest.Behaviour) {
			delete(b.Claims, "groups")
			b.Info = map[string]any{"sub": "subject-2", "groups": []string{"soc"}}
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			cfg, b := f.config(), good(nil)
			c.change(&cfg, &b)
			f.server.Behave(b)
			var err error
			if f.Provider, err = identity.New(cfg, time.Now); err != nil {
				t.Fatal(err)
			}
			keep, q := f.begin()
			id, _, err := f.Finish(t.Context(), keep, q)
			var no *identity.Refused
			if id.Role != c.want || (c.want == "") != errors.As(err, &no) || (c.want != "" && err != nil) {
				t.Errorf("role %q, %v, want %q", id.Role, err, c.want)
			}
		})
	}
}

// Of which devices somebody is follows the groups; without any nobody comes in.
func TestDevices(t *testing.T) {
	f := newFixture(t)
	for name, c := range map[string]struct {
		groups  []string
		mapping string
		want    []string
		refused bool
	}{
		"not decided":        {[]string{"soc"}, "", nil, false},
		"one":                {[]string{"soc", "web-team"}, "web-team=Web servers", []string{"Web servers"}, false},
		"several, each once": {[]string{"soc", "web-team", "CN=db,O=x"}, "web-team=Web servers; CN=db,O=x=Databases;CN=db,O=x=Web servers", []string{"Databases", "Web servers"}, false},
		"all beside some":    {[]string{"soc", "web-team"}, "web-team=Web servers;soc=*", nil, false},
		"everybody's":        {[]string{"soc"}, "web-team=Web servers;*=Test", []string{"Test"}, false},
		"none":               {[]string{"soc"}, "web-team=Web servers", nil, true},
		"other letters":      {[]string{"soc", "Web-Team"}, "web-team=Web servers", nil, true},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := f.config()
			var err error
			if c.mapping != "" {
				if cfg.Devices, err = identity.ParseDevices(c.mapping); err != nil {
					t.Fatal(err)
				}
			}
			f.server.Behave(good(func(b *identitytest.Behaviour) { b.Claims["groups"] = c.groups }))
			if f.Provider, err = identity.New(cfg, time.Now); err != nil {
				t.Fatal(err)
			}
			keep, q := f.begin()
			id, _, err := f.Finish(t.Context(), keep, q)
			var no *identity.Refused
			if errors.As(err, &no) != c.refused || (!c.refused && err != nil) {
				t.Fatalf("%+v, %v", id, err)
			}
			if c.refused {
				if no.Subject == "" || !strings.Contains(no.Reason, "has devices") {
					t.Errorf("refused: %+v", no)
				}
				return
			}
			if !slices.Equal(id.Devices, c.want) || id.DecidesDevices != (c.mapping != "") {
				t.Errorf("%+v, want %q", id, c.want)
			}
		})
	}
	for _, text := range []string{"", ";", "web-team", "=Web", "web-team=", "web-team= ;", "a=b;a=b"} {
		if got, err := identity.ParseDevices(text); err == nil {
			t.Errorf("%q gives %v", text, got)
		}
	}
}

// What must not sign anybody in: each differs in one thing from what does.
func TestRefused(t *testing.T) {
	other, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	claim := func(name string, v any) func(*identitytest.Behaviour) {
		return func(b *identitytest.Behaviour) { b.Change = func(c map[string]any) { c[name] = v } }
	}
	f := newFixture(t)
	for _, c := range []struct {
		name   string
		change func(*identitytest.Behaviour)
		want   string
	}{
		{"wrong nonce", claim("nonce", "another"), "nonce"},
		{"no nonce", claim("nonce", nil), "nonce"},
		{"wrong audience", claim("aud", "another"), "audience"},
		{"several audiences", claim("aud", []string{"bulwark", "another"}), "another client"},
		{"another authorized party", claim("azp", "another"), "another client"},
		{"expired", claim("exp", time.Now().Add(-time.Minute).Unix()), "expired"},
		{"not valid yet", claim("nbf", time.Now().Add(time.Hour).Unix()), "before the nbf"},
		{"another issuer", claim("iss", "https://evil.example"), "issue"},
		{"no subject", claim("sub", ""), "subject"},
		{"a long subject", claim("sub", strings.Repeat("x", 256)), "subject"},
		{"another access token", claim("at_hash", "AAAA"), "access token"},
		{"unsigned", func(b *identitytest.Behaviour) { b.Sign = identitytest.Unsigned }, "ID token"},
		{"signed by another key", func(b *identitytest.Behaviour) {
			b.Sign = func(p []byte) string { return identitytest.SignWith(t, jose.RS256, other, p) }
		}, "failed to verify signature"},
		{"signed with the client secret", func(b *identitytest.Behaviour) {
			b.Sign = func(p []byte) string {
				return identitytest.SignWith(t, jose.HS256, []byte(strings.Repeat(identitytest.Secret, 2)), p)
			}
		}, "ID token"},
		{"no token", func(b *identitytest.Behaviour) { b.NoToken = true }, "no ID token"},
		{"not a token", func(b *identitytest.Behaviour) { b.Sign = func([]byte) string { return "a.b.c" } }, "ID token"},
	} {
		f.server.Behave(good(c.change))
		keep, q := f.begin()
		id, _, err := f.Finish(t.Context(), keep, q)
		var no *identity.Refused
		if !errors.As(err, &no) || !strings.Contains(no.Reason, c.want) || no.Public == "" || id.Role != "" {
			t.Errorf("%s: %+v, %v, want a refusal with %q", c.name, id, err, c.want)
		}
	}
	f.server.Behave(good(nil))
	keep, q := f.begin()
	if _, _, err := f.Finish(t.Context(), keep, q); err != nil {
		t.Errorf("the same with nothing wrong: %v", err)
	}
}

// What the browser brings back.
func TestAnswers(t *testing.T) {
	f := newFixture(t)
	f.server.Behave(good(nil))
	refused := func(keep string, q url.Values, want, what string) {
		t.Helper()
		_, _, err := f.Finish(t.Context(), keep, q)
		var no *identity.Refused
		if !errors.As(err, &no) || !strings.Contains(no.Reason, want) {
			t.Errorf("%s: %v, want a refusal with %q", what, err, want)
		}
	}
	with := func(q url.Values, name string, v ...string) url.Values {
		out := url.Values{}
		for k, old := range q {
			out[k] = old
		}
		out[name] = v
		return out
	}
	keep, q := f.begin()
	otherKeep, otherQ := f.begin()
	refused("", q, "kept nothing", "no cookie")
	refused("!", q, "kept nothing", "no base 64")
	refused("AAAA", q, "not made by this portal", "a short cookie")
	refused(keep[:len(keep)-4]+"AAAA", q, "not made by this portal", "a cookie that was changed")
	refused(otherKeep, q, "state", "the state of another sign-in")
	refused(keep, with(q, "state", ""), "state", "no state")
	refused(keep, with(q, "state", q.Get("state"), q.Get("state")), "twice", "the state twice")
	refused(keep, with(q, "code", strings.Repeat("x", 9000)), "too long", "a long code")
	refused(keep, with(q, "iss", "https://evil.example"), "another issuer", "another issuer")
	if _, _, err := f.Finish(t.Context(), keep, q); err != nil {
		t.Fatal(err)
	}
	refused(keep, q, "used already", "a replayed state")
	// A code of another sign-in: PKCE binds it to the browser that began it.
	thirdKeep, thirdQ := f.begin()
	refused(thirdKeep, with(thirdQ, "code", otherQ.Get("code")), "refuses the code", "the code of another sign-in")
	keep, q = f.begin()
	refused(keep, with(q, "error", "access_denied"), "access_denied", "an error")
	keep, q = f.begin()
	refused(keep, with(q, "code", ""), "no code", "no code")
	keep, q = f.begin()
	f.ahead.Store(int64(11 * time.Minute))
	refused(keep, q, "took more than", "too late")
	f.ahead.Store(0)
	// Another portal, or this one after a restart.
	fresh, err := identity.New(f.config(), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	keep, q = f.begin()
	f.Provider = fresh
	refused(keep, q, "not made by this portal", "the cookie of another portal")
}

func TestUnavailable(t *testing.T) {
	f := newFixture(t)
	f.server.Behave(identitytest.Behaviour{Down: true})
	if _, _, err := f.Begin(t.Context(), "/"); !errors.Is(err, identity.ErrUnavailable) {
		t.Fatalf("down: %v", err)
	}
	// It is asked again later.
	f.server.Behave(good(nil))
	f.ahead.Store(int64(time.Minute))
	keep, q := f.begin()
	f.server.Behave(identitytest.Behaviour{Down: true})
	if _, _, err := f.Finish(t.Context(), keep, q); !errors.Is(err, identity.ErrUnavailable) {
		t.Errorf("down while the code is exchanged: %v", err)
	}
	// What it said about itself is good while it cannot be asked.
	f.ahead.Store(int64(3 * time.Hour))
	if _, _, err := f.Begin(t.Context(), "/"); err != nil {
		t.Errorf("down later: %v", err)
	}
	// A certificate of nobody who is trusted.
	cfg := f.config()
	cfg.CA = ""
	f.server.Behave(good(nil))
	p, err := identity.New(cfg, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := p.Begin(t.Context(), "/"); !errors.Is(err, identity.ErrUnavailable) || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("an authority that is not trusted: %v", err)
	}
}

// Administrators are told whether the provider answers now, not an hour ago, and
// asking often asks it seldom.
func TestState(t *testing.T) {
	f := newFixture(t)
	if asked, err := f.State(t.Context()); err != nil || asked.IsZero() {
		t.Fatalf("%s, %v", asked, err)
	}
	f.server.Behave(identitytest.Behaviour{Down: true})
	if _, err := f.State(t.Context()); err != nil {
		t.Errorf("it was asked again at once: %v", err)
	}
	f.ahead.Add(int64(2 * time.Minute))
	if _, err := f.State(t.Context()); !errors.Is(err, identity.ErrUnavailable) {
		t.Errorf("a provider that is away: %v", err)
	}
	if _, _, err := f.Begin(t.Context(), "/"); err != nil {
		t.Errorf("what is known of it is lost: %v", err)
	}
	f.server.Behave(good(nil))
	f.ahead.Add(int64(10 * time.Second))
	if _, err := f.State(t.Context()); err != nil {
		t.Errorf("after it came back: %v", err)
	}
}

func TestConfig(t *testing.T) {
	f := &fixture{server: &identitytest.Server{URL: "https://idp.example.org"}, t: t}
	for want, change := range map[string]func(*identity.Config){
		"https":         func(c *identity.Config) { c.Issuer = "http://idp.example.org" },
		"client id":     func(c *identity.Config) { c.ClientID = "" },
		"button":        func(c *identity.Config) { c.Name = "" },
		"client secret": func(c *identity.Config) { c.Secret = "" },
		"claim":         func(c *identity.Config) { c.RoleClaim = "" },
		"no group":      func(c *identity.Config) { c.Roles = nil },
		"no such file":  func(c *identity.Config) { c.CA = "/nowhere/ca.pem" },
	} {
		cfg := f.config()
		change(&cfg)
		if _, err := identity.New(cfg, time.Now); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want something with %q", err, want)
		}
	}
	got, err := identity.ParseRoles(" CN=a,O=b=administrator; soc = Analyst ;*=reader;")
	if err != nil || len(got) != 3 || got["CN=a,O=b"] != access.Administrator || got["soc"] != access.Analyst || got["*"] != access.Reader {
		t.Errorf("ParseRoles = %v, %v", got, err)
	}
	for _, bad := range []string{"", ";", "soc", "=reader", "soc=king", "a=reader;a=analyst", strings.Repeat("x;", 3)} {
		if got, err := identity.ParseRoles(bad); err == nil {
			t.Errorf("ParseRoles(%q) = %v", bad, got)
		}
	}
}
