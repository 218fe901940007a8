package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"

	api "github.com/bulwarkhq/bulwark/api/control"
	"github.com/bulwarkhq/bulwark/event"
)

var update = flag.Bool("update", false, "rewrite golden files")

const schemaDir = "../../api/schemas"

// outputs are the published schemas: name, type, and a command whose JSON
// answer must satisfy it.
var outputs = []struct {
	name  string
	value any
	title string
	args  []string
}{
	{"version", versions{}, "bulwark version", []string{"version"}},
	{"health", api.Health{}, "bulwark health", []string{"health"}},
	{"health-details", api.HealthDetails{}, "bulwark health --details", []string{"health", "--details", "portal"}},
	{"health-issues", []api.Issue{}, "bulwark health --explain", []string{"health", "--explain"}},
	{"scan", scanResult{}, "bulwark scan quick, full, custom and processes", []string{"scan", "custom", "--path"}},
	{"scan-state", api.Scan{}, "bulwark scan cancel", nil},
	{"scan-details", api.ScanDetails{}, "bulwark scan get", []string{"scan", "get", "--id", "s1"}},
	{"scan-list", api.ScanList{}, "bulwark scan list", []string{"scan", "list"}},
	{"scan-status", api.ScanProgress{}, "bulwark scan status", []string{"scan", "status"}},
	{"mdatp-threat-list", theirThreats{}, "mdatp threat list", []string{"threat", "list"}},
	{"threat-list", api.ThreatList{}, "bulwark threat list", []string{"threat", "list"}},
	{"threat", api.Threat{}, "bulwark threat get", []string{"threat", "get", "--id", "3f2a"}},
	{"threat-allowed", api.AllowedThreats{}, "bulwark threat allowed list", []string{"threat", "allowed", "list"}},
	{"threat-policy", api.ThreatPolicies{}, "bulwark threat policy list", []string{"threat", "policy", "list"}},
	{"quarantine-list", api.QuarantineList{}, "bulwark threat quarantine list", []string{"threat", "quarantine", "list"}},
	{"restored", api.Restored{}, "bulwark threat quarantine restore", []string{"threat", "quarantine", "restore", "--id", "q1"}},
	{"removed", api.Removed{}, "bulwark threat quarantine remove-all", []string{"threat", "quarantine", "remove-all"}},
	{"done", api.Done{}, "changes that have nothing else to say", []string{"threat", "allowed", "add", "--name", "X"}},
	{"definitions", api.Definitions{}, "bulwark definitions info", []string{"definitions", "info"}},
	{"definitions-result", api.DefinitionsResult{}, "bulwark definitions update, reload and restore", []string{"definitions", "reload"}},
	{"local-scan", localScan{}, "bulwark scan --definitions", []string{"scan", "--definitions", "testdata/definitions", "testdata/definitions"}},
	{"definitions-compile", compileResult{}, "bulwark definitions compile, check, and info of files", []string{"definitions", "check", "testdata/definitions"}},
	{"definitions-explain", explanation{}, "bulwark definitions explain", []string{"definitions", "explain", "Example.Body", "testdata/definitions"}},
	{"settings", api.Settings{}, "bulwark config show", []string{"config", "show"}},
	{"setting", api.Setting{}, "bulwark config show KEY and config changes", []string{"config", "cloud", "--value", "disabled"}},
	{"validation", validation{}, "bulwark config validate", []string{"config", "validate", "testdata/wrong.json"}},
	{"exclusion-list", api.Exclusions{}, "bulwark exclusion list", []string{"exclusion", "list"}},
	{"exclusion", api.Exclusion{}, "bulwark exclusion ... add and remove", []string{"exclusion", "process", "add", "--name", "cat"}},
	{"exclusion-test", api.ExclusionAnswer{}, "bulwark exclusion test", []string{"exclusion", "test", "--path", "/tmp", "--process", "/bin/cat"}},
	{"connectivity", connectivity{}, "bulwark connectivity test", []string{"connectivity", "test"}},
	{"log-level", api.LogLevel{}, "bulwark log level", []string{"log", "level", "get"}},
	{"product-update", api.ProductUpdate{}, "bulwark update check", []string{"update", "check"}},
	{"selftest", selfTest{}, "bulwark selftest", []string{"selftest"}},
	{"diagnostic", api.Diagnostic{}, "bulwark diagnostic create", []string{"diagnostic", "create"}},
	{"statistics", api.Statistics{}, "bulwark diagnostic real-time-protection-statistics", []string{"diagnostic", "real-time-protection-statistics"}},
	{"exclusion-suggestions", suggestions{}, "bulwark diagnostic real-time-protection-statistics --suggest", []string{"diagnostic", "real-time-protection-statistics", "--suggest"}},
	{"hot-event-sources", api.HotEventSources{}, "bulwark diagnostic hot-event-sources", []string{"diagnostic", "hot-event-sources", "files", "--duration", "10ms", "--report", os.DevNull}},
	{"top", api.OnAccess{}, "bulwark top --once", []string{"top", "--once"}},
	{"coverage", api.Coverage{}, "bulwark coverage", []string{"coverage"}},
	{"network-exclusions", networkExclusions{}, "bulwark network-protection exclusion list", []string{"network-protection", "exclusion", "list"}},
	{"network-reset", networkReset{}, "bulwark network-protection reset", []string{"network-protection", "reset"}},
	{"event-statistics", api.EventStatistics{}, "bulwark diagnostic ebpf-statistics", []string{"diagnostic", "ebpf-statistics"}},
	{"explanation", fileExplanation{}, "bulwark explain", []string{"explain", "/tmp/x"}},
	{"import", imported{}, "bulwark config import-mdatp", []string{"config", "import-mdatp", "--dry-run", "--from", "testdata/mdatp"}},
	{"analysis", api.Analysis{}, "bulwark diagnostic analyze", []string{"diagnostic", "analyze"}},
	{"outgoing", api.Outgoing{}, "bulwark diagnostic show-outgoing", []string{"diagnostic", "show-outgoing"}},
	{"isolation", api.Isolation{}, "bulwark isolation status", []string{"isolation", "status"}},
	{"sensor-events", api.SensorEvents{}, "bulwark edr events", []string{"edr", "events"}},
	{"sensor-event", event.Event{}, "bulwark edr events --follow, each line", []string{"edr", "events", "--follow", "--count", "1"}},
	{"process-tree", api.ProcessTree{}, "bulwark edr tree", []string{"edr", "tree", "42"}},
	{"edr", api.EDR{}, "bulwark edr", []string{"edr", "status"}},
	{"rules", api.Rules{}, "bulwark rules list", []string{"rules", "list"}},
	{"rules-check", rulesCheck{}, "bulwark rules check", []string{"rules", "check", "testdata/rules"}},
	{"rules-test", rulesTest{}, "bulwark rules test", []string{"rules", "test", "whoami", "--rules", "testdata/rules", "--events", "testdata/rules/events.jsonl"}},
	{"error", api.ErrorBody{}, "errors of every command, on the standard error output", nil},
}

