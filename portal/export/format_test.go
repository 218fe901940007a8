package export

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/bulwarkhq/bulwark/event"
	"github.com/bulwarkhq/bulwark/portal/account"
	"github.com/bulwarkhq/bulwark/portal/alert"
)

var testPortal = portal{url: "https://portal.example.org:8443", host: "portal.example.org", version: "1.2.3"}

var testTime = time.Date(2026, 3, 4, 5, 6, 7, 89012345, time.FixedZone("", 3600))

func alertRecord(title, device string) *Record {
	a := &alert.Alert{
		DeviceID: strings.Repeat("ab", 20), DeviceName: device, Received: testTime, Status: alert.New, IncidentID: 7,
		Detection: event.Alert{
			ID: strings.Repeat("c", 32), Time: testTime, Title: title, Severity: event.SeverityHigh, Category: "Malware", Source: event.SourceAntivirus,
			DetectorID: "Eicar-Test", ThreatName: "Eicar", Techniques: []string{"T1204", "T1059.004"}, Action: "quarantined",
			File:    event.File{FileName: "a=b.sh", FolderPath: `/tmp/a=b\c|d.sh`, SHA256: strings.Repeat("0", 64)},
			Process: event.Process{PID: 42, FolderPath: "/bin/sh", AccountName: "root", CommandLine: "sh -c x=1"},
		},
	}
	return &Record{Seq: 1, Type: typeAlert, Time: testTime, Alert: a}
}

func auditRecord() *Record {
	return &Record{Seq: 9, Type: typeAudit, Time: testTime, Audit: &account.Audit{ID: 9, Time: testTime, Actor: "ann", Address: "192.0.2.1", Action: "alert.update", Target: "x", Detail: `status: "New" to "Resolved"`, Hash: "ff"}}
}

// The expected texts are written out from the specifications, not made by the
// code: the Common Event Format ("character encoding") and RFC 5424 section 6.
func TestCEF(t *testing.T) {
	const tail = `|8|externalId=alert-cccccccccccccccccccccccccccccccc rt=1772597167089 cat=Malware act=quarantined dvchost=`
	for title, want := range map[string]string{
		"plain":                  "CEF:0|Bulwark|Bulwark|1.2.3|Eicar-Test|plain",
		"a|b":                    `CEF:0|Bulwark|Bulwark|1.2.3|Eicar-Test|a\|b`,
		`a\b`:                    `CEF:0|Bulwark|Bulwark|1.2.3|Eicar-Test|a\\b`,
		"a=b":                    "CEF:0|Bulwark|Bulwark|1.2.3|Eicar-Test|a=b",
		"a\nCEF:0|x":             `CEF:0|Bulwark|Bulwark|1.2.3|Eicar-Test|a CEF:0\|x`,
		"a\r\n\x00\x1b[2Jb":      "CEF:0|Bulwark|Bulwark|1.2.3|Eicar-Test|a    [2Jb",
		"\u2028é":                "CEF:0|Bulwark|Bulwark|1.2.3|Eicar-Test| é",
		`\|`:                     `CEF:0|Bulwark|Bulwark|1.2.3|Eicar-Test|\\\|`,
		strings.Repeat("x", 600): "CEF:0|Bulwark|Bulwark|1.2.3|Eicar-Test|" + strings.Repeat("x", 509) + "…",
	} {
		got := alertRecord(title, "h").cef(testPortal, maxMessage)
		if !strings.HasPrefix(got, want+tail+"h ") {
			t.Errorf("title %q:\n got %s\nwant %s", title, got, want+tail)
		}
	}
	got := alertRecord("t", "a=b\\c|d\r\ne\nf\rg").cef(testPortal, maxMessage)
	want := `CEF:0|Bulwark|Bulwark|1.2.3|Eicar-Test|t` + tail + `a\=b\\c|d\ne\nf\rg deviceExternalId=` + strings.Repeat("ab", 20) +
		` fname=a\=b.sh filePath=/tmp/a\=b\\c|d.sh fileHash=` + strings.Repeat("0", 64) + ` suser=root spid=42 sproc=/bin/sh cs1Label=threatName cs1=Eicar` +
		` cs2Label=mitreTechniques cs2=T1204,T1059.004 cs3Label=detectionSource cs3=Antivirus cs4Label=processCommandLine cs4=sh -c x\=1` +
		` cs5Label=incidentId cs5=7 cs6Label=alertUrl cs6=https://portal.example.org:8443/alerts/cccccccccccccccccccccccccccccccc`
	if got != want {
		t.Errorf("the extension:\n got %s\nwant %s", got, want)
	}
	got = auditRecord().cef(testPortal, maxMessage)
	if want := `CEF:0|Bulwark|Bulwark|1.2.3|alert.update|alert.update by ann|1|externalId=audit-9 rt=1772597167089 suser=ann src=192.0.2.1 act=alert.update cs1Label=target cs1=x cs2Label=hash cs2=ff msg=status: "New" to "Resolved"`; got != want {
		t.Errorf("an entry of the audit log:\n got %s\nwant %s", got, want)
	}
}

