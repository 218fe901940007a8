// Package access is the portal's one place of authorisation: who may do what,
// and the router that asks before any handler runs.
//
// Which devices somebody may see is decided here too (Principal.Groups), and
// kept by the stores: whatever they read for the context of a request is
// about devices of its principal, so that no handler can forget it. What the
// portal does by itself has no principal and concerns all devices.
//
// Every route of the REST API and of the web pages is registered through a
// Router with the permission that it needs; there is no other way to add one.
// The Router keeps the list, so a test can walk all routes and try each
// without and with too few rights.
package access

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// Permission to do one kind of thing. The names are those of the reference
// product where it has one.
type Permission string

// The permissions.
const (
	// Public is for routes that work without signing in.
	Public Permission = ""
	// SignedIn is for what every signed-in user may do (own password, sign out).
	SignedIn       Permission = "SignedIn"
	MachineRead    Permission = "Machine.Read.All"
	MachineWrite   Permission = "Machine.ReadWrite.All"
	AlertRead      Permission = "Alert.Read.All"
	AlertWrite     Permission = "Alert.ReadWrite.All"
	OnboardingRead Permission = "Onboarding.Read.All"
	Onboarding     Permission = "Onboarding.ReadWrite.All"
	TokenManage    Permission = "Token.ReadWrite.All"
	AuditRead      Permission = "Audit.Read.All"
	HuntingRead    Permission = "AdvancedQuery.Read.All"
	MachineScan    Permission = "Machine.Scan"
	// The response actions, as the reference product divides them.
	MachineIsolate    Permission = "Machine.Isolate"
	MachineQuarantine Permission = "Machine.StopAndQuarantine"
	MachineCollect    Permission = "Machine.CollectForensics"
	MachineLive       Permission = "Machine.LiveResponse"
	MachineOffboard   Permission = "Machine.Offboard"
	// LibraryWrite is for the files that live response may bring to devices.
	LibraryWrite Permission = "Library.Manage"
	PolicyRead   Permission = "Policy.Read.All"
	PolicyWrite  Permission = "Policy.ReadWrite.All"
	// DetectionRead and DetectionWrite are for custom detections.
	DetectionRead  Permission = "CustomDetection.Read.All"
	DetectionWrite Permission = "CustomDetection.ReadWrite.All"
	// IndicatorRead and IndicatorWrite are for indicators, which can block files
	// and addresses on every device.
	IndicatorRead  Permission = "Ti.Read.All"
	IndicatorWrite Permission = "Ti.ReadWrite.All"
	IncidentRead   Permission = "Incident.Read.All"
	IncidentWrite  Permission = "Incident.ReadWrite.All"
	// ExportManage is for where alerts and the audit log are sent.
	ExportManage Permission = "Export.ReadWrite.All"
	// SettingsRead is for what the portal itself is made of, and how it fares.
	SettingsRead Permission = "Settings.Read.All"
	// UserManage is for accounts. No API token carries it: it would be as good as
	// an administrator.
	UserManage Permission = "User.ReadWrite.All"
)

// Scopes are the permissions that an API token may carry.
var scopes = []Permission{
	MachineRead, MachineWrite, AlertRead, AlertWrite, HuntingRead, MachineScan, MachineIsolate, MachineQuarantine, MachineCollect, MachineLive,
	MachineOffboard, LibraryWrite, PolicyRead, PolicyWrite, DetectionRead, DetectionWrite, OnboardingRead, Onboarding,
	IndicatorRead, IndicatorWrite, IncidentRead, IncidentWrite, ExportManage, SettingsRead,
}

// Scopes returns the permissions that an API token may carry.
func Scopes() []Permission { return slices.Clone(scopes) }

// ParseScope returns the scope with the given name.
func ParseScope(name string) (Permission, error) {
	for _, s := range scopes {
		if strings.EqualFold(string(s), strings.TrimSpace(name)) {
			return s, nil
		}
	}
	names := make([]string, len(scopes))
	for i, s := range scopes {
		names[i] = string(s)
	}
	return "", fmt.Errorf("unknown scope %q: one of %s", name, strings.Join(names, ", "))
}

// Role of a user.
type Role string

// The roles.
const (
	Administrator Role = "administrator"
	// Responder is an analyst who may also open live response sessions and make
	// indicators.
	Responder Role = "responder"
	Analyst   Role = "analyst"
	Reader    Role = "reader"
)

// Roles returns all roles, the one with the fewest rights first.
func Roles() []Role { return []Role{Reader, Analyst, Responder, Administrator} }

// ParseRole returns the role with the given name.
func ParseRole(name string) (Role, error) {
	if r := Role(strings.ToLower(strings.TrimSpace(name))); slices.Contains(Roles(), r) {
		return r, nil
	}
	var names []string
	for _, r := range Roles() {
		names = append(names, string(r))
	}
	return "", fmt.Errorf("unknown role %q: one of %s", name, strings.Join(names, ", "))
}

