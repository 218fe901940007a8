// Package export hands what the portal learns to other systems: alerts, and the
// entries of the audit log, to webhooks, syslog receivers, Kafka and collectors of
// OpenTelemetry (a SIEM, a chat, a pipeline).
//
// The queue is the control store itself: every destination has a cursor over the
// log of alerts and one over the audit log, which move only after the receiver
// has taken what lies between. A restart, a receiver that is away and a crash
// therefore lose nothing; the last may repeat what was on its way (at least
// once). A failed delivery is tried again after a wait that grows to MaxDelay.
//
// Receivers are named by administrators and may have private addresses. No
// redirect is followed, and of an answer at most maxAnswer bytes are read.
package export

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/bulwarkhq/bulwark/event"
	"github.com/bulwarkhq/bulwark/portal/account"
	"github.com/bulwarkhq/bulwark/portal/alert"
	"github.com/bulwarkhq/bulwark/portal/inventory"
)

// Kinds of destinations.
const (
	Webhook = "webhook" // JSON of our own (record.go)
	Slack   = "slack"   // an incoming webhook of Slack
	Teams   = "teams"   // a workflow of Microsoft Teams that takes adaptive cards
	Syslog  = "syslog"  // RFC 5424
	Kafka   = "kafka"   // a topic of Kafka or of what speaks its protocol
	OTLP    = "otlp"    // log records of OpenTelemetry by HTTP
)

// Transports of syslog, and but for UDP of Kafka.
const (
	UDP = "udp" // RFC 5426
	TCP = "tcp" // RFC 6587, octet counting
	TLS = "tls" // RFC 5425
)

// Mechanisms by which the portal signs in to Kafka (SASL).
const (
	Plain    = "plain"         // RFC 4616, over TLS only
	Scram256 = "scram-sha-256" // RFC 7677
	Scram512 = "scram-sha-512"
)

// Formats of the message of syslog.
const (
	JSON = "json"
	CEF  = "cef"
)

// Kinds returns the kinds of destinations in the order in which a form offers
// them.
func Kinds() []string { return []string{Webhook, Slack, Teams, Syslog, Kafka, OTLP} }

// Mechanisms returns the values of Destination.Mechanism besides none.
func Mechanisms() []string { return []string{Plain, Scram256, Scram512} }

// Transports returns the values of Destination.Transport.
func Transports() []string { return []string{UDP, TCP, TLS} }

// Formats returns the values of Destination.Format.
func Formats() []string { return []string{JSON, CEF} }

// Limits of what people write, in bytes, and of destinations.
const (
	MaxDestinations = 32
	MaxName         = 100
	MaxURL          = 2000
	MinSecret       = 16
	MaxSecret       = 256
	MaxCA           = 32 << 10
	MaxBrokers      = 16
	MaxUser         = 128
	// DefaultFacility is local0.
	DefaultFacility = 16
)

// Errors.
var (
	ErrNotFound = errors.New("there is no such export destination")
	// ErrConflict means that somebody else has changed it meanwhile.
	ErrConflict = errors.New("somebody else has changed the export destination: load it again")
	ErrTaken    = errors.New("there is an export destination of this name already")
	ErrTooMany  = fmt.Errorf("there are %d export destinations already, which is the most", MaxDestinations)
)

// Invalid is a destination that cannot be kept; Target names the member as the
// REST API has it.
type Invalid struct{ Target, Message string }

func (e *Invalid) Error() string { return e.Message }

func invalid(target, format string, args ...any) error {
	return &Invalid{target, fmt.Sprintf(format, args...)}
}

// Destination is a receiver and what it gets.
type Destination struct {
	ID      string
	Version int // of the settings, from 1
	Name    string
	Kind    string
	Enabled bool
	// Alerts and Audit say what is exported; MinSeverity is the least of the
	// alerts.
	Alerts, Audit bool
	MinSeverity   event.Severity
	Settings
	Secrets
	// Given says which of the Secrets somebody has entered with a change: for Put
	// only, and not kept.
	Given Given
	// Sealed are the Secrets as they are stored.
	Sealed                 []byte
	Created, Updated       time.Time
	CreatedBy, UpdatedBy   string
	AlertCursor            int64 // the last alert that was delivered, a number of the log
	AuditCursor            int64 // the last entry of the audit log
	Delivered, Refused     int64
	Failures               int       // in a row
	Next                   time.Time // no try before
	LastSuccess, LastTried time.Time
	LastError              string // of the last try; empty when it went well
}

