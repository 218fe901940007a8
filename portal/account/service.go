package account

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/bulwarkhq/bulwark/event"
	"github.com/bulwarkhq/bulwark/portal/access"
	"github.com/bulwarkhq/bulwark/portal/inventory"
	"github.com/bulwarkhq/bulwark/portal/seal"
	"github.com/bulwarkhq/bulwark/portal/securitykey"
)

// Lifetimes of a session.
const (
	SessionLifetime = 24 * time.Hour
	SessionIdle     = 4 * time.Hour
	touchEvery      = time.Minute
)

// addressAttempts is how many failures one address has free over all accounts.
const addressAttempts = 30

// MaxTokens bounds the list of tokens that are not revoked.
const MaxTokens = 500

// Service is accounts, sessions, tokens and the audit log.
type Service struct {
	store Store
	now   func() time.Time
	cost  HashCost
	limit *limiter
	// hashing bounds how many password hashes run at once: each takes
	// cost.Memory.
	hashing chan struct{}
	// decoy is verified when the account does not exist, so that the answer
	// takes the same time.
	decoy string

	key      *seal.Key
	required []access.Role
	localOff bool
	issuer   string
	// providerGroups is Options.ProviderGroups.
	providerGroups bool
	// codes counts wrong codes of second factors; checking is held while one is
	// checked.
	codes    *limiter
	checking chan struct{}
	tickets  *waiting[ticket]

	keys       *securitykey.Party
	ceremonies *waiting[ceremony]
}

// Options of a Service.
type Options struct {
	// Key encrypts the secrets of second factors; nil for a service that only
	// administers.
	Key *seal.Key
	// Keys are the portal's security keys; nil for none.
	Keys *securitykey.Party
	// SecondFactor are the roles that must have a second factor.
	SecondFactor []access.Role
	// LocalOff refuses every sign-in with a password: an identity provider is the
	// only way in.
	LocalOff bool
	// Issuer is the identity provider whose accounts may sign in; empty for none.
	Issuer string
	// ProviderGroups is set when the identity provider decides the device groups of
	// its accounts.
	ProviderGroups bool
}

// New makes the account service; now is time.Now outside of tests.
func New(store Store, cost HashCost, now func() time.Time, o Options) *Service {
	return &Service{
		store: store, now: now, cost: cost, limit: newLimiter(maxWait),
		hashing: make(chan struct{}, 2), decoy: hashPassword(secret(), cost),
		key: o.Key, required: o.SecondFactor, localOff: o.LocalOff, issuer: o.Issuer, providerGroups: o.ProviderGroups,
		codes: newLimiter(24 * time.Hour), checking: make(chan struct{}, 1), tickets: newWaiting[ticket](TicketLifetime),
		keys: o.Keys, ceremonies: newWaiting[ceremony](securitykey.Lifetime),
	}
}

