package export

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/bulwarkhq/bulwark/portal/inventory"
)

const (
	// sendTime is how long one request or one batch of syslog may take.
	sendTime = 20 * time.Second
	// maxAnswer is what is read of an answer, maxReason what is kept of it.
	maxAnswer = 4 << 10
	maxReason = 200
	maxHeader = 16 << 10
	// maxBody is the largest body of a request.
	maxBody = 64 << 10
	// maxRetryAfter bounds what a receiver may ask for.
	maxRetryAfter = time.Hour
)

// Signature is the value of the header Bulwark-Signature: the time of the request
// in seconds since 1970 and the HMAC-SHA256 under the secret of that number, a
// dot and the body.
func Signature(secret string, at time.Time, body []byte) string {
	t := strconv.FormatInt(at.Unix(), 10)
	h := hmac.New(sha256.New, []byte(secret))
	h.Write([]byte(t + "."))
	h.Write(body)
	return "t=" + t + ",v1=" + hex.EncodeToString(h.Sum(nil))
}

// refusal is an answer that says that this record is wrong for the receiver.
type refusal struct{ err error }

func (r *refusal) Error() string { return r.err.Error() }
func (r *refusal) Unwrap() error { return r.err }

// later is an answer that names a time before which not to come again.
type later struct {
	err  error
	wait time.Duration
}

func (l *later) Error() string { return l.err.Error() }
func (l *later) Unwrap() error { return l.err }

// refuseAddress refuses where no receiver can be: the services of clouds that
// tell an instance its credentials are link-local.
func refuseAddress(ip netip.Addr) error {
	ip = ip.Unmap()
	if ip.IsLinkLocalUnicast() || ip.IsMulticast() || ip.IsUnspecified() || ip == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		return fmt.Errorf("%s is a link-local, multicast or unspecified address: nothing is exported there", ip)
	}
	switch ip.WithZone("").String() {
	case "fd00:ec2::254", "100.100.100.200": // of AWS and Alibaba Cloud, which are not link-local
		return fmt.Errorf("%s is the metadata service of a cloud: nothing is exported there", ip)
	}
	return nil
}

// dialer connects to what refuseAddress lets through, whatever name led there.
func dialer() *net.Dialer {
	return &net.Dialer{Timeout: sendTime / 2, Control: func(_, address string, _ syscall.RawConn) error {
		to, err := netip.ParseAddrPort(address)
		if err != nil {
			return fmt.Errorf("address %s: %w", address, err)
		}
		return refuseAddress(to.Addr())
	}}
}

func tlsConfig(d *Destination) (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if d.CA != "" {
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM([]byte(d.CA)) {
			return nil, errors.New("the stored certificates cannot be read")
		}
	}
	return c, nil
}

// sender delivers records in order and returns how many the receiver has taken.
type sender interface {
	send(ctx context.Context, list []Record) (int, error)
	close()
}

// newSender makes the sender of a destination; it serves one goroutine.
func newSender(d *Destination, p portal, now func() time.Time) (sender, error) {
	c, err := tlsConfig(d)
	if err != nil {
		return nil, err
	}
	switch d.Kind {
	case Syslog:
		return &syslogSender{d: d, portal: p, tls: c}, nil
	case Kafka:
		return newKafkaSender(d, p, c)
	}
	t := &http.Transport{
		Proxy: http.ProxyFromEnvironment, DialContext: dialer().DialContext, TLSClientConfig: c, ForceAttemptHTTP2: true, MaxIdleConnsPerHost: 1,
		TLSHandshakeTimeout: sendTime / 2, ResponseHeaderTimeout: sendTime, MaxResponseHeaderBytes: maxHeader,
	}
	return &webhookSender{d: d, portal: p, now: now, client: &http.Client{
		Transport: t, Timeout: sendTime,
		// What answers with a redirect is not what the administrator named.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// webhookSender makes one request for each record: what a receiver refuses is
// then known, also by OTLP, which would only say how many of a request.
type webhookSender struct {
	d      *Destination
	portal portal
	now    func() time.Time
	client *http.Client
}

func (s *webhookSender) close() { s.client.CloseIdleConnections() }

func (s *webhookSender) send(ctx context.Context, list []Record) (int, error) {
	for i := range list {
		if err := s.one(ctx, &list[i]); err != nil {
			return i, err
		}
	}
	return len(list), nil
}

func (s *webhookSender) body(r *Record) ([]byte, error) {
	switch s.d.Kind {
	case Slack:
		return r.slack(s.portal)
	case Teams:
		return r.teams(s.portal)
	case OTLP:
		return r.otlp(s.portal, s.now(), maxBody)
	}
	return r.encode(s.portal, maxBody)
}

func (s *webhookSender) one(ctx context.Context, r *Record) error {
	body, err := s.body(r)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.d.URL, bytes.NewReader(body))
	if err != nil {
		return errors.New("the stored URL cannot be used: enter it again")
	}
	req.Header.Set("Content-Type", "application/json")
	if s.d.Kind == OTLP {
		req.Header.Set("Content-Type", otlpType)
	}
	req.Header.Set("User-Agent", "Bulwark/"+headerField(s.portal.version, 32))
	req.Header.Set("Bulwark-Delivery", r.ID())
	if s.d.Secret != "" {
		req.Header.Set("Bulwark-Signature", Signature(s.d.Secret, s.now(), body))
	}
	if s.d.Authorization != "" {
		req.Header.Set("Authorization", s.d.Authorization)
	}
	resp, err := s.client.Do(req)
	if err != nil {
		// The URL in the error is a secret.
		var e *url.Error
		if errors.As(err, &e) {
			err = e.Err
		}
		return fmt.Errorf("%s: %w", s.d.Target(), err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if resp.StatusCode/100 == 2 {
		if s.d.Kind == OTLP && err == nil {
			return otlpRejected(resp.Header.Get("Content-Type"), text)
		}
		return nil // it has taken the record, whatever became of the answer
	}
	if err != nil {
		text = nil
	}
	return s.problem(resp, string(text))
}

// problem is the error of an answer that is no success.
func (s *webhookSender) problem(resp *http.Response, text string) error {
	err := fmt.Errorf("%s answers %d %s", s.d.Target(), resp.StatusCode, http.StatusText(resp.StatusCode))
	if text = strings.TrimSpace(inventory.Clean(strings.TrimSpace(text), maxReason)); text != "" {
		err = fmt.Errorf("%w: %s", err, text)
	}
	switch resp.StatusCode {
	case http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusUnprocessableEntity:
		return &refusal{err}
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		after := resp.Header.Get("Retry-After") // seconds or a date: RFC 9110, section 10.2.3
		if n, e := strconv.ParseUint(after, 10, 32); e == nil {
			return &later{err, min(time.Duration(n)*time.Second, maxRetryAfter)}
		}
		if at, e := http.ParseTime(after); e == nil {
			return &later{err, min(max(at.Sub(s.now()), 0), maxRetryAfter)}
		}
	}
	if resp.StatusCode/100 == 3 {
		return fmt.Errorf("%w: redirects are not followed, set the address that it leads to", err)
	}
	return err
}
