// Package web is the portal's pages for people: server-rendered templates,
// htmx where a part of a page changes, and everything also works without
// scripts. Styles and scripts are files of our own, so that the Content
// Security Policy can forbid everything else.
package web

import (
	"bytes"
	"context"
	"crypto/subtle"
	"embed"
	"errors"
	"fmt"
	"html/template"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/bulwarkhq/bulwark/api/response"
	"github.com/bulwarkhq/bulwark/portal/access"
	"github.com/bulwarkhq/bulwark/portal/account"
	"github.com/bulwarkhq/bulwark/portal/action"
	"github.com/bulwarkhq/bulwark/portal/alert"
	"github.com/bulwarkhq/bulwark/portal/attack"
	"github.com/bulwarkhq/bulwark/portal/detection"
	"github.com/bulwarkhq/bulwark/portal/enroll"
	"github.com/bulwarkhq/bulwark/portal/eventstore"
	"github.com/bulwarkhq/bulwark/portal/export"
	"github.com/bulwarkhq/bulwark/portal/fleet"
	"github.com/bulwarkhq/bulwark/portal/hunting"
	"github.com/bulwarkhq/bulwark/portal/identity"
	"github.com/bulwarkhq/bulwark/portal/incident"
	"github.com/bulwarkhq/bulwark/portal/indicator"
	"github.com/bulwarkhq/bulwark/portal/inventory"
	"github.com/bulwarkhq/bulwark/portal/quarantine"
	"github.com/bulwarkhq/bulwark/portal/sample"
	"github.com/bulwarkhq/bulwark/portal/status"
)

//go:embed templates/*.html static
var files embed.FS

// maxForm is the largest form body in bytes, maxQueryForm that of a form with a
// query, which may have 100 KiB before it is encoded.
const (
	maxForm      = 64 << 10
	maxQueryForm = 384 << 10
)

// huntTimeout is how long a query of the hunting page may take.
const huntTimeout = 3 * time.Minute

// cookieName carries the prefix that makes browsers insist on Secure, Path=/
// and no Domain.
const cookieName = "__Host-bulwark-session"

// Onboarding makes and lists onboarding packages.
type Onboarding interface {
	NewPackage(ctx context.Context, spec enroll.PackageSpec) (enroll.Token, []byte, error)
}

// EnrollmentTokens is what the onboarding page needs of enroll.Store.
type EnrollmentTokens interface {
	Tokens(ctx context.Context) ([]enroll.Token, error)
	RevokeToken(ctx context.Context, id string, at time.Time) error
}

// Config is what the pages show and change.
type Config struct {
	Inventory  *inventory.Service
	Alerts     *alert.Service
	Accounts   *account.Service
	Events     eventstore.Store
	Onboarding Onboarding
	Tokens     EnrollmentTokens
	Hunter     *hunting.Hunter
	Actions    *action.Service
	// Files of actions and the library; nil for none.
	Files *action.Files
	// Samples that devices sent; nil for none.
	Samples    *sample.Store
	Fleet      *fleet.Service
	Indicators *indicator.Service
	Incidents  *incident.Service
	// Exports are the destinations of exports; nil for none.
	Exports *export.Service
	// Status is that of the portal.
	Status  *status.Service
	Queries hunting.Library
	// Detections are custom detections, Rules the rules of behaviour that the
	// product ships.
	Detections *detection.Service
	Rules      fs.FS
	// Provider is the identity provider; nil for none.
	Provider *identity.Provider
	// Host is the portal's host name, shown by authenticators.
	Host    string
	Version string
	Logger  *slog.Logger
	// Now is time.Now outside of tests.
	Now func() time.Time
}

// Site is the handler of the pages.
type Site struct {
	cfg     Config
	router  *access.Router
	static  http.Handler
	pages   map[string]*template.Template
	origins *http.CrossOriginProtection
	attack  *attack.Table
	// quarantine is what devices have in theirs.
	quarantine *quarantine.Service
	// rules are read when a page asks for them first.
	rules func() ([]detection.Shipped, error)
}