var userName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$`)

// MaxGroups bounds the device groups that one user or token is limited to.
const MaxGroups = 50

// checkGroups returns the ids of device groups in order, each once.
func checkGroups(groups []string) ([]string, error) {
	groups = slices.Compact(slices.Sorted(slices.Values(groups)))
	if len(groups) > MaxGroups {
		return nil, invalid("at most %d device groups", MaxGroups)
	}
	for _, g := range groups {
		if !event.IsHex(g, 16) {
			return nil, invalid("%.20q is not the id of a device group", g)
		}
	}
	return groups, nil
}

// limits is what an audit entry says of device groups.
func limits(groups []string) string {
	if len(groups) == 0 {
		return "all devices"
	}
	return "device groups " + strings.Join(groups, " ")
}

// CreateUser makes an account with a one-time password, which it returns. The
// groups are the ids of device groups that it is limited to; none for all devices.
// The error is an *Invalid for what cannot be.
func (s *Service) CreateUser(ctx context.Context, name string, role access.Role, by, address string, groups ...string) (string, error) {
	if !userName.MatchString(name) {
		return "", invalid("user name %.70q: use 1 to 64 letters, digits, dots, dashes, underscores, @, beginning with a letter or digit", name)
	}
	if !slices.Contains(access.Roles(), role) {
		return "", invalid("unknown role %.32q", role)
	}
	groups, err := checkGroups(groups)
	if err != nil {
		return "", err
	}
	password := oneTimePassword()
	now := s.now()
	u := User{ID: randomID(), Name: name, Role: role, Groups: groups, PasswordHash: hashPassword(password, s.cost), MustChange: true, Created: now, Changed: now}
	err = s.store.CreateUser(ctx, u, Audit{Time: now, Actor: by, Address: address, Action: "user.create", Target: name, Detail: "role " + string(role) + ", " + limits(groups)})
	if err != nil {
		return "", fmt.Errorf("creating user %s: %w", name, err)
	}
	return password, nil
}

// ResetPassword gives an account a one-time password, which it returns, and
// ends its sessions.
func (s *Service) ResetPassword(ctx context.Context, name, by, address string) (string, error) {
	u, err := s.store.UserByName(ctx, name)
	if err != nil {
		return "", fmt.Errorf("user %.70q: %w", name, err)
	}
	if u.Issuer != "" {
		return "", fmt.Errorf("user %s: %w", u.Name, ErrExternal)
	}
	password := oneTimePassword()
	now := s.now()
	err = s.store.SetPassword(ctx, u.ID, hashPassword(password, s.cost), true, now,
		Audit{Time: now, Actor: by, Address: address, Action: "user.reset-password", Target: u.Name})
	if err != nil {
		return "", fmt.Errorf("resetting the password of %s: %w", u.Name, err)
	}
	s.limit.succeeded(u.Name)
	return password, nil
}

// Users lists all accounts.
func (s *Service) Users(ctx context.Context) ([]User, error) { return s.store.Users(ctx) }

// SignIn checks a password and opens a session; the string is the cookie's
// secret.
func (s *Service) SignIn(ctx context.Context, name, password, address, agent string) (string, User, error) {
	now := s.now()
	name = strings.TrimSpace(name)
	key := strings.ToLower(inventory.Clean(name, 64)) + "\x00" + address
	wait := max(s.limit.wait(key, freeAttempts, now), s.limit.wait(address, addressAttempts, now))
	if wait > 0 {
		return "", User{}, &TooManyAttempts{wait}
	}
	u, err := s.store.UserByName(ctx, name)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return "", User{}, fmt.Errorf("signing in: %w", err)
	}
	hash := u.PasswordHash
	if err != nil || hash == "" { // who signs in with an identity provider has none
		hash = s.decoy
	}
	if len(password) > MaxPassword {
		password = ""
	}
	good, cost, checkErr := s.check(ctx, password, hash)
	if checkErr != nil {
		return "", User{}, fmt.Errorf("signing in %s: %w", u.Name, checkErr)
	}
	if err != nil || !good || u.Disabled || u.PasswordHash == "" || s.localOff {
		s.limit.failed(key, now)
		s.limit.failed(address, now)
		_ = s.store.AddAudit(ctx, Audit{Time: now, Actor: inventory.Clean(name, 64), Address: address, Action: "sign-in.failed"})
		return "", User{}, ErrSignIn
	}
	s.limit.succeeded(key)
	if cost != s.cost {
		if err := s.store.Rehash(ctx, u.ID, hashPassword(password, s.cost)); err != nil {
			return "", User{}, fmt.Errorf("signing in %s: %w", u.Name, err)
		}
	}
	if u.SecondFactor {
		return "", User{}, &CodeNeeded{s.newTicket(u, now)}
	}
	cookie, err := s.open(ctx, u, address, agent, "")
	return cookie, u, err
}

// check verifies a password, one of few at a time.
func (s *Service) check(ctx context.Context, password, hash string) (bool, HashCost, error) {
	select {
	case s.hashing <- struct{}{}:
		defer func() { <-s.hashing }()
	case <-ctx.Done():
		return false, HashCost{}, ctx.Err()
	}
	return checkPassword(password, hash)
}

func (s *Service) open(ctx context.Context, u User, address, agent, detail string) (string, error) {
	cookie, now := secret(), s.now()
	err := s.store.CreateSession(ctx, Session{
		Hash: sha256.Sum256([]byte(cookie)), UserID: u.ID, CSRF: secret(), Created: now, LastUsed: now,
		Expires: now.Add(SessionLifetime), Address: address, Agent: inventory.Clean(agent, 200),
	}, Audit{Time: now, Actor: u.Name, Address: address, Action: "sign-in", Detail: detail})
	if err != nil {
		return "", fmt.Errorf("opening a session for %s: %w", u.Name, err)
	}
	return cookie, nil
}

// Session returns the session of a cookie's secret, or access.ErrBadCredentials.
func (s *Service) Session(ctx context.Context, cookie string) (Session, User, error) {
	if len(cookie) != secretLength {
		return Session{}, User{}, access.ErrBadCredentials
	}
	sess, u, err := s.store.Session(ctx, sha256.Sum256([]byte(cookie)))
	now := s.now()
	switch {
	case errors.Is(err, ErrNotFound):
		return Session{}, User{}, access.ErrBadCredentials
	case err != nil:
		return Session{}, User{}, fmt.Errorf("reading the session: %w", err)
	case now.After(sess.Expires), now.Sub(sess.LastUsed) > SessionIdle, u.Disabled, !s.mayComeIn(u):
		return Session{}, User{}, fmt.Errorf("%w: the session has ended", access.ErrBadCredentials)
	}
	if now.Sub(sess.LastUsed) > touchEvery {
		if err := s.store.TouchSession(ctx, sess.Hash, now); err != nil {
			return Session{}, User{}, fmt.Errorf("reading the session: %w", err)
		}
	}
	return sess, u, nil
}

// mayComeIn reports whether the way that the account signs in is still one.
func (s *Service) mayComeIn(u User) bool {
	if u.Issuer == "" {
		return !s.localOff
	}
	return u.Issuer == s.issuer
}

// SignOut ends a session.
func (s *Service) SignOut(ctx context.Context, sess Session, u User, address string) error {
	return s.store.DeleteSession(ctx, sess.Hash, Audit{Time: s.now(), Actor: u.Name, Address: address, Action: "sign-out"})
}

// ChangePassword replaces a user's password, ends every session of the user
// and opens a new one, whose cookie secret it returns.
func (s *Service) ChangePassword(ctx context.Context, u User, current, next, address, agent string) (string, error) {
	if err := s.confirm(ctx, u, current, address); err != nil {
		return "", err
	}
	if current == next {
		return "", &WeakPassword{"The new password must differ from the current one."}
	}
	if err := acceptable(next, u.Name); err != nil {
		return "", err
	}
	now := s.now()
	err := s.store.SetPassword(ctx, u.ID, hashPassword(next, s.cost), false, now,
		Audit{Time: now, Actor: u.Name, Address: address, Action: "user.change-password", Target: u.Name})
	if err != nil {
		return "", fmt.Errorf("changing the password of %s: %w", u.Name, err)
	}
	return s.open(ctx, u, address, agent, "")
}

// confirm asks somebody who is signed in for the password again.
func (s *Service) confirm(ctx context.Context, u User, password, address string) error {
	if u.PasswordHash == "" {
		return ErrExternal
	}
	key := strings.ToLower(u.Name) + "\x00" + address
	if wait := s.limit.wait(key, freeAttempts, s.now()); wait > 0 {
		return &TooManyAttempts{wait}
	}
	if len(password) > MaxPassword {
		password = ""
	}
	good, _, err := s.check(ctx, password, u.PasswordHash)
	if err != nil {
		return fmt.Errorf("checking the password of %s: %w", u.Name, err)
	}
	if !good {
		s.limit.failed(key, s.now())
		return &WeakPassword{"The current password is wrong."}
	}
	return nil
}

// tokenPrefix makes a token recognisable in logs and to secret scanners.
const tokenPrefix = "bwa_"

// CreateToken makes an API token and returns its secret, which is shown once. The
// groups are as of CreateUser. The error is an *Invalid for what cannot be.
func (s *Service) CreateToken(ctx context.Context, name string, scopes []access.Permission, lifetime time.Duration, by, address string, groups ...string) (Token, string, error) {
	name = strings.TrimSpace(name)
	if name == "" || len(name) > 100 || inventory.Clean(name, 100) != name {
		return Token{}, "", invalid("a token's name is 1 to 100 bytes of printable text")
	}
	if len(scopes) == 0 {
		return Token{}, "", invalid("a token needs at least one scope")
	}
	groups, err := checkGroups(groups)
	if err != nil {
		return Token{}, "", err
	}
	for _, sc := range scopes {
		if !slices.Contains(access.Scopes(), sc) {
			return Token{}, "", invalid("%.64q is not a scope", sc)
		}
		if len(groups) > 0 && sc.Organisation() {
			return Token{}, "", invalid("the scope %s concerns all devices: a token that is limited to device groups cannot have it", sc)
		}
	}
	if lifetime < 0 || lifetime > 10*366*24*time.Hour {
		return Token{}, "", invalid("a token lives at most 10 years")
	}
	all, err := s.store.Tokens(ctx)
	if err != nil {
		return Token{}, "", fmt.Errorf("creating token %s: %w", name, err)
	}
	live := 0
	for _, t := range all {
		if t.Revoked.IsZero() {
			live++
		}
	}
	if live >= MaxTokens {
		return Token{}, "", invalid("there are %d tokens already: revoke some first", live)
	}
	now, plain := s.now(), tokenPrefix+secret()
	t := Token{ID: randomID(), Name: name, Hash: sha256.Sum256([]byte(plain)), Scopes: scopes, Groups: groups, CreatedBy: by, Created: now}
	if lifetime > 0 {
		t.Expires = now.Add(lifetime)
	}
	names := make([]string, len(scopes))
	for i, sc := range scopes {
		names[i] = string(sc)
	}
	err = s.store.CreateToken(ctx, t, Audit{
		Time: now, Actor: by, Address: address, Action: "token.create", Target: t.ID,
		Detail: name + ": " + strings.Join(names, " ") + ", " + limits(groups),
	})
	if err != nil {
		return Token{}, "", fmt.Errorf("creating token %s: %w", name, err)
	}
	return t, plain, nil
}

// Authenticate returns the principal of an API token.
func (s *Service) Authenticate(ctx context.Context, plain string) (access.Principal, error) {
	if len(plain) != len(tokenPrefix)+secretLength || !strings.HasPrefix(plain, tokenPrefix) {
		return access.Principal{}, fmt.Errorf("%w: this is not an API token", access.ErrBadCredentials)
	}
	t, err := s.store.TokenByHash(ctx, sha256.Sum256([]byte(plain)))
	now := s.now()
	switch {
	case errors.Is(err, ErrNotFound):
		return access.Principal{}, fmt.Errorf("%w: the API token is unknown", access.ErrBadCredentials)
	case err != nil:
		return access.Principal{}, fmt.Errorf("checking the API token: %w", err)
	case !t.Revoked.IsZero():
		return access.Principal{}, fmt.Errorf("%w: the API token %s was revoked", access.ErrBadCredentials, t.ID)
	case !t.Expires.IsZero() && now.After(t.Expires):
		return access.Principal{}, fmt.Errorf("%w: the API token %s expired on %s", access.ErrBadCredentials, t.ID, t.Expires.Format(time.DateOnly))
	}
	if now.Sub(t.LastUsed) > touchEvery {
		if err := s.store.TouchToken(ctx, t.ID, now); err != nil {
			return access.Principal{}, fmt.Errorf("checking the API token: %w", err)
		}
	}
	p := access.NewPrincipal("token", t.ID, t.Name, t.Scopes)
	p.Groups = t.Groups
	return p, nil
}

// Tokens lists all API tokens, newest first.
func (s *Service) Tokens(ctx context.Context) ([]Token, error) { return s.store.Tokens(ctx) }

// RevokeToken ends an API token.
func (s *Service) RevokeToken(ctx context.Context, id, by, address string) error {
	now := s.now()
	return s.store.RevokeToken(ctx, id, now, Audit{Time: now, Actor: by, Address: address, Action: "token.revoke", Target: id})
}

// Record adds an entry to the audit log.
func (s *Service) Record(ctx context.Context, actor, address, action, target, detail string) error {
	return s.store.AddAudit(ctx, Audit{
		Time: s.now(), Actor: actor, Address: address, Action: action,
		Target: inventory.Clean(target, 256), Detail: inventory.Clean(detail, 2000),
	})
}

// AuditEntries returns entries with an id below before (zero for all), newest
// first.
func (s *Service) AuditEntries(ctx context.Context, before int64, limit int) ([]Audit, error) {
	return s.store.AuditEntries(ctx, before, limit)
}

// VerifyAudit returns the id of the first audit entry that was changed or
// removed since it was written, zero when all hold.
func (s *Service) VerifyAudit(ctx context.Context) (int64, error) { return s.store.VerifyAudit(ctx) }

// Sweep removes sessions that have ended.
func (s *Service) Sweep(ctx context.Context) (int, error) {
	now := s.now()
	return s.store.DeleteExpiredSessions(ctx, now, now.Add(-SessionIdle))
}

// Chain returns the hash of an audit entry after the one with the given hash.
func Chain(previous string, a Audit) string {
	h := sha256.New()
	for _, part := range []string{previous, a.Time.UTC().Format(time.RFC3339Nano), a.Actor, a.Address, a.Action, a.Target, a.Detail} {
		fmt.Fprintf(h, "%d:%s", len(part), part)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// secretLength is the length of what secret returns.
const secretLength = 43

// secret returns 256 random bits in URL-safe text.
func secret() string {
	var b [32]byte
	rand.Read(b[:]) // never fails
	return base64.RawURLEncoding.EncodeToString(b[:])
}

func randomID() string {
	var b [8]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}
