package account

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"slices"

	"github.com/bulwarkhq/bulwark/portal/access"
	"github.com/bulwarkhq/bulwark/portal/inventory"
)

// External is somebody whom an identity provider has signed in.
type External struct {
	Issuer, Subject string
	// Name is the user name of a new account; when it is taken, another is made
	// from it. An account is known by issuer and subject alone: a name gives
	// nobody somebody else's.
	Name string
	Role access.Role
	// DecidesGroups is set when the provider decides which devices somebody may see:
	// those of the device groups with the ids Groups, none for all.
	DecidesGroups bool
	Groups        []string
}

// SignInExternal opens a session for somebody whom the identity provider has
// signed in. It makes the account at the first time and gives it the role, and the
// device groups if the provider decides them, each time: they hold at once for the
// other sessions of the account, too. ErrSignIn means that the account is disabled.
func (s *Service) SignInExternal(ctx context.Context, e External, address, agent string) (string, User, error) {
	if e.Issuer == "" || e.Subject == "" || e.Issuer != s.issuer || len(e.Role.Permissions()) == 0 {
		return "", User{}, fmt.Errorf("signing in %.70q of %.200q: not an identity with a role of the provider of this portal", e.Subject, e.Issuer)
	}
	groups, err := checkGroups(e.Groups)
	if err != nil {
		return "", User{}, fmt.Errorf("signing in %.70q of %.200q: %w", e.Subject, e.Issuer, err)
	}
	e.Groups = groups
	now := s.now()
	u, err := s.store.UserBySubject(ctx, e.Issuer, e.Subject)
	if errors.Is(err, ErrNotFound) {
		u, err = s.createExternal(ctx, e, address)
	}
	if err != nil {
		return "", User{}, fmt.Errorf("signing in %.70q of %.200q: %w", e.Subject, e.Issuer, err)
	}
	if u.Disabled {
		if err := s.RefusedExternal(ctx, u.Name, address, "the account is disabled"); err != nil {
			return "", User{}, err
		}
		return "", User{}, ErrSignIn
	}
	if u.Role != e.Role {
		err := s.store.SetRole(ctx, u.ID, e.Role, Audit{Time: now, Actor: u.Name, Address: address, Action: "user.role", Target: u.Name, Detail: string(u.Role) + " to " + string(e.Role) + " by the identity provider"})
		if err != nil {
			return "", User{}, fmt.Errorf("signing in %s: %w", u.Name, err)
		}
		u.Role = e.Role
	}
	if e.DecidesGroups && !slices.Equal(u.Groups, e.Groups) {
		err := s.store.SetGroups(ctx, u.ID, e.Groups, Audit{Time: now, Actor: u.Name, Address: address, Action: "user.groups", Target: u.Name, Detail: limits(u.Groups) + " to " + limits(e.Groups) + " by the identity provider"})
		if err != nil {
			return "", User{}, fmt.Errorf("signing in %s: %w", u.Name, err)
		}
		u.Groups = e.Groups
	}
	cookie, err := s.open(ctx, u, address, agent, "identity provider")
	return cookie, u, err
}

func (s *Service) createExternal(ctx context.Context, e External, address string) (User, error) {
	sum := sha256.Sum256([]byte(e.Issuer + "\x00" + e.Subject))
	names := []string{e.Name, e.Name + "-" + hex.EncodeToString(sum[:4])}
	if at, err := url.Parse(e.Issuer); err == nil && len(e.Name)+1+len(at.Hostname()) <= 64 {
		names = append(names[:1], e.Name+"@"+at.Hostname(), names[1])
	}
	var err error
	for _, name := range names {
		if !userName.MatchString(name) {
			continue
		}
		now := s.now()
		u := User{ID: randomID(), Name: name, Role: e.Role, Groups: e.Groups, Issuer: e.Issuer, Subject: e.Subject, Created: now, Changed: now}
		err = s.store.CreateUser(ctx, u, Audit{Time: now, Actor: name, Address: address, Action: "user.create", Target: name, Detail: "role " + string(e.Role) + ", " + limits(e.Groups) + ", " + inventory.Clean("subject "+e.Subject+" of "+e.Issuer, 500)})
		if err == nil {
			return s.store.User(ctx, u.ID)
		}
		if !errors.Is(err, ErrExists) {
			return User{}, err
		}
		// Another window of the same person may have been first.
		if u, err := s.store.UserBySubject(ctx, e.Issuer, e.Subject); !errors.Is(err, ErrNotFound) {
			return u, err
		}
	}
	if err == nil {
		err = fmt.Errorf("%q cannot be a user name", e.Name)
	}
	return User{}, err
}

// RefusedExternal notes that a sign-in with the identity provider was refused.
func (s *Service) RefusedExternal(ctx context.Context, name, address, reason string) error {
	return s.Record(ctx, inventory.Clean(name, 64), address, "sign-in.failed", "", "identity provider: "+reason)
}

// ProviderGroups reports whether the identity provider decides the device groups of
// its accounts.
func (s *Service) ProviderGroups() bool { return s.providerGroups }

// LocalOff reports whether accounts with passwords cannot sign in.
func (s *Service) LocalOff() bool { return s.localOff }
