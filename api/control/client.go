package control

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"syscall"
	"time"
)

// ErrNoDaemon is wrapped by errors that mean that no daemon answers at the
// socket.
var ErrNoDaemon = errors.New("could not connect to the Bulwark daemon")

// DialTimeout bounds connecting to the socket.
const DialTimeout = 5 * time.Second

// Client calls the local API. It is safe for concurrent use.
type Client struct {
	// OnUnlicensed, when set before the first call, is called once when the
	// daemon says that the host is not enrolled, before the call returns or
	// passes on anything.
	OnUnlicensed func()

	socket     string
	http       *http.Client
	unlicensed sync.Once
}

// Dial prepares a client of the daemon at the unix socket. It does not connect
// yet: the first call does. Close releases its connections.
func Dial(socket string) *Client {
	dialer := net.Dialer{Timeout: DialTimeout}
	return &Client{socket: socket, http: &http.Client{
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return dialer.DialContext(ctx, "unix", socket)
			},
			MaxIdleConnsPerHost: 4,
			IdleConnTimeout:     time.Minute,
			DisableCompression:  true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// Close releases the client's idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

func (c *Client) do(ctx context.Context, method, path string, in any) (*http.Response, error) {
	var body io.Reader
	if in != nil {
		data, err := json.Marshal(in)
		if err != nil {
			return nil, fmt.Errorf("encode request for %s: %w", path, err)
		}
		body = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://bulwark"+path, body)
	if err != nil {
		return nil, fmt.Errorf("request %s: %w", path, err)
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.transportError(ctx, path, err)
	}
	if resp.Header.Get(LicenseHeader) == "missing" && c.OnUnlicensed != nil {
		c.unlicensed.Do(c.OnUnlicensed)
	}
	if resp.StatusCode/100 == 2 {
		return resp, nil
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, MaxFrameBytes))
	if err != nil {
		return nil, c.transportError(ctx, path, err)
	}
	var answer ErrorBody
	if err := json.Unmarshal(data, &answer); err != nil || answer.Error == nil {
		return nil, fmt.Errorf("the daemon answered %s with status %s; are the daemon and this program of the same version?", path, resp.Status)
	}
	return nil, answer.Error
}

// transportError tells a daemon that does not run from one that broke off.
func (c *Client) transportError(ctx context.Context, path string, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" {
		if errors.Is(err, syscall.EACCES) {
			return &Error{Code: PermissionDenied, Message: "no permission to use " + c.socket, Hint: "run as root"}
		}
		return fmt.Errorf("%w at %s: %w", ErrNoDaemon, c.socket, op.Err)
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) {
		return fmt.Errorf("%w at %s: it ended the connection: %w", ErrNoDaemon, c.socket, err)
	}
	return fmt.Errorf("ask the daemon for %s: %w", path, err)
}

func call[Out any](ctx context.Context, c *Client, method, path string, in any) (Out, error) {
	var out Out
	resp, err := c.do(ctx, method, path, in)
	if err != nil {
		return out, err
	}
	defer resp.Body.Close()
	limited := &io.LimitedReader{R: resp.Body, N: MaxResponseBytes}
	if err := json.NewDecoder(limited).Decode(&out); err != nil {
		if limited.N == 0 {
			return out, fmt.Errorf("the answer to %s is larger than %d bytes", path, int64(MaxResponseBytes))
		}
		if ctx.Err() != nil {
			return out, ctx.Err()
		}
		return out, c.transportError(ctx, path, fmt.Errorf("read answer: %w", err))
	}
	return out, nil
}

// stream calls each for every value of a stream until it ends, fails, or each
// returns an error, which is passed on.
func stream[T any](ctx context.Context, c *Client, method, path string, in any, each func(T) error) error {
	resp, err := c.do(ctx, method, path, in)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(make([]byte, 0, 16<<10), MaxFrameBytes)
	for lines.Scan() {
		line := bytes.TrimSpace(lines.Bytes())
		if len(line) == 0 {
			continue // keep-alive
		}
		var frame Frame
		if err := json.Unmarshal(line, &frame); err != nil {
			return fmt.Errorf("stream %s: %w", path, err)
		}
		if frame.Error != nil {
			return frame.Error
		}
		var v T
		if err := json.Unmarshal(frame.Value, &v); err != nil {
			return fmt.Errorf("stream %s: %w", path, err)
		}
		if err := each(v); err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil {
		return c.transportError(ctx, path, err)
	}
	return nil
}

func segment(s string) (string, error) {
	if s == "" || s == "." || s == ".." || strings.ContainsRune(s, 0) {
		return "", &Error{Code: InvalidArgument, Message: fmt.Sprintf("%q is no valid name or id", s)}
	}
	return url.PathEscape(s), nil
}
