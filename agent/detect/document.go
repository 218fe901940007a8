package detect

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// Limits of a rule file.
const (
	maxFileSize  = 256 << 10
	maxDocuments = 500
	maxDepth     = 24
	maxNodes     = 20000
)

type nodeKind uint8

const (
	nullNode nodeKind = iota
	textNode
	numberNode
	boolNode
	listNode
	mapNode
)

func (k nodeKind) String() string {
	return [...]string{"nothing", "text", "a number", "a truth value", "a list", "a mapping"}[k]
}

// node is a bounded, alias-free view of a YAML value that knows its line.
type node struct {
	kind  nodeKind
	text  string
	line  int
	items []node   // of a list, or the values of a mapping
	keys  []string // of a mapping
}

func (n *node) get(key string) *node {
	for i, k := range n.keys {
		if k == key {
			return &n.items[i]
		}
	}
	return nil
}

// lineError is an error at a line of a rule file.
type lineError struct {
	line int
	err  error
}

func (e *lineError) Error() string { return e.err.Error() }
func (e *lineError) Unwrap() error { return e.err }

func atLine(line int, format string, args ...any) error {
	return &lineError{line, fmt.Errorf(format, args...)}
}

// documents parses a YAML file. It refuses what no rule needs and hostile files
// use: anchors and aliases, deep nesting, too many values.
func documents(data []byte) (docs []node, err error) {
	if len(data) > maxFileSize {
		return nil, fmt.Errorf("%d bytes; a rule file has at most %d", len(data), maxFileSize)
	}
	if bytes.IndexByte(data, 0) >= 0 {
		return nil, errors.New("not a text file")
	}
	if err := checkNesting(data); err != nil {
		return nil, err
	}
	// The parser is known to panic on some broken input.
	defer func() {
		if p := recover(); p != nil {
			docs, err = nil, fmt.Errorf("not valid YAML: %v", p)
		}
	}()
	file, err := parser.ParseBytes(data, 0)
	if err != nil {
		return nil, fmt.Errorf("not valid YAML: %w", err)
	}
	if len(file.Docs) > maxDocuments {
		return nil, fmt.Errorf("%d documents; a rule file has at most %d", len(file.Docs), maxDocuments)
	}
	c := converter{left: maxNodes}
	for _, d := range file.Docs {
		if d.Body == nil {
			continue
		}
		n, err := c.convert(d.Body, 0)
		if err != nil {
			return nil, err
		}
		if n.kind != nullNode {
			docs = append(docs, n)
		}
	}
	return docs, nil
}

// checkNesting refuses files whose brackets or list dashes alone would make
// the YAML parser recurse deeply. Brackets in text count too: no rule has
// hundreds of unclosed ones.
func checkNesting(data []byte) error {
	depth, line := 0, 1
	dashes := 0
	for i, b := range data {
		switch b {
		case '[', '{':
			depth++
		case ']', '}':
			depth = max(depth-1, 0)
		case '\n':
			line++
			dashes = 0
		case '-', '?', ':':
			if i+1 < len(data) && data[i+1] == ' ' {
				dashes++
			}
		}
		if depth > 200 || dashes > 200 {
			return atLine(line, "nested too deeply")
		}
	}
	return nil
}

type converter struct{ left int }

func (c *converter) convert(a ast.Node, depth int) (node, error) {
	line := 0
	if t := a.GetToken(); t != nil && t.Position != nil {
		line = t.Position.Line
	}
	n := node{line: line}
	if c.left--; c.left < 0 {
		return n, atLine(line, "more than %d values", maxNodes)
	}
	if depth > maxDepth {
		return n, atLine(line, "nested more than %d deep", maxDepth)
	}
	switch v := a.(type) {
	case *ast.NullNode:
		n.kind = nullNode
	case *ast.StringNode:
		n.kind, n.text = textNode, v.Value
	case *ast.LiteralNode:
		n.kind, n.text = textNode, v.Value.Value
	case *ast.IntegerNode:
		n.kind, n.text = numberNode, fmt.Sprint(v.Value)
	case *ast.FloatNode:
		n.kind, n.text = numberNode, strconv.FormatFloat(v.Value, 'g', -1, 64)
	case *ast.BoolNode:
		n.kind, n.text = boolNode, strconv.FormatBool(v.Value)
	case *ast.InfinityNode, *ast.NanNode:
		n.kind, n.text = textNode, a.GetToken().Value
	case *ast.TagNode:
		return c.convert(v.Value, depth+1)
	case *ast.SequenceNode:
		n.kind = listNode
		for _, item := range v.Values {
			k, err := c.convert(item, depth+1)
			if err != nil {
				return n, err
			}
			n.items = append(n.items, k)
		}
	case *ast.MappingNode:
		n.kind = mapNode
		for _, item := range v.Values {
			if err := c.pair(&n, item, depth); err != nil {
				return n, err
			}
		}
	case *ast.MappingValueNode:
		n.kind = mapNode
		if err := c.pair(&n, v, depth); err != nil {
			return n, err
		}
	case nil:
		n.kind = nullNode
	default:
		return n, atLine(line, "%s is not allowed in a rule", a.Type())
	}
	return n, nil
}

func (c *converter) pair(n *node, v *ast.MappingValueNode, depth int) error {
	key, err := c.convert(v.Key, depth+1)
	if err != nil {
		return err
	}
	if key.kind == listNode || key.kind == mapNode {
		return atLine(key.line, "a key must be text")
	}
	if n.get(key.text) != nil {
		return atLine(key.line, "%q stands twice in one mapping", key.text)
	}
	value, err := c.convert(v.Value, depth+1)
	if err != nil {
		return err
	}
	if value.line == 0 || value.kind == nullNode {
		value.line = key.line
	}
	n.keys = append(n.keys, key.text)
	n.items = append(n.items, value)
	return nil
}
