package ebpf

import (
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/bulwarkhq/bulwark/agent/process"
	"github.com/bulwarkhq/bulwark/agent/sensor"
	"github.com/bulwarkhq/bulwark/event"
)

// States of a TCP socket (include/net/tcp_states.h).
const (
	tcpEstablished = 1
	tcpSynSent     = 2
	tcpSynRecv     = 3
	tcpClose       = 7
	tcpListen      = 10
)

// What the programs report in place of a state for other sockets (enum of
// bpf/syscalls.h).
const (
	stateDatagram   = 100
	stateBound      = 101
	stateNotAllowed = 102
	stateRawSocket  = 103
)

func (s *Sensor) conn(c *Conn, sink sensor.Sink) {
	var action string
	switch {
	case c.New == tcpSynSent:
		action = event.ConnectionAttempt
	case c.Old == tcpSynSent && c.New == tcpEstablished:
		action = event.ConnectionSuccess
	case c.Old == tcpSynSent && c.New == tcpClose:
		action = event.ConnectionFailed
	case c.Old == tcpSynRecv && c.New == tcpEstablished:
		action = event.InboundConnectionAccepted
	case c.New == tcpListen, c.New == stateBound:
		action = event.ListeningConnection
	case c.New == stateDatagram:
		action = event.ConnectionSuccess
	case c.New == stateNotAllowed:
		action = event.ConnectionFailed
	case c.New == stateRawSocket:
		s.emit(sink, c.Kind, event.Event{
			Time: s.table.Clock().Mono(c.Time), Class: event.ClassNetwork, Action: event.RawSocketCreated,
			Initiating: s.initiator(c.PID, c.Start, ""), Network: event.Network{Protocol: rawProtocol(c)},
		}, process.Image{})
		return
	default:
		s.filtered(c.Kind)
		return
	}
	ev := event.Event{Time: s.table.Clock().Mono(c.Time), Class: event.ClassNetwork, Action: action}
	ev.Network = event.Network{
		LocalIP: c.Local.Addr().String(), LocalPort: int64(c.Local.Port()), Protocol: protocolName(c.Protocol),
	}
	if action != event.ListeningConnection {
		ev.Network.RemoteIP, ev.Network.RemotePort = c.Remote.Addr().String(), int64(c.Remote.Port())
	}
	if c.PID != 0 {
		ev.Initiating = s.initiator(c.PID, c.Start, "")
	}
	if c.New == stateNotAllowed {
		ev.Additional = map[string]string{"Error": unix.ErrnoName(syscall.Errno(c.Old))}
	}
	s.emit(sink, c.Kind, ev, process.Image{})
}

func protocolName(p uint16) string {
	switch p {
	case unix.IPPROTO_TCP, 0:
		return "Tcp"
	case unix.IPPROTO_UDP:
		return "Udp"
	case unix.IPPROTO_ICMP:
		return "Icmp"
	case unix.IPPROTO_ICMPV6:
		return "Icmpv6"
	}
	return strconv.Itoa(int(p))
}

func rawProtocol(c *Conn) string {
	if c.Family == unix.AF_PACKET {
		return "Packet"
	}
	if c.Protocol == unix.IPPROTO_RAW {
		return "Raw"
	}
	return protocolName(c.Protocol)
}

// initiator is the process that did something, as far as it is known.
func (s *Sensor) initiator(pid uint32, startNS uint64, comm string) event.Process {
	start := s.table.Clock().Start(process.Ticks(startNS))
	if p, ok := s.table.Get(int64(pid), start); ok {
		return p
	}
	return event.Process{PID: int64(pid), StartTime: start, FileName: comm, UID: -1, LoginUID: -1, SessionID: -1}
}

// dns reports a message; ok is false for what was none.
func (s *Sensor) dns(d *DNS, ok bool, sink sensor.Sink) {
	if !ok {
		s.filtered(kindDNS)
		return
	}
	ev := event.Event{Time: s.table.Clock().Mono(d.Time), Class: event.ClassNetwork, Action: event.DNSQuery}
	ev.Network = event.Network{
		LocalIP: d.Local.Addr().String(), LocalPort: int64(d.Local.Port()),
		RemoteIP: d.Remote.Addr().String(), RemotePort: int64(d.Remote.Port()),
		RemoteURL: d.Name, Protocol: "Udp",
	}
	if d.TCP {
		ev.Network.Protocol = "Tcp"
	}
	ev.Additional = map[string]string{"QueryType": d.Type}
	if !d.Query {
		ev.Action = event.DNSResponse
		ev.Additional["ResponseCode"] = d.Code
		ev.Additional["Answers"] = strings.Join(d.Answers, ";")
	}
	if d.Truncated {
		ev.Additional["Truncated"] = "true"
	}
	if d.PID != 0 {
		ev.Initiating = s.initiator(d.PID, d.Start, "")
	}
	s.emit(sink, kindDNS, ev, process.Image{})
}
