// Package identitytest is a small OpenID Connect provider for tests. It serves
// on loopback over TLS, keeps to the authorization code flow with PKCE and
// refuses what a provider must, so that a test cannot pass with a client that
// leaves something out. Its tokens can be made wrong.
package identitytest

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// What the provider knows the client by.
const (
	ClientID = "bulwark"
	Secret   = "s3cret/with+odd chars"
)

// Server is the provider.
type Server struct {
	// URL is the issuer, CA the PEM file of its authority.
	URL, CA string
	// Client trusts it and follows no redirect.
	Client *http.Client
	t      testing.TB
	mu     sync.Mutex
	key    *rsa.PrivateKey
	keyID  string
	codes  map[string]grant
	access map[string]map[string]any // claims for /userinfo
	b      Behaviour
}

// Behaviour is what the provider does; the zero value is as it should.
type Behaviour struct {
	// Claims are those of the person, over the ones that are always there.
	Claims map[string]any
	// Info are the claims of /userinfo; nil for a provider without.
	Info map[string]any
	// Change changes the claims of the ID token last.
	Change func(map[string]any)
	// Sign makes the ID token of the claims; nil for RS256 with the provider's key.
	Sign func(claims []byte) string
	// NoToken leaves the ID token out; Down answers everything with 503.
	NoToken, Down bool
	// SignOut tells of an end_session_endpoint.
	SignOut bool
}

// grant is what a code is good for, once.
type grant struct{ redirect, challenge, nonce string }

// New starts a provider that ends with the test.
func New(t testing.TB) *Server {
	t.Helper()
	s := &Server{t: t, codes: map[string]grant{}, access: map[string]map[string]any{}}
	s.Rotate()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/openid-configuration", s.configuration)
	mux.HandleFunc("GET /keys", s.keys)
	mux.HandleFunc("GET /authorize", s.authorize)
	mux.HandleFunc("POST /token", s.token)
	mux.HandleFunc("GET /userinfo", s.userInfo)
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.behaviour().Down {
			http.Error(w, "down", http.StatusServiceUnavailable)
			return
		}
		mux.ServeHTTP(w, r)
	}))
	t.Cleanup(srv.Close)
	s.URL, s.Client = srv.URL, srv.Client()
	s.Client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	s.CA = filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(s.CA, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	return s
}

// Behave sets what the provider does from now on.
func (s *Server) Behave(b Behaviour) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.b = b
}

func (s *Server) behaviour() Behaviour {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b
}

// Rotate gives the provider a new key.
func (s *Server) Rotate() {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		s.t.Fatal(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.key, s.keyID = key, random()
}

// SignWith returns a compact token of the claims with another key or algorithm.
func SignWith(t testing.TB, alg jose.SignatureAlgorithm, key any, claims []byte) string {
	t.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: key}, nil)
	if err != nil {
		t.Error(err)
		return ""
	}
	signed, err := signer.Sign(claims)
	if err != nil {
		t.Error(err)
		return ""
	}
	text, err := signed.CompactSerialize()
	if err != nil {
		t.Error(err)
	}
	return text
}

// Unsigned returns a token with the algorithm "none" (RFC 7519, section 6).
func Unsigned(claims []byte) string {
	b64 := base64.RawURLEncoding
	return b64.EncodeToString([]byte(`{"alg":"none"}`)) + "." + b64.EncodeToString(claims) + "."
}

// Visit goes to the address that the portal sends a browser to, as somebody who
// is signed in at the provider, and returns what the provider sends the browser
// back with.
func (s *Server) Visit(location string) *url.URL {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, location, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	resp, err := s.Client.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	resp.Body.Close()
	back, err := resp.Location()
	if err != nil {
		s.t.Fatalf("%s: %s, %v", location, resp.Status, err)
	}
	return back
}

func random() string {
	var b [16]byte
	rand.Read(b[:]) // never fails
	return base64.RawURLEncoding.EncodeToString(b[:])
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(v) //nolint:errcheck // the client is gone
}

func (s *Server) configuration(w http.ResponseWriter, _ *http.Request) {
	b := s.behaviour()
	c := map[string]any{
		"issuer": s.URL, "authorization_endpoint": s.URL + "/authorize", "token_endpoint": s.URL + "/token", "jwks_uri": s.URL + "/keys",
		"response_types_supported": []string{"code"}, "subject_types_supported": []string{"public"},
		"id_token_signing_alg_values_supported": []string{"RS256", "HS256", "none"}, "authorization_response_iss_parameter_supported": true,
	}
	if b.Info != nil {
		c["userinfo_endpoint"] = s.URL + "/userinfo"
	}
	if b.SignOut {
		c["end_session_endpoint"] = s.URL + "/bye?a=b"
	}
	answer(w, http.StatusOK, c)
}

