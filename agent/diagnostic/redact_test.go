package diagnostic

import (
	"io"
	"strings"
	"testing"
)

func redacted(t *testing.T, text string) string {
	t.Helper()
	out, err := io.ReadAll(newRedactor(strings.NewReader(text)))
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

func TestRedact(t *testing.T) {
	const key = "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEEI+Geheim\nAAAA=\n-----END EC PRIVATE KEY-----\n"
	for name, text := range map[string]string{
		"proxy":         "proxy=http://joe:Geheim@proxy:3128/ used\n",
		"equals":        "command_line=\"mysql --user=root --password=Geheim db\"\n",
		"separate word": "curl --token Geheim https://x/\n",
		"JSON":          `{"enrollment_token": "Geheim", "portal": "https://p/"}` + "\n",
		"nested JSON":   `{"cmd":"{\"password\":\"Geheim\"}"}` + "\n",
		"header":        "Authorization: Bearer Geheim.Geheim\n",
		"environment":   "AWS_SECRET_ACCESS_KEY=Geheim; export\n",
		"private key":   "before\n" + key + "after\n",
		"key in a line": `"key":"` + strings.ReplaceAll(key, "\n", `\n`) + "\"\n",
		"last line":     "password: Geheim",
		"long line":     "x " + strings.Repeat("y", maxLine-12) + " password=Geheim" + strings.Repeat("z", 3*maxLine) + "\nend\n",
	} {
		got := redacted(t, text)
		if strings.Contains(got, "Geheim") {
			t.Errorf("%s: %q", name, clipped(got))
		}
		if name == "private key" && (!strings.HasPrefix(got, "before\n") || !strings.HasSuffix(got, "after\n")) {
			t.Errorf("%s: %q", name, got)
		}
		if name == "long line" && (!strings.HasSuffix(got, "\nend\n") || len(got) > maxLine+100) {
			t.Errorf("%s: %d bytes, %q", name, len(got), clipped(got))
		}
	}
	const harmless = "[12][scanner][2026-11-28 21:04:05 UTC][info]: scanned path=/home/token/x files=3\nmonkey: 7\n\n"
	if got := redacted(t, harmless); got != harmless {
		t.Errorf("changed: %q", got)
	}
}

func clipped(s string) string { return s[max(0, len(s)-200):] }

func FuzzRedact(f *testing.F) {
	f.Add("password=x\n-----BEGIN PRIVATE KEY-----\n")
	f.Fuzz(func(t *testing.T, text string) {
		out, err := io.ReadAll(newRedactor(strings.NewReader(text + " password=Geheim\nend\n")))
		if err != nil || strings.Contains(string(out), "password=Geheim") && !strings.Contains(text, "Geheim") {
			t.Fatalf("%q, %v", out, err)
		}
	})
}
