// Package identity signs people in with an OpenID Connect provider: the
// authorization code flow with PKCE (OpenID Connect Core 1.0, section 3.1; RFC
// 7636), and the role from a claim.
package identity

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/bulwarkhq/bulwark/portal/access"
)

// Config of a provider.
type Config struct {
	// Issuer is the provider's https address, as its tokens have it.
	Issuer string
	// ClientID and Secret are what the provider knows the portal by.
	ClientID, Secret string
	// Redirect is the address that the provider sends people back to.
	Redirect string
	// SignedOut is where it sends them after they signed out there.
	SignedOut string
	// Scopes that are asked for; openid is always one.
	Scopes []string
	// Name is what the button says.
	Name string
	// NameClaim is the claim of the user name, RoleClaim that of the groups. A name
	// with dots also finds a claim within a claim (realm_access.roles).
	NameClaim, RoleClaim string
	// Roles are the roles of groups; Everyone stands for whoever has an account
	// at the provider.
	Roles map[string]access.Role
	// Devices are the names of the device groups that groups are limited to, AllDevices
	// for no limit; nil when the provider does not decide it.
	Devices map[string][]string
	// CA is a PEM file of authorities for the provider's certificate; empty for
	// those of the system.
	CA string
}

// Everyone is the group that everybody is in.
const Everyone = "*"

// AllDevices stands for all devices in the place of a device group.
const AllDevices = "*"

// Identity is who somebody is for the provider.
type Identity struct {
	Issuer, Subject string
	// Name is a user name of the portal's form, not unique.
	Name string
	Role access.Role
	// DecidesDevices is set when the provider decides of which devices somebody is:
	// those of the device groups with the names Devices, in order; none for all.
	DecidesDevices bool
	Devices        []string
}

// Refused says why somebody is not signed in. The reason is for the log and the
// audit log; Public is for the person.
type Refused struct {
	Reason, Public string
	// Subject is set when the provider's token was good.
	Subject string
}

// Error is the reason.
func (e *Refused) Error() string { return e.Reason }

// ErrUnavailable means that the provider could not be asked.
var ErrUnavailable = errors.New("the identity provider does not answer as it should")

func refused(public, format string, args ...any) error {
	return &Refused{Reason: fmt.Sprintf(format, args...), Public: public}
}

const (
	publicAgain   = "The sign-in has ended or did not begin here: begin again."
	publicToken   = "What the identity provider answered is not valid for this portal. Its administrator finds the reason in the log."
	publicDevices = "You have an account at the identity provider, but none of your groups has devices in this portal."
	publicRole    = "You have an account at the identity provider, but none of your groups has a role in this portal."
)

// maxRoles bounds the roles of groups.
const maxRoles = 200

// ParseRoles reads roles of groups: GROUP=ROLE, separated by semicolons. The
// group * is everybody. The last = separates, so that a distinguished name can
// be a group.
func ParseRoles(text string) (map[string]access.Role, error) {
	out := map[string]access.Role{}
	for part := range strings.SplitSeq(text, ";") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		i := strings.LastIndexByte(part, '=')
		if i < 1 {
			return nil, fmt.Errorf("%q is not of the form GROUP=ROLE", part)
		}
		role, err := access.ParseRole(part[i+1:])
		if err != nil {
			return nil, fmt.Errorf("%q: %w", part, err)
		}
		group := strings.TrimSpace(part[:i])
		if _, twice := out[group]; twice {
			return nil, fmt.Errorf("the group %q is there twice", group)
		}
		out[group] = role
	}
	if len(out) == 0 || len(out) > maxRoles {
		return nil, fmt.Errorf("%d groups with a role: there must be 1 to %d, for example soc-admins=administrator;soc=analyst", len(out), maxRoles)
	}
	return out, nil
}

// maxDevices bounds the device groups of groups.
const maxDevices = 1000

