// Package rest is a client of the portal's REST API (docs/portal/rest.md,
// api/openapi). It knows how to ask, page and wait; what the answers hold is in
// the OpenAPI description.
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
	return c.try(ctx, method, path, query, in, func(resp *http.Response) error {
		if out == nil {
			return nil
		}
		text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
		if err != nil {
			return fmt.Errorf("%s %s: %w", method, path, err)
		}
		if len(text) > maxAnswer {
			return fmt.Errorf("%s %s: the answer has more than %d bytes: ask for less with $top or $filter", method, path, maxAnswer)
		}
		if err := json.Unmarshal(text, out); err != nil {
			return fmt.Errorf("%s %s: the answer is no JSON as expected: %w", method, path, err)
		}
		return nil
	})
}

// Download is Do for an answer that is a file.
func (c *Client) Download(ctx context.Context, method, path string, in any, to io.Writer) error {
	return c.try(ctx, method, path, nil, in, func(resp *http.Response) error {
		if _, err := io.Copy(to, resp.Body); err != nil {
			return fmt.Errorf("%s %s: %w", method, path, err)
		}
		return nil
	})
}

// try sends the request until it is answered with anything but "too often".
func (c *Client) try(ctx context.Context, method, path string, query url.Values, in any, read func(*http.Response) error) error {
	var body []byte
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return fmt.Errorf("%s %s: %w", method, path, err)
		}
	}
	for attempt := 1; ; attempt++ {
		err := c.once(ctx, method, path, query, body, read)
		var refused *Error
		if !errors.As(err, &refused) || refused.Status != http.StatusTooManyRequests || attempt == maxAttempts {
			return err
		}
		if err := c.sleep(ctx, min(max(refused.wait, time.Second), maxWait)); err != nil {
			return err
		}
	}
}

func (c *Client) once(ctx context.Context, method, path string, query url.Values, body []byte, read func(*http.Response) error) error {
	address := c.base + path
	if len(query) > 0 {
		address += "?" + query.Encode()
	}
	var r io.Reader
	if body != nil {
		r = bytes.NewReader(body)
	}
	req, err := http.NewRequestWithContext(ctx, method, address, r)
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	req.Header.Set("Authorization", "Bearer "+c.token)
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return fmt.Errorf("asking the portal: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		return refusal(resp)
	}
	return read(resp)
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
	for done := 0; done < limit; {
		q := url.Values{}
		for k, v := range query {
			q[k] = v
		}
		want := min(limit-done, pageSize)
		q.Set("$top", strconv.Itoa(want))
		q.Set("$skip", strconv.Itoa(done))
		var page struct {
			Value []json.RawMessage `json:"value"`
			// Next is there when there may be more; pages of some lists are shorter than
			// was asked for.
			Next string `json:"@odata.nextLink"`
		}
		if err := c.Do(ctx, http.MethodGet, path, q, nil, &page); err != nil {
			return err
		}
		for _, v := range page.Value {
			if err := each(v); err != nil {
				return err
			}
		}
		if done += len(page.Value); page.Next == "" {
			break
		}
	}
	return nil
}

// Quote makes a string literal of a $filter.
func Quote(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }
