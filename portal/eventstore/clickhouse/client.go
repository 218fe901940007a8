package clickhouse

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/bulwarkhq/bulwark/portal/hunting"
)

// client asks the servers over their HTTP interface (ClickHouse documentation,
// "HTTP Interface"), which servers from 2018 to today answer alike and every proxy
// understands.
type client struct {
	cfg  Config
	http *http.Client

	mu        sync.Mutex
	endpoints []*endpoint
	// nextRead and nextWrite are the endpoints to begin with. Each has its own turn:
	// else as many reads as there are servers before each group would send all groups
	// to the same one.
	nextRead, nextWrite int
}

// endpoint is a server.
type endpoint struct {
	address string
	// shard is the path of the shard's table deliveries; empty until it was asked.
	shard string
	// rest is until when it is asked last, because it did not answer.
	rest time.Time
}

// Bounds of the conversation.
const (
	maxErrorText = 4096
	dialTime     = 5 * time.Second
	// restTime is how long a server is asked last that did not answer.
	restTime = 10 * time.Second
	// maxStatement is what a server may be given as a statement, in bytes.
	maxStatement = 16 << 20
	// queryTime is how long a statement may take that has no other deadline,
	// readTime how long a server may take for what the writer must know.
	queryTime = 2 * time.Minute
	readTime  = 3 * dialTime
)

// Error is what a server answered.
type Error struct {
	// Code is ClickHouse's number for the error; 0 when the server did not say.
	Code    int
	Message string
}

// Error returns the server's words.
func (e *Error) Error() string { return e.Message }

// Numbers of errors (ClickHouse, ErrorCodes.cpp).
const (
	codeTimeout           = 159 // TIMEOUT_EXCEEDED: also of servers that did not define yet what they were told
	codeUnsatisfiedQuorum = 286 // UNSATISFIED_QUORUM_FOR_PREVIOUS_WRITE
)

var errorForm = regexp.MustCompile(`^Code: (\d+)[.,]`)

// serverError makes an error of a server's words.
func serverError(text string) *Error {
	e := &Error{}
	if m := errorForm.FindStringSubmatch(text); m != nil {
		e.Code, _ = strconv.Atoi(m[1])
	}
	text = strings.ToValidUTF8(text, "\uFFFD")
	if at := strings.Index(text, ", e.what() = "); at >= 0 {
		text = text[:at]
	}
	text = strings.Replace(text, ", e.displayText() = DB::Exception", "", 1)
	e.Message = "ClickHouse: " + strings.Join(strings.Fields(text), " ")
	return e
}

func newClient(cfg Config) *client {
	first := rand.IntN(len(cfg.Endpoints)) //nolint:gosec // it spreads the load
	c := &client{cfg: cfg, nextRead: first, nextWrite: first, http: &http.Client{
		Transport: &http.Transport{
			DialContext:         (&net.Dialer{Timeout: dialTime, KeepAlive: 15 * time.Second}).DialContext,
			MaxIdleConnsPerHost: 16, IdleConnTimeout: 2 * time.Second, // servers close after 3
			TLSHandshakeTimeout: dialTime, DisableCompression: true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	for _, address := range cfg.Endpoints {
		c.endpoints = append(c.endpoints, &endpoint{address: address})
	}
	return c
}

func (c *client) close() { c.http.CloseIdleConnections() }

// order returns the endpoints in the order in which they should be asked: each
// time of a turn, which is c's nextRead or nextWrite, from the next one on, those
// that did not answer lately last.
func (c *client) order(turn *int) []*endpoint {
	c.mu.Lock()
	defer c.mu.Unlock()
	*turn = (*turn + 1) % len(c.endpoints)
	now := time.Now()
	var up, down []*endpoint
	for i := range c.endpoints {
		e := c.endpoints[(*turn+i)%len(c.endpoints)]
		if now.Before(e.rest) {
			down = append(down, e)
		} else {
			up = append(up, e)
		}
	}
	return append(up, down...)
}

// silent notes that an endpoint did not answer.
func (c *client) silent(e *endpoint) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e.rest = time.Now().Add(restTime)
}

// avoid has the servers of a shard asked last for a while: one of them lets the
// others wait.
func (c *client) avoid(e *endpoint) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, o := range c.endpoints {
		if o == e || (e.shard != "" && o.shard == e.shard) {
			o.rest = time.Now().Add(restTime)
		}
	}
}

// isOf notes of which shard an endpoint is.
func (c *client) isOf(e *endpoint, shard string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e.shard = shard
}

// post sends a statement, with data behind it, and returns the answer's body. What
// the server refused is an *Error; all others mean that it is not known what it did.
//
// Sets are tables that the statement may name, which live as long as it does
// (ClickHouse documentation, "External Data for Query Processing"); with them there
// is no data.
func (c *client) post(ctx context.Context, e *endpoint, settings map[string]string, statement string, data []byte, sets ...set) (io.ReadCloser, error) {
	values := url.Values{"database": {c.cfg.Database}}
	for name, value := range settings {
		values.Set(name, value)
	}
	var body io.Reader = strings.NewReader(statement)
	form := ""
	switch {
	case data != nil:
		values.Set("query", statement)
		body = bytes.NewReader(data)
	case len(sets) > 0:
		text, kind, err := formOf(statement, sets, values)
		if err != nil {
			return nil, err
		}
		body, form = bytes.NewReader(text), kind
		values.Set("max_query_size", strconv.Itoa(maxStatement))
	default:
		values.Set("max_query_size", strconv.Itoa(maxStatement))
	}
	u := url.URL{Scheme: "http", Host: e.address, Path: "/", RawQuery: values.Encode()}
	if c.cfg.TLS {
		u.Scheme = "https"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), body)
	if err != nil {
		return nil, err
	}
	if form != "" {
		req.Header.Set("Content-Type", form)
	}
	req.Header.Set("X-ClickHouse-User", c.cfg.User)
	req.Header.Set("X-ClickHouse-Key", c.cfg.Password)
	res, err := c.http.Do(req)
	if err != nil {
		if !errors.Is(err, context.Canceled) {
			c.silent(e)
		}
		var wrapped *url.Error // it has the whole address with the statement
		if errors.As(err, &wrapped) {
			err = wrapped.Err
		}
		return nil, fmt.Errorf("ClickHouse server %s: %w", e.address, err)
	}
	if res.StatusCode == http.StatusOK {
		return res.Body, nil
	}
	defer res.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(res.Body, maxErrorText))
	if len(text) == 0 {
		text = []byte(res.Status)
	}
	return nil, fmt.Errorf("server %s: %w", e.address, serverError(string(text)))
}

