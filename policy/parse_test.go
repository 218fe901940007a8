package policy

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// why is why a key's value has no effect.
func why(name string) string {
	k, _ := Lookup(name)
	return k.Fixed
}

func TestParse(t *testing.T) {
	tests := []struct {
		name, in string
		want     string   // the document in JSON
		problems []string // Problem.String
	}{
		{
			"starter profile", `{"antivirusEngine": {"enableRealTimeProtection": true,
			"threatTypeSettings": [{"key":"potentially_unwanted_application","value":"block"},{"key":"archive_bomb","value":"audit"}]},
			"cloudService": {"automaticSampleSubmission": true, "enabled": true}}`,
			`{"antivirusEngine":{"enableRealTimeProtection":true,"threatTypeSettings":[{"key":"potentially_unwanted_application","value":"block"},{"key":"archive_bomb","value":"audit"}]},"cloudService":{"enabled":true,"automaticSampleSubmission":true}}`, nil,
		},
		{"empty object", "{}", "{}", nil},
		{"byte order mark", "\xef\xbb\xbf{}", "{}", nil},
		{"comments and schema", `{"$schema": "x", "_comment": "y"}`, "{}", nil},
		{"empty", " \n", "{}", []string{"1:1: the file is empty: write {} for a profile without settings"}},
		{"list", `[]`, "{}", []string{"1:1: a profile is a JSON object, this is an array"}},
		{
			"syntax", "{\n  \"cloudService\": {\n    \"enabled\" true\n  }\n}", "{}",
			[]string{"3:15: not valid JSON: invalid character 't' after object key"},
		},
		{"cut off", `{"cloudService": {`, "{}", []string{"1:19: not valid JSON: the file ends in the middle"}},
		{"something behind", "{}\n{}", "{}", []string{"2:1: something follows the profile's JSON object"}},
		{
			"misspelt key", "{\"cloudService\": {\n  \"enabld\": true,\n  \"diagnosticLevel\": \"optional\"}}",
			`{"cloudService":{"diagnosticLevel":"optional"}}`,
			[]string{"2:3: cloudService.enabld: no such key; did you mean enabled?"},
		},
		{
			"misspelt section", `{"antivirusEngin": {"passiveMode": true}}`, "{}",
			[]string{"1:2: antivirusEngin: no such key; did you mean antivirusEngine?"},
		},
		{
			"wrong section", `{"antivirusEngine": {"proxy": "http://p:1/"}}`, "{}",
			[]string{"1:22: antivirusEngine.proxy: no such key; did you mean cloudService.proxy?"},
		},
		{
			"wrong value", `{"antivirusEngine": {"enforcementLevel": "realtime", "scanArchives": "true", "maximumOnDemandScanThreads": 65}}`, "{}",
			[]string{
				`1:42: antivirusEngine.enforcementLevel: "realtime" is not one of "real_time", "audit", "on_demand", "passive"; did you mean "real_time"?`,
				`1:70: antivirusEngine.scanArchives: "true" is not true or false; did you mean true without quotes?`,
				`1:108: antivirusEngine.maximumOnDemandScanThreads: 65 is not a whole number from 1 to 64`,
			},
		},
		{
			"old spellings", `{"antivirusEngine": {"offlineDefintionUpdateFallbackToCloud": false}, "features": {"offlineDefinitionUpdate": "enabled"}}`,
			`{"antivirusEngine":{"offlineDefinitionUpdate":"enabled","offlineDefinitionUpdateFallbackToCloud":false}}`,
			[]string{
				"1:22: warning: antivirusEngine.offlineDefintionUpdateFallbackToCloud: is an old spelling of antivirusEngine.offlineDefinitionUpdateFallbackToCloud: it still works",
				"1:84: warning: features.offlineDefinitionUpdate: is an old spelling of antivirusEngine.offlineDefinitionUpdate: it still works",
			},
		},
		{
			"proper spelling wins", `{"antivirusEngine": {"offlineDefinitionUpdate": "disabled"}, "features": {"offlineDefinitionUpdate": "enabled"}}`,
			`{"antivirusEngine":{"offlineDefinitionUpdate":"disabled"}}`,
			[]string{"1:75: warning: features.offlineDefinitionUpdate: is an old spelling of antivirusEngine.offlineDefinitionUpdate: it still works"},
		},
		{
			"tolerated types", `{"antivirusEngine": {"scanHistoryMaximumItems": "5000", "MemoryScan": "Enabled", "behaviorMonitoring": true}}`,
			`{"antivirusEngine":{"behaviorMonitoring":"enabled","scanHistoryMaximumItems":5000,"MemoryScan":"enabled"}}`,
			[]string{
				`1:49: warning: antivirusEngine.scanHistoryMaximumItems: "5000" is taken for the number 5000`,
				`1:104: warning: antivirusEngine.behaviorMonitoring: true is taken for "enabled"`,
				`1:57: warning: antivirusEngine.MemoryScan: has no effect: ` + why("antivirusEngine.MemoryScan"),
			},
		},
		{
			"file systems in one string", `{"antivirusEngine": {"unmonitoredFilesystems": ["nfs,Fuse"]}}`,
			`{"antivirusEngine":{"unmonitoredFilesystems":["nfs","fuse"]}}`, nil,
		},
		{
			"monitor all", `{"antivirusEngine": {"unmonitoredFilesystems": []}}`,
			`{"antivirusEngine":{"unmonitoredFilesystems":[]}}`, nil,
		},
		{
			"other systems", `{"userInterface": {"hideStatusMenuIcon": true}}`, "{}",
			[]string{"1:2: warning: userInterface: is for macOS and has no effect on Linux"},
		},
		{
			"draft of scheduled scans", `{"antivirusEngine": {"scheduledScan": {"quickScan": 1}}}`, "{}",
			[]string{`1:39: antivirusEngine.scheduledScan: is a switch, not an object (an early draft had it so); did you mean "enabled" here and the times in a section "scheduledScan" at the top?`},
		},
		{
			"deprecated beside new", `{"antivirusEngine": {"enforcementLevel": "audit", "passiveMode": true}}`,
			`{"antivirusEngine":{"enforcementLevel":"audit","passiveMode":true}}`,
			[]string{"1:51: warning: antivirusEngine.passiveMode: has no effect beside antivirusEngine.enforcementLevel"},
		},
		{
			"twice", `{"edr": {"groupIds": "a", "groupIds": "b"}}`, `{"edr":{"groupIds":"b"}}`,
			[]string{"1:27: warning: edr.groupIds: stands here more than once: the last one counts"},
		},
		{
			"automatic proxy", `{"cloudService": {"proxy": "http://wpad/wpad.dat"}}`, "{}",
			[]string{`1:28: cloudService.proxy: asks for automatic proxy configuration (PAC, WPAD), which is not supported: give the address of the proxy itself, http://host:port/`},
		},
		{
			"proxy", `{"cloudService": {"proxy": "socks5://u:secret@h"}}`, "{}",
			[]string{`1:28: cloudService.proxy: "socks5://u:xxxxx@h" is no proxy: want http://host:port/`},
		},
		{"update interval off", `{"cloudService": {"definitionUpdatesInterval": 0}}`, `{"cloudService":{"definitionUpdatesInterval":0}}`, nil},
		{
			"tags", `{"edr": {"tags": [{"key": "GROUP", "value": "a"}, {"key": "GROUP", "value": "b"}]}}`,
			`{"edr":{"tags":[{"key":"GROUP","value":"a"}]}}`,
			[]string{"1:18: edr.tags: has 2 tags: only one is possible, the first counts"},
		},
		{
			"exclusions", `{"antivirusEngine": {"exclusions": [
			{"$type": "excludedPath", "isDirectory": true, "path": "/home/*/git/"},
			{"$type": "excludedFileExtension", "extension": "pdf"},
			{"$type": "excludedFileName", "name": "cat"},
			{"$type": "excludedPath", "path": "relative"},
			{"$type": "excludedPth", "path": "/x"}]}}`,
			`{"antivirusEngine":{"exclusions":[{"$type":"excludedPath","path":"/home/*/git","isDirectory":true},{"$type":"excludedFileExtension","extension":".pdf"},{"$type":"excludedFileName","name":"cat"}]}}`,
			[]string{
				`5:38: antivirusEngine.exclusions[3].path: path "relative" is not absolute`,
				`6:14: antivirusEngine.exclusions[4].$type: "excludedPth" is not one of "excludedPath", "excludedFileExtension", "excludedFileName"; did you mean "excludedPath"?`,
			},
		},
		{
			"global exclusions", `{"exclusionSettings": {"exclusions": [
			{"$type": "excludedPath", "path": "/a"},
			{"$type": "excludedPath", "path": "/a*"},
			{"$type": "excludedFileExtension", "extension": ".x"},
			{"$type": "excludedFileExtension", "extension": ".x", "scopes": ["epp"]},
			{"$type": "excludedPath", "path": "/b", "expires": "tomorrow"}]}}`,
			`{"exclusionSettings":{"exclusions":[{"$type":"excludedPath","path":"/a","isDirectory":false,"scopes":["global"]},{"$type":"excludedFileExtension","extension":".x","scopes":["epp"]}]}}`,
			[]string{
				`3:38: exclusionSettings.exclusions[1].path: path "/a*": a global exclusion cannot have wildcards; did you mean "scopes": ["epp"] (without scopes an exclusion here is global)?`,
				`4:52: exclusionSettings.exclusions[2].extension: extension ".x": extensions cannot be excluded globally, only in the scope epp; did you mean "scopes": ["epp"] (without scopes an exclusion here is global)?`,
				`6:55: exclusionSettings.exclusions[4].expires: "tomorrow" is no date and time like "2027-01-31T00:00:00Z": the exclusion is left out`,
			},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			doc, problems := Parse([]byte(tt.in))
			got, err := json.Marshal(doc)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, string(got)); diff != "" {
				t.Errorf("document (-want +got):\n%s", diff)
			}
			var lines []string
			for _, p := range problems {
				lines = append(lines, p.String())
			}
			if diff := cmp.Diff(tt.problems, lines); diff != "" {
				t.Errorf("problems (-want +got):\n%s", diff)
			}
		})
	}
}

