package account_test

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/portal/access"
	"github.com/bulwarkhq/bulwark/portal/account"
	"github.com/bulwarkhq/bulwark/portal/store/sqlstore"
)

type fixture struct {
	*account.Service
	store account.Store
	now   time.Time
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	s, err := sqlstore.OpenSQLite(t.Context(), filepath.Join(t.TempDir(), "c.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	f := &fixture{store: s.Accounts(), now: time.Date(2026, 5, 1, 8, 0, 0, 0, time.UTC)}
	f.Service = account.New(f.store, account.HashCost{Time: 1, Memory: 64, Threads: 1}, func() time.Time { return f.now }, account.Options{})
	return f
}

func TestOneTimePassword(t *testing.T) {
	f := newFixture(t)
	ctx := t.Context()
	oneTime, err := f.CreateUser(ctx, "ann", access.Administrator, "test", "")
	if err != nil || len(oneTime) != 23 {
		t.Fatalf("%q %v", oneTime, err)
	}
	if _, err := f.CreateUser(ctx, "ANN", access.Reader, "test", ""); !errors.Is(err, account.ErrExists) {
		t.Errorf("the same name again: %v", err)
	}
	cookie, u, err := f.SignIn(ctx, "Ann", oneTime, "192.0.2.1", "agent")
	if err != nil || !u.MustChange {
		t.Fatalf("%+v %v", u, err)
	}
	for next, want := range map[string]string{
		"short":                    "at least 12",
		oneTime:                    "differ",
		"aaaaaaaaaaaaaaaaaaaa":     "too few",
		"ann-is-here-1":            "user name",
		strings.Repeat("xY1!", 99): "at most",
	} {
		var weak *account.WeakPassword
		if _, err := f.ChangePassword(ctx, u, oneTime, next, "", ""); !errors.As(err, &weak) || !strings.Contains(weak.Reason, want) {
			t.Errorf("new password %.20q: %v, want something with %q", next, err, want)
		}
	}
	if _, err := f.ChangePassword(ctx, u, "not it", "a good long password", "", ""); err == nil {
		t.Error("changed with a wrong current password")
	}
	fresh, err := f.ChangePassword(ctx, u, oneTime, "a good long password", "", "")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := f.Session(ctx, cookie); !errors.Is(err, access.ErrBadCredentials) {
		t.Errorf("the old session lives on: %v", err)
	}
	if _, u, err := f.Session(ctx, fresh); err != nil || u.MustChange {
		t.Errorf("the new session: %+v %v", u, err)
	}
	if _, _, err := f.SignIn(ctx, "ann", oneTime, "192.0.2.1", ""); !errors.Is(err, account.ErrSignIn) {
		t.Errorf("the one-time password still works: %v", err)
	}
	again, err := f.ResetPassword(ctx, "ann", "test", "")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := f.Session(ctx, fresh); !errors.Is(err, access.ErrBadCredentials) {
		t.Errorf("a session survived the reset: %v", err)
	}
	if _, u, err := f.SignIn(ctx, "ann", again, "192.0.2.1", ""); err != nil || !u.MustChange {
		t.Errorf("after the reset: %+v %v", u, err)
	}
}

func TestBackOff(t *testing.T) {
	f := newFixture(t)
	ctx := t.Context()
	password, err := f.CreateUser(ctx, "ann", access.Reader, "test", "")
	if err != nil {
		t.Fatal(err)
	}
	fail := func(name, from string) error { _, _, err := f.SignIn(ctx, name, "wrong", from, ""); return err }
	for i := range 5 {
		if err := fail("ann", "192.0.2.1"); !errors.Is(err, account.ErrSignIn) {
			t.Fatalf("attempt %d: %v", i, err)
		}
	}
	var wait *account.TooManyAttempts
	var last time.Duration
	for i := range 4 {
		if err := fail("ann", "192.0.2.1"); !errors.As(err, &wait) || wait.Wait <= last {
			t.Fatalf("wait %d: %v after %v", i, err, last)
		}
		last = wait.Wait
		f.now = f.now.Add(wait.Wait)
		if err := fail("ann", "192.0.2.1"); !errors.Is(err, account.ErrSignIn) {
			t.Fatalf("after the wait: %v", err)
		}
	}
	// Somebody elsewhere cannot lock the account.
	if _, _, err := f.SignIn(ctx, "ann", password, "198.51.100.7", ""); err != nil {
		t.Errorf("from another address: %v", err)
	}
	// One address over many accounts is slowed too.
	slowed := false
	for i := range 40 {
		if err := fail("user"+string(rune('a'+i)), "203.0.113.5"); errors.As(err, &wait) {
			slowed = true
			break
		}
	}
	if !slowed {
		t.Error("one address may try any number of accounts")
	}
}

func TestSessionEnds(t *testing.T) {
	f := newFixture(t)
	ctx := t.Context()
	password, err := f.CreateUser(ctx, "ann", access.Reader, "test", "")
	if err != nil {
		t.Fatal(err)
	}
	signIn := func() string {
		c, _, err := f.SignIn(ctx, "ann", password, "192.0.2.1", "")
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	idle := signIn()
	f.now = f.now.Add(account.SessionIdle + time.Minute)
	if _, _, err := f.Session(ctx, idle); !errors.Is(err, access.ErrBadCredentials) {
		t.Errorf("an idle session: %v", err)
	}
	busy := signIn()
	for range 11 {
		f.now = f.now.Add(2 * time.Hour)
		if _, _, err := f.Session(ctx, busy); err != nil {
			t.Fatalf("a used session: %v", err)
		}
	}
	f.now = f.now.Add(3 * time.Hour)
	if _, _, err := f.Session(ctx, busy); !errors.Is(err, access.ErrBadCredentials) {
		t.Errorf("a session of more than a day: %v", err)
	}
	if n, err := f.Sweep(ctx); err != nil || n != 2 {
		t.Errorf("Sweep = %d, %v, want 2", n, err)
	}
	if _, _, err := f.Session(ctx, "x"); !errors.Is(err, access.ErrBadCredentials) {
		t.Errorf("no session: %v", err)
	}
}

func TestTokens(t *testing.T) {
	f := newFixture(t)
	ctx := t.Context()
	tok, secret, err := f.CreateToken(ctx, "siem", []access.Permission{access.AlertWrite}, time.Hour, "ann", "")
	if err != nil {
		t.Fatal(err)
	}
	p, err := f.Authenticate(ctx, secret)
	if err != nil || !p.May(access.AlertWrite) || !p.May(access.AlertRead) || p.May(access.MachineRead) || p.May(access.TokenManage) || p.May(access.SignedIn) {
		t.Errorf("%+v %v", p, err)
	}
	if list, _ := f.Tokens(ctx); !list[0].LastUsed.Equal(f.now) {
		t.Errorf("last used %v", list[0].LastUsed)
	}
	f.now = f.now.Add(2 * time.Hour)
	if _, err := f.Authenticate(ctx, secret); !errors.Is(err, access.ErrBadCredentials) || !strings.Contains(err.Error(), "expired") {
		t.Errorf("expired: %v", err)
	}
	if err := f.RevokeToken(ctx, tok.ID, "ann", ""); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Authenticate(ctx, secret); err == nil || !strings.Contains(err.Error(), "revoked") {
		t.Errorf("revoked: %v", err)
	}
	for _, x := range []struct {
		name   string
		scopes []access.Permission
	}{{"", access.Scopes()}, {"x", nil}, {"x", []access.Permission{access.AuditRead}}, {"a\nb", access.Scopes()}} {
		if _, _, err := f.CreateToken(ctx, x.name, x.scopes, 0, "ann", ""); err == nil {
			t.Errorf("token %q %v was made", x.name, x.scopes)
		}
	}
}

func TestUserNames(t *testing.T) {
	f := newFixture(t)
	for _, bad := range []string{"", " ann", "a b", "<x>", "-x", strings.Repeat("a", 65), "ä"} {
		if _, err := f.CreateUser(t.Context(), bad, access.Reader, "test", ""); err == nil {
			t.Errorf("user name %q was accepted", bad)
		}
	}
	if _, err := f.CreateUser(t.Context(), "x", "king", "test", ""); err == nil {
		t.Error("an unknown role was accepted")
	}
}