// timed gives a statement its deadline when the context has none.
func timed(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, queryTime)
}

// do runs a statement at an endpoint.
func (c *client) do(ctx context.Context, e *endpoint, settings map[string]string, statement string, data []byte) error {
	ctx, cancel := timed(ctx)
	defer cancel()
	body, err := c.post(ctx, e, settings, statement, data)
	if err != nil {
		return err
	}
	defer body.Close()
	text, err := io.ReadAll(io.LimitReader(body, maxErrorText))
	if err != nil {
		return fmt.Errorf("ClickHouse server %s: %w", e.address, err)
	}
	if strings.HasPrefix(string(text), errorStart) {
		return fmt.Errorf("server %s: %w", e.address, serverError(string(text)))
	}
	return nil
}

// kinds are the columns that an answer must have, a letter for each: t for texts, n
// for numbers. Empty for any.
type kinds string

// check refuses a block with other columns.
func (k kinds) check(b *hunting.Block) error {
	if k == "" {
		return nil
	}
	if len(b.Columns) != len(k) {
		return fmt.Errorf("the answer has %d columns, %d were asked for", len(b.Columns), len(k))
	}
	for i := range b.Columns {
		if v := &b.Columns[i]; (k[i] == 't' && len(v.Texts) != b.Rows) || (k[i] == 'n' && len(v.Ints) != b.Rows) {
			return fmt.Errorf("column %d of the answer is of another type than was asked for", i+1)
		}
	}
	return nil
}

// selectAt runs a SELECT at an endpoint and gives each block of the answer to each:
// it has rows, and the columns of those kinds.
func (c *client) selectAt(ctx context.Context, e *endpoint, query string, of kinds, each func(*hunting.Block) error, sets ...set) error {
	ctx, cancel := timed(ctx)
	defer cancel()
	deadline, _ := ctx.Deadline()
	settings := map[string]string{"max_execution_time": strconv.Itoa(max(1, int(time.Until(deadline).Seconds())+1))}
	body, err := c.post(ctx, e, settings, query+" FORMAT Native", nil, sets...)
	if err != nil {
		return err
	}
	defer body.Close()
	r := newReader(body)
	for {
		b, err := r.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("server %s: %w", e.address, err)
		}
		if b.Rows == 0 {
			continue
		}
		if err := of.check(b); err != nil {
			return fmt.Errorf("server %s: %w", e.address, err)
		}
		if err := each(b); err != nil {
			return err
		}
	}
}

// query runs a SELECT at the first endpoint that answers.
func (c *client) query(ctx context.Context, query string, of kinds, each func(*hunting.Block) error, sets ...set) error {
	return c.try(ctx, func(e *endpoint) (bool, error) { return c.ask(ctx, e, query, of, each, sets...) })
}

// read is query for what is answered soon: no server may take longer than readTime.
func (c *client) read(ctx context.Context, query string, of kinds, each func(*hunting.Block) error) error {
	return c.try(ctx, func(e *endpoint) (bool, error) {
		ctx, cancel := context.WithTimeout(ctx, readTime)
		defer cancel()
		return c.ask(ctx, e, query, of, each)
	})
}

// ask is selectAt that also says whether a block was given.
func (c *client) ask(ctx context.Context, e *endpoint, query string, of kinds, each func(*hunting.Block) error, sets ...set) (given bool, err error) {
	err = c.selectAt(ctx, e, query, of, func(b *hunting.Block) error {
		given = true
		return each(b)
	}, sets...)
	return given, err
}

// try asks one endpoint after the other, until one answers or has said something.
func (c *client) try(ctx context.Context, ask func(*endpoint) (given bool, err error)) error {
	var failed []error
	for _, e := range c.order(&c.nextRead) {
		given, err := ask(e)
		if err == nil {
			return nil
		}
		failed = append(failed, err)
		var said *Error
		if given || ctx.Err() != nil || errors.As(err, &said) {
			break
		}
	}
	return errors.Join(failed...)
}
