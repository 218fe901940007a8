package storetest

import (
	"errors"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/portal/access"
	"github.com/bulwarkhq/bulwark/portal/account"
	"github.com/bulwarkhq/bulwark/portal/securitykey"
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
	left := func(want int) {
		t.Helper()
		if got, err := s.RecoveryCodes(ctx, ann.ID); err != nil || got != want {
			t.Errorf("RecoveryCodes = %d, %v, want %d", got, err, want)
		}
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
	left(2)
	for _, step := range []int64{4, 5} {
		must(s.UseStep(ctx, ann.ID, step), account.ErrUsed, "a step that is past")
	}
	must(s.UseStep(ctx, ann.ID, 6), nil, "the next step")
	must(s.UseStep(ctx, ann.ID, 6), account.ErrUsed, "the same step")
	must(s.UseRecoveryCode(ctx, ann.ID, [32]byte{1}, Now, Audit("x")), nil, "a recovery code")
	must(s.UseRecoveryCode(ctx, ann.ID, [32]byte{1}, Now, Audit("x")), account.ErrNotFound, "the same again")
	must(s.UseRecoveryCode(ctx, bob.ID, [32]byte{2}, Now, Audit("x")), account.ErrNotFound, "somebody else's")
	if got, err := s.SecondFactor(ctx, ann.ID); err != nil || string(got.Sealed) != "new" || got.Confirmed.IsZero() {
		t.Errorf("SecondFactor = %+v, %v", got, err)
	}
	left(1)
	must(s.SetRecoveryCodes(ctx, ann.ID, [][32]byte{{3}, {4}, {5}}, Audit("x")), nil, "new codes")
	must(s.UseRecoveryCode(ctx, ann.ID, [32]byte{2}, Now, Audit("x")), account.ErrNotFound, "a code before")
	left(3)
	must(s.RemoveSecondFactor(ctx, ann.ID, [32]byte{}, Audit("x")), nil, "remove")
	alive(1, account.ErrNotFound, "a session after a reset")
	must(s.RemoveSecondFactor(ctx, ann.ID, [32]byte{}, Audit("x")), account.ErrNotFound, "remove again")
	must(s.UseRecoveryCode(ctx, ann.ID, [32]byte{3}, Now, Audit("x")), account.ErrNotFound, "a code after the reset")
	securityKeys(t, s, ann, bob)
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

// securityKeys is for two users without a second factor, and leaves them so.
func securityKeys(t *testing.T, s account.Store, ann, bob account.User) {
	t.Helper()
	ctx := t.Context()
	must := func(err, want error, what string) {
		t.Helper()
		if !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", what, err, want)
		}
	}
	key := func(id string, u account.User, counter uint32) account.SecurityKey {
		return account.SecurityKey{UserID: u.ID, Name: "key " + id, Key: securitykey.Key{ID: []byte(id), Counter: counter, Data: []byte("{}")}, Created: Now}
	}
	session := account.Session{Hash: [32]byte{9}, UserID: ann.ID, Created: Now, LastUsed: Now, Expires: Now.Add(time.Hour)}
	must(s.CreateSession(ctx, session, Audit("sign-in")), nil, "a session")
	first, other := key("1", ann, 5), key("2", ann, 0)
	must(s.AddSecurityKey(ctx, first, [][32]byte{{8}}, [32]byte{1}, Audit("x")), nil, "a key")
	if _, _, err := s.Session(ctx, session.Hash); !errors.Is(err, account.ErrNotFound) {
		t.Errorf("another session after a key was added: %v", err)
	}
	must(s.AddSecurityKey(ctx, key("1", bob, 0), nil, [32]byte{}, Audit("x")), account.ErrExists, "the key of another user")
	if u, err := s.User(ctx, ann.ID); err != nil || !u.SecondFactor {
		t.Errorf("with a key: %+v, %v", u, err)
	}
	must(s.CreateSession(ctx, session, Audit("sign-in")), nil, "the session again")
	must(s.RemoveSecurityKey(ctx, ann.ID, first.ID, [32]byte{}, Audit("x")), account.ErrLast, "the last key")
	if _, _, err := s.Session(ctx, session.Hash); err != nil {
		t.Errorf("a session after a removal that was refused: %v", err)
	}
	must(s.AddSecurityKey(ctx, other, nil, session.Hash, Audit("x")), nil, "a second key")
	use := func(k securitykey.Key, counter uint32, want error, what string) {
		t.Helper()
		k.Counter, k.Data = counter, []byte("{1}")
		must(s.UseSecurityKey(ctx, ann.ID, k, Now.Add(time.Minute)), want, what)
	}
	use(first.Key, 5, account.ErrUsed, "the same counter")
	use(first.Key, 0, account.ErrUsed, "a counter that was lost")
	use(first.Key, 1<<32-1, nil, "the largest counter")
	use(other.Key, 0, nil, "a key that does not count")
	use(other.Key, 0, nil, "the same again")
	must(s.UseSecurityKey(ctx, bob.ID, first.Key, Now), account.ErrNotFound, "somebody else's key")
	got, err := s.SecurityKeys(ctx, ann.ID)
	first.Counter, first.Data, first.Used = 1<<32-1, []byte("{1}"), Now.Add(time.Minute)
	other.Data, other.Used = []byte("{1}"), Now.Add(time.Minute)
	if err != nil || !reflect.DeepEqual(got, []account.SecurityKey{first, other}) {
		t.Errorf("SecurityKeys = %+v, %v", got, err)
	}
	if n, err := s.RecoveryCodes(ctx, ann.ID); err != nil || n != 1 {
		t.Errorf("RecoveryCodes = %d, %v", n, err)
	}
	// An authenticator beside keys leaves the recovery codes; what is removed takes
	// the other sessions along.
	f := account.SecondFactor{UserID: ann.ID, Sealed: []byte("s"), Created: Now}
	must(s.RemoveAuthenticator(ctx, ann.ID, [32]byte{}, Audit("x")), account.ErrNotFound, "no authenticator")
	must(s.BeginSecondFactor(ctx, f), nil, "an authenticator")
	must(s.ConfirmSecondFactor(ctx, f, 1, nil, session.Hash, Audit("x")), nil, "confirm")
	if n, err := s.RecoveryCodes(ctx, ann.ID); err != nil || n != 1 {
		t.Errorf("recovery codes beside an authenticator: %d, %v", n, err)
	}
	must(s.RemoveSecurityKey(ctx, bob.ID, first.ID, [32]byte{}, Audit("x")), account.ErrNotFound, "removing somebody else's key")
	another := session
	for n, remove := range []func() error{
		func() error { return s.RemoveSecurityKey(ctx, ann.ID, first.ID, session.Hash, Audit("x")) },
		func() error { return s.RemoveAuthenticator(ctx, ann.ID, session.Hash, Audit("x")) },
	} {
		another.Hash = [32]byte{10, byte(n)}
		must(s.CreateSession(ctx, another, Audit("sign-in")), nil, "another session")
		must(remove(), nil, "remove")
		_, _, err := s.Session(ctx, another.Hash)
		must(err, account.ErrNotFound, "another session after a removal")
		_, _, err = s.Session(ctx, session.Hash)
		must(err, nil, "the session itself after a removal")
	}
	must(s.RemoveSecondFactor(ctx, ann.ID, [32]byte{}, Audit("x")), nil, "reset")
	if got, err := s.SecurityKeys(ctx, ann.ID); err != nil || len(got) != 0 {
		t.Errorf("after the reset: %+v, %v", got, err)
	}
}
