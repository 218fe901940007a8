package event

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

// reader walks a Protocol Buffers message. b and s hold the same bytes: b for
// protowire, s to cut strings from without copying.
type reader struct {
	b    []byte
	s    string
	at   int
	base int   // offset of b in the whole message, for errors
	err  error // of the step that failed
}

func (r *reader) more() bool { return r.at < len(r.b) }

// error describes the step that failed.
func (r *reader) error(event int) error {
	return fmt.Errorf("event %d is not in the encoding of event.proto: at byte %d: %w", event, r.base+r.at, r.err)
}

// advance moves by the length that protowire returned, or notes its error.
func (r *reader) advance(n int) bool {
	if n < 0 {
		r.err = protowire.ParseError(n)
		return false
	}
	r.at += n
	return true
}

func (r *reader) tag() (protowire.Number, protowire.Type, bool) {
	num, typ, n := protowire.ConsumeTag(r.b[r.at:])
	return num, typ, r.advance(n)
}

func (r *reader) skip(num protowire.Number, typ protowire.Type) bool {
	return r.advance(protowire.ConsumeFieldValue(num, typ, r.b[r.at:]))
}

func (r *reader) varint() (uint64, bool) {
	v, n := protowire.ConsumeVarint(r.b[r.at:])
	return v, r.advance(n)
}

func (r *reader) fixed64() (uint64, bool) {
	v, n := protowire.ConsumeFixed64(r.b[r.at:])
	return v, r.advance(n)
}

// message takes a length-delimited value as a reader of its own.
func (r *reader) message() (reader, bool) {
	v, n := protowire.ConsumeBytes(r.b[r.at:])
	if !r.advance(n) {
		return reader{}, false
	}
	return reader{b: v, s: r.s[r.at-len(v) : r.at], base: r.base}, true
}

func (r *reader) string(to *string) bool {
	v, n := protowire.ConsumeBytes(r.b[r.at:])
	if !r.advance(n) {
		return false
	}
	*to = clean(r.s[r.at-len(v) : r.at])
	return true
}

func (r *reader) time(to *time.Time) bool {
	v, ok := r.fixed64()
	if ok {
		*to = timeOf(int64(v))
	}
	return ok
}

// into decodes a member message with decode.
func (r *reader) into(decode func(*reader) bool) bool {
	sub, ok := r.message()
	if !ok {
		return false
	}
	start := r.at - len(sub.b)
	if decode(&sub) {
		return true
	}
	r.at, r.err = start+sub.at, sub.err
	return false
}

// fields calls fn for each field of a message without member messages.
func (r *reader) fields(fn func(protowire.Number, field)) bool {
	for r.more() {
		num, typ, ok := r.tag()
		if !ok {
			return false
		}
		f := field{typ: typ}
		switch typ {
		case protowire.VarintType:
			f.v, ok = r.varint()
		case protowire.Fixed64Type:
			f.v, ok = r.fixed64()
		case protowire.BytesType:
			var v []byte
			var n int
			v, n = protowire.ConsumeBytes(r.b[r.at:])
			if ok = r.advance(n); ok {
				f.s = r.s[r.at-len(v) : r.at]
			}
		default:
			if !r.skip(num, typ) {
				return false
			}
			continue
		}
		if !ok {
			return false
		}
		fn(num, f)
	}
	return true
}

// field is one value. Its methods set the target when the wire type is theirs;
// another type is an unknown field and ignored, as Protocol Buffers has it.
type field struct {
	typ protowire.Type
	v   uint64
	s   string
}

func (f field) string(to *string) {
	if f.typ == protowire.BytesType {
		*to = clean(f.s)
	}
}

func (f field) int(to *int64) {
	if f.typ == protowire.VarintType {
		*to = int64(f.v)
	}
}

func (f field) sint(to *int64) {
	if f.typ == protowire.VarintType {
		*to = protowire.DecodeZigZag(f.v)
	}
}

func (f field) bool(to *bool) {
	if f.typ == protowire.VarintType {
		*to = f.v != 0
	}
}

func (f field) time(to *time.Time) {
	if f.typ == protowire.Fixed64Type {
		*to = timeOf(int64(f.v))
	}
}

func timeOf(ns int64) time.Time {
	if ns == 0 {
		return time.Time{}
	}
	return time.Unix(0, ns).UTC()
}
