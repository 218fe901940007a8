package event

import (
	"bytes"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/bulwarkhq/bulwark/test/need"
)

// sample is an event with every member set.
func sample() Event {
	at := time.Date(2026, 11, 28, 12, 0, 0, 123456789, time.UTC)
	p := Process{
		PID: 4711, StartTime: at.Add(-time.Hour), FileName: "sh", FolderPath: "/usr/bin/sh",
		CommandLine: "sh -c 'ls | wc'", WorkingDir: "/home/ä", SHA1: strings.Repeat("a", 40),
		SHA256: strings.Repeat("b", 64), MD5: strings.Repeat("c", 32), FileSize: 125688,
		UID: 1000, AccountName: "ada", LoginUID: -1, LoginName: "ada", SessionID: 3,
		Terminal: "pts/0", ContainerID: strings.Repeat("d", 64), ParentPID: 1,
		ParentFileName: "systemd", ParentStartTime: at.Add(-2 * time.Hour),
	}
	q := p
	q.PID, q.UID, q.LoginUID, q.SessionID = -1, -2, 1000, -3
	return Event{
		ReportID: 1<<63 + 5, Time: at, Class: ClassProcess, Action: ProcessCreated,
		Process: p, Initiating: q,
		File: File{
			FileName: "x", FolderPath: "/tmp/x", PreviousFileName: "y", PreviousFolderPath: "/tmp/y",
			SHA1: "1", SHA256: "2", MD5: "3", Size: 99,
		},
		Network: Network{RemoteIP: "192.0.2.1", RemotePort: 443, RemoteURL: "example.org", LocalIP: "::1", LocalPort: 5353, Protocol: "Udp"},
		Logon: Logon{
			Type: "Network", AccountName: "eve", Protocol: "ssh", FailureReason: "bad password", IsLocalAdmin: true,
			RemoteIP: "2001:db8::1", RemotePort: 22, RemoteDevice: "laptop",
		},
		Additional: map[string]string{"a": "1", "b": "", "": "empty key", "ü": "\n"},
	}
}

// random returns an event with random members, many of them empty.
func random(r *rand.Rand) Event {
	s := func() string {
		switch r.IntN(4) {
		case 0:
			return ""
		case 1:
			return strings.Repeat("x/", r.IntN(300))
		default:
			b := make([]rune, r.IntN(20))
			for i := range b {
				b[i] = rune(r.IntN(0x2fff))
			}
			return string(b)
		}
	}
	n := func() int64 { return int64(r.Uint64()) >> r.IntN(64) }
	t := func() time.Time {
		if r.IntN(3) == 0 {
			return time.Time{}
		}
		return time.Unix(0, n()|1).UTC()
	}
	p := func() Process {
		return Process{
			PID: n(), StartTime: t(), FileName: s(), FolderPath: s(), CommandLine: s(), WorkingDir: s(), SHA1: s(),
			SHA256: s(), MD5: s(), FileSize: n(), UID: n(), AccountName: s(), LoginUID: n(), LoginName: s(), SessionID: n(),
			Terminal: s(), ContainerID: s(), ParentPID: n(), ParentFileName: s(), ParentStartTime: t(),
		}
	}
	e := Event{
		ReportID: uint64(n()), Time: t(), Class: Class(r.IntN(7)), Action: s(),
		File: File{s(), s(), s(), s(), s(), s(), s(), n()}, Network: Network{s(), n(), s(), s(), n(), s()},
		Logon: Logon{s(), s(), s(), s(), r.IntN(2) == 0, s(), n(), s()},
	}
	if r.IntN(2) == 0 {
		e.Process = p()
	}
	if r.IntN(2) == 0 {
		e.Initiating = p()
	}
	for range r.IntN(4) {
		if e.Additional == nil {
			e.Additional = map[string]string{}
		}
		e.Additional[s()] = s()
	}
	return e
}

func decodeAll(t testing.TB, data []byte) []Event {
	t.Helper()
	var es []Event
	if err := DecodeEvents(data, func(e *Event) error { es = append(es, *e); return nil }); err != nil {
		t.Fatal(err)
	}
	return es
}

func TestWireRoundTrip(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	want := []Event{sample(), {}, {Action: "x"}}
	for range 500 {
		want = append(want, random(r))
	}
	got := decodeAll(t, Encode(want))
	if d := cmp.Diff(want, got); d != "" {
		t.Fatalf("decoded events differ (-want +got):\n%s", d)
	}
}

