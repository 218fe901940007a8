// Package wire is the protocol between the daemon and its scanner processes:
// messages over a SOCK_SEQPACKET socket pair, one message per packet, with the
// file to scan as a descriptor beside it (SCM_RIGHTS).
//
// A second socket (descriptor 6) carries the same Scan and Answer, one at a time,
// to a thread of its own; a Cancel of such a scan goes over the first one.
//
//	daemon -> scanner   Setup, then any number of Scan and Cancel
//	scanner -> daemon   Hello, then one Answer for each Scan; Compiled when the
//	                    set-up asked for a compilation
//
// A packet is one byte of kind and a body. Set-up, Hello and Compiled are sent
// once each and are JSON; the others are binary, little endian, with strings as
// a 16-bit length and bytes. The scanner is not trusted: it may have been taken
// over by a file, so Decode bounds everything and believes nothing.
package wire

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/bulwarkhq/bulwark/agent/scan/sandbox"
	"github.com/bulwarkhq/bulwark/engine/verdict"
)

// Bounds of the protocol. A packet must fit into the send buffer of a socket
// (208 KiB by default).
const (
	MaxMessage = 64 << 10
	MaxName    = 4096 // PATH_MAX
	maxString  = 1024 // any string of a verdict
	maxMatches = 64
	maxInside  = 32
	maxLimits  = 16
	maxError   = 4096
)

// Kind is the first byte of a packet.
type Kind byte

const (
	KindSetup    Kind = 1
	KindHello    Kind = 2
	KindScan     Kind = 3
	KindCancel   Kind = 4
	KindAnswer   Kind = 5
	KindCompiled Kind = 6
)

// ErrProtocol means that the other side sent what no version of this program
// sends.
var ErrProtocol = errors.New("malformed message between daemon and scanner")

// Message is one of the pointers *Setup, *Hello, *Scan, *Cancel, *Answer,
// *Compiled.
type Message interface{ kind() Kind }

// Setup is the first message to a new process. Descriptor 4 of the process is
// the compiled definitions (to read, or to write when Compile is set) and
// descriptor 5 an empty directory to chroot to.
type Setup struct {
	// Compile makes the process compile Sources and end.
	Compile bool     `json:"compile,omitempty"`
	Sources []string `json:"sources,omitempty"`
	// Workers bounds the scans at a time, Threads the CPUs in use at a time.
	Workers int `json:"workers"`
	Threads int `json:"threads"`
	// MemoryLimit in bytes: the garbage collector's goal; 0 is none.
	MemoryLimit int64 `json:"memory_limit,omitempty"`
	// LowPriority puts the process in the idle I/O class and at nice 19.
	LowPriority bool `json:"low_priority,omitempty"`
	// The members of sandbox.Profile of the same names.
	UID          int    `json:"uid"`
	GID          int    `json:"gid"`
	MaxFileSize  uint64 `json:"max_file_size"`
	MaxData      uint64 `json:"max_data"`
	MaxFiles     uint64 `json:"max_files"`
	MaxProcesses uint64 `json:"max_processes"`
}

// Info describes the engine and the definitions that a scanner has loaded.
type Info struct {
	Engine      string `json:"engine"`
	Definitions string `json:"definitions"`
	// Created is when the definitions were compiled.
	Created time.Time `json:"created"`
	// Signatures counts what is loaded by kind.
	Signatures map[string]int `json:"signatures,omitempty"`
	Total      int            `json:"total"`
}

// Hello says that the process is locked up and ready, or why it is not.
type Hello struct {
	Info    Info           `json:"info"`
	Sandbox sandbox.Report `json:"sandbox"`
	Error   string         `json:"error,omitempty"`
}

// Problem is something wrong in the definitions' sources.
type Problem struct {
	File   string `json:"file"`
	Line   int    `json:"line,omitempty"`   // from 1; 0 when it concerns the file
	Column int    `json:"column,omitempty"` // from 1; 0 when it concerns the line
	Reason string `json:"reason"`
	// Fatal problems keep the whole set from being used; others cost the
	// signature in question.
	Fatal bool `json:"fatal,omitempty"`
}

// Compiled is the outcome of a compilation.
type Compiled struct {
	Info     Info           `json:"info"`
	Sandbox  sandbox.Report `json:"sandbox"`
	Problems []Problem      `json:"problems,omitempty"`
	// MoreProblems counts those beyond the first MaxProblems.
	MoreProblems int `json:"more_problems,omitempty"`
	// Unsupported counts signatures that were left out, by kind.
	Unsupported map[string]int `json:"unsupported,omitempty"`
	Error       string         `json:"error,omitempty"`
}

// MaxProblems is how many problems Compiled carries.
const MaxProblems = 100

// Scan asks for a verdict about the descriptor that comes with it.
type Scan struct {
	ID       uint64
	Size     int64
	Archives bool
	// Timeout is when the daemon gives up; 0 is never.
	Timeout time.Duration
	// Name is the file's path, for rules that look at it. Any bytes but NUL.
	Name string
}

// Cancel asks for an early end of a scan.
type Cancel struct{ ID uint64 }

// Answer is the outcome of a scan: a verdict, or an error when Error is set.
type Answer struct {
	ID      uint64
	Verdict verdict.Verdict
	Error   string
}