// Settings are what is no secret.
type Settings struct {
	// Address (host:port; of Kafka the first brokers, with commas between them) and
	// Transport are for syslog and Kafka, Format and Facility (0 to 23) for syslog.
	Address   string `json:"address,omitempty"`
	Transport string `json:"transport,omitempty"`
	Format    string `json:"format,omitempty"`
	Facility  int    `json:"facility,omitempty"`
	// Topic, Mechanism (empty: without signing in) and User are for Kafka.
	Topic     string `json:"topic,omitempty"`
	Mechanism string `json:"mechanism,omitempty"`
	User      string `json:"user,omitempty"`
	// CA are certificates in PEM that the receiver's must come from; empty for
	// those of the system.
	CA string `json:"ca,omitempty"`
}

// Secrets are encrypted in the store. The address of a webhook is one: whoever
// has that of Slack or Teams can write there.
type Secrets struct {
	URL string `json:"url,omitempty"`
	// Secret is the key of the signature, Authorization the value of that header.
	Secret        string `json:"secret,omitempty"`
	Authorization string `json:"authorization,omitempty"`
	// Password is that of User.
	Password string `json:"password,omitempty"`
}

// Given are the secrets that were entered anew, be it with the value they had.
type Given struct{ Secret, Authorization, Password bool }

// checkMoved refuses a change that would send secrets to another receiver than
// they were entered for: who may change destinations may not see them.
func checkMoved(d, before *Destination) error {
	// A password must not go to other brokers, nor by a weaker way to the same.
	if (d.Address != before.Address || d.Transport != before.Transport || d.Mechanism != before.Mechanism || d.CA != before.CA) &&
		d.Password != "" && d.Password == before.Password && !d.Given.Password {
		return invalid("password", "the way to the brokers is another one: enter the password again")
	}
	if d.URL == before.URL {
		return nil
	}
	if d.Secret != "" && d.Secret == before.Secret && !d.Given.Secret {
		return invalid("secret", "the URL is another one: enter the secret of the signature again, or remove it")
	}
	if d.Authorization != "" && d.Authorization == before.Authorization && !d.Given.Authorization {
		return invalid("authorization", "the URL is another one: enter the Authorization header again, or remove it")
	}
	return nil
}

// Target is where it goes, without secrets: only scheme and host of a URL.
func (d Destination) Target() string {
	switch d.Kind {
	case Syslog:
		return d.Transport + "://" + d.Address
	case Kafka:
		return d.Transport + "://" + d.Address + "/" + d.Topic
	}
	u, err := url.Parse(d.URL)
	if err != nil || u.Host == "" {
		return ""
	}
	return u.Scheme + "://" + u.Host + "/…"
}

// State of a destination in a word: Off, Failing, Ready (nothing was delivered
// yet) or Working.
func (d Destination) State() string {
	switch {
	case !d.Enabled:
		return "Off"
	case d.Failures > 0:
		return "Failing"
	case d.LastSuccess.IsZero():
		return "Ready"
	}
	return "Working"
}

// Queued is an alert with its number in the log.
type Queued struct {
	Seq   int64
	Alert alert.Alert
}

// Progress is what a delivery changed.
type Progress struct {
	AlertCursor, AuditCursor int64 // zero: as before
	Delivered, Refused       int64 // how many more
	// Tried is when it was tried; zero to change cursors and counts only. How it
	// went says nothing about other settings than those of Version, and is then
	// not kept.
	Tried    time.Time
	Version  int
	Failures int
	Next     time.Time
	Error    string // empty when it went well
}

