package hostconfig

import (
	"bytes"
	"strings"
)

// readAccounts reads passwd, shadow and group (passwd(5), shadow(5), group(5)).
func (s *snapshot) readAccounts(before *snapshot) {
	s.folder(s.path("/etc"))
	passwd, shadow, groups := s.path("/etc/passwd"), s.path("/etc/shadow"), s.path("/etc/group")
	secrets := map[string][]string{}
	if f := s.get(shadow, before, maxPasswd); f != nil {
		fields(f.content, 2, func(c []string) { secrets[c[0]] = c })
	}
	if f := s.get(passwd, before, maxPasswd); f != nil {
		fields(f.content, 7, func(c []string) {
			i := &item{kind: account, name: c[0], files: []string{passwd, shadow}, fields: map[string]string{
				"UserId": c[2], "GroupId": c[3], "Description": c[4], "Home": c[5], "Shell": c[6],
			}}
			if sec := secrets[c[0]]; sec != nil {
				// That it changed is told, never what it is.
				i.fields["password"] = sum([]byte(sec[1]))
				i.fields["Locked"] = yes(strings.HasPrefix(sec[1], "!") || strings.HasPrefix(sec[1], "*"))
				if len(sec) > 7 {
					i.fields["Expires"] = sec[7]
				}
			}
			s.add(i)
		})
	}
	if f := s.get(groups, before, maxPasswd); f != nil {
		fields(f.content, 4, func(c []string) {
			s.add(&item{kind: group, name: c[0], files: []string{groups}, fields: map[string]string{"GroupId": c[2]}})
			for m := range strings.SplitSeq(c[3], ",") {
				if m = strings.TrimSpace(m); m != "" {
					s.add(&item{kind: member, name: c[0] + "\x00" + m, files: []string{groups}, fields: map[string]string{"GroupName": c[0], "GroupId": c[2]}})
				}
			}
		})
	}
}

// fields gives the lines of a file whose fields are separated by colons, as far
// as they have n fields or more and a name.
func fields(content []byte, n int, each func([]string)) {
	for line := range bytes.SplitSeq(content, []byte("\n")) {
		if len(line) > 64<<10 {
			continue
		}
		c := strings.Split(strings.ToValidUTF8(string(line), "\uFFFD"), ":")
		if len(c) >= n && c[0] != "" && len(c[0]) <= 256 && c[0][0] != '#' && c[0][0] != '+' && c[0][0] != '-' {
			each(c)
		}
	}
}

func yes(b bool) string {
	if b {
		return "true"
	}
	return "false"
}