// New makes the pages.
func New(cfg Config) (*Site, error) {
	s := &Site{cfg: cfg, origins: http.NewCrossOriginProtection(), quarantine: quarantine.New(cfg.Alerts, cfg.Actions, cfg.Now)}
	var err error
	if s.pages, err = parsePages(cfg.Now); err != nil {
		return nil, fmt.Errorf("templates of the portal: %w", err)
	}
	if s.attack, err = attack.Read(); err != nil {
		return nil, err
	}
	s.rules = sync.OnceValues(func() ([]detection.Shipped, error) { return detection.ReadShipped(cfg.Rules) })
	static, err := fs.Sub(files, "static")
	if err != nil {
		return nil, fmt.Errorf("files of the portal: %w", err)
	}
	s.static = http.FileServerFS(static)
	s.router = access.NewRouter(principal, s.deny)
	s.routes()
	return s, nil
}

func (s *Site) routes() {
	get := func(pattern string, need access.Permission, h func(http.ResponseWriter, *http.Request) error) {
		s.router.Handle("GET "+pattern, need, s.handler(h))
	}
	post := func(pattern string, need access.Permission, h func(http.ResponseWriter, *http.Request) error) {
		s.router.Handle("POST "+pattern, need, s.handler(func(w http.ResponseWriter, r *http.Request) error {
			err := s.form(w, r, need != access.Public)
			// The server removes the files of its own request only, and this one is a copy.
			if r.MultipartForm != nil {
				defer r.MultipartForm.RemoveAll() //nolint:errcheck // nothing can be done about a file that stays
			}
			if err != nil {
				return err
			}
			return h(w, r)
		}))
	}
	get("/static/", access.Public, s.file)
	get("/{$}", access.AlertRead, s.overview)
	get("/devices", access.MachineRead, s.devices)
	get("/devices/{id}", access.MachineRead, s.device)
	get("/devices/{id}/timeline", access.MachineRead, s.timeline)
	get("/devices/{id}/process", access.MachineRead, s.processTree)
	post("/devices/{id}/tags", access.MachineWrite, s.tagDevice)
	get("/alerts", access.AlertRead, s.alerts)
	get("/alerts/{id}", access.AlertRead, s.alert)
	get("/alerts/{id}/sample", access.MachineCollect, s.alertSample)
	post("/alerts/{id}", access.AlertWrite, s.updateAlert)
	get("/onboarding", access.OnboardingRead, s.onboarding)
	post("/onboarding", access.Onboarding, s.createPackage)
	get("/onboarding/offboard.sh", access.OnboardingRead, s.offboardingScript)
	post("/onboarding/{id}/revoke", access.Onboarding, s.revokePackage)
	get("/tokens", access.TokenManage, s.tokens)
	post("/tokens", access.TokenManage, s.createToken)
	post("/tokens/{id}/revoke", access.TokenManage, s.revokeToken)
	post("/devices/{id}/scan", access.MachineScan, s.orderScan)
	post("/devices/{id}/update-definitions", access.MachineScan, s.orderSimple(response.UpdateDefinitions))
	post("/devices/{id}/isolate", access.MachineIsolate, s.orderIsolate)
	post("/devices/{id}/release", access.MachineIsolate, s.orderSimple(response.Unisolate))
	post("/devices/{id}/quarantine", access.MachineQuarantine, s.orderQuarantine)
	post("/devices/{id}/stop-process", access.MachineQuarantine, s.orderStop)
	post("/devices/{id}/restore", access.MachineQuarantine, s.orderRestore)
	post("/devices/{id}/remove-quarantined", access.MachineQuarantine, s.orderRemove)
	post("/devices/{id}/collect", access.MachineCollect, s.orderSimple(response.CollectInvestigationPackage))
	post("/devices/{id}/offboard", access.MachineOffboard, s.orderSimple(response.Offboard))
	get("/groups", access.PolicyRead, s.groups)
	post("/groups", access.PolicyWrite, s.saveGroup)
	post("/groups/{id}/delete", access.PolicyWrite, s.deleteGroup)
	get("/policies", access.PolicyRead, s.policies)
	get("/policies/{id}", access.PolicyRead, s.policy)
	post("/policies/{id}", access.PolicyWrite, s.savePolicy)
	post("/policies/{id}/delete", access.PolicyWrite, s.deletePolicy)
	post("/policies/{id}/revert", access.PolicyWrite, s.revertPolicy)
	get("/devices/{id}/live", access.MachineLive, s.live)
	post("/devices/{id}/live", access.MachineLive, s.runLive)
	get("/library", access.MachineLive, s.library)
	post("/library", access.LibraryWrite, s.upload)
	post("/library/delete", access.LibraryWrite, s.deleteFile)
	get("/actions", access.MachineRead, s.actions)
	get("/actions/{id}", access.MachineRead, s.action)
	get("/actions/{id}/package", access.MachineCollect, s.actionPackage)
	post("/actions/{id}/release-token", access.MachineIsolate, s.releaseToken)
	post("/actions/{id}/cancel", access.MachineScan, s.cancelAction)
	get("/hunting", access.HuntingRead, s.huntingPage)
	get("/hunting/schema.json", access.HuntingRead, s.huntingSchema)
	post("/hunting/run", access.HuntingRead, s.runQuery)
	post("/hunting/export", access.HuntingRead, s.exportQuery)
	post("/hunting/save", access.HuntingRead, s.saveQuery)
	post("/hunting/saved/{id}/delete", access.HuntingRead, s.deleteQuery)
	post("/hunting/detection", access.DetectionWrite, s.queryToDetection)
	get("/detections", access.DetectionRead, s.detections)
	get("/detections/shipped", access.DetectionRead, s.shipped)
	get("/detections/shipped/{id}", access.DetectionRead, s.shippedRule)
	post("/detections/shipped/{id}/policies", access.PolicyWrite, s.setShippedRule)
	get("/detections/custom/{id}", access.DetectionRead, s.customDetection)
	post("/detections/custom/{id}", access.DetectionWrite, s.saveDetection)
	post("/detections/custom/{id}/test", access.DetectionWrite, s.testDetection)
	post("/detections/custom/{id}/state", access.DetectionWrite, s.switchDetection)
	post("/detections/custom/{id}/run", access.DetectionWrite, s.runDetection)
	post("/detections/custom/{id}/delete", access.DetectionWrite, s.deleteDetection)
	get("/threats", access.AlertRead, s.threats)
	post("/threats/orders", access.MachineQuarantine, s.orderQuarantined)
	get("/attack", access.AlertRead, s.attackMatrix)
	get("/audit", access.AuditRead, s.audit)
	get("/settings", access.SettingsRead, s.settings)
	get("/settings/export", access.SettingsRead, s.exportSettings)
	s.indicatorRoutes(get, post)
	s.incidentRoutes(get, post)
	s.exportRoutes(get, post)
	s.accountRoutes(get, post)
}