// schemaOf derives the schema of a type. Members may be added in later
// versions; those that are here stay, with their types.
func schemaOf(t reflect.Type) map[string]any {
	switch t {
	case reflect.TypeFor[time.Time]():
		return map[string]any{"type": "string", "format": "date-time"}
	case reflect.TypeFor[json.RawMessage](), reflect.TypeFor[any]():
		return map[string]any{}
	case reflect.TypeFor[api.Path]():
		return map[string]any{
			"description": "A file name; one that is not valid UTF-8 as an object.",
			"oneOf": []any{
				map[string]any{"type": "string"},
				map[string]any{"type": "object", "required": []string{"base64"}, "properties": map[string]any{"base64": map[string]any{"type": "string"}}},
			},
		}
	}
	words := map[reflect.Type][]any{
		reflect.TypeFor[api.State]():     {api.StateNotEnrolled, api.StateExpired, api.StateDegraded, api.StateStarting, api.StateUnreachable, api.StateHealthy},
		reflect.TypeFor[api.ScanState](): {api.ScanRunning, api.ScanSucceeded, api.ScanFailed, api.ScanCancelled},
		reflect.TypeFor[api.Severity]():  {api.SeverityOK, api.SeverityInfo, api.SeverityWarning, api.SeverityCritical},
		reflect.TypeFor[api.ScanType]():  {api.ScanQuick, api.ScanFull, api.ScanCustom, api.ScanProcesses},
	}
	if w := words[t]; w != nil {
		return map[string]any{"enum": w}
	}
	switch t.Kind() {
	case reflect.Bool:
		return map[string]any{"type": "boolean"}
	case reflect.Int, reflect.Int64, reflect.Uint64, reflect.Uint8:
		return map[string]any{"type": "integer"}
	case reflect.Float64:
		return map[string]any{"type": "number"}
	case reflect.String:
		return map[string]any{"type": "string"}
	case reflect.Pointer:
		return schemaOf(t.Elem())
	case reflect.Slice:
		return map[string]any{"type": "array", "items": schemaOf(t.Elem())}
	case reflect.Map:
		return map[string]any{"type": "object", "additionalProperties": schemaOf(t.Elem())}
	case reflect.Struct:
		properties, required := map[string]any{}, []string{}
		addMembers(t, properties, &required)
		slices.Sort(required)
		return map[string]any{"type": "object", "properties": properties, "required": required}
	}
	panic("no schema for " + t.String())
}