func TestSyslogMessage(t *testing.T) {
	d := &Destination{Kind: Syslog, Settings: Settings{Format: CEF, Facility: 16}}
	const origin = `[origin software="Bulwark" swVersion="1.2.3"]`
	for _, c := range []struct{ title, device, want string }{
		{"t", "web1", `title="t"]`},
		{`a"b\c]d`, "web1", `title="a\"b\\c\]d"]`},
		{"a\n<1>1 - evil", "web1", `title="a <1>1 - evil"]`},
		{"t", `x"] [y@1 z="`, `title="t"]`},
	} {
		got, err := alertRecord(c.title, c.device).message(testPortal, d, maxMessage)
		if err != nil {
			t.Fatal(err)
		}
		device := strings.NewReplacer(`"`, `\"`, `]`, `\]`).Replace(c.device)
		want := "<130>1 2026-03-04T04:06:07.089012Z portal.example.org bulwark-portal - alert " + origin +
			`[alert@32473 id="` + strings.Repeat("c", 32) + `" severity="High" category="Malware" device="` + device + `" deviceId="` + strings.Repeat("ab", 20) + `" ` + c.want + " CEF:0|"
		if !strings.HasPrefix(string(got), want) {
			t.Errorf("%q:\n got %s\nwant %s", c.title, got, want)
		}
	}
	d.Format, d.Facility = JSON, 4
	got, err := auditRecord().message(testPortal, d, maxMessage)
	want := `<38>1 2026-03-04T04:06:07.089012Z portal.example.org bulwark-portal - audit ` + origin + `[audit@32473 id="9" action="alert.update" actor="ann"] ` +
		`{"type":"audit","version":1,"id":"audit-9","time":"2026-03-04T04:06:07.089012Z","portal":"https://portal.example.org:8443","product":"Bulwark 1.2.3","audit":{"id":9,"time":"2026-03-04T04:06:07.089012Z","actor":"ann","address":"192.0.2.1","action":"alert.update","target":"x","detail":"status: \"New\" to \"Resolved\"","hash":"ff"}}`
	if err != nil || string(got) != want {
		t.Errorf("JSON: %v\n got %s\nwant %s", err, got, want)
	}
	if got := string(frame([]byte("é!"))); got != "3 é!" {
		t.Errorf("the frame counts octets: %q", got)
	}
	for severity, want := range map[event.Severity]string{"High": "<130>", "Medium": "<132>", "Low": "<133>", "Informational": "<134>"} {
		r := alertRecord("t", "h")
		r.Alert.Detection.Severity, d.Facility = severity, 16
		if got, _ := r.message(testPortal, d, maxMessage); !strings.HasPrefix(string(got), want) {
			t.Errorf("%s: %.10s, want %s", severity, got, want)
		}
	}
}

