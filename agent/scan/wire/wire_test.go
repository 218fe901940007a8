package wire

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/agent/scan/sandbox"
	"github.com/bulwarkhq/bulwark/engine/verdict"
	"github.com/google/go-cmp/cmp"
)

var sha = strings.Repeat("ab", 32)

func samples() []Message {
	return []Message{
		&Setup{Workers: 4, Threads: 2, UID: 100, GID: 101, Compile: true, Sources: []string{"/a", "/b"}, MaxFiles: 9},
		&Hello{Info: Info{Engine: "1.0", Definitions: "7", Total: 3, Signatures: map[string]int{"yara": 3}}, Sandbox: sandbox.Report{Properties: []sandbox.Property{{Name: "x", Active: true}}}},
		&Compiled{Problems: []Problem{{File: "a.ndb", Line: 3, Reason: "bad hex"}}, Unsupported: map[string]int{".cbc": 2}},
		&Scan{ID: 1 << 60, Size: 5, Archives: true, Timeout: time.Second, Name: "/tmp/\xff\n"},
		&Scan{},
		&Cancel{ID: 9},
		&Answer{ID: 7, Error: "cannot read"},
		&Answer{ID: 8, Verdict: verdict.Verdict{Size: 68, Objects: 1, Bytes: 68}},
		&Answer{ID: 9, Verdict: verdict.Verdict{
			SHA256: sha, SHA1: sha[:40], MD5: sha[:32], Size: 1, FileType: "zip", Objects: 3, Bytes: 99, Engine: "e", Definitions: "d",
			Limits: []verdict.Limit{verdict.LimitDepth, verdict.Encrypted},
			Matches: []verdict.Match{
				{Threat: "T", Type: verdict.Malware, Signature: "s", Source: "main.ndb", Inside: []string{"a.zip", "b"}, Offset: 3},
				{Threat: "U", Type: verdict.Test, Signature: "s2", Source: "x", Offset: -1},
			},
		}},
	}
}

func TestRoundTrip(t *testing.T) {
	for _, m := range samples() {
		b, err := Append(nil, m)
		if err != nil {
			t.Fatal(err)
		}
		got, err := Decode(b)
		if err != nil {
			t.Fatalf("%T: %v", m, err)
		}
		if diff := cmp.Diff(m, got); diff != "" {
			t.Error(diff)
		}
		if m.kind() == KindScan || m.kind() == KindAnswer || m.kind() == KindCancel {
			for n := range b {
				if _, err := Decode(b[:n]); !errors.Is(err, ErrProtocol) {
					t.Fatalf("%T cut to %d bytes: %v", m, n, err)
				}
			}
			if _, err := Decode(append(b, 0)); !errors.Is(err, ErrProtocol) {
				t.Fatalf("%T with a byte too many: %v", m, err)
			}
		}
	}
}

// A verdict with more than the protocol carries loses its tail, not its head.
func TestLongVerdictIsCut(t *testing.T) {
	long := strings.Repeat("x", 5000)
	v := verdict.Verdict{SHA256: sha}
	for range 1000 {
		inside := make([]string, 100)
		for i := range inside {
			inside[i] = long
		}
		v.Matches = append(v.Matches, verdict.Match{Threat: long, Type: verdict.PUA, Inside: inside})
	}
	b, err := Append(nil, &Answer{ID: 1, Verdict: v})
	if err != nil {
		t.Fatal(err)
	}
	if len(b) > MaxMessage {
		t.Fatalf("%d bytes", len(b))
	}
	m, err := Decode(b)
	if err != nil {
		t.Fatal(err)
	}
	got := m.(*Answer).Verdict
	if len(got.Matches) == 0 || len(got.Matches[0].Threat) != maxString || len(got.Matches[0].Inside) != maxInside {
		t.Errorf("%d matches", len(got.Matches))
	}
}

func TestHostileAnswers(t *testing.T) {
	answer := func(change func(*verdict.Verdict)) []byte {
		v := verdict.Verdict{SHA256: sha, Matches: []verdict.Match{{Threat: "T", Type: verdict.Malware}}}
		change(&v)
		b, _ := Append(nil, &Answer{ID: 1, Verdict: v})
		return b
	}
	for name, b := range map[string][]byte{
		"empty":          {},
		"unknown kind":   {200, 1},
		"huge":           append([]byte{byte(KindAnswer)}, make([]byte, MaxMessage)...),
		"hash not hex":   answer(func(v *verdict.Verdict) { v.SHA256 = strings.Repeat("zz", 32) }),
		"hash too short": answer(func(v *verdict.Verdict) { v.SHA256 = "ab" }),
		"no hash":        answer(func(v *verdict.Verdict) { v.SHA256 = "" }),
		"threat type":    answer(func(v *verdict.Verdict) { v.Matches[0].Type = "other" }),
		"negative size":  answer(func(v *verdict.Verdict) { v.Size = -1 }),
		"offset":         answer(func(v *verdict.Verdict) { v.Matches[0].Offset = -5 }),
		"not JSON":       {byte(KindHello), '{'},
	} {
		if m, err := Decode(b); !errors.Is(err, ErrProtocol) {
			t.Errorf("%s: %v, %v", name, m, err)
		}
	}
	m, err := Decode(answer(func(v *verdict.Verdict) { v.Matches[0].Threat = "a\x1b[2J\n\xffb" }))
	if err != nil {
		t.Fatal(err)
	}
	if got := m.(*Answer).Verdict.Matches[0].Threat; got != "a\uFFFD[2J\uFFFD\uFFFDb" {
		t.Errorf("%q", got)
	}
}

// FuzzDecode covers both sides: the scanner decodes what the daemon sends and
// the other way round with the same function.
func FuzzDecode(f *testing.F) {
	for _, m := range samples() {
		b, err := Append(nil, m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := Decode(b)
		if err != nil {
			if !errors.Is(err, ErrProtocol) {
				t.Fatalf("not a protocol error: %v", err)
			}
			return
		}
		again, err := Append(nil, m)
		if err != nil {
			return // JSON that grows beyond a packet
		}
		m2, err := Decode(again)
		if err != nil {
			t.Fatalf("encoded message does not decode: %v", err)
		}
		b2, err := Append(nil, m2)
		if err != nil {
			t.Fatal(err)
		}
		if m.kind() != KindAnswer && string(again) != string(b2) {
			t.Fatalf("encodings differ:\n%q\n%q", again, b2)
		}
	})
}

func TestTrim(t *testing.T) {
	c := Compiled{Error: strings.Repeat("<", 10000)}
	for range 500 {
		c.Problems = append(c.Problems, Problem{File: strings.Repeat("<", 1000), Line: 1, Reason: "x\x00y"})
	}
	c.Trim()
	if _, err := Append(nil, &c); err != nil {
		t.Fatal(err)
	}
	if len(c.Problems) == 0 || len(c.Problems)+c.MoreProblems != 500 {
		t.Errorf("%d problems and %d more", len(c.Problems), c.MoreProblems)
	}
}