// Routes returns the routes and the permission that each needs.
func (s *Site) Routes() []access.Route { return s.router.Routes() }

// securityHeaders are sent with every answer.
var securityHeaders = map[string]string{
	"Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
		"form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
	"X-Content-Type-Options":       "nosniff",
	"X-Frame-Options":              "DENY",
	"Referrer-Policy":              "no-referrer",
	"Cross-Origin-Opener-Policy":   "same-origin",
	"Cross-Origin-Resource-Policy": "same-origin",
	"Permissions-Policy":           "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
	"Strict-Transport-Security":    "max-age=31536000",
	"Cache-Control":                "no-store",
}

// ServeHTTP serves the pages.
func (s *Site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	for k, v := range securityHeaders {
		w.Header().Set(k, v)
	}
	if err := s.origins.Check(r); err != nil {
		s.problem(w, r, http.StatusForbidden, "This request came from another site", "The portal only accepts forms of its own pages.")
		return
	}
	if !s.router.Match(r) {
		s.problem(w, r.WithContext(s.withVisit(r)), http.StatusNotFound, "There is nothing here", "The page may have moved, or the address is mistyped.")
		return
	}
	s.router.ServeHTTP(w, r.WithContext(s.withVisit(r)))
}

// visit is the session of a request, or why there is none.
type visit struct {
	session account.Session
	user    account.User
	must    bool // set up a second factor first
	err     error
}

