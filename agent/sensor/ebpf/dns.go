package ebpf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"golang.org/x/net/dns/dnsmessage"
)

// The layout of struct dns of bpf/dns.h.
const (
	dnsSize    = 80
	dnsEgress  = 1
	maxAnswers = 32 // that an event lists
)

// DNS is a decoded DNS record.
type DNS struct {
	Query         bool // else a response
	Time, Start   uint64
	PID           uint32
	TCP           bool
	Local, Remote netip.AddrPort
	Name, Type    string // of the first question; Name without the last dot
	Code          string // of a response: NOERROR, NXDOMAIN, ...
	Answers       []string
	Truncated     bool // more than was copied, or than an event lists
}

// ParseDNS decodes a DNS record. ok is false for what is no DNS message, such
// as a keep-alive of TCP: it is no error.
func ParseDNS(b []byte) (d DNS, ok bool, err error) {
	if len(b) < dnsSize {
		return d, false, fmt.Errorf("%d of %d bytes: %w", len(b), dnsSize, errShort)
	}
	le := binary.LittleEndian
	d.Query = le.Uint32(b[4:])&dnsEgress != 0
	d.Time, d.Start, d.PID = le.Uint64(b[8:]), le.Uint64(b[16:]), le.Uint32(b[24:])
	n, total, protocol := int(le.Uint16(b[28:])), int(le.Uint16(b[30:])), le.Uint16(b[34:])
	if d.Local, d.Remote, err = ends(le.Uint16(b[32:]), le.Uint16(b[36:]), le.Uint16(b[38:]), b[40:72]); err != nil {
		return d, false, err
	}
	if le.Uint32(b) != kindDNS || d.PID > 1<<31-1 {
		return d, false, fmt.Errorf("kind %d, pid %d: not a DNS record", le.Uint32(b), d.PID)
	}
	at := dnsSize + int(min(le.Uint32(b[72:]), 1<<16))
	if n == 0 {
		return d, false, nil
	}
	if n > len(b)-at {
		return d, false, fmt.Errorf("message of %d bytes at %d of %d: %w", n, at, len(b), errShort)
	}
	msg := b[at : at+n]
	d.Truncated = total > n
	if d.TCP = protocol == 6; !d.TCP {
		return d, d.message(msg), nil
	}
	if len(msg) < 14 {
		return d, false, nil
	}
	// The length comes first. What does not begin with one is the middle of a long
	// answer, or a query whose length went ahead in a segment of its own.
	length := int(binary.BigEndian.Uint16(msg))
	rest := msg[2:]
	if length >= 12 && length <= total && d.message(rest[:min(length, len(rest))]) {
		return d, true, nil
	}
	return d, d.Query && d.message(msg), nil
}

// message reads a DNS message (RFC 1035); false when it is none.
func (d *DNS) message(msg []byte) bool {
	var p dnsmessage.Parser
	h, err := p.Start(msg)
	if err != nil || h.Response == d.Query {
		return false
	}
	q, err := p.Question()
	if err != nil {
		return false
	}
	d.Name = domain(q.Name)
	d.Type = typeName(q.Type)
	d.Truncated = d.Truncated || h.Truncated
	if !h.Response {
		return true
	}
	d.Code = codeName(h.RCode)
	if p.SkipAllQuestions() != nil {
		return true
	}
	for {
		rh, err := p.AnswerHeader()
		if err != nil {
			d.Truncated = d.Truncated || !errors.Is(err, dnsmessage.ErrSectionDone)
			return true
		}
		if len(d.Answers) == maxAnswers {
			d.Truncated = true
			return true
		}
		text, err := answer(&p, rh)
		if err != nil {
			d.Truncated = true
			return true
		}
		if text != "" {
			d.Answers = append(d.Answers, text)
		}
	}
}

func answer(p *dnsmessage.Parser, h dnsmessage.ResourceHeader) (string, error) {
	switch h.Type {
	case dnsmessage.TypeA:
		r, err := p.AResource()
		return netip.AddrFrom4(r.A).String(), err
	case dnsmessage.TypeAAAA:
		r, err := p.AAAAResource()
		return netip.AddrFrom16(r.AAAA).String(), err
	case dnsmessage.TypeCNAME:
		r, err := p.CNAMEResource()
		return domain(r.CNAME), err
	case dnsmessage.TypePTR:
		r, err := p.PTRResource()
		return domain(r.PTR), err
	case dnsmessage.TypeNS:
		r, err := p.NSResource()
		return domain(r.NS), err
	case dnsmessage.TypeMX:
		r, err := p.MXResource()
		return domain(r.MX), err
	case dnsmessage.TypeSRV:
		r, err := p.SRVResource()
		return domain(r.Target) + ":" + strconv.Itoa(int(r.Port)), err
	case dnsmessage.TypeTXT:
		r, err := p.TXTResource()
		text := strings.Join(r.TXT, "")
		return strings.ToValidUTF8(text[:min(len(text), 255)], "\uFFFD"), err
	}
	return "", p.SkipAnswer()
}

func domain(n dnsmessage.Name) string {
	return strings.ToValidUTF8(strings.TrimSuffix(n.String(), "."), "\uFFFD")
}

func typeName(t dnsmessage.Type) string {
	switch t {
	case 65:
		return "HTTPS"
	case 64:
		return "SVCB"
	case 43:
		return "DS"
	case 48:
		return "DNSKEY"
	}
	return strings.TrimPrefix(t.String(), "Type")
}

// codeName is the response code as the field writes it (RFC 6895).
func codeName(c dnsmessage.RCode) string {
	names := []string{"NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED"}
	if int(c) < len(names) {
		return names[c]
	}
	return strconv.Itoa(int(c))
}
