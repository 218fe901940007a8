package policy

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"pgregory.net/rapid"
)

var update = flag.Bool("update", false, "rewrite golden files")

// values draws a valid value of a key.
func values(k Key) *rapid.Generator[any] {
	return rapid.Custom(func(t *rapid.T) any {
		switch k.Kind {
		case Bool:
			return rapid.Bool().Draw(t, k.Name)
		case Switch:
			return rapid.SampledFrom([]string{Enabled, Disabled}).Draw(t, k.Name)
		case Enum:
			return rapid.SampledFrom(k.Values).Draw(t, k.Name)
		case Int:
			return rapid.IntRange(k.Min, k.Max).Draw(t, k.Name)
		case Strings:
			words := k.Values
			switch {
			case k.Name == KeyNetworkExclusions:
				words = []string{"/usr/bin/a", "/usr/bin/b"}
			case words == nil:
				words = []string{"a", "b", "c"}
			}
			return rapid.SliceOfNDistinct(rapid.SampledFrom(words), 0, 2, rapid.ID).Draw(t, k.Name)
		case Exclusions:
			x := Exclusion{
				Type: ExcludeFolder, Scopes: ScopeEPP,
				Value: rapid.SampledFrom([]string{"/a", "/b", "/c"}).Draw(t, k.Name),
			}
			return []Exclusion{x}
		case ThreatTypes:
			return []ThreatType{{
				rapid.SampledFrom([]string{TypePUA, TypeArchiveBomb}).Draw(t, "type"),
				rapid.SampledFrom([]string{ActionOff, ActionAudit, ActionBlock}).Draw(t, "action"),
			}}
		case Tags:
			return []Tag{{"GROUP", rapid.SampledFrom([]string{"a", "b"}).Draw(t, "tag")}}
		}
		if k.Name == KeyDefinitionsPath {
			return rapid.SampledFrom([]string{"", "/srv/definitions"}).Draw(t, k.Name)
		}
		return rapid.SampledFrom([]string{"", "http://proxy:3128/"}).Draw(t, k.Name)
	})
}

func documents() *rapid.Generator[Document] {
	return rapid.Custom(func(t *rapid.T) Document {
		d := Document{values: map[string]any{}}
		for _, k := range keys {
			if rapid.IntRange(0, 2).Draw(t, "has") == 0 {
				d.values[k.Name] = values(k).Draw(t, "value")
			}
		}
		return d
	})
}

// derived are the keys that other keys have a say in.
var derived = []string{KeyEnforcementLevel, KeyRealTime, KeyPassiveMode, KeySampleConsent, KeySampleSubmission, KeyThreatTypes, KeyAllowedThreats}

func TestPrecedenceProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		portal, managed, local := documents().Draw(t, "portal"), documents().Draw(t, "managed"), documents().Draw(t, "local")
		e := Resolve(portal, managed, local)
		for _, k := range keys {
			if slices.Contains(derived, k.Name) {
				continue
			}
			want := Value{Value: k.Default, Origin: OriginDefault}
			for _, s := range []source{{local, OriginLocal}, {managed, OriginManaged}, {portal, OriginPortal}} {
				if v, ok := s.doc.Get(k.Name); ok && k.Fixed == "" {
					want = Value{Value: v, Origin: s.origin, Locked: s.origin != OriginLocal}
				}
			}
			got := e.Get(k.Name)
			if k.Kind == Exclusions {
				want.Locked = got.Locked // by merge policy, see below
			}
			if diff := cmp.Diff(want, got, cmp.AllowUnexported(Exclusion{})); diff != "" {
				t.Fatalf("%s: %s", k.Name, diff)
			}
		}
		// A source that is stronger than another is never overruled by it: taking
		// the local settings away changes nothing that the administrator set.
		without := Resolve(portal, managed, Document{})
		for _, k := range keys {
			if v := e.Get(k.Name); v.Locked && v.Origin.Administrative() && k.Kind != Exclusions && k.Kind != Strings && k.Kind != ThreatTypes {
				if !cmp.Equal(v, without.Get(k.Name), cmp.AllowUnexported(Exclusion{})) {
					t.Fatalf("%s is locked but depends on local settings", k.Name)
				}
			}
		}
		// The three keys about the level agree.
		level := e.EnforcementLevel()
		if e.Bool(KeyRealTime) != (level == RealTime || level == Audit) || e.Bool(KeyPassiveMode) != (level == Passive) {
			t.Fatalf("level %s with real time %v, passive %v", level, e.Bool(KeyRealTime), e.Bool(KeyPassiveMode))
		}
	})
}

// A value without effect is told, and is not what is in force.
func TestFixedKeys(t *testing.T) {
	doc, problems := Parse([]byte(`{"antivirusEngine": {"behaviorMonitoring": "disabled", "MemoryScan": "disabled"}, "features": {"moduleLoad": "enabled"}}`))
	if len(problems) != 1 || !problems[0].Warning || problems[0].Key != KeyBehaviorMonitoring || !strings.Contains(problems[0].Message, "has no effect: behaviour rules") {
		t.Errorf("%v", problems)
	}
	v := Resolve(Document{}, doc, Document{}).Get(KeyBehaviorMonitoring)
	if v != (Value{Value: Enabled, Origin: OriginDefault}) {
		t.Errorf("in force: %+v", v)
	}
}

func TestMergeProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		portal, managed, local := documents().Draw(t, "portal"), documents().Draw(t, "managed"), documents().Draw(t, "local")
		e := Resolve(portal, managed, local)
		adminOnly := e.String(KeyExclusionsMerge) == AdminOnly || e.String(KeyScopedMerge) == AdminOnly
		count := map[Origin]int{}
		for _, x := range e.Exclusions().All() {
			count[x.Origin]++
		}
		for origin, d := range map[Origin]Document{OriginPortal: portal, OriginManaged: managed, OriginLocal: local} {
			want := 0
			for _, name := range []string{KeyExclusions, KeyScopedExclusions} {
				list, _ := d.values[name].([]Exclusion)
				want += len(list)
			}
			if origin == OriginLocal && adminOnly {
				want = 0
			}
			if count[origin] != want {
				t.Fatalf("%d exclusions from %s, want %d", count[origin], origin, want)
			}
		}
		for _, p := range e.ThreatPolicies() {
			if p.Origin == OriginLocal && e.String(KeyThreatTypesMerge) == AdminOnly {
				t.Fatalf("a local threat type setting counts: %+v", p)
			}
		}
		for _, a := range e.AllowedThreats() {
			if a.Origin == OriginLocal && e.Disallowed(ActionAllow) {
				t.Fatalf("a local allowed threat counts: %+v", a)
			}
			if !e.Allows(a.Name, "") {
				t.Fatalf("%s is not allowed", a.Name)
			}
		}
	})
}

func parsed(t *testing.T, s string) Document {
	t.Helper()
	d, problems := Parse([]byte(s))
	for _, p := range problems {
		if !p.Warning {
			t.Fatal(p)
		}
	}
	return d
}

func TestDeprecatedKeys(t *testing.T) {
	for _, tt := range []struct {
		managed, local string
		want           string
		origin         Origin
	}{
		{`{}`, `{}`, Passive, OriginDefault},
		{`{"antivirusEngine": {"enableRealTimeProtection": true}}`, `{"antivirusEngine": {"enforcementLevel": "passive"}}`, RealTime, OriginManaged},
		{`{"antivirusEngine": {"enableRealTimeProtection": false}}`, `{}`, OnDemand, OriginManaged},
		{`{"antivirusEngine": {"passiveMode": true, "enableRealTimeProtection": true}}`, `{}`, Passive, OriginManaged},
		{`{"antivirusEngine": {"passiveMode": false}}`, `{}`, OnDemand, OriginManaged},
		{`{"antivirusEngine": {"passiveMode": true, "enforcementLevel": "audit"}}`, `{}`, Audit, OriginManaged},
		{`{}`, `{"antivirusEngine": {"enforcementLevel": "real_time"}}`, RealTime, OriginLocal},
	} {
		v := Resolve(Document{}, parsed(t, tt.managed), parsed(t, tt.local)).Get(KeyEnforcementLevel)
		if v.Value != tt.want || v.Origin != tt.origin {
			t.Errorf("managed %s local %s: %v, want %s of %s", tt.managed, tt.local, v, tt.want, tt.origin)
		}
	}
	e := Resolve(Document{}, parsed(t, `{"cloudService": {"automaticSampleSubmission": false}}`), Document{})
	if e.String(KeySampleConsent) != "none" {
		t.Errorf("consent %q", e.String(KeySampleConsent))
	}
}

func TestZeroEffectiveIsTheDefaults(t *testing.T) {
	var zero Effective
	full := Resolve(Document{}, Document{}, Document{})
	for _, k := range Keys() {
		if a, b := zero.Get(k.Name), full.Get(k.Name); !cmp.Equal(a.Value, b.Value, equateEmpty) {
			t.Errorf("%s: %v and %v", k.Name, a, b)
		}
	}
	if zero.ThreatAction(TypePUA) != ActionAudit || zero.ThreatAction("malware") != ActionBlock || zero.Exclusions().Len() != 0 {
		t.Error("defaults differ")
	}
}

