package export_test

import (
	"bufio"
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"net/http/httptest"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/event"
	"github.com/bulwarkhq/bulwark/portal/export"
)

// collector is a syslog receiver for streams: it counts octets as RFC 6587 says.
type collector struct {
	mu       sync.Mutex
	messages []string
	problems []error
	listener net.Listener
	wg       sync.WaitGroup
	// keepOpen leaves a stream open that the sender has ended; drop breaks it off
	// without reading.
	keepOpen, drop bool
	stop           chan struct{}
}

func collect(t *testing.T, l net.Listener, how ...func(*collector)) *collector {
	t.Helper()
	c := &collector{listener: l, stop: make(chan struct{})}
	for _, f := range how {
		f(c)
	}
	c.wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			c.wg.Go(func() { c.serve(conn) })
		}
	})
	t.Cleanup(func() { close(c.stop); c.close() })
	return c
}

func (c *collector) close() { c.listener.Close() }

func (c *collector) serve(conn net.Conn) {
	defer conn.Close()
	if c.drop {
		// Closing with unread bytes resets the connection.
		var b [1]byte
		io.ReadFull(conn, b[:])
		return
	}
	r := bufio.NewReader(conn)
	for {
		head, err := r.ReadString(' ')
		if err != nil {
			if !errors.Is(err, io.EOF) || head != "" {
				c.note("", err)
			}
			break
		}
		n, err := strconv.Atoi(strings.TrimSuffix(head, " "))
		if err != nil || n < 1 || n > 1<<20 {
			c.note("", errors.New("no count of octets: "+strconv.Quote(head)))
			break
		}
		b := make([]byte, n)
		if _, err := io.ReadFull(r, b); err != nil {
			c.note("", err)
			break
		}
		c.note(string(b), nil)
	}
	if c.keepOpen {
		<-c.stop
	}
}

func (c *collector) note(message string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		c.problems = append(c.problems, err)
		return
	}
	c.messages = append(c.messages, message)
}

// titles of the alerts that arrived, out of the JSON of the messages.
func (c *collector) titles(t *testing.T) []string {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, err := range c.problems {
		t.Errorf("the receiver: %v", err)
	}
	return jsonTitles(t, c.messages)
}

func jsonTitles(t *testing.T, messages []string) []string {
	t.Helper()
	var out []string
	for _, m := range messages {
		_, text, _ := strings.Cut(m, `] {"type":`)
		var doc struct{ Alert struct{ Title string } }
		if err := json.Unmarshal([]byte(`{"type":`+text), &doc); err != nil || !strings.HasPrefix(m, "<13") || strings.Contains(m, "\n") {
			t.Errorf("%v: %q", err, m)
		}
		out = append(out, doc.Alert.Title)
	}
	return out
}

func listen(t *testing.T, address string) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

var hostileTitle = "x] {\"|=\\\n<1>1 - \u2028\x00é"

// TestSyslogStream: TCP; the receiver is down, breaks off, and comes up.
func TestSyslogStream(t *testing.T) {
	d := newDesk(t)
	address := quietAddress(t, "tcp")
	x := d.put(export.Destination{Kind: export.Syslog, Settings: export.Settings{Address: address, Transport: export.TCP, Format: export.JSON, Facility: 16}})
	var want []string
	for i := range 105 { // more than a batch
		title := strconv.Itoa(i) + hostileTitle
		want = append(want, title)
		d.alert(title, event.SeverityHigh)
	}
	d.deliver()
	x = d.state(x.ID, 105, 0, 1)
	// One that accepts and goes away without reading has taken nothing.
	first := collect(t, listen(t, address), func(c *collector) { c.drop = true })
	d.later()
	d.deliver()
	x = d.state(x.ID, 105, 0, 2)
	first.close()
	d.restart()
	c := collect(t, listen(t, address))
	d.later()
	d.deliver()
	d.state(x.ID, 0, 105, 0)
	if got := c.titles(t); !slices.Equal(got, want) {
		t.Errorf("%d arrived: %.300q", len(got), got)
	}
	if err := d.Test(t.Context(), x.ID, export.Who{Name: "ann"}); err != nil {
		t.Error(err)
	}
	c.close()
	// One that never closes a stream has the data all the same.
	open := collect(t, listen(t, address), func(c *collector) { c.keepOpen = true })
	d.alert("last", event.SeverityHigh)
	d.later()
	d.deliver()
	d.state(x.ID, 0, 106, 0)
	// It may read what its kernel has confirmed when it comes to it.
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if got := open.titles(t); slices.Equal(got, []string{"last"}) {
			break
		} else if time.Now().After(end) {
			t.Fatalf("arrived: %q", got)
		}
	}
}

