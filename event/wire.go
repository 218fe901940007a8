package event

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
)

// Limits of the wire encoding. The encoder cuts what is longer, the decoder
// cuts it too (a sender may be another program), so that a single event can
// not fill a store.
const (
	// MaxString is the longest text member in bytes; longer text is cut at a
	// character boundary.
	MaxString = 32 << 10
	// MaxAdditional is the number of entries kept of Event.Additional.
	MaxAdditional = 64
	// MaxBatchEvents is the number of events that DecodeEvents accepts. Two
	// bytes encode an event, a kilobyte holds one: without the limit a small
	// message fills the memory.
	MaxBatchEvents = 50_000
)

// ErrTooManyEvents is returned by DecodeEvents for more than MaxBatchEvents.
var ErrTooManyEvents = errors.New("more events in one batch than allowed")

// AppendEvent appends e to b as one element of the message Events of
// event.proto: field number, length, event. Concatenated results are a valid
// Events message. Invalid UTF-8 is replaced by U+FFFD, since Protocol Buffers'
// strings are UTF-8 and names on Linux need not be.
func AppendEvent(b []byte, e *Event) []byte {
	b = protowire.AppendTag(b, 1, protowire.BytesType)
	b, at := openMessage(b)
	b = appendVarint(b, 1, e.ReportID)
	b = appendTime(b, 2, e.Time)
	b = appendVarint(b, 3, uint64(e.Class))
	b = appendString(b, 4, e.Action)
	b = appendMessage(b, 5, &e.Process, appendProcess)
	b = appendMessage(b, 6, &e.Initiating, appendProcess)
	b = appendMessage(b, 7, &e.File, appendFile)
	b = appendMessage(b, 8, &e.Network, appendNetwork)
	b = appendMessage(b, 9, &e.Logon, appendLogon)
	b = appendAdditional(b, 10, e.Additional)
	return closeMessage(b, at)
}

// Encode returns the Events message of es.
func Encode(es []Event) []byte {
	b := make([]byte, 0, len(es)*256)
	for i := range es {
		b = AppendEvent(b, &es[i])
	}
	return b
}

func appendProcess(b []byte, p *Process) []byte {
	b = appendVarint(b, 1, uint64(p.PID))
	b = appendTime(b, 2, p.StartTime)
	b = appendString(b, 3, p.FileName)
	b = appendString(b, 4, p.FolderPath)
	b = appendString(b, 5, p.CommandLine)
	b = appendString(b, 6, p.WorkingDir)
	b = appendString(b, 7, p.SHA1)
	b = appendString(b, 8, p.SHA256)
	b = appendString(b, 9, p.MD5)
	b = appendVarint(b, 10, uint64(p.FileSize))
	b = appendVarint(b, 11, protowire.EncodeZigZag(p.UID))
	b = appendString(b, 12, p.AccountName)
	b = appendVarint(b, 13, protowire.EncodeZigZag(p.LoginUID))
	b = appendString(b, 14, p.LoginName)
	b = appendVarint(b, 15, protowire.EncodeZigZag(p.SessionID))
	b = appendString(b, 16, p.Terminal)
	b = appendString(b, 17, p.ContainerID)
	b = appendVarint(b, 18, uint64(p.ParentPID))
	b = appendString(b, 19, p.ParentFileName)
	b = appendTime(b, 20, p.ParentStartTime)
	b = appendString(b, 21, p.ContainerName)
	b = appendString(b, 22, p.ContainerImage)
	b = appendString(b, 23, p.Pod)
	b = appendString(b, 24, p.Namespaces)
	b = appendString(b, 25, p.Capabilities)
	b = appendVarint(b, 26, uint64(p.SessionLeader))
	b = appendString(b, 27, p.Script)
	b = appendString(b, 28, p.Package)
	return appendString(b, 29, p.FuzzyHash)
}

func appendFile(b []byte, f *File) []byte {
	b = appendString(b, 1, f.FileName)
	b = appendString(b, 2, f.FolderPath)
	b = appendString(b, 3, f.PreviousFileName)
	b = appendString(b, 4, f.PreviousFolderPath)
	b = appendString(b, 5, f.SHA1)
	b = appendString(b, 6, f.SHA256)
	b = appendString(b, 7, f.MD5)
	return appendVarint(b, 8, uint64(f.Size))
}

func appendNetwork(b []byte, n *Network) []byte {
	b = appendString(b, 1, n.RemoteIP)
	b = appendVarint(b, 2, uint64(n.RemotePort))
	b = appendString(b, 3, n.RemoteURL)
	b = appendString(b, 4, n.LocalIP)
	b = appendVarint(b, 5, uint64(n.LocalPort))
	return appendString(b, 6, n.Protocol)
}

func appendLogon(b []byte, l *Logon) []byte {
	b = appendString(b, 1, l.Type)
	b = appendString(b, 2, l.AccountName)
	b = appendString(b, 3, l.Protocol)
	b = appendString(b, 4, l.FailureReason)
	if l.IsLocalAdmin {
		b = appendVarint(b, 5, 1)
	}
	b = appendString(b, 6, l.RemoteIP)
	b = appendVarint(b, 7, uint64(l.RemotePort))
	return appendString(b, 8, l.RemoteDevice)
}

