// Package rest is a client of the portal's REST API (docs/portal/rest.md,
// api/openapi). It knows how to ask, page and wait; what the answers hold is in
// the OpenAPI description, and as Go types in api/restclient.
package rest

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

const (
	maxAnswer   = 256 << 20 // bytes of a JSON answer
	maxAttempts = 4         // of a request that the portal has no time for
	maxWait     = 2 * time.Minute
	pageSize    = 1000
)

// Error is a refusal of the portal.
type Error struct {
	Status int // of HTTP
	// Code is the portal's, e.g. ResourceNotFound; Target names the option, header
	// or member that is wrong, where it is one.
	Code, Message, Target string
	wait                  time.Duration
}

// Error is the portal's message.
func (e *Error) Error() string {
	if e.Target != "" && !strings.Contains(e.Message, e.Target) {
		return fmt.Sprintf("the portal refuses it: %s: %s (%s)", e.Target, e.Message, e.Code)
	}
	return fmt.Sprintf("the portal refuses it: %s (%s)", e.Message, e.Code)
}

// Client asks one portal. It is safe for concurrent use.
type Client struct {
	base  string
	token string
	http  *http.Client
	sleep func(context.Context, time.Duration) error
}

// New returns a Client of the portal at address, https://host[:port]. roots are the
// authorities that may speak for it; nil for those of the system.
func New(address, token string, roots *x509.CertPool) (*Client, error) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "https" || u.Hostname() == "" || u.RawQuery != "" || strings.Trim(u.Path, "/") != "" {
		return nil, fmt.Errorf("the portal's address %q is not of the form https://host[:port]", address)
	}
	if token == "" || strings.ContainsAny(token, " \t\r\n") {
		return nil, errors.New("the API token is empty or has spaces in it")
	}
	tr, ok := http.DefaultTransport.(*http.Transport)
	if !ok {
		return nil, errors.New("the standard HTTP transport was replaced")
	}
	tr = tr.Clone()
	tr.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	tr.ResponseHeaderTimeout = 5 * time.Minute // an answer to a query begins when it has run
	return &Client{
		base: "https://" + u.Host, token: token, sleep: pause,
		// The token goes to the portal and nowhere else.
		http: &http.Client{Transport: tr, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
	}, nil
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Do sends a request, with in as JSON unless it is nil, and decodes the answer to
// out unless that is nil. It waits and asks again when the portal says that it was
// asked too often. A refusal is an *Error.
func (c *Client) Do(ctx context.Context, method, path string, query url.Values, in, out any) error {
	resp, err := c.ask(ctx, method, path, query, in)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if out == nil {
		return nil
	}
	text, err := io.ReadAll(&bounded{resp.Body, maxAnswer})
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	if err := json.Unmarshal(text, out); err != nil {
		return fmt.Errorf("%s %s: the answer is no JSON as expected: %w", method, path, err)
	}
	return nil
}

// Download is Do for an answer that is a file.
func (c *Client) Download(ctx context.Context, method, path string, in any, to io.Writer) error {
	resp, err := c.ask(ctx, method, path, nil, in)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(to, resp.Body); err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	return nil
}

// Address is the portal's, https://host[:port].
func (c *Client) Address() string { return c.base }

// Send sends a request that was made elsewhere, with the token, as Do does: it
// waits and asks again, a refusal is an *Error. An answer in JSON is cut with an
// error where it becomes too long; files have no bound. The caller closes the
// answer's body.
func (c *Client) Send(req *http.Request) (*http.Response, error) {
	if req.URL.Scheme+"://"+req.URL.Host != c.base {
		return nil, fmt.Errorf("a request to %s://%s: the token is for %s only", req.URL.Scheme, req.URL.Host, c.base)
	}
	resp, err := c.try(req)
	if err != nil {
		return nil, err
	}
	if strings.Contains(resp.Header.Get("Content-Type"), "json") {
		resp.Body = &bounded{resp.Body, maxAnswer}
	}
	return resp, nil
}

// bounded is a body of which no more than left bytes are read.
type bounded struct {
	io.ReadCloser
	left int
}

func (b *bounded) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p[:min(len(p), b.left+1)])
	if b.left -= n; b.left < 0 {
		return 0, fmt.Errorf("the answer has more than %d bytes: ask for less with $top or $filter", maxAnswer)
	}
	return n, err
}

