package policy

import (
	"strings"
	"testing"
)

func TestHidePasswords(t *testing.T) {
	for in, want := range map[string]string{
		"":                         "",
		"http://proxy:3128":        "http://proxy:3128",
		"http://user@proxy:3128/":  "http://user@proxy:3128/",
		"http://u:se:cret@proxy/":  "http://u:xxxxx@proxy/",
		"http://u:s3@cret@proxy/":  "http://u:xxxxx@proxy/",
		"http://u:100%@proxy:3128": "http://u:xxxxx@proxy:3128", // no URL, and still a secret
		`{"proxy": "http://u:secret@proxy:3128", "x": "a@b"}`: `{"proxy": "http://u:xxxxx@proxy:3128", "x": "a@b"}`,
		`{"proxy": "http:\/\/u:secret@proxy:3128"}`:           `{"proxy": "http:\/\/u:xxxxx@proxy:3128"}`,
		"real_time": "real_time",
	} {
		if got := HidePasswords(in); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
	if got := Shown(true); got != true {
		t.Errorf("a value that is no text: %v", got)
	}
	if got, ok := Shown("http://u:secret@proxy/").(string); !ok || strings.Contains(got, "secret") {
		t.Errorf("shown: %v", got)
	}
}
