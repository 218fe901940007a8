package testportal

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/klauspost/compress/zstd"

	agentv1 "github.com/bulwarkhq/bulwark/api/agent/v1"
	"github.com/bulwarkhq/bulwark/api/agent/v1/agentv1connect"
	"github.com/bulwarkhq/bulwark/api/onboarding"
	"github.com/bulwarkhq/bulwark/event"
	"github.com/bulwarkhq/bulwark/portal/enroll"
	"github.com/bulwarkhq/bulwark/portal/ingest"
	"github.com/bulwarkhq/bulwark/portal/ingest/ingesttest"
)

// client is a bare agent: a key, perhaps a certificate, and the generated
// clients.
type client struct {
	t    *testing.T
	p    *Portal
	key  *ecdsa.PrivateKey
	cert *tls.Certificate
	id   string
	info *agentv1.DeviceInfo
}

func newClient(t *testing.T, p *Portal, n int) *client {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &client{t: t, p: p, key: key, info: &agentv1.DeviceInfo{HostName: fmt.Sprintf("host%d", n), HardwareId: fmt.Sprintf("%064x", n), MachineGuid: fmt.Sprintf("guid%d", n)}}
}

func (c *client) http() *http.Client {
	roots := x509.NewCertPool()
	roots.AddCert(c.p.CA.Certificate())
	cfg := &tls.Config{RootCAs: roots}
	if c.cert != nil {
		// Also to a server that asks for those of another authority.
		cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return c.cert, nil }
	}
	tr := &http.Transport{TLSClientConfig: cfg, ForceAttemptHTTP2: true}
	c.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

func (c *client) agent() agentv1connect.AgentServiceClient {
	return agentv1connect.NewAgentServiceClient(c.http(), c.p.URL)
}

func (c *client) enroll(token string) error {
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, c.key)
	if err != nil {
		c.t.Fatal(err)
	}
	res, err := agentv1connect.NewEnrollmentServiceClient(c.http(), c.p.URL).Enroll(c.t.Context(), connect.NewRequest(&agentv1.EnrollRequest{
		Token: token, CertificateRequest: csr, Device: c.info,
	}))
	if err != nil {
		return err
	}
	c.id = res.Msg.DeviceId
	c.cert = &tls.Certificate{Certificate: [][]byte{res.Msg.Certificate}, PrivateKey: c.key}
	return nil
}

func token(t *testing.T, p *Portal, spec enroll.PackageSpec) string {
	t.Helper()
	pkg, err := onboarding.Parse(p.Package(spec))
	if err != nil {
		t.Fatal(err)
	}
	return pkg.EnrollmentToken
}

