package policy

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// Schema is the JSON Schema (2020-12) of profiles, for editors and for the
// portal's pages. It is as strict as an editor should be; Parse tolerates more.
func Schema() ([]byte, error) {
	root := object("Bulwark managed configuration")
	root["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	root["$id"] = "https://bulwarkhq.github.io/schemas/managed.schema.json"
	root["$defs"] = definitions()
	root["properties"].(map[string]any)["$schema"] = map[string]any{"type": "string"}
	for _, k := range keys {
		for i, name := range append([]string{k.Name}, k.Aliases...) {
			parts := strings.Split(name, ".")
			at := root
			for _, p := range parts[:len(parts)-1] {
				properties := at["properties"].(map[string]any)
				next, ok := properties[p].(map[string]any)
				if !ok {
					next = object("")
					properties[p] = next
				}
				at = next
			}
			value := k.schema()
			if i > 0 {
				value["deprecated"] = true
				value["description"] = "Old spelling of " + k.Name + "."
			}
			at["properties"].(map[string]any)[parts[len(parts)-1]] = value
		}
	}
	data, err := json.MarshalIndent(root, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("schema of the managed configuration: %w", err)
	}
	return append(data, '\n'), nil
}

func object(title string) map[string]any {
	o := map[string]any{"type": "object", "additionalProperties": false, "properties": map[string]any{}}
	if title != "" {
		o["title"] = title
	}
	return o
}

func (k Key) schema() map[string]any {
	s := map[string]any{"description": k.Description()}
	if v, err := k.Encode(k.Default); err == nil {
		s["default"] = v
	}
	if k.Deprecated != "" {
		s["deprecated"] = true
		s["description"] = k.Doc + " Use " + k.Deprecated + " instead."
	}
	switch k.Kind {
	case Bool:
		s["type"] = "boolean"
	case Switch:
		s["enum"] = []string{Enabled, Disabled}
	case Enum:
		s["enum"] = k.Values
	case Int:
		s["type"], s["minimum"], s["maximum"] = "integer", k.Min, k.Max
		if k.ZeroOff {
			delete(s, "minimum")
			delete(s, "maximum")
			s["anyOf"] = []any{map[string]any{"const": 0}, map[string]any{"minimum": k.Min, "maximum": k.Max}}
		}
	case String:
		s["type"] = "string"
	case Strings:
		item := map[string]any{"type": "string", "minLength": 1}
		if k.Values != nil {
			item = map[string]any{"enum": k.Values}
		}
		s["type"], s["items"] = "array", item
	case Exclusions:
		def := "#/$defs/exclusion"
		if k.Name == KeyScopedExclusions {
			def = "#/$defs/scopedExclusion"
		}
		s["type"], s["items"] = "array", map[string]any{"$ref": def}
	case ThreatTypes:
		s["type"], s["items"] = "array", map[string]any{"$ref": "#/$defs/threatType"}
	case Tags:
		s["type"], s["maxItems"], s["items"] = "array", 1, map[string]any{"$ref": "#/$defs/tag"}
	}
	return s
}

func definitions() map[string]any {
	pair := func(keys, values any) map[string]any {
		o := object("")
		o["properties"] = map[string]any{"key": keys, "value": values}
		o["required"] = []string{"key", "value"}
		return o
	}
	return map[string]any{
		"exclusion":       exclusionSchema(false),
		"scopedExclusion": exclusionSchema(true),
		"tag":             pair(map[string]any{"const": "GROUP"}, map[string]any{"type": "string", "minLength": 1}),
		"threatType": pair(map[string]any{"enum": []string{TypePUA, TypeArchiveBomb}},
			map[string]any{"enum": []string{ActionAudit, ActionBlock, ActionOff}}),
	}
}

func exclusionSchema(scoped bool) map[string]any {
	text := map[string]any{"type": "string", "minLength": 1}
	kind := func(name, member string, more ...string) map[string]any {
		o := object("")
		properties := map[string]any{
			"$type": map[string]any{"const": name}, member: text,
			"owner": map[string]any{"type": "string"}, "reason": map[string]any{"type": "string"},
			"expires": map[string]any{"type": "string", "format": "date-time"},
		}
		if slices.Contains(more, "isDirectory") {
			properties["isDirectory"] = map[string]any{"type": "boolean", "default": false}
		}
		if scoped {
			properties["scopes"] = map[string]any{
				"type": "array", "minItems": 1, "uniqueItems": true,
				"items": map[string]any{"enum": []string{"epp", "global"}}, "default": []string{"global"},
			}
		}
		o["properties"] = properties
		o["required"] = []string{"$type", member}
		return o
	}
	return map[string]any{"oneOf": []any{
		kind("excludedPath", "path", "isDirectory"),
		kind("excludedFileExtension", "extension"),
		kind("excludedFileName", "name"),
	}}
}
