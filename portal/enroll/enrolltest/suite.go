// Package enrolltest holds the contract of enroll.Store as a test suite, and a
// store in memory for tests of other packages.
package enrolltest

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	agentv1 "github.com/bulwarkhq/bulwark/api/agent/v1"
	"github.com/bulwarkhq/bulwark/portal/enroll"
)

// Run tests a store. open returns an empty one; it registers its own clean-up.
func Run(t *testing.T, open func(t *testing.T) enroll.Store) {
	for name, fn := range map[string]func(*testing.T, enroll.Store){
		"tokens":              testTokens,
		"token uses":          testTokenUses,
		"enroll":              testEnroll,
		"enroll is atomic":    testAtomic,
		"hardware id":         testHardwareID,
		"revocation":          testRevocation,
		"concurrent last use": testConcurrentLastUse,
	} {
		t.Run(name, func(t *testing.T) { fn(t, open(t)) })
	}
}

var base = time.Date(2026, 11, 28, 10, 0, 0, 123e6, time.UTC)

func token(n int) enroll.Token {
	return enroll.Token{
		ID: fmt.Sprintf("%016x", n), Name: fmt.Sprintf("token %d", n), Hash: sha256.Sum256(fmt.Append(nil, n)),
		CreatedBy: "admin", Created: base.Add(time.Duration(n) * time.Second), Expires: base.Add(time.Hour),
		Tags: []enroll.Tag{{Key: "GROUP", Value: "web"}, {Key: "b", Value: ""}},
	}
}

func device(n int) enroll.Device {
	return enroll.Device{
		ID: fmt.Sprintf("%040x", n), HardwareID: strings.Repeat("ab", 32), MachineGUID: fmt.Sprintf("guid-%d", n),
		Enrolled: base, Info: &agentv1.DeviceInfo{
			HostName: fmt.Sprintf("host%d", n), IpAddresses: []string{"192.0.2.1"},
			Tags: []*agentv1.Tag{{Key: "GROUP", Value: "web"}},
		},
	}
}

func certificate(serial string, d enroll.Device) enroll.Certificate {
	return enroll.Certificate{Serial: serial, DeviceID: d.ID, NotBefore: base, NotAfter: base.Add(1000 * time.Hour)}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantError(t *testing.T, err, want error, what string) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("%s: error %v, want %v", what, err, want)
	}
}

func diff(a, b any) string { return cmp.Diff(a, b, cmp.Comparer(proto.Equal)) }

func testTokens(t *testing.T, s enroll.Store) {
	ctx := t.Context()
	one, two := token(1), token(2)
	two.Expires, two.MaxUses = base.Add(2*time.Hour), 3
	must(t, s.CreateToken(ctx, one))
	must(t, s.CreateToken(ctx, two))
	wantError(t, s.CreateToken(ctx, one), enroll.ErrExists, "same token again")
	clash := token(3)
	clash.Hash = one.Hash
	wantError(t, s.CreateToken(ctx, clash), enroll.ErrExists, "same hash")

	got, err := s.TokenByHash(ctx, two.Hash)
	must(t, err)
	if d := diff(two, got); d != "" {
		t.Fatalf("token by hash (-want +got):\n%s", d)
	}
	_, err = s.TokenByHash(ctx, sha256.Sum256([]byte("other")))
	wantError(t, err, enroll.ErrNotFound, "unknown hash")
	list, err := s.Tokens(ctx)
	must(t, err)
	if d := diff([]enroll.Token{two, one}, list); d != "" {
		t.Fatalf("list, newest first (-want +got):\n%s", d)
	}

	must(t, s.RevokeToken(ctx, one.ID, base.Add(time.Minute)))
	must(t, s.RevokeToken(ctx, one.ID, base.Add(time.Hour)))
	wantError(t, s.RevokeToken(ctx, "ffffffffffffffff", base), enroll.ErrNotFound, "revoke unknown")
	got, err = s.TokenByHash(ctx, one.Hash)
	must(t, err)
	if !got.Revoked.Equal(base.Add(time.Minute)) {
		t.Fatalf("revoked at %v, want the first time", got.Revoked)
	}
	n, err := s.DeleteExpiredTokens(ctx, base.Add(90*time.Minute))
	must(t, err)
	if n != 1 {
		t.Fatalf("deleted %d expired tokens, want 1", n)
	}
	_, err = s.TokenByHash(ctx, one.Hash)
	wantError(t, err, enroll.ErrNotFound, "expired token")
}

