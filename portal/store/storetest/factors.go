package storetest

import (
	"errors"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/portal/access"
	"github.com/bulwarkhq/bulwark/portal/account"
)

func factors(t *testing.T, s account.Store) {
	ctx := t.Context()
	ann, bob := User("ann"), User("bob")
	bob.ID, bob.Issuer, bob.Subject = "bob", "https://idp.example.org", "42"
	for _, u := range []account.User{ann, bob} {
		if err := s.CreateUser(ctx, u, Audit("user.create")); err != nil {
			t.Fatal(err)
		}
	}
	must := func(err, want error, what string) {
		t.Helper()
		if !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", what, err, want)
		}
	}
	session := func(n byte, u account.User) {
		t.Helper()
		must(s.CreateSession(ctx, account.Session{Hash: [32]byte{n}, UserID: u.ID, Created: Now, LastUsed: Now, Expires: Now.Add(time.Hour)}, Audit("sign-in")), nil, "a session")
	}
	alive := func(n byte, want error, what string) {
		t.Helper()
		_, _, err := s.Session(ctx, [32]byte{n})
		must(err, want, what)
	}
	twin := bob
	twin.ID, twin.Name = "twin", "twin"
	must(s.CreateUser(ctx, twin, Audit("user.create")), account.ErrExists, "the same identity again")
	if got, err := s.UserBySubject(ctx, bob.Issuer, "42"); err != nil || !reflect.DeepEqual(got, bob) {
		t.Errorf("UserBySubject = %+v, %v", got, err)
	}
	_, err := s.UserBySubject(ctx, "", "")
	must(err, account.ErrNotFound, "a local account by its empty identity")
	// A secret is not asked for until it is confirmed.
	_, err = s.SecondFactor(ctx, ann.ID)
	must(err, account.ErrNotFound, "none")
	f := account.SecondFactor{UserID: ann.ID, Sealed: []byte("old"), Created: Now}
	must(s.BeginSecondFactor(ctx, f), nil, "begin")
	stale := f
	f.Sealed = []byte("new")
	must(s.BeginSecondFactor(ctx, f), nil, "begin again")
	if u, err := s.User(ctx, ann.ID); err != nil || u.SecondFactor {
		t.Errorf("before it is confirmed: %+v, %v", u, err)
	}
	must(s.UseStep(ctx, ann.ID, 7), account.ErrUsed, "a code before it is confirmed")
	session(1, ann)
	session(2, ann)
	session(3, bob)
	codes := [][32]byte{{1}, {2}}
	must(s.ConfirmSecondFactor(ctx, stale, 5, codes, [32]byte{1}, Audit("x")), account.ErrNotFound, "confirming the secret before")
	alive(2, nil, "another session after a refused change")
	must(s.ConfirmSecondFactor(ctx, f, 5, codes, [32]byte{1}, Audit("x")), nil, "confirm")
	alive(1, nil, "the session itself")
	alive(2, account.ErrNotFound, "another session")
	alive(3, nil, "somebody else's session")
	must(s.BeginSecondFactor(ctx, f), account.ErrExists, "begin when there is one")
	if u, err := s.UserByName(ctx, "ann"); err != nil || !u.SecondFactor {
		t.Errorf("after it is confirmed: %+v, %v", u, err)
	}
	for _, step := range []int64{4, 5} {
		must(s.UseStep(ctx, ann.ID, step), account.ErrUsed, "a step that is past")
	}
	must(s.UseStep(ctx, ann.ID, 6), nil, "the next step")
	must(s.UseStep(ctx, ann.ID, 6), account.ErrUsed, "the same step")
	must(s.UseRecoveryCode(ctx, ann.ID, [32]byte{1}, Now, Audit("x")), nil, "a recovery code")
	must(s.UseRecoveryCode(ctx, ann.ID, [32]byte{1}, Now, Audit("x")), account.ErrNotFound, "the same again")
	must(s.UseRecoveryCode(ctx, bob.ID, [32]byte{2}, Now, Audit("x")), account.ErrNotFound, "somebody else's")
	if got, err := s.SecondFactor(ctx, ann.ID); err != nil || got.Codes != 1 || string(got.Sealed) != "new" || got.Confirmed.IsZero() {
		t.Errorf("SecondFactor = %+v, %v", got, err)
	}
	must(s.SetRecoveryCodes(ctx, ann.ID, [][32]byte{{3}, {4}, {5}}, Audit("x")), nil, "new codes")
	must(s.UseRecoveryCode(ctx, ann.ID, [32]byte{2}, Now, Audit("x")), account.ErrNotFound, "a code before")
	if got, err := s.SecondFactor(ctx, ann.ID); err != nil || got.Codes != 3 {
		t.Errorf("SecondFactor = %+v, %v", got, err)
	}
	must(s.RemoveSecondFactor(ctx, ann.ID, [32]byte{}, Audit("x")), nil, "remove")
	alive(1, account.ErrNotFound, "a session after a reset")
	must(s.RemoveSecondFactor(ctx, ann.ID, [32]byte{}, Audit("x")), account.ErrNotFound, "remove again")
	must(s.UseRecoveryCode(ctx, ann.ID, [32]byte{3}, Now, Audit("x")), account.ErrNotFound, "a code after the reset")
	// Role and state.
	must(s.SetRole(ctx, ann.ID, access.Analyst, Audit("x")), nil, "role")
	must(s.SetGroups(ctx, ann.ID, []string{"g1", "g2"}, Audit("x")), nil, "groups")
	session(4, ann)
	must(s.SetDisabled(ctx, ann.ID, true, Audit("x")), nil, "disable")
	alive(4, account.ErrNotFound, "a session of a disabled account")
	if u, err := s.User(ctx, ann.ID); err != nil || u.Role != access.Analyst || !u.Disabled || !slices.Equal(u.Groups, []string{"g1", "g2"}) {
		t.Errorf("after the changes: %+v, %v", u, err)
	}
	must(s.SetDisabled(ctx, "nobody", true, Audit("x")), account.ErrNotFound, "disable nobody")
	if bad, err := s.VerifyAudit(ctx); err != nil || bad != 0 {
		t.Errorf("VerifyAudit = %d, %v", bad, err)
	}
}
