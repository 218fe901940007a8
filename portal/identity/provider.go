package identity

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"github.com/bulwarkhq/bulwark/portal/seal"
)

// Lifetime is how long a sign-in may take at the provider.
const Lifetime = 10 * time.Minute

const (
	requestTime  = 10 * time.Second // of one request to the provider
	maxAnswer    = 1 << 20          // bytes of one answer of the provider
	keepFor      = time.Hour        // of what the provider says about itself
	failureFor   = 5 * time.Second  // before a provider that failed is asked again
	maxUsed      = 10_000           // states that are remembered as used
	maxParameter = 8 << 10          // bytes of a parameter of the answer
	maxNext      = 1000             // bytes of the page to go on to
	exchanges    = 8                // at once
)

// Provider is an identity provider. It is safe for concurrent use.
type Provider struct {
	cfg    Config
	now    func() time.Time
	client *http.Client
	// flows encrypts what the browser keeps between the two halves; it ends with
	// the portal.
	flows *seal.Key
	busy  chan struct{}

	// asking is held while the provider is asked about itself.
	asking chan struct{}
	mu     sync.Mutex
	found  *found
	failed error
	asked  time.Time
	used   map[string]time.Time // states, until they end
}

// found is what the provider says about itself.
type found struct {
	provider *oidc.Provider
	signOut  string
}

// New makes a provider; it is asked at the first sign-in. now is time.Now
// outside of tests.
func New(cfg Config, now func() time.Time) (*Provider, error) {
	if err := cfg.check(); err != nil {
		return nil, fmt.Errorf("identity provider: %w", err)
	}
	tlsConfig := &tls.Config{MinVersion: tls.VersionTLS12}
	if cfg.CA != "" {
		pem, err := os.ReadFile(cfg.CA)
		if err != nil {
			return nil, fmt.Errorf("authorities of the identity provider: %w", err)
		}
		tlsConfig.RootCAs = x509.NewCertPool()
		if !tlsConfig.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("authorities of the identity provider: %s has no certificate in PEM form", cfg.CA)
		}
	}
	tr := &http.Transport{Proxy: http.ProxyFromEnvironment, TLSClientConfig: tlsConfig, ForceAttemptHTTP2: true, TLSHandshakeTimeout: requestTime, ResponseHeaderTimeout: requestTime, MaxResponseHeaderBytes: 64 << 10, IdleConnTimeout: time.Minute}
	return &Provider{
		cfg: cfg, now: now, flows: seal.NewKey(), busy: make(chan struct{}, exchanges), asking: make(chan struct{}, 1), used: map[string]time.Time{},
		// A redirect would carry the client secret to wherever it leads.
		client: &http.Client{Transport: bounded{tr}, Timeout: requestTime, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
	}, nil
}

// Name is what the button says.
func (p *Provider) Name() string { return p.cfg.Name }

// Issuer is the provider's address.
func (p *Provider) Issuer() string { return p.cfg.Issuer }

// bounded cuts answers off.
type bounded struct{ http.RoundTripper }

// RoundTrip bounds the body of the answer.
func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := b.RoundTripper.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	resp.Body = struct {
		io.Reader
		io.Closer
	}{io.LimitReader(resp.Body, maxAnswer), resp.Body}
	return resp, nil
}

// discover returns what the provider says about itself, an hour old at most
// unless it cannot be asked.
func (p *Provider) discover(ctx context.Context) (*found, error) {
	select {
	case p.asking <- struct{}{}:
		defer func() { <-p.asking }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	p.mu.Lock()
	have, failed, age := p.found, p.failed, p.now().Sub(p.asked)
	p.mu.Unlock()
	switch {
	case failed != nil && age >= 0 && age < failureFor:
		if have != nil {
			return have, nil
		}
		return nil, failed
	case have != nil && failed == nil && age >= 0 && age < keepFor:
		return have, nil
	}
	f, err := p.ask(ctx)
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		p.failed, p.asked = fmt.Errorf("%w: %w", ErrUnavailable, err), p.now()
		if have != nil {
			return have, nil
		}
		return nil, p.failed
	}
	p.found, p.failed, p.asked = f, nil, p.now()
	return f, nil
}

