package browser

import (
	"bufio"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/portal/access"
	"github.com/bulwarkhq/bulwark/portal/identity"
	"github.com/bulwarkhq/bulwark/test/need"
)

const (
	redirect  = "https://portal.example.org/sign-in/provider/callback"
	signedOut = "https://portal.example.org/sign-in"
)

// startProvider starts oidc-provider in a process of its own.
func startProvider(t *testing.T) (*identity.Provider, *http.Client) {
	t.Helper()
	node := need.Command(t, "node")
	packages(t, "oidc-provider")
	dir := t.TempDir()
	// The certificate of a test server is good for 127.0.0.1 and its own authority.
	lent := httptest.NewTLSServer(http.NotFoundHandler())
	defer lent.Close()
	certificate, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	secret, err := x509.MarshalPKCS8PrivateKey(lent.TLS.Certificates[0].PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{certificate: {Type: "CERTIFICATE", Bytes: lent.Certificate().Raw}, key: {Type: "PRIVATE KEY", Bytes: secret}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, node, "provider.mjs")
	cmd.Env = append(os.Environ(), "CERTIFICATE="+certificate, "KEY="+key, "REDIRECT="+redirect, "SIGNED_OUT="+signedOut, "SECRET=s3cret/with+odd chars",
		`PEOPLE={"ann": ["soc", "staff"], "bob": ["staff"]}`)
	var log strings.Builder
	cmd.Stderr = &log
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		cmd.Wait() // it was killed
	})
	issuer, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		cancel()
		cmd.Wait() // it has ended, or is killed
		t.Fatalf("the provider did not start: %v\n%s", err, &log)
	}
	p, err := identity.New(identity.Config{
		Issuer: strings.TrimSpace(issuer), ClientID: "bulwark", Secret: "s3cret/with+odd chars", Redirect: redirect, SignedOut: signedOut,
		Name: "oidc-provider", Scopes: []string{"profile"}, NameClaim: "preferred_username", RoleClaim: "groups", CA: certificate,
		Roles: map[string]access.Role{"soc": access.Analyst}, Devices: map[string][]string{"soc": {"Web servers"}, "staff": {"Laptops"}},
	}, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	return p, lent.Client()
}

var formAction = regexp.MustCompile(`<form [^>]*action="([^"]+)"`)

// visit goes through the provider's pages as a person does and returns what it
// sends back to the portal.
func visit(t *testing.T, trusting *http.Client, location, login string) url.Values {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	var back *url.URL
	c := &http.Client{Transport: trusting.Transport, Jar: jar, CheckRedirect: func(r *http.Request, _ []*http.Request) error {
		if strings.HasPrefix(r.URL.String(), redirect) {
			back = r.URL
			return http.ErrUseLastResponse
		}
		return nil
	}}
	resp, err := c.Get(location)
	for range 4 {
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
		resp.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		if back != nil {
			return back.Query()
		}
		form := formAction.FindSubmatch(text)
		if form == nil {
			t.Fatalf("%s: a page without a form: %s", resp.Status, text)
		}
		values := url.Values{"prompt": {"consent"}}
		if strings.Contains(string(text), `name="login"`) {
			values = url.Values{"prompt": {"login"}, "login": {login}, "password": {"x"}}
		}
		action, err := resp.Request.URL.Parse(string(form[1]))
		if err != nil {
			t.Fatal(err)
		}
		if resp, err = c.PostForm(action.String(), values); err != nil {
			t.Fatal(err)
		}
	}
	t.Fatal("the provider asks again and again")
	return nil
}

// The portal's half of OpenID Connect with a provider that somebody else wrote.
func TestIndependentProvider(t *testing.T) {
	p, client := startProvider(t)
	signIn := func(login string, change func(url.Values)) (identity.Identity, string, error) {
		t.Helper()
		location, kept, err := p.Begin(t.Context(), "/devices")
		if err != nil {
			t.Fatal(err)
		}
		u, err := url.Parse(location)
		if err != nil {
			t.Fatal(err)
		}
		q := u.Query()
		change(q)
		u.RawQuery = q.Encode()
		return p.Finish(t.Context(), kept, visit(t, client, u.String(), login))
	}
	id, next, err := signIn("ann", func(url.Values) {})
	if err != nil || id.Subject != "ann" || id.Name != "ann" || id.Role != access.Analyst || id.Issuer != p.Issuer() || next != "/devices" || !slices.Equal(id.Devices, []string{"Laptops", "Web servers"}) {
		t.Fatalf("%+v, %q, %v", id, next, err)
	}
	var no *identity.Refused
	if _, _, err := signIn("bob", func(url.Values) {}); !errors.As(err, &no) || no.Subject != "bob" {
		t.Errorf("somebody whose groups have no role: %v", err)
	}
	for _, c := range []struct{ what, parameter, value, want string }{
		{"a token for another sign-in", "nonce", "of-somebody-else", "the nonce of the ID token is not that of the sign-in"},
		{"a code that another browser began", "code_challenge", strings.Repeat("a", 43), "invalid_grant"},
		{"a code for another client", "client_id", "another", "invalid_grant"},
		{"an answer to another sign-in", "state", "of-somebody-else", "the state is not that of the sign-in"},
	} {
		id, _, err := signIn("ann", func(q url.Values) { q.Set(c.parameter, c.value) })
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %+v, %v, want %q", c.what, id, err, c.want)
		}
	}
	// Signing out there: the provider knows the client and the way back.
	resp, err := client.Get(p.SignOut())
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20)); err != nil || resp.StatusCode != http.StatusOK || !strings.Contains(string(text), "/session/end/confirm") {
		t.Errorf("signing out: %s %s %v", resp.Status, text, err)
	}
}