func testTokenUses(t *testing.T, s enroll.Store) {
	ctx := t.Context()
	tok := token(1)
	tok.MaxUses = 2
	must(t, s.CreateToken(ctx, tok))
	for i := 1; i <= 2; i++ {
		d := device(i)
		d.TokenID = tok.ID
		must(t, s.Enroll(ctx, enroll.Enrollment{Device: d, Certificate: certificate(fmt.Sprintf("c%d", i), d), TokenID: tok.ID}))
	}
	// A renewal counts no use.
	must(t, s.Enroll(ctx, enroll.Enrollment{Device: device(1), Certificate: certificate("c3", device(1))}))
	got, err := s.TokenByHash(ctx, tok.Hash)
	must(t, err)
	if got.Uses != 2 {
		t.Fatalf("%d uses, want 2", got.Uses)
	}
	d, err := s.Device(ctx, device(1).ID)
	must(t, err)
	if d.TokenID != tok.ID {
		t.Fatalf("a renewal changed the token id to %q", d.TokenID)
	}
	// Deleting the token leaves its devices.
	_, err = s.DeleteExpiredTokens(ctx, base.Add(24*time.Hour))
	must(t, err)
	_, err = s.Device(ctx, device(2).ID)
	must(t, err)
	wantError(t, s.Enroll(ctx, enroll.Enrollment{Device: device(9), Certificate: certificate("c9", device(9)), TokenID: tok.ID}),
		enroll.ErrNotFound, "enroll with a deleted token")
}

func testEnroll(t *testing.T, s enroll.Store) {
	ctx := t.Context()
	_, err := s.Device(ctx, device(1).ID)
	wantError(t, err, enroll.ErrNotFound, "unknown device")
	_, _, err = s.Certificate(ctx, "01")
	wantError(t, err, enroll.ErrNotFound, "unknown certificate")

	first := device(1)
	first.ReplacesID = device(7).ID
	must(t, s.Enroll(ctx, enroll.Enrollment{Device: first, Certificate: certificate("1", first)}))
	got, err := s.Device(ctx, first.ID)
	must(t, err)
	if d := diff(first, got); d != "" {
		t.Fatalf("device (-want +got):\n%s", d)
	}
	again := device(1)
	again.Enrolled = base.Add(time.Hour)
	again.HardwareID = "other"
	again.MachineGUID = "other"
	again.Info.HostName = "renamed"
	must(t, s.Enroll(ctx, enroll.Enrollment{Device: again, Certificate: certificate("2", again)}))
	want := again
	want.Enrolled, want.ReplacesID = first.Enrolled, first.ReplacesID
	for _, serial := range []string{"1", "2"} { // the old certificate stays good
		c, d, err := s.Certificate(ctx, serial)
		must(t, err)
		if x := diff(certificate(serial, first), c); x != "" {
			t.Fatalf("certificate (-want +got):\n%s", x)
		}
		if x := diff(want, d); x != "" {
			t.Fatalf("device of certificate (-want +got):\n%s", x)
		}
	}
}

