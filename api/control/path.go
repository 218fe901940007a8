package control

import (
	"bytes"
	"encoding/json"
	"fmt"
	"unicode/utf8"
)

// Path is a file name as the kernel has it: any bytes but NUL. In JSON it is a
// string when it is valid UTF-8 and otherwise an object {"base64": "..."}, so
// that no name is ever changed on its way.
type Path string

type rawPath struct {
	Base64 []byte `json:"base64"`
}

// MarshalJSON implements json.Marshaler.
func (p Path) MarshalJSON() ([]byte, error) {
	var v any = rawPath{[]byte(p)}
	if utf8.ValidString(string(p)) {
		v = string(p)
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, fmt.Errorf("path: %w", err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// UnmarshalJSON implements json.Unmarshaler.
func (p *Path) UnmarshalJSON(data []byte) error {
	var s string
	if err := json.Unmarshal(data, &s); err == nil {
		*p = Path(s)
		return nil
	}
	var raw rawPath
	if err := json.Unmarshal(data, &raw); err != nil {
		return fmt.Errorf(`path: want a string or {"base64": "..."}: %w`, err)
	}
	*p = Path(raw.Base64)
	return nil
}