// ParseDevices reads the device groups of groups: GROUP=NAME, separated by
// semicolons. A group may be there several times; the group * is everybody, the name
// * all devices. The last = separates, so that a distinguished name can be a group.
func ParseDevices(text string) (map[string][]string, error) {
	out := map[string][]string{}
	n := 0
	for part := range strings.SplitSeq(text, ";") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		i := strings.LastIndexByte(part, '=')
		if i < 1 || strings.TrimSpace(part[i+1:]) == "" {
			return nil, fmt.Errorf("%q is not of the form GROUP=DEVICE GROUP", part)
		}
		group, name := strings.TrimSpace(part[:i]), strings.TrimSpace(part[i+1:])
		if slices.Contains(out[group], name) {
			return nil, fmt.Errorf("%q is there twice", part)
		}
		out[group] = append(out[group], name)
		n++
	}
	if n == 0 || n > maxDevices {
		return nil, fmt.Errorf("%d device groups of groups: there must be 1 to %d, for example soc=*;web-team=Web servers", n, maxDevices)
	}
	return out, nil
}

// check says what is missing in a configuration.
func (c *Config) check() error {
	u, err := url.Parse(c.Issuer)
	switch {
	case err != nil || u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil:
		return fmt.Errorf("issuer %q: it must be an https address without a query", c.Issuer)
	case c.ClientID == "":
		return errors.New("the client id is missing")
	case c.Secret == "":
		return errors.New("the client secret is missing")
	case c.Name == "":
		return errors.New("the name for the button is empty")
	case c.RoleClaim == "" || c.NameClaim == "":
		return errors.New("the name of a claim is empty")
	case len(c.Roles) == 0:
		return errors.New("no group has a role: nobody could sign in")
	}
	return nil
}

// roleOf is the highest role of the groups, empty for none.
func (c *Config) roleOf(groups []string) access.Role {
	has := map[access.Role]bool{}
	for _, g := range append(groups, Everyone) {
		has[c.Roles[g]] = true
	}
	for _, r := range []access.Role{access.Administrator, access.Responder, access.Analyst, access.Reader} {
		if has[r] {
			return r
		}
	}
	return ""
}

// devicesOf are the device groups of the groups, all for AllDevices among them. ok is
// false when there are none.
func (c *Config) devicesOf(groups []string) (names []string, ok bool) {
	for _, g := range append(slices.Clone(groups), Everyone) {
		names = append(names, c.Devices[g]...)
	}
	if slices.Contains(names, AllDevices) {
		return nil, true
	}
	slices.Sort(names)
	return slices.Compact(names), len(names) > 0
}

// claim finds a claim by its name, or within others by a name with dots.
func claim(claims map[string]any, name string) any {
	if v, ok := claims[name]; ok {
		return v
	}
	first, rest, ok := strings.Cut(name, ".")
	if !ok {
		return nil
	}
	inner, ok := claims[first].(map[string]any)
	if !ok {
		return nil
	}
	return claim(inner, rest)
}

// maxGroups bounds the groups of one person.
const maxGroups = 2000

// texts are the values of a claim that is a text or a list of texts.
func texts(v any) []string {
	switch v := v.(type) {
	case string:
		return []string{v}
	case []any:
		var out []string
		for _, e := range v[:min(len(v), maxGroups)] {
			if s, ok := e.(string); ok {
				out = append(out, s)
			}
		}
		return out
	}
	return nil
}

// userName makes a user name of the portal's form out of a claim.
func userName(s string) string {
	var b strings.Builder
	for _, r := range s {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
			b.WriteRune(r)
		case b.Len() > 0 && (r == '.' || r == '_' || r == '@' || r == '-'):
			b.WriteRune(r)
		case b.Len() > 0:
			b.WriteByte('-')
		}
		if b.Len() >= 48 {
			break
		}
	}
	if b.Len() == 0 {
		return "user"
	}
	return b.String()
}
