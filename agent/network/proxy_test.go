package network

import (
	"strings"
	"testing"
)

func TestParseProxy(t *testing.T) {
	for value, want := range map[string]string{"": "", "http://p:3128/": "http://p:3128/", "p:3128": "http://p:3128", "https://p": "https://p"} {
		u, err := ParseProxy(value)
		got := ""
		if u != nil {
			got = u.String()
		}
		if err != nil || got != want {
			t.Errorf("%q: %q, %v", value, got, err)
		}
	}
	for _, value := range []string{"http://h/proxy.pac", "http://wpad/wpad.dat", "socks5://u:secret@h", "http://", "http://p/x", "::"} {
		if _, err := ParseProxy(value); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: error %v", value, err)
		}
	}
}

func FuzzParseProxy(f *testing.F) {
	f.Add("http://u:p@h:1/")
	f.Fuzz(func(t *testing.T, s string) {
		if u, err := ParseProxy(s); err == nil && u != nil && u.Hostname() == "" {
			t.Fatalf("%q gives a proxy without host", s)
		}
	})
}