func (s *Server) keys(w http.ResponseWriter, _ *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	answer(w, http.StatusOK, jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: s.key.Public(), KeyID: s.keyID, Algorithm: "RS256", Use: "sig"}}})
}

func (s *Server) authorize(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	redirect, err := url.Parse(q.Get("redirect_uri"))
	if q.Get("client_id") != ClientID || err != nil || redirect.Scheme != "https" || !strings.HasSuffix(redirect.Path, "/callback") {
		http.Error(w, "unknown client", http.StatusBadRequest)
		return
	}
	back := url.Values{"state": {q.Get("state")}, "iss": {s.URL}}
	challenge := q.Get("code_challenge")
	if q.Get("response_type") != "code" || !strings.Contains(" "+q.Get("scope")+" ", " openid ") || q.Get("code_challenge_method") != "S256" || len(challenge) != 43 || q.Get("nonce") == "" || q.Get("state") == "" {
		back.Set("error", "invalid_request")
	} else {
		code := random()
		s.mu.Lock()
		s.codes[code] = grant{q.Get("redirect_uri"), challenge, q.Get("nonce")}
		s.mu.Unlock()
		back.Set("code", code)
	}
	redirect.RawQuery = back.Encode()
	http.Redirect(w, r, redirect.String(), http.StatusFound)
}

func (s *Server) token(w http.ResponseWriter, r *http.Request) {
	refuse := func(status int, name string) { answer(w, status, map[string]string{"error": name}) }
	id, secret, ok := r.BasicAuth()
	// RFC 6749, section 2.3.1: both are form-encoded before.
	id, err1 := url.QueryUnescape(id)
	secret, err2 := url.QueryUnescape(secret)
	if !ok || err1 != nil || err2 != nil || id != ClientID || subtle.ConstantTimeCompare([]byte(secret), []byte(Secret)) != 1 {
		refuse(http.StatusUnauthorized, "invalid_client")
		return
	}
	s.mu.Lock()
	g, known := s.codes[r.PostFormValue("code")]
	delete(s.codes, r.PostFormValue("code"))
	s.mu.Unlock()
	sum := sha256.Sum256([]byte(r.PostFormValue("code_verifier")))
	if r.PostFormValue("grant_type") != "authorization_code" || !known || r.PostFormValue("redirect_uri") != g.redirect || base64.RawURLEncoding.EncodeToString(sum[:]) != g.challenge {
		refuse(http.StatusBadRequest, "invalid_grant")
		return
	}
	b := s.behaviour()
	access := random()
	half := sha256.Sum256([]byte(access))
	claims := map[string]any{
		"iss": s.URL, "sub": "subject-1", "aud": ClientID, "exp": time.Now().Add(5 * time.Minute).Unix(), "iat": time.Now().Unix(), "nonce": g.nonce,
		"at_hash": base64.RawURLEncoding.EncodeToString(half[:16]),
	}
	for k, v := range b.Claims {
		claims[k] = v
	}
	if b.Change != nil {
		b.Change(claims)
	}
	s.mu.Lock()
	s.access[access] = b.Info
	key, keyID := s.key, s.keyID
	s.mu.Unlock()
	payload, err := json.Marshal(claims)
	if err != nil {
		s.t.Error(err)
	}
	out := map[string]any{"access_token": access, "token_type": "Bearer", "expires_in": 300}
	switch {
	case b.NoToken:
	case b.Sign != nil:
		out["id_token"] = b.Sign(payload)
	default:
		out["id_token"] = SignWith(s.t, jose.RS256, jose.JSONWebKey{Key: key, KeyID: keyID}, payload)
	}
	answer(w, http.StatusOK, out)
}

func (s *Server) userInfo(w http.ResponseWriter, r *http.Request) {
	token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	s.mu.Lock()
	info := s.access[token]
	s.mu.Unlock()
	if info == nil {
		answer(w, http.StatusUnauthorized, map[string]string{"error": "invalid_token"})
		return
	}
	answer(w, http.StatusOK, info)
}
