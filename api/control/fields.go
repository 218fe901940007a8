package control

import (
	"reflect"
	"slices"
	"strings"
	"time"
)

// Fields lists the fields of the health by their names, in order, as
// `bulwark health` shows them. Fields without a value that say so in their
// documentation (proxy, times) are left out; Issues and Managed are no fields.
func Fields(h Health) []Field {
	v := reflect.ValueOf(h)
	var fields []Field
	for i := range v.NumField() {
		name, options, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
		if name == "issues" || name == "managed" {
			continue
		}
		if strings.Contains(options, "omit") && v.Field(i).IsZero() && name != "definitions_updated" {
			continue
		}
		value := v.Field(i).Interface()
		switch x := value.(type) {
		case State:
			value = string(x)
		case time.Time:
			if x.IsZero() {
				value = "unavailable"
			}
		}
		fields = append(fields, Field{Name: name, Value: value, Managed: slices.Contains(h.Managed, name)})
	}
	return fields
}
