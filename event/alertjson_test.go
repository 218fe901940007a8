package event

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

func sampleAlert() Alert {
	e := sample()
	return Alert{
		ID: strings.Repeat("0a", 16), Time: e.Time, Title: "EICAR found", Description: "d", Severity: SeverityHigh,
		Category: "Malware", Source: SourceAntivirus, DetectorID: "sig", Techniques: []string{"T1059.004"},
		ThreatName: "EICAR", ThreatFamily: "Test", Action: "quarantined", ActionDetail: "moved", File: e.File,
		Process: e.Process, Ancestry: []Process{e.Initiating}, Event: &e, TestID: "t",
		Conditions: []AlertCondition{{"CommandLine", "contains", "/etc/shadow"}, {Field: "Image", Value: "/bin/cat"}},
		Behaviors:  []AlertBehavior{{ID: strings.Repeat("0b", 16), Time: e.Time, Action: "SystemInformation", Description: "d", Techniques: []string{"T1082"}, PID: 7, CommandLine: "uname -a"}},
	}
}

func TestAlertRoundTrip(t *testing.T) {
	want := sampleAlert()
	b, err := EncodeAlert(&want)
	if err != nil {
		t.Fatal(err)
	}
	got, err := DecodeAlert(b)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Fatalf("-want +got:\n%s", d)
	}
}

// The published schema describes what is written, member by member.
func TestAlertMatchesSchema(t *testing.T) {
	schema, err := jsonschema.NewCompiler().Compile("../api/schemas/alert.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	a := sampleAlert()
	b, err := EncodeAlert(&a)
	if err != nil {
		t.Fatal(err)
	}
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	if err := schema.Validate(v); err != nil {
		t.Fatal(err)
	}
	if len(v.(map[string]any)) != len(schema.Properties) {
		t.Errorf("the sample has %d members, the schema %d", len(v.(map[string]any)), len(schema.Properties))
	}
	v.(map[string]any)["severity"] = "Huge"
	if schema.Validate(v) == nil {
		t.Error("the schema accepts any severity")
	}
}

func TestAlertIsCutNotLost(t *testing.T) {
	a := sampleAlert()
	for range 100 {
		p := a.Process
		p.CommandLine = strings.Repeat("\x01", 100<<10) // six bytes each in JSON
		a.Ancestry = append(a.Ancestry, p)
	}
	b, err := EncodeAlert(&a)
	if err != nil {
		t.Fatal(err)
	}
	if len(b) > MaxAlertBytes {
		t.Fatalf("%d bytes", len(b))
	}
	got, err := DecodeAlert(b)
	if err != nil {
		t.Fatal(err)
	}
	if got.ID != a.ID || len(got.Ancestry) != MaxAncestry {
		t.Fatalf("id %s, %d parents", got.ID, len(got.Ancestry))
	}
	if len(a.Ancestry) != 101 || len(a.Ancestry[1].CommandLine) != 100<<10 {
		t.Fatal("EncodeAlert changed its argument")
	}
}

func TestAlertRefused(t *testing.T) {
	for want, change := range map[string]func(*Alert){
		"id":       func(a *Alert) { a.ID = "../../etc" },
		"title":    func(a *Alert) { a.Title = "" },
		"time":     func(a *Alert) { a.Time = time.Time{} },
		"severity": func(a *Alert) { a.Severity = "Huge" },
		"source":   func(a *Alert) { a.Source = "" },
	} {
		a := sampleAlert()
		change(&a)
		if _, err := EncodeAlert(&a); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v", want, err)
		}
	}
	for name, data := range map[string][]byte{
		"not JSON": []byte("{"), "too large": bytes.Repeat([]byte(" "), MaxAlertBytes+1), "array": []byte("[]"), "null": []byte("null"),
	} {
		if _, err := DecodeAlert(data); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func FuzzDecodeAlert(f *testing.F) {
	a := sampleAlert()
	b, err := EncodeAlert(&a)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"id":"x"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		a, err := DecodeAlert(data)
		if err != nil {
			return
		}
		b, err := EncodeAlert(&a)
		if err != nil {
			t.Fatalf("decoded alert cannot be encoded: %v", err)
		}
		if _, err := DecodeAlert(b); err != nil {
			t.Fatalf("encoded alert cannot be decoded: %v", err)
		}
	})
}

func TestIsHex(t *testing.T) {
	for s, want := range map[string]bool{"": false, "012": false, "01ef": true, "01EF": false, "01eg": false, "01e\xff": false, "01e/": false, "01e:": false, "01e`": false, "01ef0": false} {
		if got := IsHex(s, 4); got != want {
			t.Errorf("%q: %v, want %v", s, got, want)
		}
	}
}
