package network

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/bulwarkhq/bulwark/api/onboarding"
	"github.com/bulwarkhq/bulwark/test/loopback"
)

func TestNewProxy(t *testing.T) {
	for name, c := range map[string]struct {
		policy, https, http, no string
		target, want, origin    string
		fails                   string
	}{
		"none":                   {target: "https://portal.example"},
		"policy":                 {policy: "http://p:1", https: "http://e:2", target: "https://portal.example", want: "http://p:1", origin: "policy"},
		"policy, plain":          {policy: "http://p:1", target: "http://mirror.example", want: "http://p:1", origin: "policy"},
		"environment":            {https: "e:2", target: "https://portal.example", want: "http://e:2", origin: "environment"},
		"environment, plain":     {https: "e:2", http: "h:3", target: "http://mirror.example", want: "http://h:3", origin: "environment"},
		"environment, only one":  {https: "e:2", target: "http://mirror.example", want: "http://e:2", origin: "environment"},
		"NO_PROXY name":          {policy: "http://p:1", no: ".example", target: "https://portal.example", origin: "policy"},
		"NO_PROXY network":       {https: "e:2", no: "10.0.0.0/8", target: "https://10.1.2.3:8443", origin: "environment"},
		"NO_PROXY of another":    {https: "e:2", no: "other.example", target: "https://portal.example", want: "http://e:2", origin: "environment"},
		"this host":              {policy: "http://p:1", target: "https://127.0.0.1:8443", origin: "policy"},
		"password":               {policy: "http://u:secret@p:1", target: "https://portal.example", want: "http://u:xxxxx@p:1", origin: "policy"},
		"PAC by environment":     {https: "http://h/proxy.pac", target: "https://portal.example", fails: "PAC, WPAD"},
		"SOCKS":                  {https: "socks5://h:1", target: "https://portal.example", fails: "SOCKS"},
		"nonsense in the policy": {policy: "http://", target: "https://portal.example", fails: "want http://host:port"},
	} {
		t.Run(name, func(t *testing.T) {
			for k, v := range map[string]string{"HTTPS_PROXY": c.https, "HTTP_PROXY": c.http, "NO_PROXY": c.no, "https_proxy": "", "http_proxy": "", "no_proxy": "", "REQUEST_METHOD": ""} {
				t.Setenv(k, v)
			}
			p, err := NewProxy(c.policy)
			if c.fails != "" {
				if err == nil || !strings.Contains(err.Error(), c.fails) {
					t.Fatalf("%v, want %s", err, c.fails)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := p.Shown(c.target); got != c.want || p.Origin != c.origin {
				t.Errorf("%q from %q, want %q from %q", got, p.Origin, c.want, c.origin)
			}
		})
	}
}

// tunnel is a proxy; tlsConfig, where it is set, has it spoken to over TLS.
func tunnel(t *testing.T, answer string, tlsConfig *tls.Config) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if tlsConfig != nil {
		l = tls.NewListener(l, tlsConfig)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				req, err := http.ReadRequest(bufio.NewReader(c))
				if err != nil {
					return
				}
				if answer != "" {
					io.WriteString(c, answer)
					return
				}
				up, err := net.Dial("tcp", req.Host)
				if err != nil {
					return
				}
				defer up.Close()
				io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
				go io.Copy(up, c)
				io.Copy(c, up)
			}()
		}
	}()
	return l.Addr().String()
}

func TestProxyAnswers(t *testing.T) {
	for answer, want := range map[string]string{
		"HTTP/1.1 403 Forbidden\r\n\r\n":                     "403 Forbidden: allow CONNECT to that address there",
		"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n": "it wants a user name and password",
		"HTTP/1.1 502 Bad Gateway\r\n\r\n":                   "it cannot reach the address itself",
		"HTTP/1.1 418 \x1b[31mred\r\n\r\n":                   "418 ?[31mred",
	} {
		u, _ := url.Parse("http://u:secret@" + tunnel(t, answer, nil))
		p := &Proxy{choose: func(*url.URL) (*url.URL, error) { return u, nil }}
		req, _ := http.NewRequestWithContext(context.Background(), http.MethodGet, "https://portal.example:8443/", nil)
		res, err := Public(p).Do(req)
		if err == nil {
			res.Body.Close()
		}
		var refused *ProxyRefusedError
		text := Explain(err)
		if !errors.As(err, &refused) || !strings.Contains(text, want) || !strings.Contains(text, "to portal.example:8443: ") || strings.Contains(text, "secret") {
			t.Errorf("%q: %s", answer, text)
		}
	}
}

// TestProxyOverTLS: the proxy is known by an authority of the system, what is
// behind it by its own key; neither is taken for the other.
func TestProxyOverTLS(t *testing.T) {
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "hello") }))
	defer server.Close()
	address := tunnel(t, "", server.TLS)
	u, _ := url.Parse("https://" + address)
	p := &Proxy{choose: func(*url.URL) (*url.URL, error) { return u, nil }, tls: []string{address}}
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	client := &http.Client{Transport: transport(p, &tls.Config{RootCAs: roots})}
	_, err := client.Get(server.URL)
	// The test's certificate is none of the system's: the proxy is refused, and not
	// because it lacks the pins of what is behind it.
	var unknown x509.UnknownAuthorityError
	if !errors.As(err, &unknown) {
		t.Errorf("%v", err)
	}
}

func TestExplain(t *testing.T) {
	for want, err := range map[string]error{
		"no answer in time":                                            context.DeadlineExceeded,
		"the connection was cut":                                       io.ErrUnexpectedEOF,
		"the name x.example cannot be resolved: absent":                &net.DNSError{Name: "x.example", Err: "absent"},
		"the name of the proxy, p.example, cannot be resolved: absent": &net.OpError{Op: "proxyconnect", Err: &net.DNSError{Name: "p.example", Err: "absent"}},
		"does not speak TLS":                                           tls.RecordHeaderError{Msg: "first record does not look like a TLS handshake"},
		"TLS inspection in the path":                                   &onboarding.InterceptedError{Issuer: "CN=x", Subject: "CN=y"},
	} {
		if got := Explain(&url.Error{Op: "Get", URL: "https://x", Err: err}); !strings.Contains(got, want) {
			t.Errorf("%v: %q, want %q", err, got, want)
		}
	}
}

func TestProbe(t *testing.T) {
	closed, err := loopback.Address()
	if err != nil {
		t.Fatal(err)
	}
	none := func() (*Proxy, error) {
		return &Proxy{choose: func(*url.URL) (*url.URL, error) { return nil, nil }}, nil
	}
	for address, want := range map[string]string{
		"http://" + closed:              "tcp",
		"http://does-not-exist.invalid": "name",
		"http://[":                      "name",
	} {
		p := &Probe{URL: address}
		if _, ok := p.Reach(t.Context(), none); ok {
			t.Errorf("%s is reached", address)
		}
		if last := p.Results[len(p.Results)-1]; last.OK || last.Step != want || last.Hint == "" {
			t.Errorf("%s: %+v", address, last)
		}
	}
}
