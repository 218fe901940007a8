package yara

import (
	"errors"

	"github.com/bulwarkhq/bulwark/engine/pattern"
)

var errNoForms = errors.New("has no form to look for")

// stringForms lists the ways a string may stand in a file.
func stringForms(s *String) ([]Form, error) {
	var out []Form
	m := s.Mods
	ascii := m.ASCII || !m.Wide
	add := func(n *pattern.Node, wide bool) error {
		parts, err := pattern.Compile(n, pattern.Options{Split: s.Kind == Hex, Loose: true})
		if err != nil {
			return err
		}
		out = append(out, Form{Parts: parts, FullWord: m.FullWord, Wide: wide})
		return nil
	}
	both := func(n *pattern.Node) error {
		if m.Wide {
			if err := add(n.Clone().Wide(), true); err != nil {
				return err
			}
		}
		if ascii {
			return add(n, false)
		}
		return nil
	}
	switch {
	case s.Kind != Text:
		if err := both(s.Node); err != nil {
			return nil, err
		}
	case m.Base64 || m.Base64Wide:
		for _, t := range base64Forms(s) {
			if err := add(pattern.Literal(t), false); err != nil {
				return nil, err
			}
		}
	case m.Xor:
		for key := m.XorMin; key <= m.XorMax; key++ {
			texts := [][]byte{}
			if ascii {
				texts = append(texts, s.Text)
			}
			if m.Wide {
				texts = append(texts, wide(s.Text))
			}
			for i, t := range texts {
				x := make([]byte, len(t))
				for k := range t {
					x[k] = t[k] ^ byte(key)
				}
				if err := add(pattern.Literal(x), m.Wide && i == len(texts)-1); err != nil {
					return nil, err
				}
			}
		}
	default:
		n := pattern.Literal(s.Text)
		if m.NoCase {
			n = n.NoCase()
		}
		if err := both(n); err != nil {
			return nil, err
		}
	}
	if len(out) == 0 {
		return nil, errNoForms
	}
	return out, nil
}

func wide(b []byte) []byte {
	out := make([]byte, 0, 2*len(b))
	for _, c := range b {
		out = append(out, c, 0)
	}
	return out
}