// Permissions of the role.
func (r Role) Permissions() []Permission {
	switch r {
	case Administrator:
		return append(Responder.Permissions(), Onboarding, TokenManage, AuditRead, MachineOffboard, LibraryWrite, PolicyWrite, ExportManage, SettingsRead, UserManage)
	case Responder:
		return append(Analyst.Permissions(), MachineLive, IndicatorWrite)
	case Analyst:
		return append(Reader.Permissions(), MachineWrite, AlertWrite, OnboardingRead, MachineScan, MachineIsolate, MachineQuarantine, MachineCollect, DetectionWrite, IncidentWrite)
	case Reader:
		return []Permission{SignedIn, MachineRead, AlertRead, HuntingRead, PolicyRead, DetectionRead, IndicatorRead, IncidentRead}
	}
	return nil
}

// Principal is who makes a request.
type Principal struct {
	// Kind is "user", "token" or "device"; empty for nobody.
	Kind string
	ID   string
	Name string
	Role Role
	// Address is where the request came from, without the port.
	Address string
	// Groups are the ids of the device groups that the principal is limited to;
	// none for all devices.
	Groups []string
	// Restricted limits a user who must change the password or set up a second
	// factor first to the routes that are registered with SignedIn.
	Restricted  bool
	permissions []Permission
}

// NewPrincipal makes a principal with the given permissions.
func NewPrincipal(kind, id, name string, permissions []Permission) Principal {
	return Principal{Kind: kind, ID: id, Name: name, permissions: slices.Clone(permissions)}
}

// Limited reports whether the principal may see and change only the devices of
// some groups.
func (p Principal) Limited() bool { return len(p.Groups) > 0 }

// organisation are the permissions for what concerns all devices, or who may do
// what. Nobody has them who is limited to some devices.
var organisation = []Permission{
	OnboardingRead, Onboarding, TokenManage, AuditRead, LibraryWrite, PolicyWrite, DetectionWrite, IndicatorWrite, ExportManage, SettingsRead, UserManage,
}

// Organisation reports whether the permission is for what concerns all devices.
func (want Permission) Organisation() bool { return slices.Contains(organisation, want) }

// May reports whether the principal has the permission. A ReadWrite permission
// includes its Read. Who is limited to some devices has none of the
// organisation's.
func (p Principal) May(want Permission) bool {
	if want == Public {
		return true
	}
	if p.Kind == "" || (p.Restricted && want != SignedIn) || (p.Limited() && want.Organisation()) {
		return false
	}
	if slices.Contains(p.permissions, want) {
		return true
	}
	if kind, ok := strings.CutSuffix(string(want), ".Read.All"); ok {
		return slices.Contains(p.permissions, Permission(kind+".ReadWrite.All"))
	}
	return false
}

// Errors that an Authenticate function returns.
var (
	// ErrNoCredentials means that the request carries none.
	ErrNoCredentials = errors.New("no credentials")
	// ErrBadCredentials means that they are wrong, expired or revoked.
	ErrBadCredentials = errors.New("credentials are not valid")
)

type principalKey struct{}

// From returns the principal of the request that the context belongs to; the
// zero Principal on public routes without credentials.
func From(ctx context.Context) Principal {
	p, _ := ctx.Value(principalKey{}).(Principal)
	return p
}

// With returns a context that carries the principal.
func With(ctx context.Context, p Principal) context.Context {
	return context.WithValue(ctx, principalKey{}, p)
}

// Route is one registered route.
type Route struct {
	Pattern    string // as http.ServeMux takes it
	Permission Permission
}

// Router is a mux whose every route names the permission that it needs.
type Router struct {
	mux    *http.ServeMux
	routes []Route
	// authenticate returns the principal, or an error that wraps one of the
	// two above; any other error is the portal's own failure.
	authenticate func(*http.Request) (Principal, error)
	// deny answers a request that may not go on. err is nil when somebody
	// signed in lacks the permission.
	deny func(http.ResponseWriter, *http.Request, Principal, error)
}

// NewRouter makes a router that authenticates and refuses in its owner's way.
func NewRouter(authenticate func(*http.Request) (Principal, error), deny func(http.ResponseWriter, *http.Request, Principal, error)) *Router {
	return &Router{mux: http.NewServeMux(), authenticate: authenticate, deny: deny}
}

// Handle registers a handler that runs only for principals with the permission.
func (r *Router) Handle(pattern string, need Permission, h http.HandlerFunc) {
	r.routes = append(r.routes, Route{pattern, need})
	r.mux.HandleFunc(pattern, func(w http.ResponseWriter, req *http.Request) {
		p, err := r.authenticate(req)
		if err != nil && (need != Public || !isCredentials(err)) {
			r.deny(w, req, p, err)
			return
		}
		if !p.May(need) {
			r.deny(w, req, p, nil)
			return
		}
		h(w, req.WithContext(With(req.Context(), p)))
	})
}

func isCredentials(err error) bool {
	return errors.Is(err, ErrNoCredentials) || errors.Is(err, ErrBadCredentials)
}

// Routes returns every registered route.
func (r *Router) Routes() []Route { return slices.Clone(r.routes) }

// ServeHTTP serves the registered routes.
func (r *Router) ServeHTTP(w http.ResponseWriter, req *http.Request) { r.mux.ServeHTTP(w, req) }

// Match reports whether a route is registered for the request.
func (r *Router) Match(req *http.Request) bool {
	_, pattern := r.mux.Handler(req)
	return pattern != ""
}
