package event

import (
	"encoding/json"
	"slices"
	"strconv"
)

// AdditionalFields returns the column of that name: a JSON object of
// Event.Additional together with what Linux knows about the processes and the
// tables have no column for (working directory, terminal, container, user and
// login user). Keys are sorted; it is empty when there is nothing to say.
// An entry of Additional wins over one of the processes with the same key.
func AdditionalFields(e *Event) string {
	var room [48]pair
	ps := room[:0]
	for k, v := range e.Additional {
		ps = append(ps, pair{k, v})
	}
	ps = processExtras(ps, "Process", &e.Process)
	ps = processExtras(ps, "InitiatingProcess", &e.Initiating)
	if len(ps) == 0 {
		return ""
	}
	// Stable: of equal keys the first, that of Additional, is kept.
	slices.SortStableFunc(ps, func(a, b pair) int {
		if a.key < b.key {
			return -1
		}
		if a.key > b.key {
			return 1
		}
		return 0
	})
	b := make([]byte, 0, 256)
	b = append(b, '{')
	for i, p := range ps {
		if i > 0 {
			if p.key == ps[i-1].key {
				continue
			}
			b = append(b, ',')
		}
		b = appendJSONString(b, p.key)
		b = append(b, ':')
		b = appendJSONString(b, p.value)
	}
	return string(append(b, '}'))
}

type pair struct{ key, value string }

func processExtras(ps []pair, prefix string, p *Process) []pair {
	if p.PID == 0 && p.FolderPath == "" {
		return ps
	}
	add := func(name, value string) {
		if value != "" {
			ps = append(ps, pair{prefix + name, value})
		}
	}
	add("WorkingDirectory", p.WorkingDir)
	add("Terminal", p.Terminal)
	add("ContainerId", p.ContainerID)
	add("ContainerName", p.ContainerName)
	add("ContainerImage", p.ContainerImage)
	add("Pod", p.Pod)
	add("Namespaces", p.Namespaces)
	add("Capabilities", p.Capabilities)
	add("Script", p.Script)
	add("Package", p.Package)
	add("FuzzyHash", p.FuzzyHash)
	if p.SessionLeader != 0 {
		add("SessionLeaderId", strconv.FormatInt(p.SessionLeader, 10))
	}
	if !p.StartTime.IsZero() {
		// As long as the device remembers: a pid is given again, this is not.
		add("UniqueId", strconv.FormatInt(p.StartTime.UnixMilli(), 36)+"-"+strconv.FormatInt(p.PID, 10))
	}
	add("UserId", strconv.FormatInt(p.UID, 10))
	if p.LoginUID >= 0 && p.LoginName != "" {
		add("LoginUserId", strconv.FormatInt(p.LoginUID, 10))
		add("LoginUserName", p.LoginName)
	}
	return ps
}

// appendJSONString appends s as a JSON string. Almost all text needs no
// escape; the rest is left to encoding/json.
func appendJSONString(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < 0x20 || c >= 0x7f || c == '"' || c == '\\' {
			quoted, err := json.Marshal(s)
			if err != nil { // a string always has a JSON form
				return append(b, `""`...)
			}
			return append(b, quoted...)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}