func TestParseBounds(t *testing.T) {
	tests := map[string]string{
		"deep":  strings.Repeat(`{"a":`, 100),
		"large": `{"edr": {"groupIds": "` + strings.Repeat("x", MaxBytes) + `"}}`,
		"many":  `{"antivirusEngine": {"allowedThreats": [` + strings.Repeat("1,", maxNodes) + `1]}}`,
	}
	for name, in := range tests {
		doc, problems := Parse([]byte(in))
		if !Broken(problems) || len(doc.Names()) > 0 {
			t.Errorf("%s: want a broken profile, got %v", name, problems)
		}
	}
	_, problems := Parse([]byte(`{` + strings.Repeat(`"enforcementLevl": 1, `, 5000) + `"x": 1}`))
	if len(problems) != maxProblems+1 {
		t.Errorf("%d problems listed, want %d", len(problems), maxProblems+1)
	}
}

func TestEveryKey(t *testing.T) {
	seen := map[string]bool{}
	for _, k := range Keys() {
		if k.Doc == "" || k.Since == "" || !strings.HasSuffix(k.Doc, ".") {
			t.Errorf("%s: documentation is missing", k.Name)
		}
		for _, name := range append([]string{k.Name}, k.Aliases...) {
			if seen[name] {
				t.Errorf("%s is there twice", name)
			}
			seen[name] = true
		}
		data, err := k.Encode(k.Default)
		if err != nil {
			t.Fatal(err)
		}
		doc, err := Document{}.With(k.Name, data)
		if err != nil {
			t.Errorf("default: %v", err)
			continue
		}
		if v, _ := doc.Get(k.Name); !cmp.Equal(v, k.Default, equateEmpty) {
			t.Errorf("%s: default %v reads back as %v", k.Name, k.Default, v)
		}
		if _, err := (Document{}).With(k.Name, json.RawMessage(`{"x": 1}`)); err == nil {
			t.Errorf("%s takes an object", k.Name)
		}
		if k.Fixed != "" {
			switch k.Kind { // of which a value is compared with the default
			case Bool, Switch, Enum:
			case Int, String, Strings, Exclusions, ThreatTypes, Tags:
				t.Errorf("%s is fixed", k.Name)
			}
		}
		if k.Deprecated != "" {
			if _, ok := Lookup(k.Deprecated); !ok {
				t.Errorf("%s: no key %s", k.Name, k.Deprecated)
			}
		}
	}
}

