package response

import (
	"crypto/ed25519"
	"strings"
	"testing"
	"time"
)

func TestParsePeer(t *testing.T) {
	for text, want := range map[string]string{
		"10.1.2.3": "10.1.2.3/32 0", "10.1.2.3:22": "10.1.2.3/32 22", "10.1.2.9/24:443": "10.1.2.0/24 443",
		"2001:db8::1": "2001:db8::1/128 0", "[2001:db8::/32]:443": "2001:db8::/32 443", "[2001:db8::1]": "2001:db8::1/128 0",
		"": "", "10.1.2.3:": "", "10.1.2.3:0": "", "10.1.2.3:70000": "", "10.1.2.3:+2": "", "host": "", "0.0.0.0/0": "", "[::1": "", "[::1]x": "", "fe80::1%eth0": "", "10.0.0.0/33": "",
	} {
		p, err := ParsePeer(text)
		got := ""
		if err == nil {
			got = p.Network.String() + " " + itoa(p.Port)
		}
		if got != want {
			t.Errorf("%q: %q, %v; want %q", text, got, err, want)
		}
	}
	if _, err := ParsePeers(make([]string, MaxAllow+1)); err == nil {
		t.Error("a list that is too long was taken")
	}
}

func itoa(n uint16) string {
	var b []byte
	for ; n > 0; n /= 10 {
		b = append([]byte{byte('0' + n%10)}, b...)
	}
	if b == nil {
		return "0"
	}
	return string(b)
}

func TestRelease(t *testing.T) {
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	other, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
	token, err := SignRelease(private, "device", "order", now.Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	if err := CheckRelease(public, " "+token+"\n", "device", "order", now); err != nil {
		t.Error(err)
	}
	for name, c := range map[string]struct {
		key           []byte
		token         string
		device, order string
		now           time.Time
		want          string
	}{
		"other key":    {other, token, "device", "order", now, "not of the portal"},
		"no key":       {nil, token, "device", "order", now, "not of the portal"},
		"other device": {public, token, "other", "order", now, "another device"},
		"other order":  {public, token, "device", "later", now, "earlier isolation"},
		"expired":      {public, token, "device", "order", now.Add(2 * time.Hour), "expired at 2026-11-29T13:00:00Z"},
		"changed":      {public, strings.Replace(token, tokenPrefix, tokenPrefix+"A", 1), "device", "order", now, "not of the portal"},
		"cut off":      {public, tokenPrefix, "device", "order", now, "cut off"},
		"nothing":      {public, "", "device", "order", now, "not a release token"},
		"long":         {public, tokenPrefix + strings.Repeat("a", 5000), "device", "order", now, "not a release token"},
	} {
		if err := CheckRelease(c.key, c.token, c.device, c.order, c.now); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzCheckRelease(f *testing.F) {
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		f.Fatal(err)
	}
	token, err := SignRelease(private, "d", "o", time.Unix(1<<33, 0))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(token)
	f.Add("bulwark-release-v1.e30.AA")
	f.Fuzz(func(t *testing.T, in string) {
		if err := CheckRelease(public, in, "d", "o", time.Unix(0, 0)); err == nil && strings.TrimSpace(in) != token {
			t.Errorf("forged: %q", in)
		}
	})
}

func FuzzParsePeer(f *testing.F) {
	f.Add("10.1.0.0/16:22")
	f.Add("[2001:db8::1]:443")
	f.Fuzz(func(t *testing.T, in string) {
		if p, err := ParsePeer(in); err == nil && !p.Network.IsValid() {
			t.Errorf("%q is not valid", in)
		}
	})
}
