package export

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/slim/otlp/collector/logs/v1"
	common "go.opentelemetry.io/proto/slim/otlp/common/v1"
	otel "go.opentelemetry.io/proto/slim/otlp/logs/v1"
	"google.golang.org/protobuf/proto"
)

// collectorOf answers as a collector of OpenTelemetry does and keeps the log
// records.
type collectorOf struct {
	t        *testing.T
	records  []*otel.LogRecord
	services []string
	rejected int64
}

func (c *collectorOf) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b, err := io.ReadAll(r.Body)
	var request collector.ExportLogsServiceRequest
	if err != nil || r.URL.Path != "/v1/logs" || r.Header.Get("Content-Type") != "application/x-protobuf" || r.Header.Get("Authorization") != "Bearer x" || proto.Unmarshal(b, &request) != nil {
		c.t.Errorf("a request to %s of %q: %v", r.URL, r.Header, err)
	}
	for _, res := range request.GetResourceLogs() {
		c.services = append(c.services, value(res.GetResource().GetAttributes(), "service.name"))
		for _, scope := range res.GetScopeLogs() {
			c.records = append(c.records, scope.GetLogRecords()...)
		}
	}
	answer, err := proto.Marshal(&collector.ExportLogsServiceResponse{PartialSuccess: &collector.ExportLogsPartialSuccess{RejectedLogRecords: c.rejected, ErrorMessage: "not\nwanted"}})
	if err != nil {
		c.t.Error(err)
	}
	w.Header().Set("Content-Type", "application/x-protobuf")
	if _, err := w.Write(answer); err != nil {
		c.t.Error(err)
	}
}

func value(list []*common.KeyValue, key string) string {
	for _, kv := range list {
		if kv.GetKey() == key {
			return kv.GetValue().GetStringValue()
		}
	}
	return ""
}

func TestOTLP(t *testing.T) {
	c := &collectorOf{t: t}
	server := httptest.NewServer(c)
	defer server.Close()
	d := Destination{Name: "n", Kind: OTLP, Alerts: true, Audit: true, MinSeverity: "Low", Secrets: Secrets{URL: server.URL, Authorization: "Bearer x"}}
	if err := check(&d); err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 3, 4, 5, 6, 7, 8000, time.UTC)
	s, err := newSender(&d, portal{url: "https://portal.example.org", host: "portal.example.org", version: "1"}, func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	alert, audit := alertRecord("bad\xfftitle", "web1"), auditRecord()
	alert.Alert.Detection.Techniques = []string{"T1204"}
	test := &Record{Type: typeTest, Time: now, By: "ann"}
	if n, err := s.send(t.Context(), []Record{*alert, *audit, *test}); n != 3 || err != nil {
		t.Fatal(n, err)
	}
	if len(c.records) != 3 || !slices.Equal(c.services, []string{"bulwark-portal", "bulwark-portal", "bulwark-portal"}) {
		t.Fatalf("%d records of %q", len(c.records), c.services)
	}
	a := c.records[0]
	if a.GetEventName() != "bulwark.alert" || a.GetBody().GetStringValue() != "bad\uFFFDtitle" || a.GetSeverityText() != string(alert.Alert.Detection.Severity) ||
		a.GetTimeUnixNano() != nanoseconds(wellFormed(alert.Time)) || a.GetObservedTimeUnixNano() != uint64(now.UnixNano()) {
		t.Errorf("the alert: %v", a)
	}
	for key, want := range map[string]string{
		"log.record.uid": alert.ID(), "host.name": "web1", "host.id": alert.Alert.DeviceID, "bulwark.alert.id": alert.Alert.Detection.ID, "bulwark.portal": "https://portal.example.org",
	} {
		if got := value(a.GetAttributes(), key); got != want {
			t.Errorf("%s is %q, want %q", key, got, want)
		}
	}
	at := slices.IndexFunc(a.GetAttributes(), func(kv *common.KeyValue) bool { return kv.GetKey() == "bulwark.alert.mitreTechniques" })
	if at < 0 || a.GetAttributes()[at].GetValue().GetArrayValue().GetValues()[0].GetStringValue() != "T1204" {
		t.Errorf("the techniques of %v", a.GetAttributes())
	}
	if b := c.records[1]; b.GetEventName() != "bulwark.audit" || value(b.GetAttributes(), "bulwark.audit.actor") != audit.Audit.Actor || b.GetSeverityNumber() != otel.SeverityNumber_SEVERITY_NUMBER_INFO {
		t.Errorf("the audit entry: %v", b)
	}
	if m := value(c.records[2].GetAttributes(), "bulwark.message"); !strings.Contains(m, "sent by ann") {
		t.Errorf("the test: %q", m)
	}

	// A partial success of one record is a refusal.
	c.rejected = 1
	n, err := s.send(t.Context(), []Record{*audit})
	var r *refusal
	if n != 0 || !errors.As(err, &r) || strings.Contains(r.Error(), "\n") || !strings.Contains(r.Error(), "wanted") {
		t.Errorf("a rejected record: %d, %v", n, err)
	}
}

// TestOTLPFits: whatever a device sends, the request has a bound.
func TestOTLPFits(t *testing.T) {
	r := alertRecord(strings.Repeat("\xff", 1<<20), strings.Repeat("x", 1<<20))
	r.Alert.Detection.Techniques = slices.Repeat([]string{strings.Repeat("t", 1<<16)}, 1000)
	r.Time = time.Date(1<<20, 1, 1, 0, 0, 0, 0, time.UTC)
	b, err := r.otlp(portal{}, time.Now(), maxBody)
	if err != nil || len(b) > maxBody {
		t.Errorf("%d bytes: %v", len(b), err)
	}
}