type visitKey struct{}

func visitOf(ctx context.Context) visit {
	v, ok := ctx.Value(visitKey{}).(visit)
	if !ok {
		v.err = access.ErrNoCredentials
	}
	return v
}

func (s *Site) withVisit(r *http.Request) context.Context {
	v := visit{err: access.ErrNoCredentials}
	if c, err := r.Cookie(cookieName); err == nil && !strings.HasPrefix(r.URL.Path, "/static/") {
		v.session, v.user, v.err = s.cfg.Accounts.Session(r.Context(), c.Value)
		v.must = v.err == nil && s.cfg.Accounts.MustEnroll(v.user)
	}
	return context.WithValue(r.Context(), visitKey{}, v)
}

func principal(r *http.Request) (access.Principal, error) {
	v := visitOf(r.Context())
	if v.err != nil {
		return access.Principal{}, v.err
	}
	p := access.NewPrincipal("user", v.user.ID, v.user.Name, v.user.Role.Permissions())
	p.Role, p.Groups, p.Address, p.Restricted = v.user.Role, v.user.Groups, address(r), v.user.MustChange || v.must
	return p, nil
}

func address(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}

// deny sends who is not signed in to the sign-in page and who must change the
// password to that page; others are told what they lack.
func (s *Site) deny(w http.ResponseWriter, r *http.Request, p access.Principal, err error) {
	switch {
	case errors.Is(err, access.ErrNoCredentials), errors.Is(err, access.ErrBadCredentials):
		to := "/sign-in"
		if r.Method == http.MethodGet && r.URL.Path != "/" {
			to += "?" + url.Values{"next": {r.URL.RequestURI()}}.Encode()
		}
		redirect(w, r, to)
	case err != nil:
		s.fail(w, r, err)
	case p.Restricted && !visitOf(r.Context()).user.MustChange:
		redirect(w, r, "/account/second-factor")
	case p.Restricted:
		redirect(w, r, "/account/password")
	case p.Limited():
		s.problem(w, r, http.StatusForbidden, "You may not do this", fmt.Sprintf("Your role (%s) does not include it, or it concerns all devices and your account is limited to some device groups. An administrator can change that.", p.Role))
	default:
		s.problem(w, r, http.StatusForbidden, "You may not do this", fmt.Sprintf("Your role (%s) does not include it. An administrator can change that.", p.Role))
	}
}

// redirect also works for requests that htmx makes.
func redirect(w http.ResponseWriter, r *http.Request, to string) {
	if r.Header.Get("HX-Request") == "true" {
		w.Header().Set("HX-Redirect", to)
		w.WriteHeader(http.StatusNoContent)
		return
	}
	http.Redirect(w, r, to, http.StatusSeeOther)
}

// invalid is an error of the user's that a page can show.
type invalid struct {
	status  int
	message string
}

func (e *invalid) Error() string { return e.message }

func (s *Site) handler(h func(http.ResponseWriter, *http.Request) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if err := h(w, r); err != nil {
			s.fail(w, r, err)
		}
	}
}