// parseSyslog takes a message apart as RFC 5424 section 6 says: its header, the
// parameters of its structured data, and MSG.
func parseSyslog(m string) (header []string, params map[string]string, msg string, err error) {
	for range 6 {
		f, rest, ok := strings.Cut(m, " ")
		if !ok || f == "" {
			return nil, nil, "", errors.New("the header ends early")
		}
		header, m = append(header, f), rest
	}
	params = map[string]string{}
	for strings.HasPrefix(m, "[") {
		n := strings.IndexAny(m, " ]")
		id := m[1:n]
		m = m[n:]
		for strings.HasPrefix(m, " ") {
			name, rest, ok := strings.Cut(m[1:], `="`)
			if !ok || strings.ContainsAny(name, ` ]"=`) {
				return nil, nil, "", fmt.Errorf("parameter at %.40q", m)
			}
			var v strings.Builder
			i := 0
			for ; i < len(rest) && rest[i] != '"'; i++ {
				switch rest[i] {
				case ']':
					return nil, nil, "", errors.New("a bare ] in a value")
				case '\\':
					if i++; i == len(rest) || !strings.ContainsRune(`"\]`, rune(rest[i])) {
						return nil, nil, "", errors.New("a wrong escape")
					}
				}
				v.WriteByte(rest[i])
			}
			if i == len(rest) {
				return nil, nil, "", errors.New("a value without end")
			}
			params[id+" "+name] = v.String()
			m = rest[i+1:]
		}
		if !strings.HasPrefix(m, "]") {
			return nil, nil, "", fmt.Errorf("element at %.40q", m)
		}
		m = m[1:]
	}
	if !strings.HasPrefix(m, " ") {
		return nil, nil, "", fmt.Errorf("MSG at %.40q", m)
	}
	return header, params, m[1:], nil
}

