package account

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pquerna/otp"
	"github.com/pquerna/otp/hotp"
	"github.com/pquerna/otp/totp"

	"github.com/bulwarkhq/bulwark/portal/access"
	"github.com/bulwarkhq/bulwark/portal/inventory"
	"github.com/bulwarkhq/bulwark/portal/securitykey"
)

// The parameters of the one-time passwords (RFC 6238), those that every
// authenticator has: HMAC-SHA-1, 6 digits, steps of 30 seconds. A clock may be
// one step off.
const (
	stepLength   = 30 * time.Second
	skewSteps    = 1
	secretBytes  = 20 // RFC 4226, section 4, R6: 160 bits
	codeDigits   = otp.DigitsSix
	codeFailures = 5 // of one ticket
)

// RecoveryCodes is how many recovery codes a user gets.
const RecoveryCodes = 10

// TicketLifetime is how long the code may take after the password.
const TicketLifetime = 5 * time.Minute

// Errors of second factors.
var (
	// ErrCode is the answer to a wrong code, to one that was used and to one that
	// is too old.
	ErrCode = errors.New("the code is wrong or was used already")
	// ErrChallenge means that the answer of a key came too late or twice.
	ErrChallenge = errors.New("the page is out of date: load it again and repeat it")
	// ErrTicket means that the sign-in must begin again with the password.
	ErrTicket = errors.New("the sign-in has ended")
	// ErrNoKey means that the portal has no folder for the key of the secrets.
	ErrNoKey = errors.New("this portal keeps no second factors")
	// ErrRequired means that the user's role may not do without a second factor.
	ErrRequired = errors.New("your role needs a second factor")
)

// CodeNeeded is returned by SignIn when the password was right and a second
// factor is still to come. The ticket is for SignInProof.
type CodeNeeded struct{ Ticket string }

// Error says that a code is needed.
func (*CodeNeeded) Error() string { return "a code of the second factor is needed" }

// ticket is a sign-in whose password was right.
type ticket struct {
	userID   string
	changed  time.Time // of the password
	failures int
}

// MustEnroll reports whether the user has to set up a second factor before
// anything else. An identity provider has its own.
func (s *Service) MustEnroll(u User) bool {
	return !u.SecondFactor && u.Issuer == "" && s.key != nil && slices.Contains(s.required, u.Role)
}

// Required reports whether accounts of the role must have a second factor.
func (s *Service) Required(r access.Role) bool { return slices.Contains(s.required, r) }

func (s *Service) newTicket(u User, now time.Time) string {
	plain := secret()
	s.tickets.put(plain, ticket{userID: u.ID, changed: u.Changed}, now)
	return plain
}

// failTicket counts a failure of a ticket and ends it after too many.
func (s *Service) failTicket(plain string) {
	s.tickets.change(plain, func(t *ticket) bool {
		t.failures++
		return t.failures < codeFailures
	})
}

// ticketUser returns who has the ticket; ErrTicket when it is good no more.
func (s *Service) ticketUser(ctx context.Context, plain string) (User, error) {
	t, ok := s.tickets.get(plain, s.now())
	if !ok {
		return User{}, ErrTicket
	}
	u, err := s.store.User(ctx, t.userID)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return User{}, fmt.Errorf("signing in: %w", err)
	}
	if err != nil || u.Disabled || !u.SecondFactor || !u.Changed.Equal(t.changed) || s.localOff {
		s.tickets.end(plain)
		return User{}, ErrTicket
	}
	return u, nil
}

// SignInProof is the second half of a sign-in. It returns what SignIn returns.
func (s *Service) SignInProof(ctx context.Context, plain string, p Proof, address, agent string) (string, User, error) {
	u, err := s.ticketUser(ctx, plain)
	if err != nil {
		return "", User{}, err
	}
	how, err := s.checkProof(ctx, u, p, plain, address)
	if err != nil {
		if errors.Is(err, ErrCode) || errors.Is(err, securitykey.ErrRefused) {
			s.failTicket(plain)
		}
		return "", User{}, err
	}
	s.tickets.end(plain)
	cookie, err := s.open(ctx, u, address, agent, how)
	return cookie, u, err
}

// Proof is what shows that somebody has the second factor: a code of the
// authenticator or a recovery code, or what a security key answered to the
// challenge of Ask, in JSON.
type Proof struct{ Code, Answer string }

