package loopback

import (
	"fmt"
	"net"
	"os"
	"testing"
)

// TestAddress: it can be listened on, and is none that the kernel would give to a
// connection.
func TestAddress(t *testing.T) {
	for range 20 {
		address, err := Address()
		if err != nil {
			t.Fatal(err)
		}
		l, err := net.Listen("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		port := l.Addr().(*net.TCPAddr).Port
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		b, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
		if err != nil {
			t.Fatal(err)
		}
		var from, to int
		if _, err := fmt.Sscan(string(b), &from, &to); err != nil {
			t.Fatal(err)
		}
		if port >= from && port <= to || port < first {
			t.Errorf("port %d, connections have %d..%d", port, from, to)
		}
	}
}