func appendAdditional(b []byte, num protowire.Number, m map[string]string) []byte {
	if len(m) == 0 {
		return b
	}
	// Sorted, so that equal events have equal bytes and the limit always keeps
	// the same entries.
	var room [16]string
	keys := room[:0]
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	if len(keys) > MaxAdditional {
		keys = keys[:MaxAdditional]
	}
	for _, k := range keys {
		b = protowire.AppendTag(b, num, protowire.BytesType)
		var at int
		b, at = openMessage(b)
		b = appendString(b, 1, k)
		b = appendString(b, 2, m[k])
		b = closeMessage(b, at)
	}
	return b
}

// openMessage leaves one byte for the length of what follows; closeMessage
// fills it in, moving the content when the length needs more.
func openMessage(b []byte) ([]byte, int) { return append(b, 0), len(b) }

func closeMessage(b []byte, at int) []byte {
	n := len(b) - at - 1
	if n < 0x80 {
		b[at] = byte(n)
		return b
	}
	extra := protowire.SizeVarint(uint64(n)) - 1
	var pad [9]byte
	b = append(b, pad[:extra]...)
	copy(b[at+1+extra:], b[at+1:at+1+n])
	protowire.AppendVarint(b[:at], uint64(n))
	return b
}

// appendMessage appends a member message unless it is empty.
func appendMessage[T any](b []byte, num protowire.Number, m *T, appendTo func([]byte, *T) []byte) []byte {
	start := len(b)
	b = protowire.AppendTag(b, num, protowire.BytesType)
	b, at := openMessage(b)
	b = appendTo(b, m)
	if len(b) == at+1 {
		return b[:start]
	}
	return closeMessage(b, at)
}

func appendVarint(b []byte, num protowire.Number, v uint64) []byte {
	if v == 0 {
		return b
	}
	return protowire.AppendVarint(protowire.AppendTag(b, num, protowire.VarintType), v)
}

// Times outside these cannot be told in nanoseconds since 1970 in 64 bits.
var (
	firstTime = time.Unix(0, -1<<63).UTC()
	lastTime  = time.Unix(0, 1<<63-1).UTC()
)

func appendTime(b []byte, num protowire.Number, t time.Time) []byte {
	if t.IsZero() || t.Before(firstTime) || t.After(lastTime) {
		return b
	}
	ns := t.UnixNano()
	if ns == 0 {
		return b
	}
	return protowire.AppendFixed64(protowire.AppendTag(b, num, protowire.Fixed64Type), uint64(ns))
}

func appendString(b []byte, num protowire.Number, s string) []byte {
	if s == "" {
		return b
	}
	return protowire.AppendString(protowire.AppendTag(b, num, protowire.BytesType), clean(s))
}

// clean makes s valid UTF-8 of at most MaxString bytes.
func clean(s string) string { return clip(s, MaxString) }

// clip makes s valid UTF-8 of at most limit bytes.
func clip(s string, limit int) string {
	s = cut(s, limit)
	if utf8.ValidString(s) {
		return s
	}
	// A replaced byte becomes three.
	return cut(strings.ToValidUTF8(s, "\uFFFD"), limit)
}

// cut shortens s to at most limit bytes without splitting a character.
func cut(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	// At most three steps: an encoded character has up to four bytes.
	at := limit
	for i := 0; i < utf8.UTFMax-1 && at > 0 && !utf8.RuneStart(s[at]); i++ {
		at--
	}
	return s[:at]
}

// DecodeEvents reads an Events message and calls fn for each event, in order.
// The event that fn gets is reused: fn copies what it keeps (*e). All strings
// of one call share a single allocation of the size of data.
//
// It ends with the first error of fn. A message that is not valid Protocol
// Buffers gives an error that names the event (from 0) and the byte offset;
// the events before it have been passed to fn then. Unknown fields, and known
// ones of another wire type, are skipped.
func DecodeEvents(data []byte, fn func(e *Event) error) error {
	text := string(data)
	var e Event
	count := 0
	r := reader{b: data, s: text}
	for r.more() {
		num, typ, ok := r.tag()
		if ok && num == 1 && typ == protowire.BytesType {
			sub, ok := r.message()
			if !ok {
				return r.error(count)
			}
			if count == MaxBatchEvents {
				return fmt.Errorf("%w: the limit is %d", ErrTooManyEvents, MaxBatchEvents)
			}
			e = Event{}
			if !decodeEvent(&sub, &e) {
				sub.base += r.at - len(sub.b)
				return sub.error(count)
			}
			count++
			if err := fn(&e); err != nil {
				return err
			}
			continue
		}
		if !ok || !r.skip(num, typ) {
			return r.error(count)
		}
	}
	return nil
}

