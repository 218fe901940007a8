// Package securitykey is security keys and passkeys as a second factor: the
// ceremonies of WebAuthn (W3C Web Authentication, Level 3) for one portal. It
// keeps nothing: keys and challenges are the caller's.
package securitykey

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/go-webauthn/webauthn/protocol"
	"github.com/go-webauthn/webauthn/webauthn"
)

// Lifetime is how long a challenge is good.
const Lifetime = 5 * time.Minute

// maxAnswer bounds an answer of a browser in bytes. A credential id has at most
// 1,023 bytes; attestation is not asked for.
const maxAnswer = 16 << 10

// Errors.
var (
	// ErrNoName means that browsers keep no keys for the host of the portal's
	// address: it is no domain of two labels or more, in ASCII, nor localhost.
	ErrNoName = errors.New("security keys need a portal that is reached by a host name with a dot, or localhost (--portal-url)")
	// ErrRefused is wrapped by the reason why an answer is not accepted.
	ErrRefused = errors.New("the answer of the security key is not accepted")
)

// Key is a registered key.
type Key struct {
	// ID is what the key calls the credential, at most 1,023 bytes.
	ID []byte
	// Counter is the signature counter after the last use; 0 for keys that do not
	// count.
	Counter uint32
	// Data is the public key and what else is known of it, in JSON.
	Data []byte
}

// User is whose keys they are.
type User struct {
	ID   string // opaque; authenticators may show it to nobody
	Name string
	Keys []Key
}

// Challenge is what an answer has to fit. It is good for one answer.
type Challenge struct{ session webauthn.SessionData }

// Party is the portal towards the keys.
type Party struct{ w *webauthn.WebAuthn }

// New returns the party of the portal with an address (https://host[:port]). The
// error wraps ErrNoName when there can be none for its host.
func New(portal string) (*Party, error) {
	u, err := url.Parse(portal)
	if err != nil {
		return nil, fmt.Errorf("the portal's address: %w", err)
	}
	// Browsers hash the name in lower case, whatever was typed.
	host := strings.ToLower(u.Hostname())
	if err := protocol.ValidateRPID(host); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoName, err)
	}
	limit := webauthn.TimeoutConfig{Enforce: true, Timeout: Lifetime, TimeoutUVD: Lifetime}
	w, err := webauthn.New(&webauthn.Config{
		RPID: host, RPDisplayName: "Bulwark", RPOrigins: []string{u.Scheme + "://" + u.Host},
		AttestationPreference: protocol.PreferNoAttestation,
		// The password was checked before: the key is what one has, a PIN is not asked
		// for again.
		AuthenticatorSelection: protocol.AuthenticatorSelection{ResidentKey: protocol.ResidentKeyRequirementDiscouraged, UserVerification: protocol.VerificationDiscouraged},
		Timeouts:               webauthn.TimeoutsConfig{Login: limit, Registration: limit},
		// Clients add outputs of extensions unasked (credProps); none decides anything.
		ExtensionsUnsolicitedOutputPolicy: protocol.UnsolicitedOutputPolicyIgnore,
	})
	if err != nil {
		return nil, fmt.Errorf("security keys for %s: %w", u.Host, err)
	}
	return &Party{w}, nil
}

// Host is the name that the keys are for.
func (p *Party) Host() string { return p.w.Config.RPID }

// owner is a user in the library's terms.
type owner struct {
	User
	credentials []webauthn.Credential
}

func (o owner) WebAuthnID() []byte                         { return []byte(o.ID) }
func (o owner) WebAuthnName() string                       { return o.Name }
func (o owner) WebAuthnDisplayName() string                { return o.Name }
func (o owner) WebAuthnCredentials() []webauthn.Credential { return o.credentials }

func newOwner(u User) (owner, error) {
	o := owner{User: u}
	for _, k := range u.Keys {
		var c webauthn.Credential
		if err := json.Unmarshal(k.Data, &c); err != nil {
			return o, fmt.Errorf("security key %x of %s: %w", k.ID, u.Name, err)
		}
		c.Authenticator.SignCount = k.Counter
		o.credentials = append(o.credentials, c)
	}
	return o, nil
}

