package export

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
)

// Bounds of Kafka.
const (
	maxTopic = 249 // org.apache.kafka.common.internals.Topic, MAX_NAME_LENGTH
	// maxBrokerAnswer bounds one answer of a broker in bytes: a list of the brokers
	// and of one topic.
	maxBrokerAnswer = 1 << 20
	// topicTries is how often a topic that is said not to exist is asked for again:
	// brokers that are just starting do not know theirs yet.
	topicTries = 2
)

func checkKafka(d *Destination) error {
	if !slices.Contains([]string{TCP, TLS}, d.Transport) {
		return invalid("transport", "transport is tcp or tls, not %.32q", d.Transport)
	}
	if err := checkCA(d); err != nil {
		return err
	}
	brokers := brokersOf(d.Address)
	if len(brokers) > MaxBrokers {
		return invalid("address", "there are %d brokers, %d are enough: the others are learned from them", len(brokers), MaxBrokers)
	}
	for _, b := range brokers {
		if err := checkAddress(b, "kafka1.example.org:9092,kafka2.example.org:9092"); err != nil {
			return err
		}
	}
	d.Address = strings.Join(brokers, ",")
	d.Topic = strings.TrimSpace(d.Topic)
	if d.Topic == "" || len(d.Topic) > maxTopic || d.Topic == "." || d.Topic == ".." || strings.ContainsFunc(d.Topic, func(r rune) bool {
		return r != '.' && r != '_' && r != '-' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
	}) {
		return invalid("topic", "a topic has 1 to %d letters, digits, dots, underscores and dashes", maxTopic)
	}
	switch {
	case d.Mechanism == "":
		if d.User != "" || d.Password != "" {
			return invalid("saslMechanism", "a user and a password are for signing in: choose a mechanism (%s)", strings.Join(Mechanisms(), ", "))
		}
		return nil
	case !slices.Contains(Mechanisms(), d.Mechanism):
		return invalid("saslMechanism", "the mechanism is one of %s or empty, not %.32q", strings.Join(Mechanisms(), ", "), d.Mechanism)
	case d.Mechanism == Plain && d.Transport != TLS:
		return invalid("saslMechanism", "plain would send the password readably: choose the transport tls, or scram-sha-512")
	case d.User == "" || len(d.User) > MaxUser || strings.ContainsFunc(d.User, func(r rune) bool { return r < ' ' }):
		return invalid("username", "the user is text of 1 to %d bytes", MaxUser)
	case d.Password == "" || len(d.Password) > MaxSecret:
		return invalid("password", "the password has 1 to %d bytes", MaxSecret)
	}
	return nil
}

func brokersOf(address string) []string {
	list := strings.Split(address, ",")
	for i := range list {
		list[i] = strings.TrimSpace(list[i])
	}
	return list
}

// kafkaSender produces to a topic. A record is delivered when all replicas that
// are in step have it (acks=all).
type kafkaSender struct {
	d      *Destination
	portal portal
	client *kgo.Client
	met    bool // a broker has answered
}

func newKafkaSender(d *Destination, p portal, c *tls.Config) (*kafkaSender, error) {
	options := []kgo.Opt{
		kgo.SeedBrokers(brokersOf(d.Address)...), kgo.DefaultProduceTopic(d.Topic), kgo.ClientID("bulwark-portal"), kgo.SoftwareNameAndVersion("bulwark-portal", headerField(p.version, 32)),
		kgo.RequiredAcks(kgo.AllISRAcks()), kgo.RecordDeliveryTimeout(sendTime), kgo.ProduceRequestTimeout(sendTime / 2), kgo.DialTimeout(sendTime / 2),
		kgo.UnknownTopicRetries(topicTries), kgo.BrokerMaxReadBytes(maxBrokerAnswer), kgo.FetchMaxBytes(maxBrokerAnswer), kgo.Dialer(brokerDialer(d, c)),
	}
	switch d.Mechanism {
	case Plain:
		options = append(options, kgo.SASL(plain.Auth{User: d.User, Pass: d.Password}.AsMechanism()))
	case Scram256, Scram512:
		auth := scram.Auth{User: d.User, Pass: d.Password}
		m := map[string]sasl.Mechanism{Scram256: auth.AsSha256Mechanism(), Scram512: auth.AsSha512Mechanism()}
		options = append(options, kgo.SASL(m[d.Mechanism]))
	}
	client, err := kgo.NewClient(options...)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", d.Target(), err)
	}
	return &kafkaSender{d: d, portal: p, client: client}, nil
}

// brokerDialer connects to brokers, also to those that others name, with the
// bounds of dialer.
func brokerDialer(d *Destination, config *tls.Config) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		raw, err := dialer().DialContext(ctx, network, address)
		if err != nil || d.Transport != TLS {
			return raw, err
		}
		return handshake(ctx, raw, config, address)
	}
}

func (s *kafkaSender) close() { s.client.Close() }

func (s *kafkaSender) send(ctx context.Context, list []Record) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, sendTime)
	defer cancel()
	// Of brokers that cannot be reached or refuse the password, producing would only
	// say that it took too long.
	if !s.met {
		if err := s.client.Ping(ctx); err != nil {
			if errors.Is(err, io.EOF) {
				err = fmt.Errorf("the broker ends the connection: look at transport, mechanism, user and password (%w)", err)
			}
			return 0, fmt.Errorf("%s: %w", s.d.Target(), err)
		}
		s.met = true
	}
	out := make([]*kgo.Record, len(list))
	for i := range list {
		value, err := list[i].encode(s.portal, maxBody)
		if err != nil {
			return 0, err
		}
		// The key keeps what is of one device in one partition and thereby in order.
		key := list[i].Type
		if a := list[i].Alert; a != nil {
			key = a.DeviceID
		}
		out[i] = &kgo.Record{Key: []byte(key), Value: value, Headers: []kgo.RecordHeader{{Key: "bulwark-id", Value: []byte(list[i].ID())}}}
	}
	// Results are in the order of completion.
	errs := make(map[*kgo.Record]error, len(out))
	for _, r := range s.client.ProduceSync(ctx, out...) {
		errs[r.Record] = r.Err
	}
	for i, r := range out {
		err := errs[r]
		if err == nil {
			continue
		}
		err = fmt.Errorf("%s: %w", s.d.Target(), err)
		if errors.Is(err, kerr.MessageTooLarge) || errors.Is(err, kerr.RecordListTooLarge) || errors.Is(err, kerr.InvalidRecord) {
			err = &refusal{err}
		}
		return i, err // some after it may have arrived: they come again
	}
	return len(list), nil
}
