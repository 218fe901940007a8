// Package loopback finds addresses for servers that tests start as programs of
// their own, at once or again later.
package loopback

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
)

// first is the lowest port that is given out; below are those of well-known services.
const first = 10_000

// Port returns a port of 127.0.0.1 that nobody listens on. It lies below those that
// the kernel takes for connections (ip_local_port_range, ip(7)): no connection of
// another test gets it before the server starts, nor between two of its starts.
func Port() (int, error) {
	var end int
	b, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err == nil {
		_, err = fmt.Sscan(string(b), &end)
	}
	if err != nil {
		return 0, fmt.Errorf("range of ports for connections: %w", err)
	}
	if end <= first {
		return 0, fmt.Errorf("connections have ports from %d on: none is left for servers", end)
	}
	for range 100 {
		port := first + rand.IntN(end-first)
		l, listenErr := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err = listenErr; err == nil {
			return port, l.Close()
		}
	}
	return 0, fmt.Errorf("no free port: %w", err)
}

// Address is 127.0.0.1 with a Port.
func Address() (string, error) {
	port, err := Port()
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), err
}