// checkProof accepts a proof, each once, and says what it was. secret is what the
// challenge was made for. One is checked at a time: the failures before have been
// counted. They are counted per account, for this is only reached with its
// password, and for a day.
func (s *Service) checkProof(ctx context.Context, u User, p Proof, secret, address string) (string, error) {
	select {
	case s.checking <- struct{}{}:
		defer func() { <-s.checking }()
	case <-ctx.Done():
		return "", ctx.Err()
	}
	now := s.now()
	if wait := s.codes.wait(u.ID, freeAttempts, now); wait > 0 {
		return "", &TooManyAttempts{wait}
	}
	var how string
	var err error
	if p.Answer != "" {
		how, err = s.acceptAnswer(ctx, u, p.Answer, secret, now)
	} else {
		how, err = s.acceptCode(ctx, u, normalCode(p.Code), address, now)
	}
	switch {
	case errors.Is(err, securitykey.ErrRefused), errors.Is(err, ErrCode):
		s.codes.failed(u.ID, now)
		return "", s.refused(ctx, u, err, address, now)
	case errors.Is(err, ErrChallenge):
		return "", err
	case err != nil:
		return "", fmt.Errorf("checking the second factor of %s: %w", u.Name, err)
	}
	s.codes.succeeded(u.ID)
	return how, nil
}

// refused writes into the audit log that a second factor was refused, of a key also
// why, and returns the reason.
func (s *Service) refused(ctx context.Context, u User, reason error, address string, now time.Time) error {
	a := Audit{Time: now, Actor: u.Name, Address: address, Action: "second-factor.failed"}
	if errors.Is(reason, securitykey.ErrRefused) {
		a.Detail = inventory.Clean(reason.Error(), 500)
	}
	if err := s.store.AddAudit(ctx, a); err != nil {
		return fmt.Errorf("checking the second factor of %s: %w", u.Name, err)
	}
	return reason
}

func (s *Service) acceptCode(ctx context.Context, u User, code, address string, now time.Time) (string, error) {
	if len(code) == recoveryLength {
		err := s.store.UseRecoveryCode(ctx, u.ID, sha256.Sum256([]byte(code)), now, Audit{Time: now, Actor: u.Name, Address: address, Action: "second-factor.recovery-code", Target: u.Name})
		if errors.Is(err, ErrNotFound) {
			return "", ErrCode
		}
		return "recovery code", err
	}
	f, err := s.store.SecondFactor(ctx, u.ID)
	if errors.Is(err, ErrNotFound) { // there are only keys
		return "", ErrCode
	}
	if err != nil {
		return "", err
	}
	step, err := s.stepOf(f, code, now)
	if err != nil {
		return "", err
	}
	if err := s.store.UseStep(ctx, u.ID, step); errors.Is(err, ErrUsed) {
		return "", ErrCode
	} else if err != nil {
		return "", err
	}
	return "authenticator", nil
}

// stepOf returns the step that the code is of, or ErrCode.
func (s *Service) stepOf(f SecondFactor, code string, now time.Time) (int64, error) {
	plain, err := s.openSecret(f)
	if err != nil {
		return 0, err
	}
	current := now.Unix() / int64(stepLength/time.Second)
	found := int64(-1)
	for step := max(current-skewSteps, 0); step <= current+skewSteps; step++ {
		want, err := hotp.GenerateCodeCustom(plain, uint64(step), hotp.ValidateOpts{Digits: codeDigits, Algorithm: otp.AlgorithmSHA1})
		if err != nil {
			return 0, fmt.Errorf("the secret: %w", err)
		}
		if subtle.ConstantTimeCompare([]byte(code), []byte(want)) == 1 {
			found = step
		}
	}
	if found < 0 {
		return 0, ErrCode
	}
	return found, nil
}

// openSecret returns the secret in base 32.
func (s *Service) openSecret(f SecondFactor) (string, error) {
	if s.key == nil {
		return "", ErrNoKey
	}
	plain, err := s.key.Open("second factor of "+f.UserID, f.Sealed)
	if err != nil {
		return "", fmt.Errorf("the secret of the second factor, key %s: %w", s.key.Path(), err)
	}
	return base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(plain), nil
}

// Factor returns the second factor of a user, confirmed or not; ErrNotFound for
// none.
func (s *Service) Factor(ctx context.Context, u User) (SecondFactor, error) {
	return s.store.SecondFactor(ctx, u.ID)
}

