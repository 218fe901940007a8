package control

import (
	"encoding/json"
	"testing"
)

func TestPathJSON(t *testing.T) {
	for in, want := range map[Path]string{
		"/tmp/a":       `"/tmp/a"`,
		"/tmp/<a>&ä\n": `"/tmp/<a>&ä\n"`,
		"/tmp/\xff":    `{"base64":"L3RtcC//"}`,
		"":             `""`,
	} {
		got, err := json.Marshal(in)
		if err != nil {
			t.Fatal(err)
		}
		var back Path
		if err := json.Unmarshal(got, &back); err != nil || back != in {
			t.Errorf("%q reads back as %q, %v", in, back, err)
		}
		direct, err := in.MarshalJSON()
		if err != nil || string(direct) != want {
			t.Errorf("%q: %s, want %s", in, direct, want)
		}
	}
	for _, bad := range []string{`1`, `{"base64": "!"}`, `[]`} {
		var p Path
		if err := json.Unmarshal([]byte(bad), &p); err == nil {
			t.Errorf("%s is a path: %q", bad, p)
		}
	}
}

func FuzzPath(f *testing.F) {
	f.Add("/tmp/\xff")
	f.Fuzz(func(t *testing.T, s string) {
		data, err := json.Marshal(Path(s))
		if err != nil {
			t.Fatal(err)
		}
		var back Path
		if err := json.Unmarshal(data, &back); err != nil || string(back) != s {
			t.Fatalf("%q: %s: %q, %v", s, data, back, err)
		}
	})
}