// Store keeps destinations and is the queue. Implementations are safe for
// concurrent use.
type Store interface {
	// Destinations returns all by name, Destination one or ErrNotFound; Secrets
	// are sealed.
	Destinations(ctx context.Context) ([]Destination, error)
	Destination(ctx context.Context, id string) (Destination, error)
	// PutDestination stores a new one (Version 1), whose cursors begin at the end
	// of the logs, or the settings of one (the version before d.Version, else
	// ErrConflict), which is then due at once. ErrTaken: its name is another's.
	PutDestination(ctx context.Context, d Destination, entry account.Audit) error
	DeleteDestination(ctx context.Context, id string, entry account.Audit) error
	// Skip moves the cursors to the end of the logs.
	Skip(ctx context.Context, id string, entry account.Audit) error
	// Waiting counts what a destination has yet to get, up to a limit.
	Waiting(ctx context.Context, d *Destination, limit int) (int, error)
	// NextAlerts returns the alerts after a number that are at least that grave,
	// in the order in which they were stored, and the last number of the log.
	// Alerts of self-tests are not among them.
	NextAlerts(ctx context.Context, after int64, least event.Severity, limit int) ([]Queued, int64, error)
	// NextAudit returns the entries of the audit log after an id, in order.
	NextAudit(ctx context.Context, after int64, limit int) ([]account.Audit, error)
	// Tested writes the entry; after a test that arrived the destination is due.
	Tested(ctx context.Context, id string, arrived bool, entry account.Audit) error
	// Advance keeps the progress of a delivery. Cursors never go back. A
	// destination that is gone is no error.
	Advance(ctx context.Context, id string, p Progress) error
	// Exclusive runs a job unless another portal with the same store runs one of
	// that name, and says whether it did.
	Exclusive(ctx context.Context, name string, job func(context.Context) error) (ran bool, err error)
}

// check makes the settings fit to keep, or says what is wrong.
func check(d *Destination) error {
	d.Name = strings.TrimSpace(d.Name)
	if d.Name == "" || inventory.Clean(d.Name, MaxName) != d.Name {
		return invalid("displayName", "the name is printable text of 1 to %d bytes", MaxName)
	}
	if !slices.Contains(Kinds(), d.Kind) {
		return invalid("type", "type is one of %s, not %.32q", strings.Join(Kinds(), ", "), d.Kind)
	}
	if !slices.Contains(alert.Severities(), string(d.MinSeverity)) {
		return invalid("minSeverity", "minSeverity is one of %s, not %.32q", strings.Join(alert.Severities(), ", "), string(d.MinSeverity))
	}
	if !d.Alerts && !d.Audit {
		return invalid("alerts", "choose alerts, the audit log or both: there would be nothing to export")
	}
	d.CA = strings.TrimSpace(d.CA)
	if d.CA != "" {
		if len(d.CA) > MaxCA {
			return invalid("caCertificates", "the certificates are larger than %d bytes", MaxCA)
		}
		if !x509.NewCertPool().AppendCertsFromPEM([]byte(d.CA)) {
			return invalid("caCertificates", "there is no certificate in PEM form (-----BEGIN CERTIFICATE-----)")
		}
	}
	// What belongs to other kinds is not kept.
	if d.Kind != Kafka {
		d.Topic, d.Mechanism, d.User, d.Password = "", "", "", ""
	}
	if d.Kind != Syslog {
		d.Format, d.Facility = "", 0
	}
	switch d.Kind {
	case Syslog:
		d.Secrets = Secrets{}
		return checkSyslog(d)
	case Kafka:
		d.Secrets = Secrets{Password: d.Password}
		return checkKafka(d)
	}
	d.Address, d.Transport = "", ""
	return checkWebhook(d)
}

func checkSyslog(d *Destination) error {
	d.Address = strings.TrimSpace(d.Address)
	if !slices.Contains(Transports(), d.Transport) {
		return invalid("transport", "transport is one of %s, not %.32q", strings.Join(Transports(), ", "), d.Transport)
	}
	if !slices.Contains(Formats(), d.Format) {
		return invalid("format", "format is one of %s, not %.32q", strings.Join(Formats(), ", "), d.Format)
	}
	if d.Facility < 0 || d.Facility > 23 {
		return invalid("facility", "facility is a number from 0 to 23, not %d", d.Facility)
	}
	if err := checkCA(d); err != nil {
		return err
	}
	return checkAddress(d.Address, "siem.example.org:6514")
}

