package policy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Bounds on a profile.
const (
	MaxBytes = 4 << 20
	maxDepth = 16
	maxNodes = 200_000
)

// node is a JSON value with the place it came from.
type node struct {
	offset  int
	value   any // nil, bool, json.Number, string; members or items otherwise
	members []member
	items   []node
	kind    string // "object", "array", "string", "number", "boolean", "null"
}

type member struct {
	name   string
	offset int
	node   node
}

// treeReader builds nodes from the tokens of encoding/json.
type treeReader struct {
	data  []byte
	dec   *json.Decoder
	nodes int
}

// offsetError is an error with its place in the profile.
type offsetError struct {
	offset int
	msg    string
}

func (e *offsetError) Error() string { return e.msg }

// readTree reads one JSON value and nothing behind it.
func readTree(data []byte) (node, error) {
	if len(data) > MaxBytes {
		return node{}, &offsetError{0, fmt.Sprintf("%d bytes: a profile has at most %d", len(data), MaxBytes)}
	}
	r := treeReader{data: data, dec: json.NewDecoder(bytes.NewReader(data))}
	r.dec.UseNumber()
	n, err := r.value(0)
	if err != nil {
		return node{}, r.located(err)
	}
	rest := r.skip(int(r.dec.InputOffset()))
	if rest < len(data) {
		return node{}, &offsetError{rest, "something follows the profile's JSON object"}
	}
	return n, nil
}

func (r *treeReader) located(err error) error {
	var at *offsetError
	if errors.As(err, &at) {
		return at
	}
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		// The decoder's offsets are not all counted alike; those of Unmarshal are
		// behind the offending byte.
		var raw json.RawMessage
		errors.As(json.Unmarshal(r.data, &raw), &syntax)
		return &offsetError{max(0, min(int(syntax.Offset), len(r.data))-1), "not valid JSON: " + syntax.Error()}
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return &offsetError{len(r.data), "not valid JSON: the file ends in the middle"}
	}
	return &offsetError{int(r.dec.InputOffset()), "not valid JSON: " + err.Error()}
}

// skip returns the offset of the next token.
func (r *treeReader) skip(offset int) int {
	for offset < len(r.data) && strings.IndexByte(" \t\r\n,:", r.data[offset]) >= 0 {
		offset++
	}
	return offset
}

func (r *treeReader) token() (json.Token, int, error) {
	at := r.skip(int(r.dec.InputOffset()))
	t, err := r.dec.Token()
	return t, at, err
}

func (r *treeReader) value(depth int) (node, error) {
	t, at, err := r.token()
	if err != nil {
		return node{}, err
	}
	if r.nodes++; r.nodes > maxNodes {
		return node{}, &offsetError{at, fmt.Sprintf("more than %d values", maxNodes)}
	}
	n := node{offset: at, value: t}
	switch t := t.(type) {
	case nil:
		n.kind = "null"
	case bool:
		n.kind = "boolean"
	case json.Number:
		n.kind = "number"
	case string:
		n.kind = "string"
	case json.Delim:
		if depth >= maxDepth {
			return node{}, &offsetError{at, fmt.Sprintf("nested more than %d deep", maxDepth)}
		}
		n.value = nil
		if t == '{' {
			n.kind = "object"
			err = r.object(&n, depth)
		} else {
			n.kind = "array"
			err = r.array(&n, depth)
		}
	}
	return n, err
}

func (r *treeReader) object(n *node, depth int) error {
	for r.dec.More() {
		t, at, err := r.token()
		if err != nil {
			return err
		}
		name, ok := t.(string)
		if !ok {
			return &offsetError{at, "not valid JSON: a member's name is missing"}
		}
		v, err := r.value(depth + 1)
		if err != nil {
			return err
		}
		n.members = append(n.members, member{name, at, v})
	}
	_, err := r.dec.Token()
	return err
}

func (r *treeReader) array(n *node, depth int) error {
	for r.dec.More() {
		v, err := r.value(depth + 1)
		if err != nil {
			return err
		}
		n.items = append(n.items, v)
	}
	_, err := r.dec.Token()
	return err
}

// describe names a value in an error message.
func (n node) describe() string {
	switch v := n.value.(type) {
	case string:
		if len(v) > 60 {
			v = v[:60] + "..."
		}
		return fmt.Sprintf("%q", v)
	case nil:
		return n.kind
	default:
		return fmt.Sprint(v)
	}
}

// place turns an offset into line and column, both from 1; columns count
// characters.
func place(data []byte, offset int) (line, column int) {
	offset = min(max(offset, 0), len(data))
	before := data[:offset]
	start := bytes.LastIndexByte(before, '\n') + 1
	return bytes.Count(before, []byte("\n")) + 1, len([]rune(string(before[start:]))) + 1
}