// stateFor is how old an answer of the provider may be that State takes.
const stateFor = time.Minute

// State asks the provider about itself unless it was asked within a minute. It says
// when it was asked, and why it cannot be used.
func (p *Provider) State(ctx context.Context) (asked time.Time, err error) {
	p.mu.Lock()
	if age := p.now().Sub(p.asked); p.failed == nil && (age < 0 || age >= stateFor) {
		p.asked = time.Time{} // what is known is asked for again
	}
	p.mu.Unlock()
	_, err = p.discover(ctx)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.failed != nil {
		return p.asked, p.failed
	}
	return p.asked, err
}

func (p *Provider) ask(ctx context.Context) (*found, error) {
	provider, err := oidc.NewProvider(p.with(ctx), p.cfg.Issuer)
	if err != nil {
		return nil, err
	}
	var more struct {
		SignOut string `json:"end_session_endpoint"`
	}
	if err := provider.Claims(&more); err != nil {
		return nil, err
	}
	e := provider.Endpoint()
	for _, address := range []string{e.AuthURL, e.TokenURL} {
		if u, err := url.Parse(address); err != nil || u.Scheme != "https" || u.Host == "" {
			return nil, fmt.Errorf("its address %q is not an https address", address)
		}
	}
	f := &found{provider: provider}
	if u, err := url.Parse(more.SignOut); err == nil && u.Scheme == "https" && u.Host != "" {
		f.signOut = more.SignOut
	}
	return f, nil
}

func (p *Provider) with(ctx context.Context) context.Context {
	return oidc.ClientContext(ctx, p.client)
}

func (p *Provider) oauth(f *found) *oauth2.Config {
	scopes := []string{oidc.ScopeOpenID}
	for _, s := range p.cfg.Scopes {
		if s != "" && s != oidc.ScopeOpenID {
			scopes = append(scopes, s)
		}
	}
	return &oauth2.Config{ClientID: p.cfg.ClientID, ClientSecret: p.cfg.Secret, Endpoint: f.provider.Endpoint(), RedirectURL: p.cfg.Redirect, Scopes: scopes}
}

// flow is what the two halves of a sign-in share. The browser keeps it,
// encrypted: somebody who begins many sign-ins takes no memory.
type flow struct {
	State    string    `json:"s"`
	Nonce    string    `json:"n"`
	Verifier string    `json:"v"` // of PKCE
	Next     string    `json:"p"` // page to go on to
	Ends     time.Time `json:"e"`
}

const flowOwner = "flow"

// Begin returns the provider's address for a sign-in, and what the browser must
// keep until Finish.
func (p *Provider) Begin(ctx context.Context, next string) (location, keep string, err error) {
	f, err := p.discover(ctx)
	if err != nil {
		return "", "", err
	}
	if len(next) > maxNext {
		next = "/"
	}
	fl := flow{State: random(), Nonce: random(), Verifier: oauth2.GenerateVerifier(), Next: next, Ends: p.now().Add(Lifetime)}
	plain, err := json.Marshal(fl)
	if err != nil {
		return "", "", fmt.Errorf("beginning a sign-in: %w", err)
	}
	return p.oauth(f).AuthCodeURL(fl.State, oidc.Nonce(fl.Nonce), oauth2.S256ChallengeOption(fl.Verifier)),
		base64.RawURLEncoding.EncodeToString(p.flows.Seal(flowOwner, plain)), nil
}