// checkCA is for destinations with a transport.
func checkCA(d *Destination) error {
	if d.CA != "" && d.Transport != TLS {
		return invalid("caCertificates", "certificates are for the transport tls")
	}
	return nil
}

func checkAddress(address, example string) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return invalid("address", "the address is host:port, for example %s", example)
	}
	return checkHost("address", host, port)
}

// checkHost refuses what can be no receiver. Names are looked up at delivery;
// refuseAddress looks at what they lead to.
func checkHost(target, host, port string) error {
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return invalid(target, "the port is a number from 1 to 65535, not %.16q", port)
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		if err := refuseAddress(ip); err != nil {
			return invalid(target, "%s", err.Error())
		}
		return nil
	}
	if host == "" || len(host) > 253 || strings.ContainsFunc(host, func(r rune) bool {
		return r != '-' && r != '.' && r != '_' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
	}) {
		return invalid(target, "%.64q is no host name and no IP address", host)
	}
	return nil
}

func checkWebhook(d *Destination) error {
	d.URL = strings.TrimSpace(d.URL)
	if d.URL == "" || len(d.URL) > MaxURL {
		return invalid("url", "the URL has 1 to %d bytes", MaxURL)
	}
	u, err := url.Parse(d.URL)
	// The parser's error would repeat the URL, which is a secret.
	if err != nil || u.Host == "" || u.Opaque != "" {
		return invalid("url", "the URL is not of the form https://host/path")
	}
	switch {
	case u.Scheme == "http" && d.Kind != Webhook && d.Kind != OTLP:
		return invalid("url", "the URL of %s begins with https://", d.Kind)
	case u.Scheme != "https" && u.Scheme != "http":
		return invalid("url", "the URL begins with https:// (or http:// inside a network that you trust)")
	case u.User != nil:
		return invalid("url", "the URL holds a user name or password: use the Authorization header")
	case u.Fragment != "":
		return invalid("url", "the URL holds a fragment (#...), which is never sent")
	case d.CA != "" && u.Scheme != "https":
		return invalid("caCertificates", "certificates are for https")
	}
	port := u.Port()
	if port == "" {
		port = "443"
	}
	if err := checkHost("url", u.Hostname(), port); err != nil {
		return err
	}
	if n := len(d.Secret); n != 0 && (n < MinSecret || n > MaxSecret) {
		return invalid("secret", "the secret of the signature has %d to %d bytes, not %d", MinSecret, MaxSecret, n)
	}
	if len(d.Authorization) > MaxSecret*4 || strings.ContainsFunc(d.Authorization, func(r rune) bool { return r < ' ' || r > '~' }) {
		return invalid("authorization", "the Authorization header is printable ASCII of at most %d bytes", MaxSecret*4)
	}
	if d.Kind == OTLP {
		if d.Secret != "" {
			return invalid("secret", "collectors check no signature: use the Authorization header")
		}
		if u.Path == "" || u.Path == "/" {
			// As the variable OTEL_EXPORTER_OTLP_ENDPOINT is completed (OpenTelemetry
			// Protocol Exporter, "Endpoint URLs for OTLP/HTTP").
			u.Path = "/v1/logs"
			d.URL = u.String()
		}
	} else if d.Kind != Webhook && (d.Secret != "" || d.Authorization != "") {
		return invalid("secret", "%s checks no signature and takes no Authorization header: its URL is the secret", d.Kind)
	}
	return nil
}

// describe is the destination for the audit log.
func describe(d *Destination) string {
	b, err := json.Marshal(map[string]any{
		"name": d.Name, "type": d.Kind, "to": d.Target(), "enabled": d.Enabled, "alerts": d.Alerts, "audit": d.Audit,
		"minSeverity": d.MinSeverity, "format": d.Format, "signed": d.Secret != "", "authorization": d.Authorization != "",
		"mechanism": d.Mechanism, "user": d.User,
	})
	if err != nil { // such values always have a JSON form
		return d.Name
	}
	return string(b)
}