// parseCEF takes an event apart: the seven fields after the version and the keys
// of the extension. A key begins after a space and ends at an = that is not
// escaped.
func parseCEF(s string) (header []string, ext map[string]string, err error) {
	if strings.ContainsAny(s, "\n\r\x00") {
		return nil, nil, errors.New("more than one line")
	}
	var f strings.Builder
	for len(header) < 7 {
		switch {
		case s == "":
			return nil, nil, errors.New("the header ends early")
		case s[0] == '|':
			header = append(header, f.String())
			f.Reset()
		case s[0] == '\\':
			if len(s) < 2 || (s[1] != '\\' && s[1] != '|') {
				return nil, nil, errors.New("a wrong escape in the header")
			}
			f.WriteByte(s[1])
			s = s[1:]
		default:
			f.WriteByte(s[0])
		}
		s = s[1:]
	}
	ext = map[string]string{}
	key := ""
	for s != "" {
		at := -1 // of the next bare =
		for i := 0; i < len(s); i++ {
			if s[i] == '\\' {
				if i++; i == len(s) || !strings.ContainsRune(`\=nr`, rune(s[i])) {
					return nil, nil, errors.New("a wrong escape in the extension")
				}
			} else if s[i] == '=' {
				at = i
				break
			}
		}
		value := s
		next := ""
		if at >= 0 {
			space := strings.LastIndexByte(s[:at], ' ')
			value, next = s[:max(space, 0)], s[space+1:at]
			s = s[at+1:]
		} else {
			s = ""
		}
		if key != "" {
			ext[key] = strings.NewReplacer(`\\`, `\`, `\=`, `=`, `\n`, "\n", `\r`, "\r").Replace(value)
		}
		key = next
	}
	return header, ext, nil
}

// FuzzEscaping: whatever a device calls things, a receiver reads one message with
// the fields that we wrote, and nothing of a text becomes a field.
func FuzzEscaping(f *testing.F) {
	for _, s := range []string{"plain", "a|b=c]d\"e\\f", "line\nCEF:0|x|y", "\r\n<1>1 - - - - - -", "\xff\xfe", "é\u2028\u202e", `\`, " x=y", strings.Repeat(`]"\`, 400), "\x00\x1b"} {
		f.Add(s, s)
	}
	f.Fuzz(func(t *testing.T, title, text string) {
		r := alertRecord(title, text)
		a := &r.Alert.Detection
		a.Description, a.DetectorID, a.File.FolderPath, a.Process.CommandLine = text, title, text, title
		for _, format := range Formats() {
			for _, most := range []int{maxMessage, maxBody} {
				m, err := r.message(testPortal, &Destination{Settings: Settings{Format: format, Facility: 1}}, most)
				if err != nil {
					t.Fatal(err)
				}
				if !utf8.Valid(m) || len(m) > most {
					t.Fatalf("%d bytes, valid UTF-8 %v", len(m), utf8.Valid(m))
				}
				header, params, msg, err := parseSyslog(string(m))
				if err != nil {
					t.Fatalf("%v in %q", err, m)
				}
				if header[5] != "alert" || len(params) != 8 && len(params) != 7 && len(params) != 6 {
					t.Fatalf("header %q, parameters %q", header, params)
				}
				if want := plainLine(cut(title, 256), false); params["alert@32473 title"] != want {
					t.Fatalf("title %q, want %q", params["alert@32473 title"], want)
				}
				if strings.ContainsAny(string(m), "\n\r\x00\x1b") {
					t.Fatalf("a control character in %q", m)
				}
				if format == JSON {
					var d document
					if err := json.Unmarshal([]byte(msg), &d); err != nil || d.Alert == nil || (len(title) <= 16 && d.Alert.Title != strings.ToValidUTF8(title, "\uFFFD")) {
						t.Fatalf("%v in %q", err, msg)
					}
					continue
				}
				fields, ext, err := parseCEF(msg)
				if err != nil {
					t.Fatalf("%v in %q", err, msg)
				}
				if fields[0] != "CEF:0" || fields[6] != "8" || (len(title) <= 16 && fields[5] != plainLine(strings.ToValidUTF8(title, "\uFFFD"), false)) {
					t.Fatalf("fields %q of %q", fields, msg)
				}
				for key := range ext {
					if !strings.Contains(" externalId rt cat act outcome dvchost deviceExternalId fname filePath fileHash suser spid sproc msg ", " "+key+" ") && !strings.HasPrefix(key, "cs") {
						t.Fatalf("a key %q of its own in %q", key, msg)
					}
				}
				if ext["externalId"] != r.ID() || ext["spid"] != "42" {
					t.Fatalf("%q", ext)
				}
			}
		}
		for _, make := range []func(portal) ([]byte, error){r.slack, r.teams} {
			b, err := make(testPortal)
			if err != nil || !json.Valid(b) || len(b) > 20<<10 {
				t.Fatalf("%v: %d bytes", err, len(b))
			}
		}
	})
}

// A device's text reaches a chat as text: no mention, no link, no markup.
func TestChat(t *testing.T) {
	r := alertRecord("<!channel> *x* [a](https://evil.example) \u202e", "<https://evil.example|host>")
	b, err := r.slack(testPortal)
	if err != nil {
		t.Fatal(err)
	}
	var message struct {
		Text   string
		Blocks []map[string]any
	}
	if err := json.Unmarshal(b, &message); err != nil {
		t.Fatal(err)
	}
	if message.Text != "High: &lt;!channel&gt; *x* [a](https://evil.example) \uFFFD" || len(message.Blocks) < 3 {
		t.Errorf("Slack: %s", b)
	}
	if strings.Contains(string(b), "mrkdwn") || strings.Count(string(b), `"url"`) != 1 || !strings.Contains(string(b), `"url":"https://portal.example.org:8443/alerts/`) {
		t.Errorf("Slack: markup or another link: %s", b)
	}
	if b, err = r.teams(testPortal); err != nil {
		t.Fatal(err)
	}
	// TextBlock and FactSet would read Markdown.
	if strings.Contains(string(b), `"TextBlock"`) || strings.Contains(string(b), `"FactSet"`) || !strings.Contains(string(b), `"TextRun"`) || strings.Count(string(b), `"url"`) != 1 {
		t.Errorf("Teams: %s", b)
	}
}

func TestSignature(t *testing.T) {
	// printf '1772597167.{"a":1}' | openssl dgst -sha256 -hmac 0123456789abcdef
	const want = "t=1772597167,v1=6f4ecbac38163f2f9ec1a8dcc8665677b574efb92757647e5ebd8c99b3559325"
	if got := Signature("0123456789abcdef", testTime, []byte(`{"a":1}`)); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestEncodeFits(t *testing.T) {
	r := alertRecord(strings.Repeat("\x01", 5000), strings.Repeat("<", 5000))
	r.Alert.Detection.Description = strings.Repeat("\u2028", 50000)
	for range 100 {
		r.Alert.Detection.Techniques = append(r.Alert.Detection.Techniques, strings.Repeat("T", 500))
	}
	for _, most := range []int{4 << 10, maxMessage, maxBody} {
		b, err := r.encode(testPortal, most)
		if err != nil || len(b) > most || !json.Valid(b) {
			t.Errorf("%d bytes of at most %d, %v", len(b), most, err)
		}
	}
	if got := cut(strings.Repeat("é", 10), 12); got != "éééé…" {
		t.Errorf("cut: %q", got)
	}
	r.Time = time.Date(20000, 1, 1, 0, 0, 0, 0, time.UTC)
	if b, err := r.encode(testPortal, maxMessage); err != nil || !strings.Contains(string(b), `"time":"1970-01-01T00:00:00Z"`) {
		t.Errorf("a time out of range: %v %.200s", err, b)
	}
}

func TestDelay(t *testing.T) {
	for failures, want := range map[int]time.Duration{0: 5 * time.Second, 1: 5 * time.Second, 2: 10 * time.Second, 5: 80 * time.Second, 8: MaxDelay, 1 << 30: MaxDelay} {
		if low, high := delay(failures, 0), delay(failures, 1); low != want/2 || high != want {
			t.Errorf("after %d failures %s to %s, want %s to %s", failures, low, high, want/2, want)
		}
	}
	seen := map[string]bool{}
	for range 20 {
		j := jitter()
		if j < 0 || j >= 1 {
			t.Errorf("jitter %v", j)
		}
		seen[strconv.FormatFloat(j, 'f', -1, 64)] = true
	}
	if len(seen) < 10 {
		t.Errorf("the jitter has only %d values", len(seen))
	}
}

func TestCheck(t *testing.T) {
	hook := func(change func(*Destination)) Destination {
		d := Destination{Name: "n", Kind: Webhook, Alerts: true, MinSeverity: "Low", Secrets: Secrets{URL: "https://hooks.example.org/x", Secret: strings.Repeat("s", 16)}}
		change(&d)
		return d
	}
	log := func(change func(*Destination)) Destination {
		d := Destination{Name: "n", Kind: Syslog, Audit: true, MinSeverity: "Low", Settings: Settings{Address: "10.0.0.1:514", Transport: UDP, Format: CEF, Facility: 16}}
		change(&d)
		return d
	}
	kafka := func(change func(*Destination)) Destination {
		d := Destination{
			Name: "n", Kind: Kafka, Alerts: true, MinSeverity: "Low", Secrets: Secrets{Password: "p"},
			Settings: Settings{Address: "k1.example.org:9093, [fd00::1]:9093", Transport: TLS, Topic: "alerts", Mechanism: Scram512, User: "u"},
		}
		change(&d)
		return d
	}
	for _, d := range []Destination{
		kafka(func(*Destination) {}), kafka(func(d *Destination) { d.Mechanism = Plain }), kafka(func(d *Destination) { d.Mechanism, d.User, d.Password, d.Transport = "", "", "", TCP }),
		hook(func(d *Destination) {
			d.Kind, d.URL, d.Secret, d.Authorization = OTLP, "http://127.0.0.1:4318", "", "Bearer x"
		}),
		hook(func(*Destination) {}), hook(func(d *Destination) { d.URL = "http://127.0.0.1:8080/hook?x=y" }), hook(func(d *Destination) { d.URL = "https://[fd00::1]/" }),
		log(func(*Destination) {}), log(func(d *Destination) { d.Address = "[::1]:6514"; d.Transport = TLS }), log(func(d *Destination) { d.Address = "siem_1.example.org:6514" }),
	} {
		if err := check(&d); err != nil {
			t.Errorf("%+v: %v", d, err)
		}
	}
	for _, c := range []struct {
		target string
		d      Destination
	}{
		{"displayName", hook(func(d *Destination) { d.Name = " " })},
		{"displayName", hook(func(d *Destination) { d.Name = "a\nb" })},
		{"type", hook(func(d *Destination) { d.Kind = "carrier pigeon" })},
		{"minSeverity", hook(func(d *Destination) { d.MinSeverity = "high" })},
		{"alerts", hook(func(d *Destination) { d.Alerts = false })},
		{"url", hook(func(d *Destination) { d.URL = "" })},
		{"url", hook(func(d *Destination) { d.URL = "file:///etc/passwd" })},
		{"url", hook(func(d *Destination) { d.URL = "https://user:password@x.example/" })},
		{"url", hook(func(d *Destination) { d.URL = "http://169.254.169.254/latest/meta-data" })},
		{"url", hook(func(d *Destination) { d.URL = "http://[::ffff:169.254.169.254]/" })},
		{"url", hook(func(d *Destination) { d.URL = "http://[fd00:ec2::254]/latest/meta-data" })},
		{"url", hook(func(d *Destination) { d.URL = "http://100.100.100.200/latest/meta-data" })},
		{"url", hook(func(d *Destination) { d.URL = "https://x.example:0/" })},
		{"url", hook(func(d *Destination) { d.Kind, d.URL, d.Secret = Slack, "http://x.example/", "" })},
		{"secret", hook(func(d *Destination) { d.Kind = Teams })},
		{"secret", hook(func(d *Destination) { d.Secret = "short" })},
		{"authorization", hook(func(d *Destination) { d.Authorization = "a\r\nX: y" })},
		{"caCertificates", hook(func(d *Destination) { d.CA = "x" })},
		{"address", log(func(d *Destination) { d.Address = "10.0.0.1" })},
		{"address", log(func(d *Destination) { d.Address = "10.0.0.1:70000" })},
		{"address", log(func(d *Destination) { d.Address = "a b:514" })},
		{"address", log(func(d *Destination) { d.Address = "0.0.0.0:514" })},
		{"transport", log(func(d *Destination) { d.Transport = "relp" })},
		{"format", log(func(d *Destination) { d.Format = "leef" })},
		{"facility", log(func(d *Destination) { d.Facility = 24 })},
		{"secret", hook(func(d *Destination) { d.Kind = OTLP })},
		{"address", kafka(func(d *Destination) { d.Address = "k1.example.org:9093," })},
		{"address", kafka(func(d *Destination) { d.Address = "k1.example.org:9093,169.254.169.254:9093" })},
		{"address", kafka(func(d *Destination) { d.Address = strings.Repeat("a:1,", MaxBrokers) + "b:1" })},
		{"topic", kafka(func(d *Destination) { d.Topic = "" })},
		{"topic", kafka(func(d *Destination) { d.Topic = ".." })},
		{"topic", kafka(func(d *Destination) { d.Topic = "a b" })},
		{"transport", kafka(func(d *Destination) { d.Transport = UDP })},
		{"saslMechanism", kafka(func(d *Destination) { d.Mechanism = "gssapi" })},
		{"saslMechanism", kafka(func(d *Destination) { d.Mechanism = "" })},
		{"saslMechanism", kafka(func(d *Destination) { d.Mechanism, d.Transport = Plain, TCP })},
		{"username", kafka(func(d *Destination) { d.User = "" })},
		{"password", kafka(func(d *Destination) { d.Password = "" })},
	} {
		var wrong *Invalid
		if err := check(&c.d); !errors.As(err, &wrong) || wrong.Target != c.target {
			t.Errorf("%s: %v", c.target, err)
		}
	}
	// A name that leads there is refused at the connection.
	if _, err := dialer().DialContext(t.Context(), "tcp", "169.254.169.254:80"); err == nil || !strings.Contains(err.Error(), "link-local") {
		t.Errorf("a connection to the metadata of a cloud: %v", err)
	}
	if err := refuseAddress(netip.MustParseAddr("10.1.2.3")); err != nil {
		t.Error(err)
	}
}