func decodeEvent(r *reader, e *Event) bool {
	for r.more() {
		num, typ, ok := r.tag()
		if !ok {
			return false
		}
		switch {
		case num == 1 && typ == protowire.VarintType:
			e.ReportID, ok = r.varint()
		case num == 2 && typ == protowire.Fixed64Type:
			ok = r.time(&e.Time)
		case num == 3 && typ == protowire.VarintType:
			var v uint64
			v, ok = r.varint()
			e.Class = Class(v)
			if uint64(uint32(v)) > uint64(ClassBehavior) {
				e.Class = ClassUnknown
			}
		case typ != protowire.BytesType:
			ok = r.skip(num, typ)
		case num == 4:
			ok = r.string(&e.Action)
		case num == 5:
			ok = r.into(func(sub *reader) bool { return decodeProcess(sub, &e.Process) })
		case num == 6:
			ok = r.into(func(sub *reader) bool { return decodeProcess(sub, &e.Initiating) })
		case num == 7:
			ok = r.into(func(sub *reader) bool { return decodeFile(sub, &e.File) })
		case num == 8:
			ok = r.into(func(sub *reader) bool { return decodeNetwork(sub, &e.Network) })
		case num == 9:
			ok = r.into(func(sub *reader) bool { return decodeLogon(sub, &e.Logon) })
		case num == 10:
			ok = r.into(func(sub *reader) bool { return decodeAdditional(sub, e) })
		default:
			ok = r.skip(num, typ)
		}
		if !ok {
			return false
		}
	}
	return true
}

func decodeProcess(r *reader, p *Process) bool {
	return r.fields(func(num protowire.Number, f field) {
		switch num {
		case 1:
			f.int(&p.PID)
		case 2:
			f.time(&p.StartTime)
		case 3:
			f.string(&p.FileName)
		case 4:
			f.string(&p.FolderPath)
		case 5:
			f.string(&p.CommandLine)
		case 6:
			f.string(&p.WorkingDir)
		case 7:
			f.string(&p.SHA1)
		case 8:
			f.string(&p.SHA256)
		case 9:
			f.string(&p.MD5)
		case 10:
			f.int(&p.FileSize)
		case 11:
			f.sint(&p.UID)
		case 12:
			f.string(&p.AccountName)
		case 13:
			f.sint(&p.LoginUID)
		case 14:
			f.string(&p.LoginName)
		case 15:
			f.sint(&p.SessionID)
		case 16:
			f.string(&p.Terminal)
		case 17:
			f.string(&p.ContainerID)
		case 18:
			f.int(&p.ParentPID)
		case 19:
			f.string(&p.ParentFileName)
		case 20:
			f.time(&p.ParentStartTime)
		case 21:
			f.string(&p.ContainerName)
		case 22:
			f.string(&p.ContainerImage)
		case 23:
			f.string(&p.Pod)
		case 24:
			f.string(&p.Namespaces)
		case 25:
			f.string(&p.Capabilities)
		case 26:
			f.int(&p.SessionLeader)
		case 27:
			f.string(&p.Script)
		case 28:
			f.string(&p.Package)
		case 29:
			f.string(&p.FuzzyHash)
		}
	})
}

func decodeFile(r *reader, x *File) bool {
	return r.fields(func(num protowire.Number, f field) {
		switch num {
		case 1:
			f.string(&x.FileName)
		case 2:
			f.string(&x.FolderPath)
		case 3:
			f.string(&x.PreviousFileName)
		case 4:
			f.string(&x.PreviousFolderPath)
		case 5:
			f.string(&x.SHA1)
		case 6:
			f.string(&x.SHA256)
		case 7:
			f.string(&x.MD5)
		case 8:
			f.int(&x.Size)
		}
	})
}

func decodeNetwork(r *reader, x *Network) bool {
	return r.fields(func(num protowire.Number, f field) {
		switch num {
		case 1:
			f.string(&x.RemoteIP)
		case 2:
			f.int(&x.RemotePort)
		case 3:
			f.string(&x.RemoteURL)
		case 4:
			f.string(&x.LocalIP)
		case 5:
			f.int(&x.LocalPort)
		case 6:
			f.string(&x.Protocol)
		}
	})
}

func decodeLogon(r *reader, x *Logon) bool {
	return r.fields(func(num protowire.Number, f field) {
		switch num {
		case 1:
			f.string(&x.Type)
		case 2:
			f.string(&x.AccountName)
		case 3:
			f.string(&x.Protocol)
		case 4:
			f.string(&x.FailureReason)
		case 5:
			f.bool(&x.IsLocalAdmin)
		case 6:
			f.string(&x.RemoteIP)
		case 7:
			f.int(&x.RemotePort)
		case 8:
			f.string(&x.RemoteDevice)
		}
	})
}

func decodeAdditional(r *reader, e *Event) bool {
	var key, value string
	ok := r.fields(func(num protowire.Number, f field) {
		switch num {
		case 1:
			f.string(&key)
		case 2:
			f.string(&value)
		}
	})
	if !ok {
		return false
	}
	if e.Additional == nil {
		e.Additional = make(map[string]string)
	}
	if _, there := e.Additional[key]; there || len(e.Additional) < MaxAdditional {
		e.Additional[key] = value
	}
	return true
}