// Every member of the Go types must be on the wire: a member that is added
// later and forgotten in wire.go fails here.
func TestSampleSetsEveryMember(t *testing.T) {
	b, err := json.Marshal(sample())
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]any
	if err := json.Unmarshal(b, &m); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]int{"process": 20, "initiating": 20, "file": 8, "network": 6, "logon": 8} {
		if got := len(m[name].(map[string]any)); got != want {
			t.Errorf("%s: sample sets %d members, event.proto has %d", name, got, want)
		}
	}
	if len(m) != 10 {
		t.Errorf("event: sample sets %d members, event.proto has 10", len(m))
	}
}

func TestWireCleansText(t *testing.T) {
	long := strings.Repeat("ä", MaxString)
	e := Event{Action: "a\xffb", File: File{FileName: long, FolderPath: strings.Repeat("\xff", MaxString)}}
	e.Additional = map[string]string{}
	for i := range MaxAdditional + 10 {
		e.Additional[strings.Repeat("k", i+1)] = "v"
	}
	got := decodeAll(t, Encode([]Event{e}))[0]
	if got.Action != "a\uFFFDb" {
		t.Errorf("action %q", got.Action)
	}
	if n := len(got.File.FileName); n > MaxString || n < MaxString-4 || !utf8.ValidString(got.File.FileName) {
		t.Errorf("long name has %d bytes", n)
	}
	if n := len(got.File.FolderPath); n > MaxString || !utf8.ValidString(got.File.FolderPath) {
		t.Errorf("invalid path has %d bytes", n)
	}
	if len(got.Additional) != MaxAdditional {
		t.Errorf("%d additional entries", len(got.Additional))
	}
}

func TestDecodeHostile(t *testing.T) {
	deep := bytes.Repeat([]byte{0x5b}, 20000) // groups in groups
	tests := []struct {
		name string
		data []byte
		want string // of the error; empty: none
	}{
		{"empty", nil, ""},
		{"unknown fields around and inside", append(append(
			protowire.AppendVarint(protowire.AppendTag(nil, 9, protowire.VarintType), 7),
			AppendEvent(nil, &Event{Action: "x"})...),
			0x0a, 0x06, 0xa2, 0x1f, 0x03, 'a', 'b', 'c'), ""},
		{"wrong wire type of a known field", []byte{0x0a, 0x02, 0x20, 0x05}, ""},
		{"truncated length", []byte{0x0a, 0x80}, "at byte 1"},
		{"length past the end", []byte{0x0a, 0x7f, 0x08, 0x01}, "event 0"},
		{"bad member", []byte{0x0a, 0x04, 0x2a, 0x02, 0x08, 0x80}, "at byte 5"},
		{"field number 0", []byte{0x02, 0x00}, "event 0"},
		{"nested groups", append([]byte{0x0a, 0xa0, 0x9c, 0x01}, deep...), "event 0"},
		{"too many", bytes.Repeat([]byte{0x0a, 0x00}, MaxBatchEvents+1), "more events"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := DecodeEvents(tt.data, func(*Event) error { return nil })
			switch {
			case tt.want == "" && err != nil:
				t.Fatal(err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Fatalf("error %v, want one with %q", err, tt.want)
			}
		})
	}
	stop := errors.New("stop")
	if err := DecodeEvents(Encode(make([]Event, 3)), func(*Event) error { return stop }); !errors.Is(err, stop) {
		t.Fatalf("error of fn is lost: %v", err)
	}
}

// descriptor compiles event.proto with protoc.
func descriptor(t testing.TB) protoreflect.MessageDescriptor {
	protoc := need.Command(t, "protoc")
	out := filepath.Join(t.TempDir(), "event.binpb")
	if b, err := exec.Command(protoc, "--descriptor_set_out="+out, "event.proto").CombinedOutput(); err != nil {
		t.Fatalf("protoc: %v\n%s", err, b)
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	var set descriptorpb.FileDescriptorSet
	if err := proto.Unmarshal(b, &set); err != nil {
		t.Fatal(err)
	}
	fd, err := protodesc.NewFile(set.File[0], nil)
	if err != nil {
		t.Fatal(err)
	}
	return fd.Messages().ByName("Events")
}

// The official implementation reads what wire.go writes, and wire.go reads
// what the official implementation writes.
func TestWireAgainstProtobuf(t *testing.T) {
	md := descriptor(t)
	r := rand.New(rand.NewPCG(3, 4))
	want := []Event{sample()}
	for range 200 {
		want = append(want, random(r))
	}
	ours := Encode(want)
	m := dynamicpb.NewMessage(md)
	if err := proto.Unmarshal(ours, m); err != nil {
		t.Fatal(err)
	}
	assertNoUnknown(t, m)
	theirs, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, decodeAll(t, theirs)); d != "" {
		t.Fatalf("after a way through protobuf (-want +got):\n%s", d)
	}
	// Members land under the right names.
	m = dynamicpb.NewMessage(md)
	one := sample()
	if err := proto.Unmarshal(Encode([]Event{one}), m); err != nil {
		t.Fatal(err)
	}
	ev := m.Get(md.Fields().ByName("event")).List().Get(0).Message()
	get := func(m protoreflect.Message, path ...string) any {
		for _, p := range path[:len(path)-1] {
			m = m.Get(m.Descriptor().Fields().ByName(protoreflect.Name(p))).Message()
		}
		return m.Get(m.Descriptor().Fields().ByName(protoreflect.Name(path[len(path)-1]))).Interface()
	}
	for _, c := range []struct {
		path string
		want any
	}{
		{"report_id", one.ReportID},
		{"time_unix_ns", one.Time.UnixNano()},
		{"action", one.Action},
		{"process.command_line", one.Process.CommandLine},
		{"process.login_uid", one.Process.LoginUID},
		{"initiating.uid", one.Initiating.UID},
		{"process.parent_start_time_unix_ns", one.Process.ParentStartTime.UnixNano()},
		{"file.previous_folder_path", one.File.PreviousFolderPath},
		{"network.remote_url", one.Network.RemoteURL},
		{"logon.is_local_admin", true},
		{"logon.remote_device", one.Logon.RemoteDevice},
	} {
		if got := get(ev, strings.Split(c.path, ".")...); got != c.want {
			t.Errorf("%s = %v, want %v", c.path, got, c.want)
		}
	}
}