func wantReason(t *testing.T, err error, code connect.Code, reason string) {
	t.Helper()
	if got, _ := agentv1.ReasonOf(err); connect.CodeOf(err) != code || got != reason {
		t.Fatalf("error %v (reason %q), want %v with reason %s", err, got, code, reason)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func started(t *testing.T) *Portal {
	t.Helper()
	p := New(t)
	p.Start()
	return p
}

func TestEnrollAndRenew(t *testing.T) {
	p := started(t)
	tok := token(t, p, enroll.PackageSpec{MaxUses: 1, Tags: []enroll.Tag{{Key: "GROUP", Value: "web"}}})
	a := newClient(t, p, 1)
	must(t, a.enroll(tok))
	d, err := p.Store.Device(t.Context(), a.id)
	must(t, err)
	if len(a.id) != 40 || d.HardwareID != a.info.HardwareId || d.Info.HostName != "host1" || len(d.Info.Tags) != 1 || d.Info.Tags[0].Value != "web" {
		t.Fatalf("stored device %+v", d)
	}
	// The token is used up, renewal needs none and keeps the id.
	first, firstCert := a.id, a.cert
	must(t, a.enroll(""))
	if a.id != first || bytes.Equal(a.cert.Certificate[0], firstCert.Certificate[0]) {
		t.Fatalf("renewal gave id %s (was %s), same certificate: %v", a.id, first, bytes.Equal(a.cert.Certificate[0], firstCert.Certificate[0]))
	}
	if _, err := a.agent().CheckIn(t.Context(), connect.NewRequest(&agentv1.CheckInRequest{Device: a.info})); err != nil {
		t.Fatal(err)
	}
	a.cert = firstCert // the old one stays good until it expires
	if _, err := a.agent().CheckIn(t.Context(), connect.NewRequest(&agentv1.CheckInRequest{Device: a.info})); err != nil {
		t.Fatal(err)
	}
	wantReason(t, newClient(t, p, 2).enroll(tok), connect.CodeUnauthenticated, agentv1.ReasonTokenUsedUp)
}

func TestClonesGetTheirOwnIdentity(t *testing.T) {
	p := started(t)
	tok := token(t, p, enroll.PackageSpec{})
	golden := newClient(t, p, 1)
	must(t, golden.enroll(tok))
	// The disk with key and certificate was copied to other hardware.
	clone := newClient(t, p, 2)
	clone.key, clone.cert, clone.info.MachineGuid = golden.key, golden.cert, golden.info.MachineGuid
	_, err := clone.agent().CheckIn(t.Context(), connect.NewRequest(&agentv1.CheckInRequest{Device: clone.info}))
	wantReason(t, err, connect.CodeFailedPrecondition, agentv1.ReasonReenroll)
	wantReason(t, clone.enroll(""), connect.CodeUnauthenticated, agentv1.ReasonTokenUnknown)
	must(t, clone.enroll(tok))
	d, err := p.Store.Device(t.Context(), clone.id)
	must(t, err)
	if clone.id == golden.id || d.ReplacesID != golden.id {
		t.Fatalf("clone has id %s, replaces %q; golden %s", clone.id, d.ReplacesID, golden.id)
	}
	// A new installation on the same hardware, without proof: a new id that
	// names the old one.
	again := newClient(t, p, 1)
	must(t, again.enroll(tok))
	d, err = p.Store.Device(t.Context(), again.id)
	must(t, err)
	if again.id == golden.id || d.ReplacesID != golden.id {
		t.Fatalf("new installation has id %s, replaces %q; before %s", again.id, d.ReplacesID, golden.id)
	}
}

func TestTokensRefused(t *testing.T) {
	p := started(t)
	ctx := t.Context()
	a := newClient(t, p, 1)
	tok, _, err := p.Enroll.NewPackage(ctx, enroll.PackageSpec{})
	must(t, err)
	for secret, reason := range map[string]string{"": agentv1.ReasonTokenUnknown, "bwt_wrong": agentv1.ReasonTokenUnknown, strings.Repeat("x", 5000): agentv1.ReasonTokenUnknown} {
		wantReason(t, a.enroll(secret), connect.CodeUnauthenticated, reason)
	}
	revoked := token(t, p, enroll.PackageSpec{})
	list, err := p.Store.Tokens(ctx)
	must(t, err)
	for _, x := range list {
		if x.ID != tok.ID {
			must(t, p.Store.RevokeToken(ctx, x.ID, time.Now()))
		}
	}
	wantReason(t, a.enroll(revoked), connect.CodeUnauthenticated, agentv1.ReasonTokenRevoked)
	must(t, p.Store.CreateToken(ctx, enroll.Token{ID: "00000000000000ee", Hash: enroll.HashToken("bwt_old"), Created: time.Now().Add(-2 * time.Hour), Expires: time.Now().Add(-time.Hour)}))
	err = a.enroll("bwt_old")
	wantReason(t, err, connect.CodeUnauthenticated, agentv1.ReasonTokenExpired)
	if !strings.Contains(err.Error(), "make a new onboarding package") {
		t.Errorf("the refusal does not say what to do: %v", err)
	}
	// Failures are limited, good tokens are not.
	limited := false
	for range 40 {
		reason, retry := agentv1.ReasonOf(a.enroll("bwt_wrong"))
		limited = limited || reason == agentv1.ReasonRateLimited && retry > 0
	}
	if !limited {
		t.Error("40 wrong tokens in a row were not limited")
	}
	must(t, a.enroll(token(t, p, enroll.PackageSpec{})))
	// Bad requests.
	b := newClient(t, p, 2)
	b.info.HardwareId = "short"
	wantReason(t, b.enroll(token(t, p, enroll.PackageSpec{})), connect.CodeInvalidArgument, agentv1.ReasonBadRequest)
	b.info = nil
	wantReason(t, b.enroll(token(t, p, enroll.PackageSpec{})), connect.CodeInvalidArgument, agentv1.ReasonBadRequest)
	for _, spec := range []enroll.PackageSpec{{Validity: time.Second}, {Validity: 500 * 24 * time.Hour}, {MaxUses: -1}, {Name: strings.Repeat("x", 300)}, {Tags: make([]enroll.Tag, 100)}} {
		if _, _, err := p.Enroll.NewPackage(ctx, spec); err == nil {
			t.Errorf("package %+v was made", spec)
		}
	}
}

func enrolled(t *testing.T, p *Portal, n int) *client {
	t.Helper()
	c := newClient(t, p, n)
	must(t, c.enroll(token(t, p, enroll.PackageSpec{})))
	return c
}

func pack(t *testing.T, es ...event.Event) []byte {
	t.Helper()
	enc, err := zstd.NewWriter(nil)
	must(t, err)
	return enc.EncodeAll(event.Encode(es), nil)
}

const spoolID = "0123456789abcdef0123456789abcdef"

func TestDeliver(t *testing.T) {
	p := started(t)
	c := enrolled(t, p, 1)
	alert := ingesttest.Alert(1)
	text, err := event.EncodeAlert(&alert)
	must(t, err)
	req := &agentv1.DeliverRequest{
		SpoolId: spoolID, Sequence: 1, EventsZstd: pack(t, ingesttest.Event(1), ingesttest.Event(2)), EventCount: 2,
		AlertsJson: [][]byte{text, []byte("{"), []byte(`{"id":"no"}`)}, Lost: map[string]uint64{"file": 3, "BAD NAME": 1, "zero": 0},
	}
	for range 2 {
		res, err := c.agent().Deliver(t.Context(), connect.NewRequest(req))
		must(t, err)
		if res.Msg.AcknowledgedSequence != 1 {
			t.Fatalf("acknowledged %d", res.Msg.AcknowledgedSequence)
		}
	}
	if got := p.Sink.Events(c.id); len(got) != 2 || got[1].Process.CommandLine != "sh -c 2" {
		t.Fatalf("events %+v", got)
	}
	if got := p.Sink.Alerts(c.id); len(got) != 1 || got[0].Title != alert.Title {
		t.Fatalf("alerts %+v", got)
	}
	if got := p.Sink.Lost(c.id); len(got) != 2 || got["file"] != 3 || got["alert"] != 2 {
		t.Fatalf("lost %v", got)
	}
}

func TestDeliverRefuses(t *testing.T) {
	p := started(t)
	c := enrolled(t, p, 1)
	enc, err := zstd.NewWriter(nil)
	must(t, err)
	bomb := enc.EncodeAll(make([]byte, ingest.MaxUncompressed+1), nil)
	ok := pack(t, ingesttest.Event(1))
	for name, tt := range map[string]struct {
		req    *agentv1.DeliverRequest
		reason string
	}{
		"no spool":        {&agentv1.DeliverRequest{Sequence: 1}, agentv1.ReasonBatchUnreadable},
		"no sequence":     {&agentv1.DeliverRequest{SpoolId: spoolID}, agentv1.ReasonBatchUnreadable},
		"wrong count":     {&agentv1.DeliverRequest{SpoolId: spoolID, Sequence: 1, EventsZstd: ok, EventCount: 2}, agentv1.ReasonBatchUnreadable},
		"not zstd":        {&agentv1.DeliverRequest{SpoolId: spoolID, Sequence: 1, EventsZstd: []byte("hello"), EventCount: 1}, agentv1.ReasonBatchUnreadable},
		"cut":             {&agentv1.DeliverRequest{SpoolId: spoolID, Sequence: 1, EventsZstd: ok[:len(ok)-3], EventCount: 1}, agentv1.ReasonBatchUnreadable},
		"not events":      {&agentv1.DeliverRequest{SpoolId: spoolID, Sequence: 1, EventsZstd: enc.EncodeAll([]byte{0x0a, 0x80}, nil), EventCount: 1}, agentv1.ReasonBatchUnreadable},
		"bomb":            {&agentv1.DeliverRequest{SpoolId: spoolID, Sequence: 1, EventsZstd: bomb, EventCount: 1}, agentv1.ReasonBatchUnreadable},
		"too large":       {&agentv1.DeliverRequest{SpoolId: spoolID, Sequence: 1, EventsZstd: make([]byte, ingest.MaxCompressed+1)}, agentv1.ReasonBatchTooLarge},
		"too many alerts": {&agentv1.DeliverRequest{SpoolId: spoolID, Sequence: 1, AlertsJson: make([][]byte, ingest.MaxAlerts+1)}, agentv1.ReasonBatchTooLarge},
		"too many events": {&agentv1.DeliverRequest{SpoolId: spoolID, Sequence: 1, EventsZstd: enc.EncodeAll(bytes.Repeat([]byte{0x0a, 0}, event.MaxBatchEvents+1), nil)}, agentv1.ReasonBatchUnreadable},
	} {
		_, err := c.agent().Deliver(t.Context(), connect.NewRequest(tt.req))
		if reason, _ := agentv1.ReasonOf(err); connect.CodeOf(err) != connect.CodeInvalidArgument || reason != tt.reason {
			t.Errorf("%s: error %v, reason %s", name, err, reason)
		}
	}
	if _, err := c.agent().Deliver(t.Context(), connect.NewRequest(&agentv1.DeliverRequest{SpoolId: spoolID, Sequence: 1, EventsZstd: make([]byte, 20<<20)})); connect.CodeOf(err) != connect.CodeResourceExhausted {
		t.Errorf("20 MiB: %v", err)
	}
	p.Sink.Fail(func(*ingest.Batch) error { return fmt.Errorf("disk: %w", ingest.ErrBusy) })
	_, err = c.agent().Deliver(t.Context(), connect.NewRequest(&agentv1.DeliverRequest{SpoolId: spoolID, Sequence: 1}))
	wantReason(t, err, connect.CodeResourceExhausted, agentv1.ReasonBusy)
	p.Sink.Fail(func(*ingest.Batch) error { return errors.New("secret detail") })
	_, err = c.agent().Deliver(t.Context(), connect.NewRequest(&agentv1.DeliverRequest{SpoolId: spoolID, Sequence: 1}))
	wantReason(t, err, connect.CodeUnavailable, agentv1.ReasonInternal)
	if strings.Contains(err.Error(), "secret detail") {
		t.Errorf("an internal error is told to the agent: %v", err)
	}
	p.Sink.Fail(func(*ingest.Batch) error { panic("boom") })
	_, err = c.agent().Deliver(t.Context(), connect.NewRequest(&agentv1.DeliverRequest{SpoolId: spoolID, Sequence: 1}))
	wantReason(t, err, connect.CodeInternal, agentv1.ReasonInternal)
}

func TestOneDeliveryAtATime(t *testing.T) {
	p := started(t)
	c := enrolled(t, p, 1)
	inside, release := make(chan struct{}), make(chan struct{})
	p.Sink.Fail(func(*ingest.Batch) error { close(inside); <-release; return nil })
	var wg sync.WaitGroup
	var first error
	wg.Go(func() {
		_, first = c.agent().Deliver(t.Context(), connect.NewRequest(&agentv1.DeliverRequest{SpoolId: spoolID, Sequence: 1}))
	})
	<-inside
	_, err := c.agent().Deliver(t.Context(), connect.NewRequest(&agentv1.DeliverRequest{SpoolId: spoolID, Sequence: 1}))
	wantReason(t, err, connect.CodeResourceExhausted, agentv1.ReasonBusy)
	close(release)
	wg.Wait()
	must(t, first)
}

func TestOnlyEnrolledDevices(t *testing.T) {
	p := started(t)
	call := func(c *client) error {
		_, err := c.agent().CheckIn(t.Context(), connect.NewRequest(&agentv1.CheckInRequest{Device: c.info}))
		return err
	}
	wantReason(t, call(newClient(t, p, 1)), connect.CodeUnauthenticated, agentv1.ReasonNoCertificate)
	other := started(t)
	stranger := enrolled(t, other, 1)
	stranger.p = p
	wantReason(t, call(stranger), connect.CodeUnauthenticated, agentv1.ReasonCertificateUnknown)
	c := enrolled(t, p, 1)
	must(t, call(c))
	must(t, p.Auth.RevokeDevice(t.Context(), c.id))
	wantReason(t, call(c), connect.CodeUnauthenticated, agentv1.ReasonDeviceRevoked)
	// Its certificate proves nothing any more.
	wantReason(t, c.enroll(""), connect.CodeUnauthenticated, agentv1.ReasonTokenUnknown)
	// A certificate of our authority that the store does not know.
	ghost := newClient(t, p, 5)
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, ghost.key)
	must(t, err)
	cert, err := p.CA.SignClient(csr, strings.Repeat("1", 40))
	must(t, err)
	ghost.cert = &tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: ghost.key}
	wantReason(t, call(ghost), connect.CodeUnauthenticated, agentv1.ReasonCertificateUnknown)
	// Not an agent at all.
	res, err := newClient(t, p, 6).http().Post(p.URL+agentv1connect.AgentServiceCheckInProcedure, "text/plain", strings.NewReader("hello"))
	must(t, err)
	must(t, res.Body.Close())
	if res.StatusCode != http.StatusNotFound {
		t.Errorf("a browser gets %s", res.Status)
	}
}