// keyOf is the other way. Why the key was trusted is not kept: it was not asked.
func keyOf(c *webauthn.Credential) (Key, error) {
	c.Attestation = webauthn.CredentialAttestation{}
	data, err := json.Marshal(c)
	if err != nil {
		return Key{}, fmt.Errorf("security key: %w", err)
	}
	return Key{ID: c.ID, Counter: c.Authenticator.SignCount, Data: data}, nil
}

// Register begins the registration of one more key. The options are for
// navigator.credentials.create, in JSON.
func (p *Party) Register(u User) ([]byte, *Challenge, error) {
	o, err := newOwner(u)
	if err != nil {
		return nil, nil, err
	}
	options, session, err := p.w.BeginRegistration(o, webauthn.WithExclusions(webauthn.Credentials(o.credentials).CredentialDescriptors()))
	if err != nil {
		return nil, nil, fmt.Errorf("registering a security key of %s: %w", u.Name, err)
	}
	return begin(options, session)
}

// Ask begins the proof that the user has one of the keys. The options are for
// navigator.credentials.get, in JSON.
func (p *Party) Ask(u User) ([]byte, *Challenge, error) {
	o, err := newOwner(u)
	if err != nil {
		return nil, nil, err
	}
	options, session, err := p.w.BeginLogin(o)
	if err != nil {
		return nil, nil, fmt.Errorf("asking for a security key of %s: %w", u.Name, err)
	}
	return begin(options, session)
}

func begin(options any, session *webauthn.SessionData) ([]byte, *Challenge, error) {
	text, err := json.Marshal(options)
	if err != nil {
		return nil, nil, fmt.Errorf("security keys: %w", err)
	}
	return text, &Challenge{*session}, nil
}

// Registered returns the key that answered a registration; the error wraps
// ErrRefused when the answer does not fit.
func (p *Party) Registered(u User, c *Challenge, answer string) (Key, error) {
	o, err := newOwner(u)
	if err != nil {
		return Key{}, err
	}
	if len(answer) > maxAnswer {
		return Key{}, fmt.Errorf("%w: it has %d bytes", ErrRefused, len(answer))
	}
	parsed, err := protocol.ParseCredentialCreationResponseBytes([]byte(answer))
	if err != nil {
		return Key{}, refused(err)
	}
	got, err := p.w.CreateCredential(o, c.session, parsed)
	if err != nil {
		return Key{}, refused(err)
	}
	return keyOf(got)
}

// Answered returns the key that answered, as it is to be kept from now on; the
// error wraps ErrRefused when the answer does not fit.
func (p *Party) Answered(u User, c *Challenge, answer string) (Key, error) {
	o, err := newOwner(u)
	if err != nil {
		return Key{}, err
	}
	if len(answer) > maxAnswer {
		return Key{}, fmt.Errorf("%w: it has %d bytes", ErrRefused, len(answer))
	}
	parsed, err := protocol.ParseCredentialRequestResponseBytes([]byte(answer))
	if err != nil {
		return Key{}, refused(err)
	}
	got, err := p.w.ValidateLogin(o, c.session, parsed)
	if err != nil {
		return Key{}, refused(err)
	}
	// Section 6.1.1: a counter that does not grow is a sign of a copy.
	if got.Authenticator.CloneWarning {
		return Key{}, fmt.Errorf("%w: its counter of signatures went back: there may be a copy of the key", ErrRefused)
	}
	return keyOf(got)
}

// refused keeps what the library says for the log.
func refused(err error) error {
	var e *protocol.Error
	if errors.As(err, &e) && e.DevInfo != "" {
		return fmt.Errorf("%w: %s (%s)", ErrRefused, e.Details, bytes.TrimSpace([]byte(e.DevInfo)))
	}
	return fmt.Errorf("%w: %w", ErrRefused, err)
}