func addMembers(t reflect.Type, properties map[string]any, required *[]string) {
	for f := range t.Fields() {
		tag, ok := f.Tag.Lookup("json")
		if f.Anonymous && !ok {
			addMembers(f.Type, properties, required)
			continue
		}
		name, options, _ := strings.Cut(tag, ",")
		s := schemaOf(f.Type)
		switch {
		case strings.Contains(options, "string"):
			s = map[string]any{"type": "string", "pattern": "^-?[0-9]+$"}
		case f.Type.Kind() == reflect.Slice && name == "scannedFilePaths":
			s["type"] = []string{"array", "null"} // as the reference product has it
		}
		properties[name] = s
		if !strings.Contains(options, "omit") {
			*required = append(*required, name)
		}
	}
}

// TestSchemas holds the published schemas to the types: a change of an answer
// shows up here and in the repository.
func TestSchemas(t *testing.T) {
	for _, o := range outputs {
		s := schemaOf(reflect.TypeOf(o.value))
		if _, ok := o.value.(api.ScanProgress); ok {
			// Without a running scan its members are empty.
			scan := s["properties"].(map[string]any)["scan"].(map[string]any)
			for _, m := range []string{"state", "type"} {
				delete(scan["properties"].(map[string]any)[m].(map[string]any), "enum")
			}
		}
		maps.Copy(s, map[string]any{
			"$schema": "https://json-schema.org/draft/2020-12/schema",
			"$id":     "https://bulwarkhq.github.io/schemas/v1/" + o.name + ".schema.json",
			"title":   o.title,
		})
		got, err := json.MarshalIndent(s, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, '\n')
		path := filepath.Join(schemaDir, o.name+".schema.json")
		if *update {
			if err := os.WriteFile(path, got, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), string(got)); diff != "" {
			t.Errorf("%s is not what the command answers (go test ./cmd/bulwark -run TestSchemas -update rewrites it):\n%s", path, diff)
		}
	}
}

// TestOutputsSatisfySchemas runs the commands and validates their answers.
func TestOutputsSatisfySchemas(t *testing.T) {
	d := runDaemon(t, true)
	for _, o := range outputs {
		args, errorOutput := o.args, false
		switch o.name {
		case "error":
			args, errorOutput = []string{"threat", "get", "--id", "x"}, true
		case "scan":
			infected := filepath.Join(t.TempDir(), "infected")
			if err := os.Mkdir(infected, 0o755); err != nil {
				t.Fatal(err)
			}
			args = append(slices.Clone(args), infected)
		case "scan-state":
			continue // of scan cancel: an api.Scan as in scan-list
		}
		program := "bulwark"
		if strings.HasPrefix(o.name, referenceName) {
			program = referenceName
		}
		var stdout, stderr bytes.Buffer
		run(t.Context(), program, append([]string{"--root", strings.TrimSuffix(d.dirs.Run, "/run/bulwark"), "--output", "json"}, args...), &stdout, &stderr)
		out := &stdout
		if errorOutput {
			out = &stderr
		}
		v, err := jsonschema.UnmarshalJSON(out)
		if err != nil {
			t.Errorf("%s: no JSON: %v, %s", strings.Join(args, " "), err, stderr.String())
			continue
		}
		c := jsonschema.NewCompiler()
		c.AssertFormat()
		schema, err := c.Compile(filepath.Join(schemaDir, o.name+".schema.json"))
		if err != nil {
			t.Fatal(err)
		}
		if err := schema.Validate(v); err != nil {
			t.Errorf("%s: %v", strings.Join(args, " "), err)
		}
		// The schema can fail: an answer without its members is refused.
		if m, ok := v.(map[string]any); ok && len(m) > 0 && schema.Validate(map[string]any{}) == nil && len(schema.Required) > 0 {
			t.Errorf("%s: the schema accepts anything", o.name)
		}
	}
}
