package ebpf

import (
	"encoding/binary"
	"io"
	"net"
	"runtime"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"

	"github.com/bulwarkhq/bulwark/agent/sensor/sensortest"
	"github.com/bulwarkhq/bulwark/event"
	"github.com/bulwarkhq/bulwark/test/need"
)

// ownNetwork moves the test to a network namespace with a loopback. Sockets are
// to be made by the test's own goroutine.
func ownNetwork(t *testing.T) {
	t.Helper()
	runtime.LockOSThread() // never unlocked: the thread ends with the test
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		need.Missing(t, "network namespaces: %v", err)
	}
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(s)
	ifr, err := unix.NewIfreq("lo")
	must(t, err)
	ifr.SetUint16(unix.IFF_UP)
	must(t, unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, ifr))
}

// Queries and answers are read from the packets, over UDP and over TCP (RFC 7766),
// also where a query's length goes ahead in a segment of its own.
func TestDNSMessages(t *testing.T) {
	buffers(t, func(t *testing.T, opts ...Option) {
		ownNetwork(t)
		sink := sensortest.Start(t, New(sensortest.Table(t), sensortest.Log(t), opts...), event.CategoryDNS)
		const addr = "127.0.0.1:53"
		udp, err := net.ListenPacket("udp4", addr)
		must(t, err)
		defer udp.Close()
		go func() {
			buf := make([]byte, 512)
			for {
				n, from, err := udp.ReadFrom(buf)
				if err != nil {
					return
				}
				_, _ = udp.WriteTo(answerTo(buf[:n]), from)
			}
		}()
		tcp, err := net.Listen("tcp4", addr)
		must(t, err)
		defer tcp.Close()
		go func() {
			for {
				c, err := tcp.Accept()
				if err != nil {
					return
				}
				var length [2]byte
				if _, err := io.ReadFull(c, length[:]); err == nil {
					q := make([]byte, binary.BigEndian.Uint16(length[:]))
					_, _ = io.ReadFull(c, q)
					_, _ = c.Write(framed(answerTo(q)))
				}
				_ = c.Close()
			}
		}()
		for _, c := range []struct{ network, name, protocol string }{
			{"udp4", "c2.bulwark-test.example", "Udp"},
			{"tcp4", "large.bulwark-test.example", "Tcp"},
			{"tcp4", "split.bulwark-test.example", "Tcp"},
		} {
			conn, err := net.Dial(c.network, addr)
			must(t, err)
			defer conn.Close()
			local := int64(port(conn.LocalAddr()))
			q := query(t, c.name)
			if c.protocol == "Tcp" {
				q = framed(q)
			}
			if c.name == "split.bulwark-test.example" {
				_, err = conn.Write(q[:2]) // at once: Go sets TCP_NODELAY
				must(t, err)
				q = q[2:]
			}
			_, err = conn.Write(q)
			must(t, err)
			_, err = conn.Read(make([]byte, 512))
			must(t, err)
			for _, action := range []string{event.DNSQuery, event.DNSResponse} {
				got := sink.Wait(t, 1, action+" of "+c.name, func(e *event.Event) bool { return e.Action == action && e.Network.RemoteURL == c.name })
				e := got[0]
				if !mine(&e) || e.Additional["QueryType"] != "A" || e.Network.RemoteIP != "127.0.0.1" || e.Network.RemotePort != 53 || e.Network.LocalPort != local || e.Network.Protocol != c.protocol || len(got) != 1 {
					t.Errorf("%d, %+v", len(got), e)
				}
				if action == event.DNSResponse && (e.Additional["Answers"] != "192.0.2.1;192.0.2.2" || e.Additional["ResponseCode"] != "NOERROR") {
					t.Errorf("%+v", e.Additional)
				}
			}
		}
		if n := sink.LostOf(event.CategoryDNS); n != 0 {
			t.Errorf("%d lost", n)
		}
	})
}

func port(a net.Addr) int {
	if u, ok := a.(*net.UDPAddr); ok {
		return u.Port
	}
	return a.(*net.TCPAddr).Port
}

// framed puts the length before a message.
func framed(msg []byte) []byte {
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(msg))), msg...)
}

func query(t *testing.T, name string) []byte {
	t.Helper()
	b := dnsmessage.NewBuilder(nil, dnsmessage.Header{ID: 7, RecursionDesired: true})
	must(t, b.StartQuestions())
	must(t, b.Question(dnsmessage.Question{Name: dnsmessage.MustNewName(name + "."), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}))
	q, err := b.Finish()
	must(t, err)
	return q
}

// answerTo answers a query with two addresses.
func answerTo(q []byte) []byte {
	var p dnsmessage.Parser
	h, err := p.Start(q)
	if err != nil {
		return nil
	}
	question, err := p.Question()
	if err != nil {
		return nil
	}
	h.Response = true
	b := dnsmessage.NewBuilder(nil, h)
	_ = b.StartQuestions()
	_ = b.Question(question)
	_ = b.StartAnswers()
	for i := range byte(2) {
		_ = b.AResource(dnsmessage.ResourceHeader{Name: question.Name, Class: dnsmessage.ClassINET, TTL: 60}, dnsmessage.AResource{A: [4]byte{192, 0, 2, 1 + i}})
	}
	text, _ := b.Finish()
	return text
}
