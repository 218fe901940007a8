package procfs

import (
	"encoding/binary"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// message makes a netlink message as the kernel sends it.
func message(seq, what, cpu uint32, words ...uint32) []byte {
	ne := binary.NativeEndian
	b := make([]byte, nlHeader+cnHeader+evHeader+24)
	ne.PutUint32(b, uint32(len(b)))
	ne.PutUint16(b[4:], 3)
	ne.PutUint32(b[16:], cnIdxProc)
	ne.PutUint32(b[20:], cnValProc)
	ne.PutUint32(b[24:], seq)
	ne.PutUint32(b[36:], what)
	ne.PutUint32(b[40:], cpu)
	ne.PutUint64(b[44:], 99)
	for i, w := range words {
		ne.PutUint32(b[52+4*i:], w)
	}
	return b
}

func TestParseMessages(t *testing.T) {
	b := message(7, procEventFork, 1, 10, 11, 12, 13)
	b = append(b, message(8, procEventNone, 1, 0)...)
	b = append(b, message(9, procEventExec, 0, 14, 15)...)
	b = append(b, message(10, procEventExit, 0, 16, 17, 256, 17)...)
	var got []Message
	if err := ParseMessages(b, func(m Message) { got = append(got, m) }); err != nil {
		t.Fatal(err)
	}
	want := []Message{
		{What: procEventFork, CPU: 1, Seq: 7, Time: 99, PID: 12, TGID: 13, ParentID: 11},
		{What: procEventExec, Seq: 9, Time: 99, PID: 14, TGID: 15},
		{What: procEventExit, Seq: 10, Time: 99, PID: 16, TGID: 17, Code: 256},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for n := 1; n < 60; n++ {
		if err := ParseMessages(b[:n], func(Message) { t.Errorf("%d bytes gave a message", n) }); err == nil {
			t.Errorf("%d bytes: no error", n)
		}
	}
}

func FuzzMessages(f *testing.F) {
	f.Add(message(7, procEventFork, 1, 10, 11, 12, 13))
	f.Add(append(message(9, procEventExec, 0, 14, 15), message(10, procEventExit, 0, 16, 17, 256)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		n := 0
		_ = ParseMessages(b, func(Message) { n++ })
		if n > len(b)/nlHeader {
			t.Errorf("%d messages in %d bytes", n, len(b))
		}
	})
}
