package identity

import (
	"encoding/json"
	"regexp"
	"testing"

	"github.com/bulwarkhq/bulwark/portal/access"
)

// portalName is the form of the portal's user names, with room for an addition.
var portalName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._@-]{0,47}$`)

// Claims are the provider's: whatever they are, names have the portal's form
// and only configured groups give a role.
func FuzzClaims(f *testing.F) {
	for _, seed := range []string{
		`{"preferred_username":"Ann Example","groups":["soc","x"]}`, `{"preferred_username":"..\u0000é","groups":"soc"}`,
		`{"a":{"b":["soc"]},"a.b":null}`, `{"a":{"b":{"c":1}},"email":7}`, `[]`, `{"groups":[["soc"]]}`,
	} {
		f.Add(seed)
	}
	cfg := Config{Roles: map[string]access.Role{"soc": access.Analyst}}
	f.Fuzz(func(t *testing.T, text string) {
		claims := map[string]any{}
		if json.Unmarshal([]byte(text), &claims) != nil {
			return
		}
		p := &Provider{cfg: Config{NameClaim: "a.b"}}
		if name := p.nameOf(claims); !portalName.MatchString(name) {
			t.Errorf("user name %q", name)
		}
		for _, name := range []string{"groups", "a.b", "a.b.c", "."} {
			groups := texts(claim(claims, name))
			if len(groups) > maxGroups {
				t.Errorf("%d groups", len(groups))
			}
			has := false
			for _, g := range groups {
				has = has || g == "soc"
			}
			if role := cfg.roleOf(groups); (role == access.Analyst) != has || (!has && role != "") {
				t.Errorf("groups %q have the role %q", groups, role)
			}
		}
	})
}

func FuzzParseRoles(f *testing.F) {
	for _, seed := range []string{"soc-admins=administrator;soc=analyst", "CN=a,O=b=reader;*=reader", "=;=", ";;a="} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		roles, err := ParseRoles(text)
		if (err == nil) != (len(roles) > 0) {
			t.Errorf("%d roles, %v", len(roles), err)
		}
		for g, r := range roles {
			if g == "" || len(r.Permissions()) == 0 {
				t.Errorf("group %q has the role %q", g, r)
			}
		}
	})
}