// BeginFactor makes a secret for a user, to be confirmed by ConfirmFactor.
func (s *Service) BeginFactor(ctx context.Context, u User) error {
	if s.key == nil {
		return ErrNoKey
	}
	plain := make([]byte, secretBytes)
	rand.Read(plain) // never fails
	err := s.store.BeginSecondFactor(ctx, SecondFactor{UserID: u.ID, Sealed: s.key.Seal("second factor of "+u.ID, plain), Created: s.now()})
	if err != nil {
		return fmt.Errorf("second factor of %s: %w", u.Name, err)
	}
	return nil
}

// FactorURI returns the secret of a factor that is not confirmed, as an address
// for authenticators (otpauth://) and in base 32. issuer is what they show.
func (s *Service) FactorURI(f SecondFactor, u User, issuer string) (uri, text string, err error) {
	if !f.Confirmed.IsZero() {
		return "", "", ErrExists
	}
	if text, err = s.openSecret(f); err != nil {
		return "", "", err
	}
	plain, err := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(text)
	if err != nil {
		return "", "", fmt.Errorf("the secret: %w", err)
	}
	k, err := totp.Generate(totp.GenerateOpts{Issuer: issuer, AccountName: u.Name, Secret: plain, Period: uint(stepLength / time.Second), Digits: codeDigits, Algorithm: otp.AlgorithmSHA1})
	if err != nil {
		return "", "", fmt.Errorf("the secret: %w", err)
	}
	return k.URL(), text, nil
}

// ConfirmFactor turns the authenticator on: the password, and a code that shows
// that the authenticator has the secret; with security keys a proof, too, which is
// spent only if everything else is right. It ends the other sessions of the user.
// The first second factor brings recovery codes, which it returns.
func (s *Service) ConfirmFactor(ctx context.Context, sess Session, u User, password, code string, p Proof, address string) ([]string, error) {
	if err := s.confirm(ctx, u, password, address); err != nil {
		return nil, err
	}
	f, err := s.store.SecondFactor(ctx, u.ID)
	if err != nil {
		return nil, fmt.Errorf("second factor of %s: %w", u.Name, err)
	}
	if !f.Confirmed.IsZero() { // its codes are for checkProof, which counts the wrong ones
		return nil, ErrExists
	}
	now := s.now()
	step, err := s.stepOf(f, normalCode(code), now)
	if err != nil {
		return nil, err
	}
	if err := s.prove(ctx, sess, u, p, address); err != nil {
		return nil, err
	}
	plain, hashes := firstRecoveryCodes(u)
	err = s.store.ConfirmSecondFactor(ctx, f, step, hashes, sess.Hash, Audit{Time: now, Actor: u.Name, Address: address, Action: "second-factor.enable", Target: u.Name})
	if err != nil {
		return nil, fmt.Errorf("second factor of %s: %w", u.Name, err)
	}
	return plain, nil
}

// confirmWith asks somebody who is signed in for the password and, if the account
// has a second factor, for a proof of it.
func (s *Service) confirmWith(ctx context.Context, sess Session, u User, password string, p Proof, address string) error {
	if err := s.confirm(ctx, u, password, address); err != nil {
		return err
	}
	return s.prove(ctx, sess, u, p, address)
}

// prove spends a proof of the second factor, if the account has one.
func (s *Service) prove(ctx context.Context, sess Session, u User, p Proof, address string) error {
	if !u.SecondFactor {
		return nil
	}
	_, err := s.checkProof(ctx, u, p, sess.CSRF, address)
	return err
}

// RecoveryCodesLeft is how many recovery codes the user has not used.
func (s *Service) RecoveryCodesLeft(ctx context.Context, u User) (int, error) {
	return s.store.RecoveryCodes(ctx, u.ID)
}

// NewRecoveryCodes replaces the recovery codes, with the password and a proof.
func (s *Service) NewRecoveryCodes(ctx context.Context, sess Session, u User, password string, p Proof, address string) ([]string, error) {
	if !u.SecondFactor {
		return nil, ErrNotFound
	}
	if err := s.confirmWith(ctx, sess, u, password, p, address); err != nil {
		return nil, err
	}
	plain, hashes := newRecoveryCodes()
	err := s.store.SetRecoveryCodes(ctx, u.ID, hashes, Audit{Time: s.now(), Actor: u.Name, Address: address, Action: "second-factor.new-recovery-codes", Target: u.Name})
	if err != nil {
		return nil, fmt.Errorf("recovery codes of %s: %w", u.Name, err)
	}
	return plain, nil
}

