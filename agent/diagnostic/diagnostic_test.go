package diagnostic

import (
	"archive/zip"
	"io"
	"os"
	"path/filepath"
	"testing"
)

func TestCreate(t *testing.T) {
	logs, out := t.TempDir(), filepath.Join(t.TempDir(), "new", "folder")
	if err := os.MkdirAll(filepath.Join(logs, "rotated"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(logs, "rotated", "bulwark.log"), []byte("a line\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	managed := filepath.Join(t.TempDir(), "managed.json")
	if err := os.WriteFile(managed, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	path, size, err := Create(t.Context(), out, Source{
		LogDir: logs, Files: []string{managed, "/does/not/exist"},
		Documents: map[string][]byte{"health.json": []byte(`{"healthy":true}`)},
	})
	if err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if st.Size() != size || st.Mode().Perm() != 0o600 {
		t.Errorf("size %d, said %d; mode %v", st.Size(), size, st.Mode())
	}
	z, err := zip.OpenReader(path)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	got := map[string]string{}
	for _, f := range z.File {
		r, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		got[f.Name] = string(data)
	}
	for name, want := range map[string]string{
		"log/rotated/bulwark.log": "a line\n", "config/managed.json": "{}", "health.json": `{"healthy":true}`,
	} {
		if got[name] != want {
			t.Errorf("%s: %q, want %q", name, got[name], want)
		}
	}
	if got["errors.txt"] == "" || got["host/proc_version"] == "" {
		t.Errorf("errors.txt %q, host/proc_version %q", got["errors.txt"], got["host/proc_version"])
	}
}

func TestCreateInUnwritableFolder(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Create(t.Context(), file, Source{LogDir: t.TempDir()}); err == nil {
		t.Fatal("no error")
	}
}
