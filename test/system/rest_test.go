//go:build system

package system

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// rest is a client of the portal's REST API.
type rest struct {
	p       *product
	address string
	client  *http.Client
	token   string
}

// newRest makes one without a token; dial is nil for the test's own network.
func newRest(p *product, address string, dial func(context.Context, string, string) (net.Conn, error)) rest {
	return rest{p: p, address: address, client: &http.Client{Timeout: time.Minute, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, // the agent's business, tested elsewhere
		DialContext:     dial,
	}}}
}

// rest is a client in the portal's namespace.
func (n *isolated) rest() rest {
	return newRest(n.product, portalHost+":"+portalPort, func(_ context.Context, _, address string) (net.Conn, error) { return dial(n.world, address) })
}

// do makes a call and returns status and body. It waits as long as the portal takes
// no more requests in this minute.
func (r *rest) do(method, path, body string) (status int, out []byte) {
	r.p.t.Helper()
	r.p.until("the portal takes a request", func() error {
		if status, out = r.once(method, path, body); status == http.StatusTooManyRequests {
			time.Sleep(2 * time.Second)
			return fmt.Errorf("%d %s", status, out)
		}
		return nil
	})
	return status, out
}

func (r *rest) once(method, path, body string) (int, []byte) {
	r.p.t.Helper()
	req, err := http.NewRequest(method, "https://"+r.address+path, strings.NewReader(body))
	if err != nil {
		r.p.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+r.token)
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := r.client.Do(req)
	if err != nil {
		r.p.t.Fatal(err)
	}
	defer resp.Body.Close()
	out, err := io.ReadAll(io.LimitReader(resp.Body, 64<<20))
	if err != nil {
		r.p.t.Fatal(err)
	}
	return resp.StatusCode, out
}
