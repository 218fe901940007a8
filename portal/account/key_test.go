package account_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/portal/account"
	"github.com/bulwarkhq/bulwark/portal/securitykey"
	"github.com/bulwarkhq/bulwark/portal/securitykey/keytest"
)

// keyed is an account that is signed in.
type keyed struct {
	*secured
	sess account.Session
}

func (k *keyed) reload() {
	k.t.Helper()
	var err error
	if k.user, err = k.User(k.t.Context(), k.user.ID); err != nil {
		k.t.Fatal(err)
	}
}

func (k *keyed) list() []account.SecurityKey {
	k.t.Helper()
	keys, err := k.SecurityKeys(k.t.Context(), k.user)
	if err != nil {
		k.t.Fatal(err)
	}
	return keys
}

func (k *keyed) prove(key *keytest.Key) account.Proof {
	k.t.Helper()
	options, err := k.Ask(k.sess, k.user, k.list())
	if err != nil || len(options) == 0 {
		k.t.Fatalf("%s, %v", options, err)
	}
	answer, err := key.Get(options)
	if err != nil {
		k.t.Fatal(err)
	}
	return account.Proof{Answer: answer}
}

func (k *keyed) newKey() *keytest.Key {
	k.t.Helper()
	key, err := keytest.New("https://portal.example.org")
	if err != nil {
		k.t.Fatal(err)
	}
	return key
}

// add registers a key and returns the recovery codes that this made.
func (k *keyed) add(name string, key *keytest.Key, p account.Proof) ([]string, error) {
	k.t.Helper()
	options, err := k.BeginKey(k.sess, k.user, k.list())
	if err != nil || len(options) == 0 {
		k.t.Fatalf("%s, %v", options, err)
	}
	answer, err := key.Create(options)
	if err != nil {
		k.t.Fatal(err)
	}
	codes, err := k.AddKey(k.t.Context(), k.sess, k.user, name, answer, goodPassword, p, "192.0.2.1")
	k.reload()
	return codes, err
}

// newKeyed is newSecured without its authenticator.
func newKeyed(t *testing.T) *keyed {
	t.Helper()
	k := &keyed{secured: newSecured(t)}
	if err := k.ResetFactor(t.Context(), "ann", "root", ""); err != nil {
		t.Fatal(err)
	}
	cookie, _, err := k.SignIn(t.Context(), "ann", goodPassword, "192.0.2.1", "")
	if err != nil {
		t.Fatal(err)
	}
	if k.sess, k.user, err = k.Session(t.Context(), cookie); err != nil || !k.MustEnroll(k.user) {
		t.Fatal(err)
	}
	return k
}

func (k *keyed) enterKey(ticket string, key *keytest.Key) error {
	k.t.Helper()
	options, err := k.AskTicket(k.t.Context(), ticket)
	if err != nil {
		return err
	}
	answer, err := key.Get(options)
	if err != nil {
		k.t.Fatal(err)
	}
	cookie, _, err := k.SignInProof(k.t.Context(), ticket, account.Proof{Answer: answer}, "192.0.2.1", "")
	if (err == nil) != (cookie != "") {
		k.t.Errorf("cookie %q, %v", cookie, err)
	}
	return err
}

