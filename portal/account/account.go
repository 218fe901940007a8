// Package account is who may use the portal: local accounts with passwords,
// browser sessions, API tokens, and the audit log of what they did.
package account

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/bulwarkhq/bulwark/portal/access"
	"github.com/bulwarkhq/bulwark/portal/securitykey"
)

// Errors.
var (
	ErrNotFound = errors.New("not found")
	ErrExists   = errors.New("exists already")
	// ErrUsed means that a code was accepted before.
	ErrUsed = errors.New("was used already")
	// ErrLast means that nothing would be left of the second factor.
	ErrLast = errors.New("it is the only second factor: add another before, or turn the second factor off")
	// ErrSignIn is the one answer to a wrong name, a wrong password and a
	// disabled account, so that names cannot be guessed.
	ErrSignIn = errors.New("the user name or the password is wrong")
)

// Invalid is an account or a token that cannot be made so; people may see
// the message.
type Invalid struct{ Message string }

// Error says what is wrong.
func (e *Invalid) Error() string { return e.Message }

func invalid(format string, args ...any) error { return &Invalid{fmt.Sprintf(format, args...)} }

// TooManyAttempts is returned by SignIn while an account and address must wait.
type TooManyAttempts struct{ Wait time.Duration }

// Error says how long to wait.
func (e *TooManyAttempts) Error() string {
	return "too many failed attempts: try again in " + e.Wait.Round(time.Second).String()
}

// WeakPassword says why a password is refused.
type WeakPassword struct{ Reason string }

// Error is the reason.
func (e *WeakPassword) Error() string { return e.Reason }

// User is a local account.
type User struct {
	ID   string // 16 hex digits
	Name string // unique without regard to case
	Role access.Role
	// PasswordHash is an argon2id string in the PHC format.
	PasswordHash string
	// MustChange is set while the password is a one-time password.
	MustChange bool
	Disabled   bool
	// SecondFactor is set when a second factor is asked for at the sign-in.
	SecondFactor bool
	// Groups are the ids of the device groups whose devices the user may see; none
	// for all devices.
	Groups []string
	// Issuer and Subject are who the user is for an identity provider; both are
	// empty for a local account.
	Issuer, Subject string
	Created         time.Time
	Changed         time.Time // of the password
	LastSignIn      time.Time
}

// Session is a signed-in browser.
type Session struct {
	// Hash is the SHA-256 of the cookie's secret.
	Hash     [32]byte
	UserID   string
	CSRF     string // the token that its forms carry
	Created  time.Time
	LastUsed time.Time
	Expires  time.Time
	Address  string
	Agent    string // of the browser, at most 200 bytes
}

// Token is an API token.
type Token struct {
	ID        string // 16 hex digits
	Name      string
	Hash      [32]byte // SHA-256 of the secret
	Scopes    []access.Permission
	Groups    []string // as of User
	CreatedBy string
	Created   time.Time
	Expires   time.Time // zero for never
	LastUsed  time.Time // to the minute
	Revoked   time.Time
}

// Audit is one entry of the audit log.
type Audit struct {
	ID      int64
	Time    time.Time
	Actor   string // user or token name, "system" for the portal itself
	Address string
	Action  string // what was done, e.g. "alert.update"
	Target  string // the id of what it was done to
	Detail  string
	// Hash chains the entry to all before it: SHA-256 over the previous hash
	// and the entry, hex. An entry that was changed or removed breaks it.
	Hash string
}

// SecondFactor is the authenticator of a user.
type SecondFactor struct {
	UserID string
	// Sealed is the encrypted secret.
	Sealed []byte
	// Confirmed is zero until the user has proved that the authenticator has the
	// secret.
	Created, Confirmed time.Time
}

// SecurityKey is a security key or a passkey of a user.
type SecurityKey struct {
	UserID string
	Name   string // as the user calls it
	securitykey.Key
	Created time.Time
	Used    time.Time // zero until it signs in or proves something
}