func (s *Site) fail(w http.ResponseWriter, r *http.Request, err error) {
	var inv *invalid
	var wrong *alert.Invalid
	var order *action.Invalid
	var configuration *fleet.Invalid
	var entry *account.Invalid
	switch {
	case errors.As(err, &configuration):
		s.problem(w, r, http.StatusBadRequest, "This did not work", upperFirst(configuration.Message)+".")
	case errors.Is(err, fleet.ErrUnsorted):
		s.cfg.Logger.ErrorContext(r.Context(), "the devices are not sorted into the groups", "error", err)
		s.problem(w, r, http.StatusInternalServerError, "The group is changed, its devices are not yet", "The portal sorts them at its next pass, within minutes. Its log says why it could not now.")
	case errors.Is(err, fleet.ErrConflict):
		s.problem(w, r, http.StatusConflict, "This did not work", upperFirst(err.Error())+".")
	case errors.Is(err, indicator.ErrNotFound):
		s.problem(w, r, http.StatusNotFound, "There is no such indicator", "Somebody else may have removed it.")
	case errors.Is(err, export.ErrNotFound):
		s.problem(w, r, http.StatusNotFound, "There is no such export destination", "Somebody else may have deleted it.")
	case errors.Is(err, incident.ErrNotFound):
		s.problem(w, r, http.StatusNotFound, "There is no such incident", "The address may be mistyped.")
	case errors.Is(err, fleet.ErrNotFound):
		s.problem(w, r, http.StatusNotFound, "This is not there any more", "Somebody else may have removed it.")
	case errors.As(err, &inv):
		s.problem(w, r, inv.status, "This did not work", inv.message)
	case errors.As(err, &wrong):
		s.problem(w, r, http.StatusBadRequest, "This did not work", wrong.Message)
	case errors.As(err, &entry):
		s.problem(w, r, http.StatusBadRequest, "This did not work", upperFirst(entry.Message)+".")
	case errors.Is(err, inventory.ErrNotFound):
		s.problem(w, r, http.StatusNotFound, "There is no such device", "It may have been removed.")
	case errors.Is(err, alert.ErrNotFound):
		s.problem(w, r, http.StatusNotFound, "There is no such alert", "It may have been removed: alerts of a self-test go when the test ends.")
	case errors.As(err, &order):
		s.problem(w, r, http.StatusBadRequest, "This did not work", upperFirst(order.Message)+".")
	case errors.Is(err, action.ErrRunning), errors.Is(err, action.ErrStarted), errors.Is(err, action.ErrOffboarded), errors.Is(err, action.ErrNotIsolation):
		s.problem(w, r, http.StatusConflict, "This did not work", upperFirst(err.Error())+".")
	case errors.Is(err, action.ErrNotFound):
		s.problem(w, r, http.StatusNotFound, "There is no such action", "Actions go with their device.")
	case errors.Is(err, action.ErrNoFile):
		s.problem(w, r, http.StatusNotFound, "There is no file", "The device has not sent one, or it is no longer kept.")
	case errors.Is(err, detection.ErrNotFound):
		s.problem(w, r, http.StatusNotFound, "There is no such custom detection", "Somebody may have deleted it. Its alerts are still there.")
	case errors.Is(err, detection.ErrTooMany):
		s.problem(w, r, http.StatusConflict, "This did not work", upperFirst(err.Error())+".")
	case errors.Is(err, account.ErrNotFound), errors.Is(err, action.ErrNoLibraryFile), errors.Is(err, enroll.ErrNotFound):
		s.problem(w, r, http.StatusNotFound, "This is not there any more", "Somebody else may have removed it.")
	case errors.Is(err, hunting.ErrBusy):
		w.Header().Set("Retry-After", "10")
		s.problem(w, r, http.StatusServiceUnavailable, "The portal is busy", "As many queries and custom detections run as may at the same time: try again when one of them has ended.")
	case errors.Is(err, context.DeadlineExceeded):
		s.cfg.Logger.WarnContext(r.Context(), "a page took too long", "method", r.Method, "path", r.URL.Path, "error", err)
		w.Header().Set("Retry-After", "10")
		s.problem(w, r, http.StatusServiceUnavailable, "The portal is busy", "This took longer than it may: try again later, or ask for less.")
	case errors.Is(err, context.Canceled):
	default:
		s.cfg.Logger.ErrorContext(r.Context(), "a page failed", "method", r.Method, "path", r.URL.Path, "error", err)
		s.problem(w, r, http.StatusInternalServerError, "The portal could not do this", "Its log says why. Nothing of your change was kept.")
	}
}

// uploads are the forms with a file, and its largest size in bytes.
var uploads = map[string]int64{"/library": response.MaxLibraryFile, "/indicators/import": indicator.MaxCSV}