func TestCheckInAndSelfTest(t *testing.T) {
	p := started(t)
	c := enrolled(t, p, 1)
	p.Sink.Reply(ingest.CheckInReply{Policy: []byte(`{"a":1}`), PolicyVersion: "7"})
	res, err := c.agent().CheckIn(t.Context(), connect.NewRequest(&agentv1.CheckInRequest{Device: c.info, HealthJson: []byte("{ \"healthy\": true }"), PolicyVersion: "6"}))
	must(t, err)
	if res.Msg.PolicyVersion != "7" || string(res.Msg.PolicyJson) != `{"a":1}` || res.Msg.CheckInIntervalSeconds != 1 {
		t.Fatalf("answer %v", res.Msg)
	}
	got, ok := p.Sink.LastCheckIn(c.id)
	if !ok || string(got.Health) != `{"healthy":true}` || got.Address != "127.0.0.1" || got.Info.HostName != "host1" {
		t.Fatalf("check-in %+v", got)
	}
	for name, health := range map[string]string{"no JSON": "{", "array": "[]", "large": `{"a":"` + strings.Repeat("x", ingest.MaxHealth) + `"}`} {
		_, err := c.agent().CheckIn(t.Context(), connect.NewRequest(&agentv1.CheckInRequest{Device: c.info, HealthJson: []byte(health)}))
		if connect.CodeOf(err) != connect.CodeInvalidArgument {
			t.Errorf("health %s: %v", name, err)
		}
	}
	alert := ingesttest.Alert(9)
	alert.TestID = "mine"
	text, err := event.EncodeAlert(&alert)
	must(t, err)
	_, err = c.agent().Deliver(t.Context(), connect.NewRequest(&agentv1.DeliverRequest{SpoolId: spoolID, Sequence: 1, AlertsJson: [][]byte{text}}))
	must(t, err)
	fin, err := c.agent().FinishSelfTest(t.Context(), connect.NewRequest(&agentv1.FinishSelfTestRequest{TestId: "mine", Remove: true}))
	must(t, err)
	if len(fin.Msg.Arrivals) != 1 || fin.Msg.Arrivals[0].AlertId != alert.ID || fin.Msg.Arrivals[0].ArrivedUnixMs == 0 {
		t.Fatalf("arrivals %v", fin.Msg.Arrivals)
	}
	if len(p.Sink.Alerts(c.id)) != 0 {
		t.Error("the self-test's alert stayed")
	}
}