// SecondFactors keeps second factors: an authenticator, security keys, and
// recovery codes for both.
type SecondFactors interface {
	// SecondFactor fails with ErrNotFound when there is none.
	SecondFactor(ctx context.Context, userID string) (SecondFactor, error)
	// BeginSecondFactor keeps a secret that is not confirmed, in the place of
	// another that is not; ErrExists when one is confirmed.
	BeginSecondFactor(ctx context.Context, f SecondFactor) error
	// ConfirmSecondFactor makes the secret good if it is still that one, notes
	// the step of the code that proved it, sets the recovery codes if there are any,
	// and ends all other sessions of the user.
	ConfirmSecondFactor(ctx context.Context, f SecondFactor, step int64, codes [][32]byte, keep [32]byte, a Audit) error
	// RemoveAuthenticator removes the authenticator of a user who has a security
	// key, and ends the sessions of the user but the one to keep; ErrLast for another.
	RemoveAuthenticator(ctx context.Context, userID string, keep [32]byte, a Audit) error
	// UseStep notes that the code of a step was accepted; ErrUsed when one of it
	// or of a later step was.
	UseStep(ctx context.Context, userID string, step int64) error
	// UseRecoveryCode fails with ErrNotFound when it is unknown or was used.
	UseRecoveryCode(ctx context.Context, userID string, hash [32]byte, at time.Time, a Audit) error
	// SetRecoveryCodes replaces all recovery codes.
	SetRecoveryCodes(ctx context.Context, userID string, codes [][32]byte, a Audit) error
	// RecoveryCodes is how many are left.
	RecoveryCodes(ctx context.Context, userID string) (int, error)
	// SecurityKeys returns the keys of a user, the first registered first.
	SecurityKeys(ctx context.Context, userID string) ([]SecurityKey, error)
	// AddSecurityKey registers a key, sets the recovery codes if there are any, and
	// ends all other sessions of the user; ErrExists when the key is registered, for
	// whomever.
	AddSecurityKey(ctx context.Context, k SecurityKey, codes [][32]byte, keep [32]byte, a Audit) error
	// UseSecurityKey keeps what a key is after its use; ErrUsed when its
	// counter has not grown, ErrNotFound when it was removed.
	UseSecurityKey(ctx context.Context, userID string, k securitykey.Key, at time.Time) error
	// RemoveSecurityKey removes a key and ends the sessions of the user but the one
	// to keep; ErrLast when it is the only second factor, ErrNotFound when the user
	// has no such key.
	RemoveSecurityKey(ctx context.Context, userID string, id []byte, keep [32]byte, a Audit) error
	// RemoveSecondFactor removes the authenticator, all keys and all codes; it fails
	// with ErrNotFound when there is neither authenticator nor key. It ends the
	// sessions of the user but the one to keep.
	RemoveSecondFactor(ctx context.Context, userID string, keep [32]byte, a Audit) error
}

// Store keeps accounts. Implementations are safe for concurrent use. Every
// change and its audit entry are written together.
type Store interface {
	// CreateUser fails with ErrExists when the name is taken.
	CreateUser(ctx context.Context, u User, a Audit) error
	User(ctx context.Context, id string) (User, error)
	UserByName(ctx context.Context, name string) (User, error)
	Users(ctx context.Context) ([]User, error)
	// SetPassword replaces the hash and ends all sessions of the user.
	SetPassword(ctx context.Context, userID, hash string, mustChange bool, at time.Time, a Audit) error
	// SetRole, SetGroups and SetDisabled change an account; a disabled one has no
	// sessions.
	SetRole(ctx context.Context, userID string, role access.Role, a Audit) error
	SetGroups(ctx context.Context, userID string, groups []string, a Audit) error
	SetDisabled(ctx context.Context, userID string, disabled bool, a Audit) error
	// UserBySubject returns the account of an identity of a provider.
	UserBySubject(ctx context.Context, issuer, subject string) (User, error)
	// Rehash replaces the hash of the same password.
	Rehash(ctx context.Context, userID, hash string) error

	SecondFactors

	// CreateSession also notes the sign-in of the user.
	CreateSession(ctx context.Context, s Session, a Audit) error
	// Session returns a session that has not expired, with its user.
	Session(ctx context.Context, hash [32]byte) (Session, User, error)
	TouchSession(ctx context.Context, hash [32]byte, at time.Time) error
	DeleteSession(ctx context.Context, hash [32]byte, a Audit) error
	// DeleteExpiredSessions removes those that expired or were last used
	// before the given times.
	DeleteExpiredSessions(ctx context.Context, expired, idle time.Time) (int, error)

	CreateToken(ctx context.Context, t Token, a Audit) error
	TokenByHash(ctx context.Context, hash [32]byte) (Token, error)
	Tokens(ctx context.Context) ([]Token, error)
	RevokeToken(ctx context.Context, id string, at time.Time, a Audit) error
	TouchToken(ctx context.Context, id string, at time.Time) error

	AddAudit(ctx context.Context, a Audit) error
	// AuditEntries returns entries with an id below before (zero for all),
	// newest first.
	AuditEntries(ctx context.Context, before int64, limit int) ([]Audit, error)
	// VerifyAudit returns the id of the first entry that breaks the chain, zero
	// when all hold.
	VerifyAudit(ctx context.Context) (int64, error)
}