// TestSyslogTLS: the receiver's certificate is checked before anything is sent.
func TestSyslogTLS(t *testing.T) {
	d := newDesk(t)
	// The certificate of httptest is for 127.0.0.1 and example.com.
	web := httptest.NewTLSServer(nil)
	web.Close()
	ca := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: web.Certificate().Raw}))
	c := collect(t, tls.NewListener(listen(t, "127.0.0.1:0"), &tls.Config{Certificates: web.TLS.Certificates}))
	settings := export.Settings{Address: c.listener.Addr().String(), Transport: export.TLS, Format: export.CEF, Facility: 16}
	x := d.put(export.Destination{Kind: export.Syslog, Settings: settings})
	d.alert("a|b", event.SeverityHigh)
	d.deliver()
	if x = d.state(x.ID, 1, 0, 1); !strings.Contains(x.LastError, "certificate") {
		t.Errorf("without its authority: %q", x.LastError)
	}
	// The right authority and another name than the certificate's.
	_, port, _ := net.SplitHostPort(settings.Address)
	x.CA, x.Address = ca, "localhost:"+port
	x = d.put(x)
	d.deliver()
	if x = d.state(x.ID, 1, 0, 1); !strings.Contains(x.LastError, "certificate") {
		t.Errorf("another name: %q", x.LastError)
	}
	c.mu.Lock()
	if c.messages != nil {
		t.Errorf("sent to a receiver that proved nothing: %q", c.messages)
	}
	c.mu.Unlock()
	x.Address = settings.Address
	x = d.put(x)
	d.deliver()
	d.state(x.ID, 0, 1, 0)
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.messages) != 1 || !strings.Contains(c.messages[0], `|a\|b|8|externalId=alert-`) { // it also saw broken handshakes
		t.Errorf("arrived: %q", c.messages)
	}
}

// TestSyslogDatagrams: UDP; a host that says that nobody listens is a failure.
func TestSyslogDatagrams(t *testing.T) {
	d := newDesk(t)
	address := quietAddress(t, "udp")
	x := d.put(export.Destination{Kind: export.Syslog, Settings: export.Settings{Address: address, Transport: export.UDP, Format: export.JSON, Facility: 16}})
	for i := range 3 {
		d.alert(strconv.Itoa(i)+hostileTitle+strings.Repeat("y", 30000), event.SeverityHigh)
	}
	d.deliver()
	if x = d.state(x.ID, 3, 0, 1); !strings.Contains(x.LastError, "refused") {
		t.Errorf("nobody listens: %q", x.LastError)
	}
	d.restart()
	c, err := net.ListenPacket("udp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	d.later()
	d.deliver()
	d.state(x.ID, 0, 3, 0)
	var messages []string
	for range 3 {
		b := make([]byte, 1<<16)
		if err := c.SetReadDeadline(time.Now().Add(2 * time.Minute)); err != nil {
			t.Fatal(err)
		}
		n, _, err := c.ReadFrom(b)
		if err != nil {
			t.Fatal(err)
		}
		if n > 8000 {
			t.Errorf("a datagram of %d bytes", n)
		}
		messages = append(messages, string(b[:n]))
	}
	for i, title := range jsonTitles(t, messages) {
		if !strings.HasPrefix(title, strconv.Itoa(i)+hostileTitle) || !strings.HasSuffix(title, "y…") {
			t.Errorf("title %.100q", title)
		}
	}
	// Nothing comes twice.
	d.deliver()
	if err := c.SetReadDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if n, _, err := c.ReadFrom(make([]byte, 1<<16)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%d bytes more, %v", n, err)
	}
}
