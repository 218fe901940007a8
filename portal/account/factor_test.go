package account_test

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pquerna/otp/totp"

	"github.com/bulwarkhq/bulwark/portal/access"
	"github.com/bulwarkhq/bulwark/portal/account"
	"github.com/bulwarkhq/bulwark/portal/seal"
	"github.com/bulwarkhq/bulwark/portal/securitykey"
	"github.com/bulwarkhq/bulwark/portal/store/sqlstore"
)

const goodPassword = "a good long password"

// secured is an account with a second factor.
type secured struct {
	*fixture
	t      *testing.T
	user   account.User
	secret string
	codes  []string
}

func newSecured(t *testing.T) *secured {
	t.Helper()
	store, err := sqlstore.OpenSQLite(t.Context(), filepath.Join(t.TempDir(), "c.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	key, err := seal.OpenKey(filepath.Join(t.TempDir(), "account.key"))
	if err != nil {
		t.Fatal(err)
	}
	keys, err := securitykey.New("https://portal.example.org")
	if err != nil {
		t.Fatal(err)
	}
	s := &secured{fixture: &fixture{store: store.Accounts(), now: time.Date(2026, 5, 1, 8, 0, 0, 0, time.UTC)}, t: t}
	s.Service = account.New(s.store, account.HashCost{Time: 1, Memory: 64, Threads: 1}, func() time.Time { return s.now }, account.Options{Key: key, Keys: keys, SecondFactor: []access.Role{access.Administrator}})
	oneTime, err := s.CreateUser(t.Context(), "ann", access.Administrator, "test", "")
	if err != nil {
		t.Fatal(err)
	}
	_, u, err := s.SignIn(t.Context(), "ann", oneTime, "192.0.2.1", "")
	if err != nil || !s.MustEnroll(u) {
		t.Fatalf("%+v, %v", u, err)
	}
	cookie, err := s.ChangePassword(t.Context(), u, oneTime, goodPassword, "192.0.2.1", "")
	if err != nil {
		t.Fatal(err)
	}
	sess, u, err := s.Session(t.Context(), cookie)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.BeginFactor(t.Context(), u); err != nil {
		t.Fatal(err)
	}
	f, err := s.Factor(t.Context(), u)
	if err != nil {
		t.Fatal(err)
	}
	var uri string
	uri, s.secret, err = s.FactorURI(f, u, "Bulwark portal.example.org")
	if err != nil || !strings.HasPrefix(uri, "otpauth://totp/Bulwark%20portal.example.org:ann?") || !strings.Contains(uri, "secret="+s.secret) || len(s.secret) != 32 {
		t.Fatalf("%s, %v", uri, err)
	}
	if strings.Contains(string(f.Sealed), s.secret) {
		t.Error("the secret is stored as it is")
	}
	if _, err := s.ConfirmFactor(t.Context(), sess, u, goodPassword, "000000", account.Proof{}, ""); !errors.Is(err, account.ErrCode) {
		t.Fatalf("confirmed by a wrong code: %v", err)
	}
	var weak *account.WeakPassword
	if _, err := s.ConfirmFactor(t.Context(), sess, u, "wrong", s.code(0), account.Proof{}, ""); !errors.As(err, &weak) {
		t.Fatalf("confirmed by a wrong password: %v", err)
	}
	if s.codes, err = s.ConfirmFactor(t.Context(), sess, u, goodPassword, s.code(0), account.Proof{}, ""); err != nil || len(s.codes) != account.RecoveryCodes {
		t.Fatalf("%v, %v", s.codes, err)
	}
	if _, s.user, err = s.Session(t.Context(), cookie); err != nil || !s.user.SecondFactor || s.MustEnroll(s.user) {
		t.Fatalf("%+v, %v", s.user, err)
	}
	return s
}

// code is the authenticator's, with its clock off by some steps.
func (s *secured) code(steps int) string {
	s.t.Helper()
	c, err := totp.GenerateCode(s.secret, s.now.Add(time.Duration(steps)*30*time.Second))
	if err != nil {
		s.t.Fatal(err)
	}
	return c
}

// ticket is that of a new sign-in.
func (s *secured) ticket() string {
	s.t.Helper()
	cookie, _, err := s.SignIn(s.t.Context(), "ann", goodPassword, "192.0.2.1", "")
	var need *account.CodeNeeded
	if !errors.As(err, &need) || cookie != "" {
		s.t.Fatalf("the password alone: %q, %v", cookie, err)
	}
	return need.Ticket
}

func (s *secured) enter(ticket, code string) error {
	cookie, u, err := s.SignInProof(s.t.Context(), ticket, account.Proof{Code: code}, "192.0.2.1", "agent")
	if (err == nil) != (cookie != "") || (err == nil && u.Name != "ann") {
		s.t.Errorf("code %q: cookie %q, %+v, %v", code, cookie, u, err)
	}
	if err == nil {
		if _, _, err := s.Session(s.t.Context(), cookie); err != nil {
			s.t.Errorf("the session: %v", err)
		}
	}
	return err
}

func TestSecondFactor(t *testing.T) {
	s := newSecured(t)
	want := func(err, want error, what string) {
		t.Helper()
		if !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", what, err, want)
		}
	}
	want(s.enter(s.ticket(), s.code(0)), account.ErrCode, "the code that confirmed it")
	s.now = s.now.Add(5 * time.Minute)
	want(s.enter(s.ticket(), s.code(-2)), account.ErrCode, "two steps late")
	want(s.enter(s.ticket(), s.code(2)), account.ErrCode, "two steps early")
	ticket := s.ticket()
	want(s.enter(ticket, s.code(-1)), nil, "one step late")
	want(s.enter(ticket, s.code(0)), account.ErrTicket, "a ticket that was used")
	want(s.enter(s.ticket(), s.code(-1)), account.ErrCode, "the same code again")
	want(s.enter(s.ticket(), s.code(1)[:3]+" "+s.code(1)[3:]), nil, "one step early, in two groups")
	want(s.enter(s.ticket(), s.code(0)), account.ErrCode, "a code before one that was used")
	want(s.enter("no such ticket", s.code(1)), account.ErrTicket, "no ticket")
	for _, odd := range []string{"", "12345", "1234567", strings.Repeat("1", 100), "abcdef", "\x00\x00\x00\x00\x00\x00"} {
		ticket := s.ticket()
		s.now = s.now.Add(time.Hour)
		want(s.enter(ticket, odd), account.ErrTicket, "a ticket of an hour before")
		want(s.enter(s.ticket(), odd), account.ErrCode, odd)
	}
	s.now = s.now.Add(time.Hour)
	// Recovery codes: each once, as people type them.
	want(s.enter(s.ticket(), " "+strings.ToUpper(s.codes[3])+" "), nil, "a recovery code")
	want(s.enter(s.ticket(), s.codes[3]), account.ErrCode, "the same again")
	want(s.enter(s.ticket(), strings.ReplaceAll(s.codes[4], "-", "")), nil, "another")
	if n, err := s.RecoveryCodesLeft(t.Context(), s.user); err != nil || n != account.RecoveryCodes-2 {
		t.Errorf("%d, %v", n, err)
	}
	fresh, err := s.NewRecoveryCodes(t.Context(), account.Session{}, s.user, goodPassword, account.Proof{Code: s.code(0)}, "")
	if err != nil {
		t.Fatal(err)
	}
	want(s.enter(s.ticket(), s.codes[5]), account.ErrCode, "a code of the set before")
	want(s.enter(s.ticket(), fresh[5]), nil, "a code of the new set")
	// A password that was changed meanwhile ends what began with it.
	ticket = s.ticket()
	s.now = s.now.Add(time.Minute)
	if _, err := s.ResetPassword(t.Context(), "ann", "test", ""); err != nil {
		t.Fatal(err)
	}
	want(s.enter(ticket, s.code(0)), account.ErrTicket, "after a reset of the password")
	entries, err := s.AuditEntries(t.Context(), 0, 500)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	for _, e := range entries {
		seen[e.Action+" "+e.Detail]++
		if strings.Contains(e.Detail+e.Target, s.secret) {
			t.Errorf("the secret is in the audit log: %+v", e)
		}
	}
	for entry, n := range map[string]int{"second-factor.enable ": 1, "second-factor.recovery-code ": 3, "sign-in authenticator": 2, "sign-in recovery code": 3, "second-factor.new-recovery-codes ": 1} {
		if seen[entry] != n {
			t.Errorf("%d entries %q, want %d (of %v)", seen[entry], entry, n, seen)
		}
	}
}

func TestCodeGuessing(t *testing.T) {
	s := newSecured(t)
	s.now = s.now.Add(time.Hour)
	// Five wrong codes end the ticket, and the account waits wherever they come
	// from; the wait grows and is not forgotten within a day.
	ticket := s.ticket()
	for i := range 5 {
		if err := s.enter(ticket, "000000"); !errors.Is(err, account.ErrCode) {
			t.Fatalf("attempt %d: %v", i, err)
		}
	}
	if err := s.enter(ticket, s.code(0)); !errors.Is(err, account.ErrTicket) {
		t.Errorf("the ticket after five: %v", err)
	}
	var wait *account.TooManyAttempts
	for i := range 12 {
		if err := s.enter(s.ticket(), s.code(0)); !errors.As(err, &wait) {
			t.Fatalf("the right code while waiting, %d: %v", i, err)
		}
		s.now = s.now.Add(wait.Wait)
		if err := s.enter(s.ticket(), "000000"); !errors.Is(err, account.ErrCode) {
			t.Fatalf("after the wait, %d: %v", i, err)
		}
	}
	if err := s.enter(s.ticket(), s.code(0)); !errors.As(err, &wait) || wait.Wait != 15*time.Minute {
		t.Fatalf("the wait: %v", err)
	}
	s.now = s.now.Add(23 * time.Hour)
	if err := s.enter(s.ticket(), "000000"); !errors.Is(err, account.ErrCode) {
		t.Fatal(err)
	}
	if err := s.enter(s.ticket(), s.code(0)); !errors.As(err, &wait) || wait.Wait != 15*time.Minute {
		t.Errorf("23 hours later: %v", err)
	}
	s.now = s.now.Add(wait.Wait)
	if err := s.enter(s.ticket(), s.code(0)); err != nil {
		t.Errorf("the right code: %v", err)
	}
}

func TestSecondFactorEnds(t *testing.T) {
	s := newSecured(t)
	ctx := t.Context()
	if err := s.DisableFactor(ctx, account.Session{}, s.user, goodPassword, account.Proof{Code: s.codes[0]}, ""); !errors.Is(err, account.ErrRequired) {
		t.Errorf("a role that needs it: %v", err)
	}
	other := access.NewPrincipal("user", "other", "bob", nil)
	if err := s.SetRole(ctx, s.user.ID, access.Analyst, other); err != nil {
		t.Fatal(err)
	}
	if err := s.SetRole(ctx, s.user.ID, access.Reader, access.NewPrincipal("user", s.user.ID, "ann", nil)); !errors.Is(err, account.ErrSelf) {
		t.Errorf("the own role: %v", err)
	}
	u, err := s.User(ctx, s.user.ID)
	if err != nil {
		t.Fatal(err)
	}
	var weak *account.WeakPassword
	if err := s.DisableFactor(ctx, account.Session{}, u, "wrong", account.Proof{Code: s.codes[0]}, ""); !errors.As(err, &weak) {
		t.Errorf("a wrong password: %v", err)
	}
	if err := s.DisableFactor(ctx, account.Session{}, u, goodPassword, account.Proof{Code: "000000"}, ""); !errors.Is(err, account.ErrCode) {
		t.Errorf("a wrong code: %v", err)
	}
	if err := s.DisableFactor(ctx, account.Session{}, u, goodPassword, account.Proof{Code: s.codes[0]}, ""); err != nil {
		t.Error(err)
	}
	if _, _, err := s.SignIn(ctx, "ann", goodPassword, "192.0.2.1", ""); err != nil {
		t.Errorf("without a second factor: %v", err)
	}
	// Reset by an administrator: a sign-in that waits for the code ends.
	s = newSecured(t)
	ticket := s.ticket()
	if err := s.ResetFactor(ctx, "ann", "root", ""); err != nil {
		t.Fatal(err)
	}
	if err := s.enter(ticket, s.codes[0]); !errors.Is(err, account.ErrTicket) {
		t.Errorf("the ticket: %v", err)
	}
	if _, u, err := s.SignIn(ctx, "ann", goodPassword, "192.0.2.1", ""); err != nil || !s.MustEnroll(u) {
		t.Errorf("after the reset: %+v, %v", u, err)
	}
	for _, name := range []string{"ann", "nobody"} {
		if err := s.ResetFactor(ctx, name, "root", ""); !errors.Is(err, account.ErrNotFound) {
			t.Errorf("resetting %s: %v", name, err)
		}
	}
}

func TestParseRequired(t *testing.T) {
	for text, want := range map[string]int{"": 0, "none": 0, "all": 4, "administrator, Analyst": 2} {
		if got, err := account.ParseRequired(text); err != nil || len(got) != want {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
	if _, err := account.ParseRequired("administrator,king"); err == nil || !strings.Contains(err.Error(), "king") {
		t.Errorf("an unknown role: %v", err)
	}
}
