package network

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"

	"connectrpc.com/connect"

	agentv1 "github.com/bulwarkhq/bulwark/api/agent/v1"
	"github.com/bulwarkhq/bulwark/api/onboarding"
)

// ProxyRefusedError means that the proxy did not open the tunnel.
type ProxyRefusedError struct {
	Proxy  string // without password
	Target string // host:port
	Status int
	Text   string // of the status line
}

func (e *ProxyRefusedError) Error() string {
	text := fmt.Sprintf("the proxy %s refuses the connection to %s: %s", e.Proxy, e.Target, e.Text)
	switch e.Status {
	case http.StatusProxyAuthRequired:
		text += ": it wants a user name and password (http://user:password@host:port)"
	case http.StatusForbidden:
		text += ": allow CONNECT to that address there"
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		text += ": it cannot reach the address itself"
	}
	return text
}

// tunnelAnswer judges a proxy's answer to CONNECT.
func tunnelAnswer(_ context.Context, proxy *url.URL, req *http.Request, res *http.Response) error {
	if res.StatusCode == http.StatusOK {
		return nil
	}
	return &ProxyRefusedError{Proxy: proxy.Redacted(), Target: req.Host, Status: res.StatusCode, Text: clean(res.Status)}
}

// clean makes text from a stranger fit for a line.
func clean(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	return s[:min(len(s), 200)]
}

// Explain turns an error of a call into words for people.
func Explain(err error) string {
	var intercepted *onboarding.InterceptedError
	var clock *onboarding.ClockError
	var refused *ProxyRefusedError
	var dns *net.DNSError
	var op *net.OpError
	var record tls.RecordHeaderError
	switch {
	case err == nil:
		return ""
	case errors.As(err, &intercepted):
		return intercepted.Error()
	case errors.As(err, &clock):
		return clock.Error()
	case errors.As(err, &refused):
		return refused.Error()
	case errors.As(err, &op) && op.Op == "proxyconnect" && errors.As(err, &dns):
		return fmt.Sprintf("the name of the proxy, %s, cannot be resolved: %s", dns.Name, dns.Err)
	case errors.As(err, &dns):
		return fmt.Sprintf("the name %s cannot be resolved: %s", dns.Name, dns.Err)
	case errors.As(err, &op) && op.Op == "proxyconnect":
		return "the proxy cannot be reached: " + op.Err.Error()
	case errors.As(err, &op):
		return op.Error()
	case errors.As(err, &record):
		return "what answers there does not speak TLS: it is no portal, or a proxy or captive page answers in its place"
	case errors.Is(err, context.DeadlineExceeded):
		return "no answer in time"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "the connection was cut"
	}
	var c *connect.Error
	if errors.As(err, &c) {
		if reason, _ := agentv1.ReasonOf(err); reason != "" {
			return c.Message()
		}
		if c.Code() == connect.CodeUnknown || c.Code() == connect.CodeUnavailable || c.Code() == connect.CodeUnimplemented {
			return "not the answer of a portal: " + c.Message()
		}
		return c.Error()
	}
	return err.Error()
}