// Finish takes the parameters that the provider sent the browser back with. The
// error is a *Refused, ErrUnavailable or of the context.
func (p *Provider) Finish(ctx context.Context, keep string, q url.Values) (id Identity, next string, err error) {
	fl, err := p.resume(keep, q)
	if err != nil {
		return id, "", err
	}
	select {
	case p.busy <- struct{}{}:
		defer func() { <-p.busy }()
	case <-ctx.Done():
		return id, "", ctx.Err()
	}
	f, err := p.discover(ctx)
	if err != nil {
		return id, "", err
	}
	token, err := p.oauth(f).Exchange(p.with(ctx), q.Get("code"), oauth2.VerifierOption(fl.Verifier))
	if err != nil {
		var bad *oauth2.RetrieveError
		if errors.As(err, &bad) && bad.Response != nil && bad.Response.StatusCode < 500 {
			return id, "", refused(publicToken, "the provider refuses the code: %s %.200q", bad.Response.Status, bad.ErrorCode+" "+bad.ErrorDescription)
		}
		return id, "", fmt.Errorf("%w: fetching the token: %w", ErrUnavailable, err)
	}
	id, err = p.verify(ctx, f, token, fl.Nonce)
	return id, fl.Next, err
}

// resume checks that the answer belongs to a sign-in that this browser began
// here, and that it comes once.
func (p *Provider) resume(keep string, q url.Values) (flow, error) {
	var fl flow
	sealed, err := base64.RawURLEncoding.DecodeString(keep)
	if err != nil || keep == "" {
		return fl, refused(publicAgain, "the browser kept nothing of a sign-in")
	}
	plain, err := p.flows.Open(flowOwner, sealed)
	if err != nil {
		return fl, refused(publicAgain, "what the browser kept of the sign-in was not made by this portal since it started")
	}
	if err := json.Unmarshal(plain, &fl); err != nil {
		return fl, refused(publicAgain, "what the browser kept of the sign-in: %v", err)
	}
	for _, name := range []string{"state", "code", "iss", "error", "error_description"} {
		if len(q[name]) > 1 || len(q.Get(name)) > maxParameter {
			return fl, refused(publicAgain, "the parameter %s is there twice or is too long", name)
		}
	}
	now := p.now()
	switch {
	case now.After(fl.Ends):
		return fl, refused(publicAgain, "the sign-in took more than %s", Lifetime)
	case subtle.ConstantTimeCompare([]byte(q.Get("state")), []byte(fl.State)) != 1:
		return fl, refused(publicAgain, "the state is not that of the sign-in that this browser began")
	case q.Has("iss") && q.Get("iss") != p.cfg.Issuer: // RFC 9207
		return fl, refused(publicAgain, "the answer is of another issuer: %.200q", q.Get("iss"))
	case !p.useOnce(fl.State, fl.Ends, now):
		return fl, refused(publicAgain, "the state was used already")
	case q.Get("error") != "":
		return fl, refused("The identity provider did not sign you in.", "the provider answers %.100q %.300q", q.Get("error"), q.Get("error_description"))
	case q.Get("code") == "":
		return fl, refused(publicAgain, "the answer has no code")
	}
	return fl, nil
}

func (p *Provider) useOnce(state string, ends, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, twice := p.used[state]; twice {
		return false
	}
	if len(p.used) >= maxUsed {
		var first string
		for s, t := range p.used {
			if now.After(t) {
				delete(p.used, s)
			} else if first == "" || t.Before(p.used[first]) {
				first = s
			}
		}
		if len(p.used) >= maxUsed {
			delete(p.used, first)
		}
	}
	p.used[state] = ends
	return true
}

