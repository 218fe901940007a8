package portal

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/bulwarkhq/bulwark/portal/access"
	"github.com/bulwarkhq/bulwark/portal/ingest"
)

const sampleContent = "#!/bin/sh\n# the suspicious file of the alert\n"

func sampleHash() string {
	h := sha256.Sum256([]byte(sampleContent))
	return hex.EncodeToString(h[:])
}

// A device may send the files of its own alerts, nothing else; who may collect
// forensics can download them, and the audit log says who did.
func TestSamples(t *testing.T) {
	w := newWorld(t)
	to := samples{w.samples, w.alerts}
	part := ingest.SamplePart{SHA256: sampleHash(), Size: uint64(len(sampleContent)), Data: []byte(sampleContent)}
	other := part
	other.SHA256 = strings.Repeat("0", 64)
	for name, try := range map[string]func() error{
		"another device": func() error {
			_, _, err := to.ReceiveSample(t.Context(), strings.Repeat("ef", 20), w.alert, part)
			return err
		},
		"another file": func() error { _, _, err := to.ReceiveSample(t.Context(), w.device, w.alert, other); return err },
		"no alert": func() error {
			_, _, err := to.ReceiveSample(t.Context(), w.device, strings.Repeat("00", 16), part)
			return err
		},
	} {
		if err := try(); !errors.Is(err, ingest.ErrUnknownAlert) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, stored, err := to.ReceiveSample(t.Context(), w.device, w.alert, part); err != nil || !stored {
		t.Fatalf("%v, %v", stored, err)
	}
	reader, _ := w.signIn(t, "rob", access.Reader)
	if _, text := w.get(t, reader, "/alerts/"+w.alert); !strings.Contains(text, "Your role does not include downloading it") || strings.Contains(text, "/sample\"") {
		t.Error("a reader sees the link, or no sample")
	}
	if resp, _ := w.get(t, reader, "/alerts/"+w.alert+"/sample"); resp.StatusCode != http.StatusForbidden {
		t.Errorf("a reader gets %s", resp.Status)
	}
	analyst, _ := w.signIn(t, "ann", access.Analyst)
	if _, text := w.get(t, analyst, "/alerts/"+w.alert); !strings.Contains(text, "/alerts/"+w.alert+"/sample\"") {
		t.Error("an analyst sees no link")
	}
	resp, text := w.get(t, analyst, "/alerts/"+w.alert+"/sample")
	z, err := zip.NewReader(strings.NewReader(text), int64(len(text)))
	if resp.StatusCode != http.StatusOK || err != nil || z.File[0].Name != sampleHash() || bytes.Contains([]byte(text), []byte(sampleContent)) {
		t.Errorf("%s, %v", resp.Status, err)
	}
	entries, err := w.accounts.AuditEntries(t.Context(), 0, 100)
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, e := range entries {
		if e.Action == "sample.download" {
			found++
			if e.Actor != "ann" {
				t.Errorf("%+v", e)
			}
		}
	}
	if found != 1 {
		t.Errorf("%d downloads in the audit log", found)
	}
}