func (*Setup) kind() Kind    { return KindSetup }
func (*Hello) kind() Kind    { return KindHello }
func (*Scan) kind() Kind     { return KindScan }
func (*Cancel) kind() Kind   { return KindCancel }
func (*Answer) kind() Kind   { return KindAnswer }
func (*Compiled) kind() Kind { return KindCompiled }

// Append writes the packet of m to b. Long strings and lists of an Answer are
// cut to the bounds; it fails only for JSON messages that do not fit.
func Append(b []byte, m Message) ([]byte, error) {
	b = append(b, byte(m.kind()))
	switch m := m.(type) {
	case *Scan:
		b = binary.LittleEndian.AppendUint64(b, m.ID)
		b = binary.LittleEndian.AppendUint64(b, uint64(m.Size))
		b = binary.LittleEndian.AppendUint64(b, uint64(m.Timeout))
		b = append(b, bit(m.Archives))
		return appendString(b, m.Name, MaxName), nil
	case *Cancel:
		return binary.LittleEndian.AppendUint64(b, m.ID), nil
	case *Answer:
		b = binary.LittleEndian.AppendUint64(b, m.ID)
		if m.Error != "" {
			return appendString(append(b, 1), m.Error, maxError), nil
		}
		return appendVerdict(append(b, 0), m.Verdict), nil
	}
	body, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encoding a message to or from the scanner: %w", err)
	}
	if len(body)+1 > MaxMessage {
		return nil, fmt.Errorf("message to or from the scanner has %d bytes, more than %d", len(body)+1, MaxMessage)
	}
	return append(b, body...), nil
}

// Decode reads a packet. The strings of the result do not alias b.
func Decode(b []byte) (Message, error) {
	if len(b) == 0 || len(b) > MaxMessage {
		return nil, fmt.Errorf("%w: %d bytes", ErrProtocol, len(b))
	}
	r := reader{b: b[1:]}
	var m Message
	switch kind := Kind(b[0]); kind {
	case KindSetup:
		return decodeJSON(b[1:], &Setup{})
	case KindHello:
		h := &Hello{}
		m, err := decodeJSON(b[1:], h)
		h.Error = Clean(h.Error)
		h.Info.clean()
		return m, err
	case KindCompiled:
		c := &Compiled{}
		m, err := decodeJSON(b[1:], c)
		c.Trim()
		return m, err
	case KindScan:
		s := &Scan{ID: r.uint64(), Size: r.int64(), Timeout: time.Duration(r.int64()), Archives: r.flag(), Name: r.string(MaxName)}
		if s.Size < 0 || s.Timeout < 0 {
			r.fail("negative size or time")
		}
		m = s
	case KindCancel:
		m = &Cancel{ID: r.uint64()}
	case KindAnswer:
		a := &Answer{ID: r.uint64()}
		if r.flag() {
			if a.Error = Clean(r.string(maxError)); a.Error == "" {
				a.Error = "unnamed error"
			}
		} else {
			a.Verdict = r.verdict()
		}
		m = a
	default:
		return nil, fmt.Errorf("%w: unknown kind %d", ErrProtocol, kind)
	}
	if r.err == nil && len(r.b) != 0 {
		r.fail("%d bytes too many", len(r.b))
	}
	if r.err != nil {
		return nil, r.err
	}
	return m, nil
}

func decodeJSON[M any, P interface {
	*M
	Message
}](b []byte, m P) (Message, error) {
	if err := json.Unmarshal(b, m); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	return m, nil
}

func bit(v bool) byte {
	if v {
		return 1
	}
	return 0
}

// Clean makes text of the scanner printable: it may end in logs and on
// terminals.
func Clean(s string) string {
	ok := utf8.ValidString(s)
	for i := 0; ok && i < len(s); i++ {
		ok = s[i] >= ' ' && s[i] != 0x7f
	}
	if ok {
		return s
	}
	out := make([]rune, 0, len(s))
	for _, r := range s {
		if r < ' ' || r == 0x7f || (r >= 0x80 && r < 0xa0) {
			r = utf8.RuneError
		}
		out = append(out, r)
	}
	return string(out)
}

// Trim cuts the message to what a packet holds and the text to what may be
// shown.
func (c *Compiled) Trim() {
	const line = 512
	keep := min(len(c.Problems), MaxProblems)
	for i := range c.Problems[:keep] {
		p := &c.Problems[i]
		p.File, p.Reason = Clean(p.File[:min(len(p.File), line)]), Clean(p.Reason[:min(len(p.Reason), line)])
	}
	c.Error = Clean(c.Error[:min(len(c.Error), maxError)])
	c.Info.clean()
	all := c.Problems
	for ; ; keep /= 2 {
		c.Problems, c.MoreProblems = all[:keep], c.MoreProblems+len(c.Problems)-keep
		if _, err := Append(nil, c); err == nil || keep == 0 {
			return
		}
	}
}

// clean makes the text of a scanner fit to be shown.
func (i *Info) clean() {
	i.Engine, i.Definitions = Clean(i.Engine), Clean(i.Definitions)
	for kind, n := range i.Signatures {
		if c := Clean(kind); c != kind {
			delete(i.Signatures, kind)
			i.Signatures[c] = n
		}
	}
}