func assertNoUnknown(t *testing.T, m protoreflect.Message) {
	t.Helper()
	if len(m.GetUnknown()) > 0 {
		t.Errorf("%s: fields that event.proto does not have", m.Descriptor().Name())
	}
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case fd.IsMap():
		case fd.IsList():
			for i := range v.List().Len() {
				assertNoUnknown(t, v.List().Get(i).Message())
			}
		case fd.Message() != nil:
			assertNoUnknown(t, v.Message())
		}
		return true
	})
}

// FuzzDecodeEvents: no input panics; what is read can be written and read
// again unchanged; whatever the official implementation accepts is accepted.
func FuzzDecodeEvents(f *testing.F) {
	f.Add(Encode([]Event{sample()}))
	f.Add([]byte{0x0a, 0x02, 0x20, 0x05})
	f.Add([]byte{0x0a, 0x04, 0x2a, 0x02, 0x08, 0x80})
	f.Add([]byte{0x0a, 0x06, 0xa2, 0x1f, 0x03, 'a', 0xff, 'c'})
	md := descriptor(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		var es []Event
		err := DecodeEvents(data, func(e *Event) error { es = append(es, *e); return nil })
		if err != nil {
			if !errors.Is(err, ErrTooManyEvents) && proto.Unmarshal(data, dynamicpb.NewMessage(md)) == nil {
				t.Fatalf("protobuf reads what DecodeEvents refuses: %v", err)
			}
			return
		}
		if d := cmp.Diff(es, decodeAll(t, Encode(es)), cmp.Transformer("empty", func(m map[string]string) map[string]string {
			if len(m) == 0 {
				return nil
			}
			return m
		})); d != "" {
			t.Fatalf("second decoding differs:\n%s", d)
		}
	})
}

func benchEvents() []Event {
	es := make([]Event, 1000)
	for i := range es {
		es[i] = sample()
		es[i].ReportID = uint64(i)
		es[i].Network, es[i].Logon, es[i].File = Network{}, Logon{}, File{}
	}
	return es
}

func BenchmarkEncode(b *testing.B) {
	es := benchEvents()
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		buf = buf[:0]
		for i := range es {
			buf = AppendEvent(buf, &es[i])
		}
	}
	report(b, len(es), len(buf))
}

func BenchmarkEncodeJSON(b *testing.B) {
	es := benchEvents()
	var n int
	b.ReportAllocs()
	for b.Loop() {
		buf, err := json.Marshal(es)
		if err != nil {
			b.Fatal(err)
		}
		n = len(buf)
	}
	report(b, len(es), n)
}

func BenchmarkDecode(b *testing.B) {
	buf := Encode(benchEvents())
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		n = 0
		if err := DecodeEvents(buf, func(*Event) error { n++; return nil }); err != nil {
			b.Fatal(err)
		}
	}
	report(b, n, len(buf))
}

func BenchmarkDecodeJSON(b *testing.B) {
	buf, err := json.Marshal(benchEvents())
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		var es []Event
		if err := json.Unmarshal(buf, &es); err != nil {
			b.Fatal(err)
		}
	}
	report(b, 1000, len(buf))
}

func report(b *testing.B, events, size int) {
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*events), "ns/event")
	b.ReportMetric(float64(size)/float64(events), "bytes/event")
}
