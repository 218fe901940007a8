package clickhouse

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/bulwarkhq/bulwark/atomicfile"
	"github.com/bulwarkhq/bulwark/portal/eventstore"
)

// Config of the store.
type Config struct {
	// Endpoints are the HTTP addresses, host:port, of the servers. Of a cluster
	// all should be named: what is written goes to any of them.
	Endpoints []string
	// TLS has the servers asked over HTTPS.
	TLS            bool
	User, Password string
	Database       string
	// Cluster is the name of the cluster in the servers' configuration; empty for a
	// single server, and only there.
	Cluster string
	// MaxBytes is how large the tables of events may become, together and counting
	// each event once however many replicas have it; then the oldest day goes. Zero
	// for no limit.
	MaxBytes int64

	// Retention is how long events are kept after they arrived; zero for ever.
	Retention time.Duration
	// Registry knows which portals live; nil for none: then it is time that says what
	// became of the groups of others.
	Registry eventstore.Registry
	// Gather is how long at least lies between two times that batches are stored;
	// zero for a second.
	Gather time.Duration
	Logger *slog.Logger
	// Now is time.Now outside of tests.
	Now func() time.Time
}

// Scheme begins the connection strings of this store.
const Scheme = "clickhouse"

// nameForm is that of the names of databases and clusters.
var nameForm = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,63}$`)

// maxPasswordFile bounds a file with a password, in bytes.
const maxPasswordFile = 4096

// Parse reads a connection string:
//
//	clickhouse://[user[:password]@]host[:port][,host[:port]...]/database[?option=value&...]
//
// with the options cluster, secure (true for HTTPS), max_bytes and password_file.
// The ports are those of HTTP; 8123 when none is given, 8443 with secure. Errors do
// not contain the password.
func Parse(text string) (Config, error) {
	c := Config{}
	rest, ok := strings.CutPrefix(text, Scheme+"://")
	if !ok {
		return c, fmt.Errorf("the address of the event store does not begin with %s://", Scheme)
	}
	rest, options, _ := strings.Cut(rest, "?")
	if strings.Contains(options, "@") { // what looks like options may be of a password
		return c, errors.New("the address of the event store has an @ behind a ?: a ? in the password must be written %3F, an @ in an option %40")
	}
	if at := strings.LastIndex(rest, "@"); at >= 0 {
		user, password, _ := strings.Cut(rest[:at], ":")
		var err1, err2 error
		c.User, err1 = url.PathUnescape(user)
		c.Password, err2 = url.PathUnescape(password)
		if err1 != nil || err2 != nil {
			return c, errors.New("the user or the password in the address of the event store has a % that is no escape: write it as %25")
		}
		rest = rest[at+1:]
	}
	hosts, database, ok := strings.Cut(rest, "/")
	if c.Database = database; !ok || !nameForm.MatchString(database) {
		return c, fmt.Errorf("the address of the event store needs a database of letters, digits and _ behind its hosts, such as %s://host:8123/bulwark", Scheme)
	}
	values, err := url.ParseQuery(options)
	if err != nil {
		return c, errors.New("the options in the address of the event store are not of the form ?name=value&name=value")
	}
	for name, list := range values {
		if err := c.option(name, list[len(list)-1]); err != nil {
			return c, err
		}
	}
	port := "8123"
	if c.TLS {
		port = "8443"
	}
	for host := range strings.SplitSeq(hosts, ",") {
		if !strings.Contains(strings.TrimPrefix(host[strings.LastIndex(host, "]")+1:], "]"), ":") {
			host = net.JoinHostPort(strings.Trim(host, "[]"), port)
		}
		name, number, err := net.SplitHostPort(host)
		if n, perr := strconv.ParseUint(number, 10, 16); err != nil || perr != nil || n == 0 || name == "" || strings.ContainsAny(name, "/?#@ ") {
			return c, fmt.Errorf("%q in the address of the event store is not of the form host[:port]", host)
		}
		c.Endpoints = append(c.Endpoints, host)
	}
	return c, c.check()
}

// check refuses servers that nothing joins: each would have a part of the events.
func (c *Config) check() error {
	if len(c.Endpoints) > 1 && c.Cluster == "" {
		return errors.New("the address of the event store has several servers: they need cluster=NAME")
	}
	return nil
}

func (c *Config) option(name, value string) error {
	switch name {
	case "cluster":
		if c.Cluster = value; !nameForm.MatchString(value) {
			return fmt.Errorf("the cluster %.64q of the event store is no name of letters, digits and _", value)
		}
	case "secure":
		on, err := strconv.ParseBool(value)
		if err != nil {
			return fmt.Errorf("secure=%.64q in the address of the event store: use true or false", value)
		}
		c.TLS = on
	case "max_bytes":
		n, err := strconv.ParseInt(value, 10, 64)
		if err != nil || n < 1<<30 {
			return fmt.Errorf("max_bytes=%.64q in the address of the event store: a number of bytes, at least %d, is expected", value, 1<<30)
		}
		c.MaxBytes = n
	case "password_file":
		text, err := atomicfile.Read(value, maxPasswordFile)
		if err != nil {
			return fmt.Errorf("password of the event store: %w", err)
		}
		if c.Password = strings.TrimRight(string(text), "\r\n"); c.Password == "" {
			return fmt.Errorf("password of the event store: %s is empty", value)
		}
	default:
		return fmt.Errorf("there is no option %.64q of the event store: cluster, secure, max_bytes and password_file are possible", name)
	}
	return nil
}

func (c *Config) complete() {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Gather == 0 {
		c.Gather = time.Second
	}
}
