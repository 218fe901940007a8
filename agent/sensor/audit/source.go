package audit

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// datagrams are records from the kernel.
type datagrams struct {
	rd  *reader
	buf []byte
}

func (d *datagrams) close() { d.rd.close() }

func (d *datagrams) next(deadline time.Time) (Type, string, error) {
	if err := d.rd.fd.SetReadDeadline(deadline); err != nil {
		return 0, "", err
	}
	n, err := d.rd.read(d.buf)
	if err != nil {
		return 0, "", err
	}
	var kind Type
	var text string
	ParseMessages(d.buf[:n], func(k uint16, _ uint32, data []byte) { kind, text = Type(k), string(data) })
	return kind, text, nil
}

// lines are records from auditd's plugin.
type lines struct {
	conn net.Conn
	in   *bufio.Reader
	part []byte
}

func newLines(conn net.Conn) *lines {
	return &lines{conn: conn, in: bufio.NewReaderSize(conn, maxRecord)}
}

func (l *lines) close() { l.conn.Close() }

func (l *lines) next(deadline time.Time) (Type, string, error) {
	if err := l.conn.SetReadDeadline(deadline); err != nil {
		return 0, "", err
	}
	part, err := l.in.ReadSlice('\n')
	l.part = append(l.part, part...)
	switch {
	case errors.Is(err, bufio.ErrBufferFull) && len(l.part) <= maxRecord:
		return 0, "", nil
	case errors.Is(err, io.EOF):
		return 0, "", errors.New("auditd's plugin closed the connection")
	case err != nil && !errors.Is(err, bufio.ErrBufferFull):
		return 0, "", err
	}
	if err != nil || len(part) == 0 { // longer than any record
		l.part = l.part[:0]
		return 0, "", nil //nolint:nilerr // it is left out
	}
	line := string(l.part)
	l.part = l.part[:0]
	r, err := ParseLine(line)
	if err != nil {
		return 0, "", nil //nolint:nilerr // of a type that is not followed
	}
	// The caller parses the text again, as the kernel has it.
	return r.Type, fmt.Sprintf("audit(%d.%03d:%d): %s", r.Time.Unix(), r.Time.Nanosecond()/1e6, r.Serial, r.Text), nil
}