func testAtomic(t *testing.T, s enroll.Store) {
	ctx := t.Context()
	tok := token(1)
	must(t, s.CreateToken(ctx, tok))
	must(t, s.Enroll(ctx, enroll.Enrollment{Device: device(1), Certificate: certificate("1", device(1)), TokenID: tok.ID}))
	wantError(t, s.Enroll(ctx, enroll.Enrollment{Device: device(2), Certificate: certificate("1", device(2)), TokenID: tok.ID}),
		enroll.ErrExists, "serial that is taken")
	_, err := s.Device(ctx, device(2).ID)
	wantError(t, err, enroll.ErrNotFound, "device of a failed enrollment")
	got, err := s.TokenByHash(ctx, tok.Hash)
	must(t, err)
	if got.Uses != 1 {
		t.Fatalf("%d uses, want 1: a failed enrollment counted", got.Uses)
	}
}

func testHardwareID(t *testing.T, s enroll.Store) {
	ctx := t.Context()
	for i := 1; i <= 3; i++ {
		must(t, s.Enroll(ctx, enroll.Enrollment{Device: device(i), Certificate: certificate(fmt.Sprint(i), device(i))}))
	}
	must(t, s.Enroll(ctx, enroll.Enrollment{Device: device(1), Certificate: certificate("4", device(1))}))
	ds, err := s.DevicesByHardwareID(ctx, device(1).HardwareID)
	must(t, err)
	var ids []string
	for _, d := range ds {
		ids = append(ids, d.ID)
	}
	if d := diff([]string{device(1).ID, device(3).ID, device(2).ID}, ids); d != "" {
		t.Fatalf("latest enrollment first (-want +got):\n%s", d)
	}
	ds, err = s.DevicesByHardwareID(ctx, "none")
	must(t, err)
	if len(ds) != 0 {
		t.Fatalf("%d devices of an unknown hardware id", len(ds))
	}
}

func testRevocation(t *testing.T, s enroll.Store) {
	ctx := t.Context()
	d := device(1)
	must(t, s.Enroll(ctx, enroll.Enrollment{Device: d, Certificate: certificate("1", d)}))
	must(t, s.Enroll(ctx, enroll.Enrollment{Device: d, Certificate: certificate("2", d)}))
	must(t, s.RevokeCertificate(ctx, "1", base.Add(time.Minute)))
	must(t, s.RevokeCertificate(ctx, "1", base.Add(time.Hour)))
	check := func(serial string, cert, dev time.Time) {
		t.Helper()
		c, d, err := s.Certificate(ctx, serial)
		must(t, err)
		if !c.Revoked.Equal(cert) || !d.Revoked.Equal(dev) {
			t.Fatalf("certificate %s revoked %v, device %v; want %v, %v", serial, c.Revoked, d.Revoked, cert, dev)
		}
	}
	check("1", base.Add(time.Minute), time.Time{})
	check("2", time.Time{}, time.Time{})
	must(t, s.RevokeDevice(ctx, d.ID, base.Add(2*time.Minute)))
	must(t, s.RevokeDevice(ctx, d.ID, base.Add(3*time.Minute)))
	check("1", base.Add(time.Minute), base.Add(2*time.Minute))
	check("2", base.Add(2*time.Minute), base.Add(2*time.Minute))
	wantError(t, s.RevokeDevice(ctx, device(2).ID, base), enroll.ErrNotFound, "unknown device")
	wantError(t, s.RevokeCertificate(ctx, "99", base), enroll.ErrNotFound, "unknown certificate")
}

func testConcurrentLastUse(t *testing.T, s enroll.Store) {
	ctx := t.Context()
	tok := token(1)
	tok.MaxUses = 3
	must(t, s.CreateToken(ctx, tok))
	var wg sync.WaitGroup
	results := make([]error, 10)
	for i := range results {
		wg.Go(func() {
			d := device(i + 1)
			results[i] = s.Enroll(ctx, enroll.Enrollment{Device: d, Certificate: certificate(fmt.Sprintf("%x", i+1), d), TokenID: tok.ID})
		})
	}
	wg.Wait()
	won := 0
	for _, err := range results {
		if err == nil {
			won++
		} else {
			wantError(t, err, enroll.ErrTokenUsedUp, "one too many")
		}
	}
	if won != 3 {
		t.Fatalf("%d enrollments with a token for 3", won)
	}
}