// form reads a form body within limits and checks its CSRF token.
func (s *Site) form(w http.ResponseWriter, r *http.Request, session bool) error {
	limit := int64(maxForm)
	if strings.HasPrefix(r.URL.Path, "/hunting/") || strings.HasPrefix(r.URL.Path, "/policies/") || strings.HasPrefix(r.URL.Path, "/detections/") {
		limit = maxQueryForm
	}
	read := (*http.Request).ParseForm
	if most := uploads[r.URL.Path]; most > 0 && session {
		limit = most + maxForm
		read = func(r *http.Request) error {
			if err := r.ParseMultipartForm(1 << 20); err != nil && !errors.Is(err, http.ErrNotMultipart) {
				return err
			}
			return nil
		}
	}
	r.Body = http.MaxBytesReader(w, r.Body, limit)
	if err := read(r); err != nil {
		var large *http.MaxBytesError
		if errors.As(err, &large) {
			return &invalid{http.StatusRequestEntityTooLarge, fmt.Sprintf("The form is larger than %d KiB.", limit>>10)}
		}
		return &invalid{http.StatusBadRequest, "The form cannot be read."}
	}
	if !session {
		return nil
	}
	want := visitOf(r.Context()).session.CSRF
	got := r.Header.Get("X-CSRF-Token")
	if got == "" {
		got = r.PostForm.Get("csrf")
	}
	if want == "" || subtle.ConstantTimeCompare([]byte(got), []byte(want)) != 1 {
		return &invalid{http.StatusForbidden, "The form is out of date: load the page again and repeat it."}
	}
	return nil
}

func (s *Site) file(w http.ResponseWriter, r *http.Request) error {
	r2 := r.Clone(r.Context())
	r2.URL.Path = path.Clean("/" + strings.TrimPrefix(r.URL.Path, "/static/"))
	if r2.URL.Path == "/" {
		return &invalid{http.StatusNotFound, "There is no such file."}
	}
	w.Header().Set("Cache-Control", "public, max-age=3600")
	s.static.ServeHTTP(w, r2)
	return nil
}

// frame is what the layout of every page needs.
type frame struct {
	Title   string
	Section string // of the navigation
	Flash   string
	Problem string
	User    string
	Local   bool // the account is one of the portal's own
	Role    access.Role
	CSRF    string
	Version string
	May     func(string) bool
	Page    any
}

// render writes a page. Nothing is sent before all of it is made.
func (s *Site) render(w http.ResponseWriter, r *http.Request, status int, name string, f frame) error {
	v := visitOf(r.Context())
	if v.err == nil {
		f.User, f.Local, f.Role, f.CSRF = v.user.Name, v.user.Issuer == "", v.user.Role, v.session.CSRF
	}
	p := access.From(r.Context())
	f.May = func(permission string) bool { return p.May(access.Permission(permission)) }
	f.Version = s.cfg.Version
	var b bytes.Buffer
	if err := s.pages[name].ExecuteTemplate(&b, "layout", f); err != nil {
		return fmt.Errorf("page %s: %w", name, err)
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	b.WriteTo(w) //nolint:errcheck // the client is gone
	return nil
}

// fragment writes a part of a page.
func (s *Site) fragment(w http.ResponseWriter, page, name string, data any) error {
	var b bytes.Buffer
	if err := s.pages[page].ExecuteTemplate(&b, name, data); err != nil {
		return fmt.Errorf("part %s of page %s: %w", name, page, err)
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	b.WriteTo(w) //nolint:errcheck // the client is gone
	return nil
}

// problem shows an error page.
func (s *Site) problem(w http.ResponseWriter, r *http.Request, status int, title, text string) {
	if err := s.render(w, r, status, "problem", frame{Title: title, Page: text}); err != nil {
		s.cfg.Logger.ErrorContext(r.Context(), "the error page failed", "error", err)
		http.Error(w, title, status)
	}
}

// setCookie hands the session to the browser, or takes it away.
func setCookie(w http.ResponseWriter, secret string) {
	sendCookie(w, cookieName, secret, account.SessionLifetime)
}

func sendCookie(w http.ResponseWriter, name, value string, lifetime time.Duration) {
	c := &http.Cookie{
		Name: name, Value: value, Path: "/", Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode,
		MaxAge: int(lifetime.Seconds()),
	}
	if value == "" {
		c.MaxAge = -1
	}
	http.SetCookie(w, c)
}