// ask makes a request and sends it.
func (c *Client) ask(ctx context.Context, method, path string, query url.Values, in any) (*http.Response, error) {
	address := c.base + path
	if len(query) > 0 {
		address += "?" + query.Encode()
	}
	var r io.Reader
	if in != nil {
		body, err := json.Marshal(in)
		if err != nil {
			return nil, fmt.Errorf("%s %s: %w", method, path, err)
		}
		r = bytes.NewReader(body)
	}
	req, err := http.NewRequestWithContext(ctx, method, address, r)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", method, path, err)
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	return c.try(req)
}

// try sends the request until it is answered with anything but "too often".
func (c *Client) try(req *http.Request) (*http.Response, error) {
	for attempt := 1; ; attempt++ {
		resp, err := c.once(req)
		var refused *Error
		if !errors.As(err, &refused) || refused.Status != http.StatusTooManyRequests || attempt == maxAttempts {
			return resp, err
		}
		if req.Body != nil {
			if req.GetBody == nil { // cannot be sent twice
				return nil, err
			}
			body, again := req.GetBody()
			if again != nil {
				return nil, errors.Join(err, again)
			}
			req = req.Clone(req.Context())
			req.Body = body
		}
		if err := c.sleep(req.Context(), min(max(refused.wait, time.Second), maxWait)); err != nil {
			return nil, err
		}
	}
}

// once sends the request; a refusal is an *Error.
func (c *Client) once(req *http.Request) (*http.Response, error) {
	req.Header.Set("Authorization", "Bearer "+c.token)
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("asking the portal: %w", err)
	}
	if resp.StatusCode/100 == 2 {
		return resp, nil
	}
	defer resp.Body.Close()
	return nil, refusal(resp)
}

// refusal reads the error of an answer.
func refusal(resp *http.Response) error {
	e := &Error{Status: resp.StatusCode, Code: strings.ReplaceAll(http.StatusText(resp.StatusCode), " ", ""), Message: resp.Status}
	if s, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil {
		e.wait = time.Duration(min(max(s, 0), 3600)) * time.Second
	}
	var answer struct {
		Error struct{ Code, Message, Target string }
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err == nil && json.Unmarshal(text, &answer) == nil && answer.Error.Code != "" {
		e.Code, e.Message, e.Target = answer.Error.Code, answer.Error.Message, answer.Error.Target
	}
	return e
}

// List calls each with the elements of a list, page by page, at most limit of
// them. query has $filter and the like; $top, $skip and their pages are List's.
func (c *Client) List(ctx context.Context, path string, query url.Values, limit int, each func(json.RawMessage) error) error {
	for v, err := range Pages(limit, func(top, skip int) ([]json.RawMessage, bool, error) {
		q := url.Values{}
		for k, v := range query {
			q[k] = v
		}
		q.Set("$top", strconv.Itoa(top))
		q.Set("$skip", strconv.Itoa(skip))
		var page struct {
			Value []json.RawMessage `json:"value"`
			Next  string            `json:"@odata.nextLink"`
		}
		err := c.Do(ctx, http.MethodGet, path, q, nil, &page)
		return page.Value, page.Next != "", err
	}) {
		if err != nil {
			return err
		}
		if err := each(v); err != nil {
			return err
		}
	}
	return nil
}

// Pages returns the elements of a list, at most limit of them, asking page by page:
// page returns at most top elements after the first skip ones, and whether the
// portal has more. An error of page is the last that is returned.
func Pages[T any](limit int, page func(top, skip int) (values []T, more bool, err error)) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		for done := 0; done < limit; {
			values, more, err := page(min(limit-done, pageSize), done)
			if err != nil {
				var none T
				yield(none, err)
				return
			}
			for _, v := range values {
				if !yield(v, nil) {
					return
				}
			}
			// The pages of some lists are shorter than was asked for. An empty one that
			// promises more would never end.
			if done += len(values); !more || len(values) == 0 {
				return
			}
		}
	}
}

// Quote makes a string literal of a $filter.
func Quote(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }
