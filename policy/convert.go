package policy

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Tag is a tag of the device.
type Tag struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

// ThreatType says what to do with the threats of a type.
type ThreatType struct {
	Type   string `json:"key"`   // TypePUA, TypeArchiveBomb
	Action string `json:"value"` // ActionOff, ActionAudit, ActionBlock
}

// convert turns a JSON value into the Go value of a key's kind.
type convert struct {
	*parse
	key  Key
	name string // as written
}

func (c convert) wrongType(n node, want string) (any, bool) {
	suggestion := ""
	if s, ok := n.value.(string); ok && c.key.Kind == Bool && (s == "true" || s == "false") {
		suggestion = s + " without quotes"
	}
	if b, ok := n.value.(bool); ok && c.key.Kind == Enum && slices.Contains(c.key.Values, Disabled) && !b {
		suggestion = `"disabled"`
	}
	c.problem(n.offset, c.name, suggestion, "%s is not %s", n.describe(), want)
	return nil, false
}

func (c convert) value(n node) (any, bool) {
	switch c.key.Kind {
	case Bool:
		if b, ok := n.value.(bool); ok {
			return b, true
		}
		return c.wrongType(n, "true or false")
	case Switch:
		return c.toggle(n)
	case Enum:
		s, ok := n.value.(string)
		if !ok {
			return c.wrongType(n, "one of "+quoted(c.key.Values))
		}
		return c.word(n, s)
	case Int:
		return c.integer(n)
	case String:
		s, ok := n.value.(string)
		if !ok {
			return c.wrongType(n, "a string")
		}
		if strings.ContainsRune(s, 0) {
			c.problem(n.offset, c.name, "", "contains a NUL character")
			return nil, false
		}
		return s, true
	case Strings:
		return c.list(n)
	case Exclusions:
		return elements(c, n, convert.exclusion)
	case ThreatTypes:
		return elements(c, n, convert.threatType)
	case Tags:
		return c.tags(n)
	}
	return nil, false
}

// toggle reads enabled/disabled; booleans are tolerated.
func (c convert) toggle(n node) (any, bool) {
	switch v := n.value.(type) {
	case bool:
		word := Disabled
		if v {
			word = Enabled
		}
		c.warn(n.offset, c.name, "%v is taken for %q", v, word)
		return word, true
	case string:
		if l := strings.ToLower(v); l == Enabled || l == Disabled {
			return l, true
		}
	}
	return c.wrongType(n, `"enabled" or "disabled"`)
}

// word reads one of the key's values.
func (c convert) word(n node, s string) (any, bool) {
	if slices.Contains(c.key.Values, s) {
		return s, true
	}
	for _, v := range c.key.Values {
		if strings.EqualFold(v, s) {
			c.warn(n.offset, c.name, "%q is taken for %q", s, v)
			return v, true
		}
	}
	suggestion := nearest(s, c.key.Values)
	if suggestion != "" {
		suggestion = strconv.Quote(suggestion)
	}
	c.problem(n.offset, c.name, suggestion, "%s is not one of %s", n.describe(), quoted(c.key.Values))
	return nil, false
}

// integer reads a number in the key's range; strings of digits are tolerated,
// since the reference product's table calls some integers strings.
func (c convert) integer(n node) (any, bool) {
	want := fmt.Sprintf("a whole number from %d to %d", c.key.Min, c.key.Max)
	if c.key.ZeroOff {
		want += ", or 0"
	}
	var text string
	switch v := n.value.(type) {
	case json.Number:
		text = v.String()
	case string:
		text = v
	default:
		return c.wrongType(n, want)
	}
	i, err := strconv.Atoi(text)
	if err != nil || (i < c.key.Min || i > c.key.Max) && !(c.key.ZeroOff && i == 0) {
		return c.wrongType(n, want)
	}
	if n.kind == "string" {
		c.warn(n.offset, c.name, "%q is taken for the number %d", text, i)
	}
	return i, true
}

func (c convert) list(n node) (any, bool) {
	if n.kind != "array" {
		return c.wrongType(n, "a list of strings")
	}
	out := []string{}
	for i, item := range n.items {
		at := c
		at.name = fmt.Sprintf("%s[%d]", c.name, i)
		s, ok := item.value.(string)
		if !ok {
			at.wrongType(item, "a string")
			continue
		}
		if c.key.Values != nil {
			v, ok := at.word(item, s)
			if !ok {
				continue
			}
			s = v.(string)
		}
		if c.key.Name == KeyUnmonitored {
			// One documented example writes several names in one element.
			for _, name := range strings.Split(s, ",") {
				if name = strings.ToLower(strings.TrimSpace(name)); name != "" {
					out = append(out, name)
				}
			}
			continue
		}
		if s == "" {
			at.problem(item.offset, at.name, "", "is empty")
			continue
		}
		out = append(out, s)
	}
	return out, true
}

// elements reads a list of objects; those that are wrong are left out.
func elements[T any](c convert, n node, one func(convert, node) (T, bool)) (any, bool) {
	if n.kind != "array" {
		return c.wrongType(n, "a list of objects")
	}
	out := []T{}
	for i, item := range n.items {
		at := c
		at.name = fmt.Sprintf("%s[%d]", c.name, i)
		if item.kind != "object" {
			at.problem(item.offset, at.name, "", "an object is wanted, not %s", article(item.kind))
			continue
		}
		if v, ok := one(at, item); ok {
			out = append(out, v)
		}
	}
	return out, true
}

