package wire

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"

	"github.com/bulwarkhq/bulwark/engine/verdict"
)

func appendString(b []byte, s string, limit int) []byte {
	if len(s) > limit {
		s = s[:limit]
	}
	b = binary.LittleEndian.AppendUint16(b, uint16(len(s)))
	return append(b, s...)
}

// appendVerdict keeps the packet below MaxMessage: matches that do not fit any
// more are left out, the first ones stay.
func appendVerdict(b []byte, v verdict.Verdict) []byte {
	for _, hash := range []string{v.SHA256, v.SHA1, v.MD5} {
		b = appendString(b, hash, 64)
	}
	b = binary.LittleEndian.AppendUint64(b, uint64(v.Size))
	b = binary.LittleEndian.AppendUint64(b, uint64(v.Objects))
	b = binary.LittleEndian.AppendUint64(b, uint64(v.Bytes))
	for _, s := range []string{v.FileType, v.Engine, v.Definitions} {
		b = appendString(b, s, maxString)
	}
	limits := v.Limits[:min(len(v.Limits), maxLimits)]
	b = append(b, byte(len(limits)))
	for _, l := range limits {
		b = appendString(b, string(l), maxString)
	}
	count := len(b) // where the number of matches goes
	b = append(b, 0)
	for i, m := range v.Matches {
		start := len(b)
		for _, s := range []string{m.Threat, string(m.Type), m.Signature, m.Source} {
			b = appendString(b, s, maxString)
		}
		b = binary.LittleEndian.AppendUint64(b, uint64(m.Offset))
		inside := m.Inside[:min(len(m.Inside), maxInside)]
		b = append(b, byte(len(inside)))
		for _, s := range inside {
			b = appendString(b, s, maxString)
		}
		if i == maxMatches || len(b) > MaxMessage {
			return b[:start]
		}
		b[count]++
	}
	return b
}

// reader takes a body apart; after the first mistake everything reads as zero.
type reader struct {
	b   []byte
	err error
}

func (r *reader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: "+format, append([]any{ErrProtocol}, args...)...)
	}
}

func (r *reader) take(n int) []byte {
	if r.err != nil || len(r.b) < n {
		r.fail("ends too early")
		return make([]byte, n)
	}
	out := r.b[:n]
	r.b = r.b[n:]
	return out
}

func (r *reader) uint64() uint64 { return binary.LittleEndian.Uint64(r.take(8)) }
func (r *reader) int64() int64   { return int64(r.uint64()) }
func (r *reader) byte() byte     { return r.take(1)[0] }

func (r *reader) flag() bool {
	v := r.byte()
	if v > 1 {
		r.fail("flag is %d", v)
	}
	return v == 1
}

func (r *reader) string(limit int) string {
	n := int(binary.LittleEndian.Uint16(r.take(2)))
	if n > limit {
		r.fail("string of %d bytes, more than %d", n, limit)
		return ""
	}
	return string(r.take(n))
}

func (r *reader) text() string { return Clean(r.string(maxString)) }

// hash accepts a lower-case hex digest of size bytes, or nothing.
func (r *reader) hash(size int) string {
	s := r.string(64)
	if s == "" {
		return ""
	}
	raw, err := hex.DecodeString(s)
	if err != nil || len(raw) != size || hex.EncodeToString(raw) != s {
		r.fail("hash is not %d bytes of lower-case hex", size)
		return ""
	}
	return s
}

func (r *reader) verdict() verdict.Verdict {
	v := verdict.Verdict{SHA256: r.hash(32), SHA1: r.hash(20), MD5: r.hash(16)}
	v.Size, v.Objects, v.Bytes = r.int64(), int(r.int64()), r.int64()
	if v.Size < 0 || v.Objects < 0 || v.Bytes < 0 {
		r.fail("negative count")
	}
	v.FileType, v.Engine, v.Definitions = r.text(), r.text(), r.text()
	n := int(r.byte())
	if n > maxLimits {
		r.fail("%d limits", n)
	}
	for i := 0; i < n && r.err == nil; i++ {
		v.Limits = append(v.Limits, verdict.Limit(r.text()))
	}
	n = int(r.byte())
	if n > maxMatches {
		r.fail("%d matches", n)
	}
	for i := 0; i < n && r.err == nil; i++ {
		m := verdict.Match{Threat: r.text(), Type: verdict.Type(r.text()), Signature: r.text(), Source: r.text(), Offset: r.int64()}
		switch m.Type {
		case verdict.Malware, verdict.PUA, verdict.ArchiveBomb, verdict.Test:
		default:
			r.fail("unknown threat type %q", m.Type)
		}
		if m.Offset < -1 {
			r.fail("negative offset")
		}
		inside := int(r.byte())
		if inside > maxInside {
			r.fail("%d containers around a match", inside)
		}
		for j := 0; j < inside && r.err == nil; j++ {
			m.Inside = append(m.Inside, r.text())
		}
		v.Matches = append(v.Matches, m)
	}
	if len(v.Matches) > 0 && v.SHA256 == "" {
		r.fail("a match without SHA-256")
	}
	return v
}
