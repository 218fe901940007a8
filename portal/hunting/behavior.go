package hunting

import "strings"

// behaviorEntities is the table BehaviorEntities: of each behaviour the device,
// the process that showed it, its account, and the file and the address where
// there are. Its rows are made of the hidden columns of BehaviorInfo.
func behaviorEntities() Table {
	t := Table{Name: "BehaviorEntities", Of: "BehaviorInfo"}
	type entity struct{ kind, role, detailed, where string }
	entities := []entity{
		{"Machine", "Impacted", "", ""},
		{"Process", "Related", "Actor", "ProcessId > 0"},
		{"User", "Related", "Actor", "AccountName <> ''"},
		{"File", "Related", "Target", "ObjectFolderPath <> ''"},
		{"Ip", "Related", "Target", "RemoteIP <> ''"},
	}
	const process, file, address = "Process", "File", "Ip"
	// value is what a column holds: an expression for all entities, or for some
	// and nothing for the others.
	type value struct {
		name string
		typ  Type
		all  string
		of   map[string]string
	}
	same := func(names ...string) (out []value) {
		for _, n := range names {
			out = append(out, value{name: n, all: quoteName(n)})
		}
		return out
	}
	none := func(names ...string) (out []value) {
		for _, n := range names {
			out = append(out, value{name: n})
		}
		return out
	}
	picture := func(name string) map[string]string {
		return map[string]string{process: quoteName("Process" + name), file: quoteName("Object" + name)}
	}
	values := []value{{name: "Timestamp", typ: DateTime, all: `"Timestamp"`}}
	values = append(values, same("BehaviorId", "ActionType", "Categories", "ServiceSource", "DetectionSource", "DataSources")...)
	values = append(values, none("EntityType", "EntityRole", "DetailedEntityRole")...)
	for _, n := range []string{"FileName", "FolderPath", "SHA1", "SHA256"} {
		values = append(values, value{name: n, of: picture(n)})
	}
	values = append(values, value{name: "FileSize", typ: Long, of: picture("FileSize")})
	values = append(values, none("ThreatFamily")...)
	values = append(values,
		value{name: "RemoteIP", of: map[string]string{address: `"RemoteIP"`}},
		value{name: "RemoteUrl", of: map[string]string{address: `"RemoteUrl"`}},
		value{name: "AccountName", of: map[string]string{process: `"AccountName"`, "User": `"AccountName"`}})
	values = append(values, none("AccountDomain", "AccountSid", "AccountObjectId", "AccountUpn")...)
	values = append(values, same("DeviceId", "DeviceName")...)
	values = append(values, value{name: "LocalIP", of: map[string]string{address: `"LocalIP"`}})
	values = append(values, none("NetworkMessageId", "EmailSubject", "EmailClusterId", "Application")...)
	values = append(values, value{name: "ApplicationId", typ: Int})
	values = append(values, none("OAuthApplicationId")...)
	values = append(values, value{name: "ProcessCommandLine", of: map[string]string{process: `"ProcessCommandLine"`}})
	values = append(values, none("RegistryKey", "RegistryValueName", "RegistryValueData")...)
	values = append(values, same("AdditionalFields")...)

	var b strings.Builder
	b.WriteString("(")
	for i, e := range entities {
		if i > 0 {
			b.WriteString(" UNION ALL ")
		}
		b.WriteString("SELECT ")
		for k, v := range values {
			if k > 0 {
				b.WriteString(", ")
			}
			typ := v.typ
			if typ == Null {
				typ = String
			}
			sql := v.all
			switch v.name {
			case "EntityType":
				sql = quoteText(e.kind)
			case "EntityRole":
				sql = quoteText(e.role)
			case "DetailedEntityRole":
				sql = quoteText(e.detailed)
			default:
				if of := v.of[e.kind]; of != "" {
					sql = of
				}
			}
			if sql == "" {
				sql = "NULL"
			}
			b.WriteString(sql + "::" + typ.SQL() + " AS " + quoteName(v.name))
			if i == 0 {
				t.Columns = append(t.Columns, Column{v.name, typ})
			}
		}
		b.WriteString(" FROM " + sourceRows)
		if e.where != "" {
			b.WriteString(" WHERE " + e.where)
		}
	}
	b.WriteString(")")
	t.Source = b.String()
	return t
}
