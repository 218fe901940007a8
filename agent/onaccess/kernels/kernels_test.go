package kernels

import (
	"strings"
	"testing"

	"github.com/bulwarkhq/bulwark/content"
)

func TestShipped(t *testing.T) {
	l, err := Load(content.Kernels())
	if err != nil {
		t.Fatal(err)
	}
	for release, want := range map[string]Effect{
		"4.9.0-19-amd64":               NotifyOnly,
		"4.11.12":                      NotifyOnly,
		"4.12.0":                       Warn,
		"4.19.0-27-amd64":              Warn,
		"4.18.0-513.el8.x86_64":        "",
		"3.10.0-1160.el7.x86_64":       "",
		"5.1.0":                        "",
		"5.10.0-28-amd64":              "",
		"6.18.44":                      "",
		"6.1":                          "",
		"10.0.0-someday":               "",
		"2.6.32-754.el6.x86_64":        "",
		"5.0.21-generic-with-anything": Warn,
	} {
		got, err := l.Match(release)
		if err != nil {
			t.Errorf("%s: %v", release, err)
			continue
		}
		effect := Effect("")
		if len(got) > 0 {
			effect = got[0].Effect
		}
		if effect != want {
			t.Errorf("%s: %q, want %q", release, effect, want)
		}
	}
}

func TestLoadRefuses(t *testing.T) {
	entry := func(s string) string { return `{"kernels":[{` + s + `}]}` }
	const rest = `,"reason":"r","reference":"x"`
	for text, want := range map[string]string{
		``:                               "EOF",
		entry(`"id":"a","colour":"red"`): "colour",
		entry(`"from":"1.0"`):            "id is empty",
		entry(`"id":"a","from":"1.0"`):   "reason and reference",
		entry(`"id":"a","from":"1.0","effect":"explode"` + rest):                                                  "effect",
		entry(`"id":"a","effect":"warn"` + rest):                                                                  "every kernel",
		entry(`"id":"a","from":"one","effect":"warn"` + rest):                                                     "from: ",
		entry(`"id":"a","from":"5.0","before":"5","effect":"warn"` + rest):                                        "before: ",
		entry(`"id":"a","from":"5.0","before":"4.9","effect":"warn"` + rest):                                      "is not before",
		entry(`"id":"a","from":"5.0","effect":"warn","except":[""]` + rest):                                       "except",
		entry(`"id":"a","from":"5.0","effect":"warn"` + rest + `},{"id":"a","from":"5.0","effect":"warn"` + rest): "twice",
		strings.Repeat(" ", maxBytes+1):                                                                           "bytes",
	} {
		if _, err := Load([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.120s: error %v, want one about %q", text, err, want)
		}
	}
}

func FuzzLoad(f *testing.F) {
	f.Add(content.Kernels(), "4.9.0")
	f.Add([]byte(`{"kernels":[]}`), "x")
	f.Fuzz(func(t *testing.T, data []byte, release string) {
		l, err := Load(data)
		if err != nil {
			return
		}
		got, err := l.Match(release)
		if err != nil && len(got) > 0 {
			t.Error("entries and an error")
		}
	})
}