// equateEmpty takes nil and empty lists for equal.
var equateEmpty = cmp.FilterValues(func(a, b any) bool { return isEmptyList(a) && isEmptyList(b) }, cmp.Comparer(func(any, any) bool { return true }))

func isEmptyList(v any) bool {
	switch v := v.(type) {
	case []string:
		return len(v) == 0
	case []Exclusion:
		return len(v) == 0
	case []Tag:
		return len(v) == 0
	}
	return false
}

func TestFindNamesTheNearest(t *testing.T) {
	for in, want := range map[string]string{
		"antivirusEngine.enforcmentLevel": "antivirusEngine.enforcementLevel",
		"proxy":                           "cloudService.proxy",
		"edr.tag":                         "edr.tags",
		"qqqqqqqqqqqqq":                   "",
	} {
		_, err := Find(in)
		var unknown *UnknownKeyError
		if !errors.As(err, &unknown) || unknown.Nearest != want {
			t.Errorf("Find(%q): %v, want the suggestion %q", in, err, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"antivirusEngine": {"enforcementLevel": "real_time", "exclusions": [{"$type": "excludedPath", "path": "/a/*"}]}}`))
	f.Add([]byte(`{"exclusionSettings": {"exclusions": [{"$type": "excludedFileName", "name": "c?t", "scopes": ["epp"], "expires": "2027-01-01T00:00:00Z"}]}}`))
	f.Add([]byte("{\"a\":[[[[{\"b\":\"\xff\"}"))
	f.Add([]byte(`{"cloudService": {"definitionUpdatesInterval": 1e5, "proxy": "http://[::1]:80/"}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		doc, problems := Parse(data)
		for _, p := range problems {
			if p.Line < 1 || p.Column < 1 {
				t.Fatalf("problem without a place: %+v", p)
			}
		}
		// What was understood is understood again, without complaint.
		written, err := json.Marshal(doc)
		if err != nil {
			t.Fatal(err)
		}
		again, problems := Parse(written)
		unknown := slices.ContainsFunc(problems, func(p Problem) bool { return strings.HasSuffix(p.Key, ".scopes") })
		if Broken(problems) || unknown {
			t.Fatalf("%s: %v", written, problems)
		}
		for _, name := range doc.Names() {
			if _, ok := again.Get(name); !ok {
				t.Fatalf("%s is lost when written", name)
			}
		}
		Resolve(doc, Document{}, again).Exclusions().Match(UseRealTime, "/a/b", "/bin/cat", start)
	})
}