func TestLocalStore(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state", "local.json")
	s, err := OpenLocal(path)
	if err != nil {
		t.Fatal(err)
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(s.Set(KeyScanThreads, json.RawMessage("4")))
	must(s.Set(KeyPassiveMode, json.RawMessage("true")))
	must(s.SetLevel(RealTime))
	must(s.AllowThreat("EICAR-Test-File"))
	must(s.SetThreatType(ThreatType{TypePUA, ActionBlock}))
	x, err := s.AddExclusion(Exclusion{Type: ExcludeFolder, Value: "/srv/", Scopes: ScopeEPP, Reason: "backup"})
	must(err)
	if x.Value != "/srv" {
		t.Errorf("stored %q", x.Value)
	}
	before, err := os.ReadFile(path)
	must(err)
	for name, err := range map[string]error{
		"range":   s.Set(KeyScanThreads, json.RawMessage("65")),
		"unknown": s.Set("antivirusEngine.x", json.RawMessage("1")),
		"no JSON": s.Set(KeyScanThreads, json.RawMessage("4}, \"x\": {")),
		"type":    s.SetThreatType(ThreatType{"x", ActionBlock}),
		"none":    s.DisallowThreat("other"),
		"no folder": func() error {
			_, err := s.RemoveExclusion(Exclusion{Type: ExcludeFolder, Value: "/x", Scopes: ScopeEPP})
			return err
		}(),
		"scope": func() error {
			_, err := s.RemoveExclusion(Exclusion{Type: ExcludeFolder, Value: "/srv", Scopes: ScopeGlobal})
			return err
		}(),
	} {
		if err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	after, err := os.ReadFile(path)
	must(err)
	if string(before) != string(after) {
		t.Error("a refused change was written")
	}
	again, err := OpenLocal(path)
	must(err)
	d, problems := again.Document()
	if len(problems) > 0 {
		t.Errorf("problems in what was written: %v", problems)
	}
	e := Resolve(Document{}, Document{}, d)
	if e.Int(KeyScanThreads) != 4 || e.EnforcementLevel() != RealTime || !e.Allows("EICAR-Test-File", "") || e.ThreatAction(TypePUA) != ActionBlock {
		t.Errorf("settings are not those stored: %s", after)
	}
	if all := e.Exclusions().All(); len(all) != 1 || all[0].Reason != "backup" {
		t.Errorf("exclusions %+v", all)
	}
	must(func() error {
		_, err := s.RemoveExclusion(Exclusion{Type: ExcludeFolder, Value: "/srv", Scopes: ScopeEPP})
		return err
	}())
	must(s.Unset(KeyScanThreads))

	// A damaged file is set aside, not lost.
	must(os.WriteFile(path, []byte("{"), 0o600))
	must(s.Reload())
	if _, problems := s.Document(); !Broken(problems) {
		t.Error("the damage is not reported")
	}
	must(s.Set(KeyScanThreads, json.RawMessage("3")))
	if data, err := os.ReadFile(path + ".damaged"); err != nil || string(data) != "{" {
		t.Errorf("set aside: %q, %v", data, err)
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	must(err)
	if len(entries) != 2 {
		t.Errorf("files left: %v", entries)
	}
}

func TestSchema(t *testing.T) {
	got, err := Schema()
	if err != nil {
		t.Fatal(err)
	}
	golden := filepath.Join("..", "api", "schemas", "managed.schema.json")
	if *update {
		if err := os.WriteFile(golden, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s is not what the keys say (go test ./policy -update rewrites it):\n%s", golden, diff)
	}
	schema := compile(t, got)
	for _, tt := range []struct {
		in    string
		valid bool
	}{
		{`{}`, true},
		{`{"antivirusEngine": {"enforcementLevel": "real_time", "exclusions": [{"$type": "excludedPath", "path": "/a", "isDirectory": true}], "unmonitoredFilesystems": []}}`, true},
		{`{"exclusionSettings": {"exclusions": [{"$type": "excludedFileName", "name": "cat", "scopes": ["epp"]}]}}`, true},
		{`{"cloudService": {"definitionUpdatesInterval": 0}}`, true},
		{`{"cloudService": {"definitionUpdatesInterval": 5}}`, false},
		{`{"antivirusEngine": {"enforcementLevel": "realtime"}}`, false},
		{`{"antivirusEngine": {"enforcmentLevel": "real_time"}}`, false},
		{`{"antivirusEngine": {"exclusions": [{"$type": "excludedPath"}]}}`, false},
	} {
		v, err := jsonschema.UnmarshalJSON(strings.NewReader(tt.in))
		if err != nil {
			t.Fatal(err)
		}
		if err := schema.Validate(v); (err == nil) != tt.valid {
			t.Errorf("%s: %v, want valid %v", tt.in, err, tt.valid)
		}
	}
}

func compile(t *testing.T, data []byte) *jsonschema.Schema {
	t.Helper()
	v, err := jsonschema.UnmarshalJSON(strings.NewReader(string(data)))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("managed.json", v); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("managed.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSchemaAcceptsWhatIsWritten(t *testing.T) {
	data, err := Schema()
	if err != nil {
		t.Fatal(err)
	}
	schema := compile(t, data)
	rapid.Check(t, func(t *rapid.T) {
		d := documents().Draw(t, "document")
		written, err := json.Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		v, err := jsonschema.UnmarshalJSON(strings.NewReader(string(written)))
		if err != nil {
			t.Fatal(err)
		}
		if err := schema.Validate(v); err != nil {
			t.Fatalf("%s: %v", written, err)
		}
		again, problems := Parse(written)
		for _, p := range problems {
			if !p.Warning {
				t.Fatal(p)
			}
		}
		if diff := cmp.Diff(d.values, again.values, equateEmpty, cmp.AllowUnexported(Exclusion{})); diff != "" {
			t.Fatal(diff)
		}
	})
}