// DisableFactor turns the second factor off, the authenticator and all keys, with
// the password and a proof; ErrRequired when the role must have one.
func (s *Service) DisableFactor(ctx context.Context, sess Session, u User, password string, p Proof, address string) error {
	if s.Required(u.Role) {
		return ErrRequired
	}
	if err := s.confirmWith(ctx, sess, u, password, p, address); err != nil {
		return err
	}
	err := s.store.RemoveSecondFactor(ctx, u.ID, sess.Hash, Audit{Time: s.now(), Actor: u.Name, Address: address, Action: "second-factor.disable", Target: u.Name})
	if err != nil {
		return fmt.Errorf("second factor of %s: %w", u.Name, err)
	}
	return nil
}

// RemoveAuthenticator removes the authenticator and leaves the keys, with the
// password and a proof. It ends the other sessions of the user.
func (s *Service) RemoveAuthenticator(ctx context.Context, sess Session, u User, password string, p Proof, address string) error {
	if err := s.confirmWith(ctx, sess, u, password, p, address); err != nil {
		return err
	}
	err := s.store.RemoveAuthenticator(ctx, u.ID, sess.Hash, Audit{Time: s.now(), Actor: u.Name, Address: address, Action: "second-factor.remove-authenticator", Target: u.Name})
	if err != nil {
		return fmt.Errorf("authenticator of %s: %w", u.Name, err)
	}
	return nil
}

// ResetFactor removes the second factor of somebody who has lost it and ends
// the sessions of the account. ErrNotFound when there is no such account or it
// has none.
func (s *Service) ResetFactor(ctx context.Context, name, by, address string) error {
	u, err := s.store.UserByName(ctx, name)
	if err != nil {
		return fmt.Errorf("user %.70q: %w", name, err)
	}
	err = s.store.RemoveSecondFactor(ctx, u.ID, [32]byte{}, Audit{Time: s.now(), Actor: by, Address: address, Action: "second-factor.reset", Target: u.Name})
	if err != nil {
		return fmt.Errorf("second factor of %s: %w", u.Name, err)
	}
	s.codes.succeeded(u.ID)
	return nil
}

// recoveryLength is the length of a recovery code without its dashes: 80 bits.
// Their hash needs no salt and no slowness.
const recoveryLength = 16

var recoveryEncoding = base32.NewEncoding("abcdefghijkmnpqrstuvwxyz23456789").WithPadding(base32.NoPadding)

func newRecoveryCodes() (plain []string, hashes [][32]byte) {
	for range RecoveryCodes {
		var b [10]byte
		rand.Read(b[:]) // never fails
		c := recoveryEncoding.EncodeToString(b[:])
		hashes = append(hashes, sha256.Sum256([]byte(c)))
		plain = append(plain, c[:4]+"-"+c[4:8]+"-"+c[8:12]+"-"+c[12:])
	}
	return plain, hashes
}

// firstRecoveryCodes are those that the first second factor of a user brings; none
// for another one: the codes that somebody has written down stay good.
func firstRecoveryCodes(u User) (plain []string, hashes [][32]byte) {
	if u.SecondFactor {
		return nil, nil
	}
	return newRecoveryCodes()
}

// normalCode removes what people put between groups. It is bounded: what is
// longer is no code.
func normalCode(code string) string {
	if len(code) > 64 {
		return ""
	}
	return strings.ToLower(strings.NewReplacer(" ", "", "-", "", "\t", "").Replace(strings.TrimSpace(code)))
}

// ParseRequired reads which roles must have a second factor: their names with
// commas, "all", or "none".
func ParseRequired(text string) ([]access.Role, error) {
	switch strings.TrimSpace(text) {
	case "", "none":
		return nil, nil
	case "all":
		return access.Roles(), nil
	}
	var out []access.Role
	for name := range strings.SplitSeq(text, ",") {
		r, err := access.ParseRole(name)
		if err != nil {
			return nil, fmt.Errorf("%w; or all, or none: %s", err, strconv.Quote(text))
		}
		out = append(out, r)
	}
	return out, nil
}
