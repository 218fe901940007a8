package account

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/bulwarkhq/bulwark/portal/access"
)

// Errors of the administration of accounts.
var (
	// ErrSelf keeps the last administrator from locking everybody out.
	ErrSelf = errors.New("nobody changes the own role or device groups or disables the own account: another administrator can")
	// ErrExternal means that an identity provider decides it.
	ErrExternal = errors.New("the account belongs to the identity provider, which decides this")
)

// User returns an account.
func (s *Service) User(ctx context.Context, id string) (User, error) { return s.store.User(ctx, id) }

// SetRole changes the role of an account.
func (s *Service) SetRole(ctx context.Context, id string, role access.Role, by access.Principal) error {
	if !slices.Contains(access.Roles(), role) {
		return invalid("unknown role %.32q", role)
	}
	u, err := s.store.User(ctx, id)
	switch {
	case err != nil:
		return fmt.Errorf("user %.70q: %w", id, err)
	case u.ID == by.ID:
		return ErrSelf
	case u.Issuer != "":
		return ErrExternal
	case u.Role == role:
		return nil
	}
	return s.store.SetRole(ctx, id, role, Audit{Time: s.now(), Actor: by.Name, Address: by.Address, Action: "user.role", Target: u.Name, Detail: string(u.Role) + " to " + string(role)})
}

// SetGroups limits an account to device groups, or to none: it is for all devices
// then. It holds from the next request of its sessions on, also for an account of
// an identity provider, unless that decides it.
func (s *Service) SetGroups(ctx context.Context, id string, groups []string, by access.Principal) error {
	groups, err := checkGroups(groups)
	if err != nil {
		return err
	}
	u, err := s.store.User(ctx, id)
	switch {
	case err != nil:
		return fmt.Errorf("user %.70q: %w", id, err)
	case u.ID == by.ID:
		return ErrSelf
	case u.Issuer != "" && s.providerGroups:
		return ErrExternal
	case slices.Equal(u.Groups, groups):
		return nil
	}
	return s.store.SetGroups(ctx, id, groups, Audit{Time: s.now(), Actor: by.Name, Address: by.Address, Action: "user.groups", Target: u.Name, Detail: limits(u.Groups) + " to " + limits(groups)})
}

// SetDisabled disables an account, which ends its sessions, or enables it.
func (s *Service) SetDisabled(ctx context.Context, id string, disabled bool, by access.Principal) error {
	u, err := s.store.User(ctx, id)
	switch {
	case err != nil:
		return fmt.Errorf("user %.70q: %w", id, err)
	case u.ID == by.ID:
		return ErrSelf
	case u.Disabled == disabled:
		return nil
	}
	action := "user.enable"
	if disabled {
		action = "user.disable"
	}
	return s.store.SetDisabled(ctx, id, disabled, Audit{Time: s.now(), Actor: by.Name, Address: by.Address, Action: action, Target: u.Name})
}
