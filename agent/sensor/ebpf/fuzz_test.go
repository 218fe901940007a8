package ebpf

import (
	"encoding/binary"
	"slices"
	"testing"
	"unicode/utf8"
)

// dnsRecord makes a record as the kernel side writes it.
func dnsRecord(egress, tcp bool, msg []byte) []byte {
	b := make([]byte, dnsSize)
	le := binary.LittleEndian
	le.PutUint32(b, kindDNS)
	if egress {
		le.PutUint32(b[4:], dnsEgress)
	}
	le.PutUint32(b[24:], 42)
	le.PutUint16(b[28:], uint16(len(msg)))
	le.PutUint16(b[30:], uint16(len(msg)))
	le.PutUint16(b[32:], 2)
	le.PutUint16(b[34:], 17)
	if tcp {
		le.PutUint16(b[34:], 6)
	}
	return slices.Concat(b, msg)
}

func FuzzDNS(f *testing.F) {
	query := []byte("\x00\x07\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01a\x01b\x00\x00\x01\x00\x01")
	f.Add(dnsRecord(true, false, query))
	f.Add(dnsRecord(true, true, append([]byte{0, byte(len(query))}, query...)))
	f.Add(dnsRecord(false, false, []byte("\x00\x07\x81\x80\x00\x01\x00\x01\x00\x00\x00\x00\x01a\x00\x00\x01\x00\x01\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\x01\x02\x03\x04")))
	f.Fuzz(func(t *testing.T, b []byte) {
		d, ok, err := ParseDNS(b)
		if ok && err != nil {
			t.Fatal("a message and an error")
		}
		for _, s := range append(d.Answers, d.Name, d.Type, d.Code) {
			if !utf8.ValidString(s) || len(s) > 1024 {
				t.Fatalf("%q", s)
			}
		}
		if len(d.Answers) > maxAnswers {
			t.Fatalf("%d answers", len(d.Answers))
		}
	})
}

func FuzzActivity(f *testing.F) {
	b := make([]byte, actSize)
	le := binary.LittleEndian
	le.PutUint32(b, kindFile)
	le.PutUint32(b[24:], 42)
	le.PutUint32(b[28:], opRename)
	for i, n := range []uint16{4, 2, 3, 2, 0} {
		le.PutUint16(b[96+2*i:], n)
	}
	f.Add(slices.Concat(b, []byte("b\x00a\x00x\x00/y\x00d\x00")))
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := ParseActivity(b)
		if err != nil {
			return
		}
		for _, s := range []string{a.Path, a.A, a.B, a.Third, a.Comm} {
			if !utf8.ValidString(s) {
				t.Fatalf("%q", s)
			}
		}
		_, _ = memPID(a.Path)
	})
}