// fields returns the members of an object by name and reports those that are
// not among the known.
func (c convert) fields(n node, known ...string) map[string]node {
	out := make(map[string]node, len(n.members))
	for _, m := range n.members {
		if !slices.Contains(known, m.name) {
			c.problem(m.offset, c.name+"."+m.name, nearest(m.name, known), "no such key")
			continue
		}
		out[m.name] = m.node
	}
	return out
}

func (c convert) threatType(n node) (ThreatType, bool) {
	f := c.fields(n, "key", "value")
	t, ok1 := c.enumField(n, f, "key", []string{TypePUA, TypeArchiveBomb})
	a, ok2 := c.enumField(n, f, "value", []string{ActionAudit, ActionBlock, ActionOff})
	return ThreatType{t, a}, ok1 && ok2
}

func (c convert) enumField(n node, f map[string]node, name string, values []string) (string, bool) {
	v, ok := f[name]
	if !ok {
		c.problem(n.offset, c.name, "", "%q is missing", name)
		return "", false
	}
	sub := c
	sub.key = Key{Kind: Enum, Values: values}
	sub.name = c.name + "." + name
	s, ok := sub.value(v)
	if !ok {
		return "", false
	}
	return s.(string), true
}

func (c convert) tags(n node) (any, bool) {
	v, ok := elements(c, n, func(at convert, n node) (Tag, bool) {
		f := at.fields(n, "key", "value")
		key, ok1 := at.enumField(n, f, "key", []string{"GROUP"})
		value, ok2 := at.stringField(n, f, "value")
		return Tag{key, value}, ok1 && ok2
	})
	if !ok {
		return nil, false
	}
	tags := v.([]Tag)
	if len(tags) > 1 {
		c.problem(n.offset, c.name, "", "has %d tags: only one is possible, the first counts", len(tags))
		tags = tags[:1]
	}
	return tags, true
}

// stringField reads a member that must be a string, not empty.
func (c convert) stringField(n node, f map[string]node, name string) (string, bool) {
	v, ok := f[name]
	if !ok {
		c.problem(n.offset, c.name, "", "%q is missing", name)
		return "", false
	}
	s, ok := v.value.(string)
	if !ok || s == "" || strings.ContainsRune(s, 0) {
		c.problem(v.offset, c.name+"."+name, "", "%s: a string is wanted, not empty", v.describe())
		return "", false
	}
	return s, true
}

func quoted(words []string) string {
	q := make([]string, len(words))
	for i, w := range words {
		q[i] = strconv.Quote(w)
	}
	return strings.Join(q, ", ")
}

func checkProxy(v any) error {
	s := v.(string)
	if s == "" {
		return nil
	}
	if low := strings.ToLower(s); strings.HasSuffix(low, ".pac") || strings.HasSuffix(low, ".dat") || strings.Contains(low, "wpad") || strings.HasPrefix(low, "pac+") || low == "auto" {
		return errors.New("asks for automatic proxy configuration (PAC, WPAD), which is not supported: give the address of the proxy itself, http://host:port/")
	}
	u, err := url.Parse(s)
	if err != nil {
		return errors.New("is no URL: want http://host:port/")
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" {
		return fmt.Errorf("%q is no proxy: want http://host:port/", u.Redacted())
	}
	if u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "" {
		return fmt.Errorf("%q has more than a host and a port: want http://host:port/", u.Redacted())
	}
	return nil
}

func checkMirror(v any) error {
	s := v.(string)
	if s == "" || path.IsAbs(s) {
		return nil
	}
	u, err := url.Parse(s)
	if err != nil || u.Hostname() == "" || u.Scheme != "http" && u.Scheme != "https" {
		return errors.New("is neither an http(s) URL nor an absolute folder")
	}
	return nil
}

func checkFolder(v any) error {
	s := v.(string)
	if s != "" && (!path.IsAbs(s) || path.Clean(s) == "/" || len(s) > 4096) {
		return fmt.Errorf("%q is no absolute folder other than /", clip(s))
	}
	return nil
}

func checkPrograms(v any) error {
	for _, s := range v.([]string) {
		if !path.IsAbs(s) || path.Clean(s) != s || s == "/" || len(s) > 4096 {
			return fmt.Errorf("%q is no full path of a program", clip(s))
		}
	}
	return nil
}

// ruleID has every id of a Sigma rule; usually it is a UUID.
var ruleID = regexp.MustCompile(`^[A-Za-z0-9._-]{1,128}$`)

func checkRules(v any) error {
	for _, s := range v.([]string) {
		if !ruleID.MatchString(s) {
			return fmt.Errorf("%q is no id of a rule", clip(s))
		}
	}
	return nil
}

func checkClamAVMirror(v any) error {
	s := v.(string)
	if s == "" || s == "official" {
		return nil
	}
	if u, err := url.Parse(s); err != nil || u.Hostname() == "" || u.Scheme != "http" && u.Scheme != "https" {
		return errors.New("is neither official nor the http(s) address of a mirror")
	}
	return nil
}
