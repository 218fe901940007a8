package securitykey_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/bulwarkhq/bulwark/portal/securitykey"
	"github.com/bulwarkhq/bulwark/portal/securitykey/keytest"
)

const origin = "https://portal.example.org:8443"

func newParty(t testing.TB) *securitykey.Party {
	t.Helper()
	p, err := securitykey.New(origin + "/")
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func newKey(t testing.TB) *keytest.Key {
	t.Helper()
	k, err := keytest.New(origin)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// register gives the user one more key.
func register(t testing.TB, p *securitykey.Party, u *securitykey.User, k *keytest.Key) {
	t.Helper()
	options, c, err := p.Register(*u)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := k.Create(options)
	if err != nil {
		t.Fatal(err)
	}
	got, err := p.Registered(*u, c, answer)
	if err != nil {
		t.Fatal(err)
	}
	u.Keys = append(u.Keys, got)
}

func TestCeremonies(t *testing.T) {
	p, u := newParty(t), securitykey.User{ID: "0123456789abcdef", Name: "ann"}
	first, second := newKey(t), newKey(t)
	register(t, p, &u, first)
	register(t, p, &u, second)
	if string(u.Keys[0].ID) != string(first.ID) || u.Keys[0].Counter != 1 {
		t.Errorf("%+v", u.Keys[0])
	}
	options, _, err := p.Register(u)
	if err != nil {
		t.Fatal(err)
	}
	var o struct {
		PublicKey struct {
			ExcludeCredentials []any
			Attestation        string
		}
	}
	if err := json.Unmarshal(options, &o); err != nil || len(o.PublicKey.ExcludeCredentials) != 2 || o.PublicKey.Attestation != "none" {
		t.Errorf("%s, %v", options, err)
	}
	options, c, err := p.Ask(u)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := second.Get(options)
	if err != nil {
		t.Fatal(err)
	}
	got, err := p.Answered(u, c, answer)
	if err != nil || string(got.ID) != string(second.ID) || got.Counter != 2 {
		t.Fatalf("%+v, %v", got, err)
	}
	u.Keys[1] = got
	if _, err := p.Answered(u, c, answer); !errors.Is(err, securitykey.ErrRefused) || !strings.Contains(err.Error(), "copy") {
		t.Errorf("the same counter again: %v", err)
	}
	if _, _, err := p.Ask(securitykey.User{ID: "x", Name: "bob"}); err == nil {
		t.Error("somebody without keys is asked for one")
	}
}

func TestRefused(t *testing.T) {
	p, u := newParty(t), securitykey.User{ID: "0123456789abcdef", Name: "ann"}
	k := newKey(t)
	register(t, p, &u, k)
	options, c, err := p.Ask(u)
	if err != nil {
		t.Fatal(err)
	}
	other, _, err := p.Ask(u)
	if err != nil {
		t.Fatal(err)
	}
	stranger := newKey(t)
	forged := newKey(t)
	forged.ID = k.ID
	get := func(k *keytest.Key, options []byte) string {
		t.Helper()
		answer, err := k.Get(options)
		if err != nil {
			t.Fatal(err)
		}
		return answer
	}
	elsewhere := *k
	elsewhere.Origin = "https://evil.example.org"
	bob, err := stranger.Create(options)
	if err != nil {
		t.Fatal(err)
	}
	for what, answer := range map[string]string{
		"another challenge":       get(k, other),
		"another site":            get(&elsewhere, options),
		"another name":            get(k, []byte(strings.ReplaceAll(string(options), "portal.example.org", "example.org"))),
		"a key of nobody":         get(stranger, options),
		"a signature of another":  get(forged, options),
		"a registration":          bob,
		"nothing":                 "",
		"no JSON":                 "x",
		"an object without parts": "{}",
		"too much":                get(k, options) + strings.Repeat(" ", 20_000),
	} {
		if _, err := p.Answered(u, c, answer); !errors.Is(err, securitykey.ErrRefused) {
			t.Errorf("%s: %v", what, err)
		}
		if _, err := p.Registered(u, c, answer); !errors.Is(err, securitykey.ErrRefused) {
			t.Errorf("%s as a registration: %v", what, err)
		}
	}
	if _, err := p.Answered(u, c, get(k, options)); err != nil {
		t.Errorf("the right one: %v", err)
	}
	u.Keys[0].Data = []byte("{")
	if _, err := p.Answered(u, c, get(k, options)); err == nil || errors.Is(err, securitykey.ErrRefused) {
		t.Errorf("a key that is stored wrongly: %v", err)
	}
}

// Some clients report the outputs of extensions that nobody asked for.
func TestUnaskedOutputs(t *testing.T) {
	p, u := newParty(t), securitykey.User{ID: "0123456789abcdef", Name: "ann"}
	k := newKey(t)
	k.Extensions = map[string]any{"credProps": map[string]any{"rk": false}}
	register(t, p, &u, k)
	k.Extensions = map[string]any{"appid": false}
	options, c, err := p.Ask(u)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := k.Get(options)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Answered(u, c, answer); err != nil {
		t.Error(err)
	}
}

func TestNew(t *testing.T) {
	for address, host := range map[string]string{
		"https://portal.example.org": "portal.example.org", "https://localhost:8443": "localhost",
		"https://Portal.Example.org": "portal.example.org", // browsers hash the lower case
		"https://192.0.2.1:8443":     "", "https://[2001:db8::1]": "", "https://": "",
		"https://portal:8443": "", "https://portal.example.org.": "", "https://münchen.example": "", "https://portal.42": "",
	} {
		p, err := securitykey.New(address)
		switch {
		case host == "" && !errors.Is(err, securitykey.ErrNoName):
			t.Errorf("%s: %v, want %v", address, err, securitykey.ErrNoName)
		case host != "" && (err != nil || p.Host() != host):
			t.Errorf("%s: %v, %v, want %s", address, p, err, host)
		}
	}
}

// What a browser answers is anybody's who knows the password.
func FuzzAnswer(f *testing.F) {
	p, u := newParty(f), securitykey.User{ID: "0123456789abcdef", Name: "ann"}
	k := newKey(f)
	register(f, p, &u, k)
	options, c, err := p.Ask(u)
	if err != nil {
		f.Fatal(err)
	}
	made, err := k.Create(options)
	if err != nil {
		f.Fatal(err)
	}
	got, err := k.Get(options)
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range []string{made, got, "{}", `{"id":"AA","rawId":"AA","type":"public-key","response":{}}`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, answer string) {
		if _, err := p.Registered(u, c, answer); err != nil && !errors.Is(err, securitykey.ErrRefused) {
			t.Error(err)
		}
		if _, err := p.Answered(u, c, answer); err != nil && !errors.Is(err, securitykey.ErrRefused) {
			t.Error(err)
		}
	})
}