func TestSecurityKeys(t *testing.T) {
	k := newKeyed(t)
	ctx := t.Context()
	want := func(err, want error, what string) {
		t.Helper()
		if !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", what, err, want)
		}
	}
	first, second := k.newKey(), k.newKey()
	codes, err := k.add("desk", first, account.Proof{})
	if err != nil || len(codes) != account.RecoveryCodes || !k.user.SecondFactor || k.MustEnroll(k.user) {
		t.Fatalf("%v, %v, %+v", codes, err, k.user)
	}
	_, err = k.add("bag", second, account.Proof{})
	want(err, account.ErrCode, "another key without a proof of the first")
	if codes, err := k.add("bag", second, k.prove(first)); err != nil || codes != nil {
		t.Fatalf("%v, %v", codes, err)
	}
	_, err = k.add("again", first, k.prove(first))
	want(err, account.ErrExists, "a key that is registered")
	var no *account.Invalid
	for _, name := range []string{"", " ", "a\nb", strings.Repeat("x", 65)} {
		if _, err := k.add(name, k.newKey(), k.prove(first)); !errors.As(err, &no) {
			t.Errorf("name %q: %v", name, err)
		}
	}
	// Signing in.
	want(k.enterKey(k.ticket(), first), nil, "the first key")
	want(k.enterKey(k.ticket(), second), nil, "the second key")
	want(k.enterKey(k.ticket(), k.newKey()), securitykey.ErrRefused, "a key of nobody")
	want(k.enter(k.ticket(), codes[0]), nil, "a recovery code")
	want(k.enter(k.ticket(), "000000"), account.ErrCode, "a code without an authenticator")
	ticket := k.ticket()
	options, err := k.AskTicket(ctx, ticket)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := first.Get(options)
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = k.SignInProof(ctx, k.ticket(), account.Proof{Answer: answer}, "", "")
	want(err, account.ErrChallenge, "an answer to another sign-in")
	if _, _, err := k.SignInProof(ctx, ticket, account.Proof{Answer: answer}, "", ""); err != nil {
		t.Fatal(err)
	}
	want(k.enterKey(ticket, first), account.ErrTicket, "a ticket that was used")
	// A copy of the key that has made fewer signatures.
	copied := *first
	copied.Counter = 0
	want(k.enterKey(k.ticket(), &copied), securitykey.ErrRefused, "a copy")
	k.now = k.now.Add(time.Hour)
	if list, err := k.SecurityKeys(ctx, k.user); err != nil || len(list) != 2 || list[0].Name == list[1].Name || list[0].Used.IsZero() || list[0].Counter < 2 {
		t.Errorf("%+v, %v", list, err)
	}
	// Changes.
	want(k.RemoveKey(ctx, k.sess, k.user, second.ID, goodPassword, account.Proof{}, ""), account.ErrCode, "removing without a proof")
	old := k.prove(first)
	k.now = k.now.Add(time.Hour)
	want(k.RemoveKey(ctx, k.sess, k.user, second.ID, goodPassword, old, ""), account.ErrChallenge, "an answer of an hour before")
	want(k.RemoveKey(ctx, k.sess, k.user, []byte("x"), goodPassword, k.prove(first), ""), account.ErrNotFound, "no such key")
	want(k.RemoveKey(ctx, k.sess, k.user, second.ID, goodPassword, k.prove(first), ""), nil, "removing")
	want(k.RemoveKey(ctx, k.sess, k.user, first.ID, goodPassword, k.prove(first), ""), account.ErrLast, "removing the last")
	want(k.DisableFactor(ctx, k.sess, k.user, goodPassword, k.prove(first), ""), account.ErrRequired, "turning off")
	// An authenticator beside the key needs a proof of the key.
	want(k.BeginFactor(ctx, k.user), nil, "an authenticator")
	f, err := k.Factor(ctx, k.user)
	if err != nil {
		t.Fatal(err)
	}
	if _, k.secret, err = k.FactorURI(f, k.user, "Bulwark"); err != nil {
		t.Fatal(err)
	}
	want(k.enter(k.ticket(), k.code(0)), account.ErrCode, "an authenticator that is not confirmed")
	_, err = k.ConfirmFactor(ctx, k.sess, k.user, goodPassword, k.code(0), account.Proof{}, "")
	want(err, account.ErrCode, "confirming without the key")
	// The recovery code is not spent on a form that is wrong elsewhere, and those of
	// the first second factor stay good.
	spare := account.Proof{Code: codes[1]}
	_, err = k.ConfirmFactor(ctx, k.sess, k.user, goodPassword, "000000", spare, "")
	want(err, account.ErrCode, "confirming with a wrong code")
	_, err = k.AddKey(ctx, k.sess, k.user, "late", "{}", goodPassword, spare, "")
	want(err, account.ErrChallenge, "a key without a challenge")
	if _, err := k.BeginKey(k.sess, k.user, k.list()); err != nil {
		t.Fatal(err)
	}
	_, err = k.AddKey(ctx, k.sess, k.user, "odd", "{}", goodPassword, spare, "192.0.2.9")
	want(err, securitykey.ErrRefused, "a key with an odd answer")
	want(k.RemoveKey(ctx, k.sess, k.user, []byte("x"), goodPassword, spare, ""), account.ErrNotFound, "no such key, with a recovery code")
	more, err := k.ConfirmFactor(ctx, k.sess, k.user, goodPassword, k.code(0), spare, "")
	want(err, nil, "confirming")
	if n, err := k.RecoveryCodesLeft(ctx, k.user); err != nil || n != account.RecoveryCodes-2 || more != nil {
		t.Errorf("%d recovery codes are left, %v new ones, %v", n, more, err)
	}
	_, err = k.ConfirmFactor(ctx, k.sess, k.user, goodPassword, k.code(1), account.Proof{}, "")
	want(err, account.ErrExists, "a code of the authenticator where the wrong ones are not counted")
	k.now = k.now.Add(time.Hour)
	want(k.enter(k.ticket(), k.code(0)), nil, "the authenticator")
	want(k.RemoveKey(ctx, k.sess, k.user, first.ID, goodPassword, account.Proof{Code: k.code(1)}, ""), nil, "removing the key with a code")
	k.now = k.now.Add(time.Hour)
	want(k.RemoveAuthenticator(ctx, k.sess, k.user, goodPassword, account.Proof{Code: k.code(0)}, ""), account.ErrLast, "removing the authenticator, the last")
	third := k.newKey()
	if _, err := k.add("third", third, account.Proof{Code: k.code(1)}); err != nil {
		t.Fatal(err)
	}
	want(k.RemoveAuthenticator(ctx, k.sess, k.user, goodPassword, k.prove(third), ""), nil, "removing the authenticator")
	// A reset takes the keys too.
	ticket = k.ticket()
	want(k.ResetFactor(ctx, "ann", "root", ""), nil, "reset")
	want(k.enterKey(ticket, third), account.ErrTicket, "after the reset")
	if list, err := k.SecurityKeys(ctx, k.user); err != nil || len(list) != 0 {
		t.Errorf("%+v, %v", list, err)
	}
	entries, err := k.AuditEntries(ctx, 0, 500)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	refused := 0
	for _, e := range entries {
		seen[e.Action+" "+e.Detail]++
		if e.Address == "192.0.2.9" && e.Action == "second-factor.failed" && e.Actor == "ann" && strings.HasPrefix(e.Detail, securitykey.ErrRefused.Error()+": ") {
			refused++
		}
	}
	if refused != 1 {
		t.Errorf("%d entries of the key that was refused when it was added (of %v)", refused, seen)
	}
	for entry, n := range map[string]int{"second-factor.add-key desk": 1, "second-factor.add-key bag": 1, "second-factor.remove-key bag": 1, "second-factor.remove-authenticator ": 1, "sign-in security key": 3} {
		if seen[entry] != n {
			t.Errorf("%d entries %q, want %d (of %v)", seen[entry], entry, n, seen)
		}
	}
}

func TestTooManyKeys(t *testing.T) {
	k := newKeyed(t)
	first := k.newKey()
	if _, err := k.add("0", first, account.Proof{}); err != nil {
		t.Fatal(err)
	}
	for range account.MaxSecurityKeys - 1 {
		if _, err := k.add("more", k.newKey(), k.prove(first)); err != nil {
			t.Fatal(err)
		}
	}
	if options, err := k.BeginKey(k.sess, k.user, k.list()); err != nil || options != nil {
		t.Errorf("one more: %s, %v", options, err)
	}
}
