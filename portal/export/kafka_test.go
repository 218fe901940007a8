package export_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"github.com/bulwarkhq/bulwark/event"
	"github.com/bulwarkhq/bulwark/portal/export"
)

// cluster starts brokers that speak Kafka's protocol.
func cluster(t *testing.T, options ...kfake.Opt) (*kfake.Cluster, string) {
	t.Helper()
	c, err := kfake.NewCluster(append([]kfake.Opt{kfake.SeedTopics(3, "alerts")}, options...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c, strings.Join(c.ListenAddrs(), ",")
}

// consume reads n records of the topic, by partition in order.
func consume(t *testing.T, brokers string, n int, options ...kgo.Opt) []*kgo.Record {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(strings.Split(brokers, ",")...), kgo.ConsumeTopics("alerts")}, options...)...)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var out []*kgo.Record
	for len(out) < n {
		f := c.PollFetches(ctx)
		if err := f.Err0(); err != nil {
			t.Fatalf("%d of %d records: %v", len(out), n, err)
		}
		out = append(out, f.Records()...)
	}
	return out
}

// TestKafka: alerts arrive by TLS and SCRAM, once and in order; a wrong password,
// an unknown topic and brokers that are away are named and cost nothing.
func TestKafka(t *testing.T) {
	pki := httptest.NewTLSServer(http.NotFoundHandler()) // for its certificate
	pki.Close()
	ca := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: pki.Certificate().Raw}))
	_, brokers := cluster(t, kfake.NumBrokers(2), kfake.EnableSASL(), kfake.Superuser("SCRAM-SHA-512", "bulwark", "correct horse"),
		kfake.TLS(&tls.Config{Certificates: pki.TLS.Certificates, MinVersion: tls.VersionTLS12}))

	d := newDesk(t)
	x := d.put(export.Destination{Kind: export.Kafka, Settings: export.Settings{
		Address: brokers, Transport: export.TLS, Topic: "alerts", Mechanism: export.Scram512, User: "bulwark", CA: ca,
	}, Secrets: export.Secrets{Password: "wrong"}})
	for i := range 5 {
		d.alert(strconv.Itoa(i), event.SeverityHigh)
	}
	d.deliver()
	if x = d.state(x.ID, 5, 0, 1); !strings.Contains(x.LastError, "password") {
		t.Errorf("the error of a wrong password: %q", x.LastError)
	}
	x.Password, x.Topic = "correct horse", "missing"
	x.Given.Password = true
	x = d.put(x)
	d.deliver()
	if x = d.state(x.ID, 5, 0, 1); !strings.Contains(x.LastError, "UNKNOWN_TOPIC") {
		t.Errorf("the error of an unknown topic: %q", x.LastError)
	}
	x.Topic = "alerts"
	x.Given.Password = false
	x = d.put(x)
	d.deliver()
	d.state(x.ID, 0, 5, 0)

	pool := pki.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	records := consume(t, brokers, 5, kgo.DialTLSConfig(&tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}), kgo.SASL(scram.Auth{User: "bulwark", Pass: "correct horse"}.AsSha512Mechanism()))
	for i, r := range records {
		var doc struct {
			ID    string `json:"id"`
			Alert struct {
				Title string `json:"title"`
			} `json:"alert"`
		}
		if err := json.Unmarshal(r.Value, &doc); err != nil {
			t.Fatal(err)
		}
		id := ""
		if len(r.Headers) == 1 && r.Headers[0].Key == "bulwark-id" {
			id = string(r.Headers[0].Value)
		}
		if doc.Alert.Title != strconv.Itoa(i) || id != doc.ID || string(r.Key) != strings.Repeat("ab", 20) || r.Partition != records[0].Partition {
			t.Errorf("record %d: title %q, id %q (header %q), key %q, partition %d", i, doc.Alert.Title, doc.ID, id, r.Key, r.Partition)
		}
	}

	// The password goes to no other brokers.
	x.Address = "127.0.0.1:9"
	if _, err := d.Put(t.Context(), x, export.Who{Name: "eve"}); err == nil || !strings.Contains(err.Error(), "enter the password again") {
		t.Errorf("other brokers with the old password: %v", err)
	}
}

// TestKafkaFailures: what brokers cannot take now waits; what they never take is
// left out when the next one is taken.
func TestKafkaFailures(t *testing.T) {
	c, brokers := cluster(t, kfake.NumBrokers(1))
	d := newDesk(t)
	x := d.put(export.Destination{Kind: export.Kafka, Settings: export.Settings{Address: brokers, Transport: export.TCP, Topic: "alerts"}})
	// The alert "large" is refused, whenever it comes.
	c.ControlKey(int16(kmsg.Produce), func(r kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		produce := r.(*kmsg.ProduceRequest)
		if !slices.ContainsFunc(produce.Topics, func(topic kmsg.ProduceRequestTopic) bool {
			return slices.ContainsFunc(topic.Partitions, func(p kmsg.ProduceRequestTopicPartition) bool { return strings.Contains(string(p.Records), "large") })
		}) {
			return nil, nil, false
		}
		answer := produce.ResponseKind().(*kmsg.ProduceResponse)
		for _, topic := range produce.Topics {
			out := kmsg.NewProduceResponseTopic()
			out.Topic, out.TopicID = topic.Topic, topic.TopicID
			for _, p := range topic.Partitions {
				part := kmsg.NewProduceResponseTopicPartition()
				part.Partition, part.ErrorCode = p.Partition, kerr.MessageTooLarge.Code
				out.Partitions = append(out.Partitions, part)
			}
			answer.Topics = append(answer.Topics, out)
		}
		return answer, nil, true
	})
	for _, title := range []string{"large", "small"} {
		d.alert(title, event.SeverityHigh)
	}
	for range 12 {
		d.deliver()
		d.later()
	}
	if x = d.state(x.ID, 0, 1, 0); x.Refused != 1 {
		t.Errorf("%d refused, last error %q", x.Refused, x.LastError)
	}
	records := consume(t, brokers, 1)
	if len(records) != 1 || !strings.Contains(string(records[0].Value), `"title":"small"`) {
		t.Errorf("%d records, the first %s", len(records), records[0].Value)
	}

	_, port, err := net.SplitHostPort(brokers)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	d.alert("later", event.SeverityHigh)
	d.deliver()
	if x = d.state(x.ID, 1, 1, 1); !strings.Contains(x.LastError, "refused") {
		t.Errorf("the error of brokers that are away: %q", x.LastError)
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	_, brokers = cluster(t, kfake.NumBrokers(1), kfake.Ports(n))
	d.later()
	d.deliver()
	d.state(x.ID, 0, 2, 0)
	if records := consume(t, brokers, 1); !strings.Contains(string(records[0].Value), `"title":"later"`) {
		t.Errorf("after their return: %s", records[0].Value)
	}
}

func TestKafkaTest(t *testing.T) {
	_, brokers := cluster(t, kfake.NumBrokers(1))
	d := newDesk(t)
	x := d.put(export.Destination{Kind: export.Kafka, Settings: export.Settings{Address: brokers, Transport: export.TCP, Topic: "alerts"}})
	if err := d.Test(t.Context(), x.ID, export.Who{Name: "ann"}); err != nil {
		t.Fatal(err)
	}
	if records := consume(t, brokers, 1); !strings.Contains(string(records[0].Value), "sent by ann") {
		t.Errorf("the test: %s", records[0].Value)
	}
	if want := fmt.Sprintf("tcp://%s/alerts", brokers); x.Target() != want {
		t.Errorf("target %q, want %q", x.Target(), want)
	}
}