func TestCommands(t *testing.T) {
	p := started(t)
	c := enrolled(t, p, 1)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	p.Commands.Order(c.id, ingest.Command{ID: "1", Type: "RunAntiVirusScan", Parameters: []byte(`{}`), Expires: time.Now().Add(time.Hour)})
	stream, err := c.agent().Commands(ctx, connect.NewRequest(&agentv1.CommandsRequest{}))
	must(t, err)
	next := func() *agentv1.Command {
		for stream.Receive() {
			if m := stream.Msg(); m.Id != "" {
				return m
			}
		}
		t.Fatalf("stream ended: %v", stream.Err())
		return nil
	}
	if m := next(); m.Id != "1" || m.Type != "RunAntiVirusScan" {
		t.Fatalf("command %v", m)
	}
	p.Commands.Order(c.id, ingest.Command{ID: "2", Type: "Isolate", Expires: time.Now().Add(time.Hour)})
	if m := next(); m.Id != "2" {
		t.Fatalf("command %v", m)
	}
	_, err = c.agent().CompleteCommand(ctx, connect.NewRequest(&agentv1.CompleteCommandRequest{Id: "1", Status: "Succeeded"}))
	must(t, err)
	_, err = c.agent().CompleteCommand(ctx, connect.NewRequest(&agentv1.CompleteCommandRequest{Id: "1", Status: "Done"}))
	wantReason(t, err, connect.CodeInvalidArgument, agentv1.ReasonBadRequest)
	other := enrolled(t, p, 2)
	_, err = other.agent().CompleteCommand(ctx, connect.NewRequest(&agentv1.CompleteCommandRequest{Id: "2", Status: "Failed"}))
	if connect.CodeOf(err) != connect.CodeNotFound {
		t.Fatalf("command of another device: %v", err)
	}
	// Polling: what is pending (2), and the end.
	polled, err := c.agent().Commands(ctx, connect.NewRequest(&agentv1.CommandsRequest{Poll: true}))
	must(t, err)
	var ids []string
	for polled.Receive() {
		ids = append(ids, polled.Msg().Id)
	}
	must(t, polled.Err())
	if len(ids) != 1 || ids[0] != "2" {
		t.Fatalf("polled %v", ids)
	}
	// The stream ends when the portal stops.
	p.Stop()
	for stream.Receive() {
	}
	if stream.Err() == nil {
		t.Error("stream ended without an error")
	}
}
