package indicator

import (
	"strings"
	"testing"
	"time"
)

func TestNormalize(t *testing.T) {
	for _, c := range []struct {
		in         Indicator
		kind, want string // the value afterwards, or the error
	}{
		{Indicator{Type: "filesha256", Value: strings.Repeat("AB", 32), Action: "block"}, FileSHA256, strings.Repeat("ab", 32)},
		{Indicator{Type: FileSHA1, Value: "abc", Action: Block}, "", "40 hexadecimal"},
		{Indicator{Type: FileMD5, Value: strings.Repeat("z", 32), Action: Block}, "", "32 hexadecimal"},
		{Indicator{Type: FilePath, Value: "/tmp/*/x", Action: Audit}, FilePath, "/tmp/*/x"},
		{Indicator{Type: FilePath, Value: "tmp", Action: Audit}, "", "begins with /"},
		{Indicator{Type: IPAddress, Value: "::ffff:192.0.2.1", Action: Block}, IPAddress, "192.0.2.1"},
		{Indicator{Type: IPAddress, Value: "192.0.2.9/24", Action: Block}, IPNetwork, "192.0.2.0/24"},
		{Indicator{Type: IPAddress, Value: "300.1.1.1", Action: Block}, "", "no address"},
		{Indicator{Type: IPNetwork, Value: "0.0.0.0/0", Action: Block}, "", "all addresses"},
		{Indicator{Type: Domain, Value: "*.Evil.Example.", Action: "AlertAndBlock"}, Domain, "evil.example"},
		{Indicator{Type: Domain, Value: "com", Action: Block}, "", "no domain"},
		{Indicator{Type: URL, Value: "https://Evil.Example/a?b", Action: Warn}, URL, "https://evil.example/a?b"},
		{Indicator{Type: URL, Value: "file:///etc", Action: Warn}, "", "http://host"},
		{Indicator{Type: "Nope", Value: "x", Action: Warn}, "", "type:"},
		{Indicator{Type: Domain, Value: "a.b", Action: "explode"}, "", "action:"},
		{Indicator{Type: Domain, Value: "a.b", Action: Block, Severity: "huge"}, "", "severity:"},
		{Indicator{Type: Domain, Value: " ", Action: Block}, "", "value:"},
	} {
		i := c.in
		err := i.Normalize()
		if c.kind == "" {
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%+v: %v, want %s", c.in, err, c.want)
			}
			continue
		}
		if err != nil || i.Type != c.kind || i.Value != c.want || i.Severity != "Medium" || i.Title == "" {
			t.Errorf("%+v: %+v %v", c.in, i, err)
		}
		again := i
		if err := again.Normalize(); err != nil || again != i {
			t.Errorf("twice: %+v %v", again, err)
		}
	}
	now := time.Unix(100, 0)
	if e := (Indicator{Expires: now}); !e.Expired(now) || e.Expired(now.Add(-1)) || (&Indicator{}).Expired(now) {
		t.Error("expiry")
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"indicators":[{"type":"DomainName","value":"a.b","action":"Block"},{"type":"x"}]}`))
	f.Add([]byte(`{"indicators":[{"type":"Url","value":"http://a/%zz","action":"Block"},{"type":"FilePath","value":"/[","action":"Audit"}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		l, _, err := Parse(data)
		if err != nil {
			return
		}
		for _, i := range l.Indicators {
			again := i
			if err := again.Normalize(); err != nil || again != i {
				t.Errorf("%+v is not stable: %+v, %v", i, again, err)
			}
		}
	})
}
