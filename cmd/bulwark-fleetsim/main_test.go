package main

import (
	"bytes"
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/agent/fleetsim"
)

func TestUsage(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "onboard.json")
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"--help"}, 0, "bulwark-portal onboarding create"},
		{[]string{"--version"}, 0, version},
		{nil, 2, "--onboarding FILE is needed"},
		{[]string{"--nonsense"}, 2, "unknown flag"},
		{[]string{"--onboarding", missing, "more"}, 2, `unexpected argument "more"`},
		{[]string{"--onboarding", missing}, 2, "no onboarding package at"},
		{[]string{"--onboarding", missing, "--output", "xml"}, 2, "use text or json"},
		{[]string{"--onboarding", missing, "--every", "1ms"}, 2, "100ms or more"},
		{[]string{"--onboarding", missing, "--agents", "0"}, 2, "use 1 to"},
	} {
		var out, errs bytes.Buffer
		if code := run(t.Context(), c.args, &out, &errs); code != c.code || !strings.Contains(out.String()+errs.String(), c.want) {
			t.Errorf("%q: status %d, want %d with %q:\n%s%s", c.args, code, c.code, c.want, &out, &errs)
		}
	}
}

func TestShow(t *testing.T) {
	s := fleetsim.Snapshot{Connected: 3, Events: 100, AckP50: 8, Failures: map[string]uint64{"unreachable: why": 2}}
	var text, object bytes.Buffer
	if err := show(&text, "text", "5s", s, 10*time.Second, 4); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"connected 3 of 4", "events/s 10 ", `2 times: "unreachable: why"`} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("%q is not in\n%s", want, &text)
		}
	}
	if err := show(&object, "json", "5s", s, 10*time.Second, 4); err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(object.Bytes(), &got); err != nil || got["connected"] != 3.0 || got["ack_p50_ms"] != 8.0 || got["label"] != "5s" {
		t.Errorf("%v, %v", got, err)
	}
}
