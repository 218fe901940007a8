package export

import (
	"encoding/json"
	"fmt"
	"mime"
	"slices"
	"strings"
	"time"

	collector "go.opentelemetry.io/proto/slim/otlp/collector/logs/v1"
	common "go.opentelemetry.io/proto/slim/otlp/common/v1"
	otel "go.opentelemetry.io/proto/slim/otlp/logs/v1"
	resource "go.opentelemetry.io/proto/slim/otlp/resource/v1"
	"google.golang.org/protobuf/proto"

	"github.com/bulwarkhq/bulwark/event"
	"github.com/bulwarkhq/bulwark/portal/inventory"
)

// otlpType is the content of a request of OTLP/HTTP in its binary form
// (OpenTelemetry Protocol specification, "OTLP/HTTP Request").
const otlpType = "application/x-protobuf"

// otlpSeverity is the number of the severity (OpenTelemetry, Logs Data Model,
// "Field: SeverityNumber").
func otlpSeverity(s event.Severity) otel.SeverityNumber {
	switch s {
	case event.SeverityHigh:
		return otel.SeverityNumber_SEVERITY_NUMBER_ERROR
	case event.SeverityMedium:
		return otel.SeverityNumber_SEVERITY_NUMBER_WARN
	case event.SeverityLow:
		return otel.SeverityNumber_SEVERITY_NUMBER_INFO2
	}
	return otel.SeverityNumber_SEVERITY_NUMBER_INFO
}

// semantic are the attributes that OpenTelemetry has names for, by the members of
// an alert (Semantic Conventions: host, file, process, user, url, network).
func semantic() map[string]string {
	return map[string]string{
		"machineId": "host.id", "computerDnsName": "host.name", "fileName": "file.name", "filePath": "file.path", "processId": "process.pid",
		"processPath": "process.executable.path", "processCommandLine": "process.command_line", "accountName": "user.name",
		"remoteIp": "network.peer.address", "remoteUrl": "url.full",
	}
}

// otlp is the record as a request of OTLP/HTTP with one log record, in at most
// most bytes as far as that is possible by shortening texts. The body is the
// title; the attributes are the members of the document, with OpenTelemetry's
// names where it has some, else behind "bulwark.alert." or "bulwark.audit.".
func (r *Record) otlp(p portal, now time.Time, most int) ([]byte, error) {
	var b []byte
	for _, limit := range textLimits() {
		attributes, err := r.attributes(p, limit)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", r.ID(), err)
		}
		b, err = proto.Marshal(&collector.ExportLogsServiceRequest{ResourceLogs: []*otel.ResourceLogs{{
			Resource: &resource.Resource{Attributes: []*common.KeyValue{
				attribute("service.name", "bulwark-portal"), attribute("service.instance.id", p.host), attribute("service.version", p.version),
			}},
			ScopeLogs: []*otel.ScopeLogs{{
				Scope: &common.InstrumentationScope{Name: "bulwark", Version: p.version},
				LogRecords: []*otel.LogRecord{{
					TimeUnixNano: nanoseconds(wellFormed(r.Time)), ObservedTimeUnixNano: nanoseconds(now), EventName: "bulwark." + r.Type,
					SeverityNumber: otlpSeverity(r.severity()), SeverityText: string(r.severity()),
					Body: textValue(cut(r.title(p), limit)), Attributes: attributes,
				}},
			}},
		}}})
		if err != nil {
			return nil, fmt.Errorf("%s: %w", r.ID(), err)
		}
		if len(b) <= most {
			break
		}
	}
	return b, nil
}

// nanoseconds since 1970; zero, which means unknown, for what has no such number.
func nanoseconds(t time.Time) uint64 {
	if y := t.Year(); y < 1970 || y > 2261 {
		return 0
	}
	return uint64(max(t.UnixNano(), 0))
}

// attributes of the record, in the order of their names.
func (r *Record) attributes(p portal, limit int) ([]*common.KeyValue, error) {
	d := r.document(p, limit)
	out := []*common.KeyValue{attribute("log.record.uid", d.ID), attribute("bulwark.portal", d.Portal)}
	var part any
	switch {
	case d.Alert != nil:
		part = d.Alert
	case d.Audit != nil:
		part = d.Audit
	default:
		return append(out, attribute("bulwark.message", d.Message)), nil
	}
	b, err := json.Marshal(part)
	if err != nil {
		return nil, err
	}
	members := map[string]any{}
	if err := json.Unmarshal(b, &members); err != nil {
		return nil, err
	}
	names := semantic()
	for member, value := range members {
		name := names[member]
		if name == "" {
			name = "bulwark." + d.Type + "." + member
		}
		out = append(out, &common.KeyValue{Key: name, Value: anyValue(value)})
	}
	slices.SortFunc(out, func(a, b *common.KeyValue) int { return strings.Compare(a.GetKey(), b.GetKey()) })
	return out, nil
}

func attribute(key, value string) *common.KeyValue {
	return &common.KeyValue{Key: key, Value: textValue(value)}
}

func textValue(s string) *common.AnyValue {
	return &common.AnyValue{Value: &common.AnyValue_StringValue{StringValue: strings.ToValidUTF8(s, "\uFFFD")}}
}

// anyValue is a value of JSON: text, a whole number or a list of texts.
func anyValue(v any) *common.AnyValue {
	switch v := v.(type) {
	case string:
		return textValue(v)
	case float64:
		return &common.AnyValue{Value: &common.AnyValue_IntValue{IntValue: int64(v)}}
	case []any:
		list := &common.ArrayValue{}
		for _, one := range v {
			list.Values = append(list.Values, anyValue(one))
		}
		return &common.AnyValue{Value: &common.AnyValue_ArrayValue{ArrayValue: list}}
	}
	return textValue(fmt.Sprint(v))
}

// otlpRejected is the refusal in an answer of success: a collector that has not
// taken a record says how many (OpenTelemetry Protocol specification, "Partial
// Success"). It wants no second try because of the records that it has taken;
// here there is one in a request, and so it is treated as any that is refused.
// Answers of another form are success.
func otlpRejected(contentType string, body []byte) error {
	var answer collector.ExportLogsServiceResponse
	if kind, _, err := mime.ParseMediaType(contentType); err == nil && kind == otlpType && proto.Unmarshal(body, &answer) == nil {
		if partial := answer.GetPartialSuccess(); partial.GetRejectedLogRecords() > 0 {
			return &refusal{fmt.Errorf("the collector rejects the record: %s", inventory.Clean(partial.GetErrorMessage(), maxReason))}
		}
	}
	return nil
}