// verify checks the ID token as OpenID Connect Core 1.0, section 3.1.3.7, asks.
func (p *Provider) verify(ctx context.Context, f *found, token *oauth2.Token, nonce string) (Identity, error) {
	raw, ok := token.Extra("id_token").(string)
	if !ok || raw == "" {
		return Identity{}, refused(publicToken, "the provider's answer has no ID token")
	}
	verifier := f.provider.Verifier(&oidc.Config{ClientID: p.cfg.ClientID, Now: p.now})
	t, err := verifier.Verify(p.with(ctx), raw)
	if err != nil {
		return Identity{}, refused(publicToken, "the ID token: %v", err)
	}
	var authorized struct {
		Party string `json:"azp"`
	}
	claims := map[string]any{}
	if err := errors.Join(t.Claims(&authorized), t.Claims(&claims)); err != nil {
		return Identity{}, refused(publicToken, "the claims of the ID token: %v", err)
	}
	switch {
	case subtle.ConstantTimeCompare([]byte(t.Nonce), []byte(nonce)) != 1:
		return Identity{}, refused(publicToken, "the nonce of the ID token is not that of the sign-in")
	case authorized.Party != "" && authorized.Party != p.cfg.ClientID, authorized.Party == "" && len(t.Audience) > 1:
		return Identity{}, refused(publicToken, "the ID token was made for another client: %.100q of %.300q", authorized.Party, t.Audience)
	case t.Subject == "" || len(t.Subject) > 255:
		return Identity{}, refused(publicToken, "the subject of the ID token has %d bytes: 1 to 255 are allowed", len(t.Subject))
	}
	if t.AccessTokenHash != "" {
		if err := t.VerifyAccessToken(token.AccessToken); err != nil {
			return Identity{}, refused(publicToken, "the access token: %v", err)
		}
	}
	if (claim(claims, p.cfg.RoleClaim) == nil || claim(claims, p.cfg.NameClaim) == nil) && f.provider.UserInfoEndpoint() != "" {
		if err := p.userInfo(ctx, f, token, t.Subject, claims); err != nil {
			return Identity{}, err
		}
	}
	id := Identity{Issuer: t.Issuer, Subject: t.Subject, Name: p.nameOf(claims)}
	groups := texts(claim(claims, p.cfg.RoleClaim))
	if id.Role = p.cfg.roleOf(groups); id.Role == "" {
		return id, &Refused{Reason: fmt.Sprintf("none of the groups of %s has a role: %.500q", id.Name, groups), Public: publicRole, Subject: t.Subject}
	}
	if p.cfg.Devices != nil {
		id.DecidesDevices = true
		var ok bool
		if id.Devices, ok = p.cfg.devicesOf(groups); !ok {
			return id, &Refused{Reason: fmt.Sprintf("none of the groups of %s has devices: %.500q", id.Name, groups), Public: publicDevices, Subject: t.Subject}
		}
	}
	return id, nil
}

// DecidesDevices reports whether the provider decides of which devices people are.
func (p *Provider) DecidesDevices() bool { return p.cfg.Devices != nil }

// userInfo adds the claims that the provider gives apart from the token.
func (p *Provider) userInfo(ctx context.Context, f *found, token *oauth2.Token, subject string, claims map[string]any) error {
	info, err := f.provider.UserInfo(p.with(ctx), oauth2.StaticTokenSource(token))
	if err != nil {
		return fmt.Errorf("%w: asking about the user: %w", ErrUnavailable, err)
	}
	if info.Subject != subject {
		return refused(publicToken, "the provider's information is about somebody else")
	}
	more := map[string]any{}
	if err := info.Claims(&more); err != nil {
		return refused(publicToken, "the provider's information about the user: %v", err)
	}
	for name, v := range more {
		if _, there := claims[name]; !there {
			claims[name] = v
		}
	}
	return nil
}

func (p *Provider) nameOf(claims map[string]any) string {
	for _, name := range []string{p.cfg.NameClaim, "preferred_username", "email", "name", "sub"} {
		if s, ok := claim(claims, name).(string); ok && strings.TrimSpace(s) != "" {
			return userName(strings.TrimSpace(s))
		}
	}
	return userName("")
}

// SignOut is the provider's address to sign out there too, empty when it is not
// known to have one.
func (p *Provider) SignOut() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.found == nil || p.found.signOut == "" {
		return ""
	}
	u, err := url.Parse(p.found.signOut)
	if err != nil {
		return ""
	}
	q := u.Query()
	q.Set("client_id", p.cfg.ClientID)
	q.Set("post_logout_redirect_uri", p.cfg.SignedOut)
	u.RawQuery = q.Encode()
	return u.String()
}

// random is 256 random bits in URL-safe text.
func random() string {
	var b [32]byte
	rand.Read(b[:]) // never fails
	return base64.RawURLEncoding.EncodeToString(b[:])
}
