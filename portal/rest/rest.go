// Package rest is the portal's REST API for programs: machines and alerts in
// the shapes of the reference product's API, with OData query options and
// bearer tokens. api/openapi describes it.
package rest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math"
	"mime"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/bulwarkhq/bulwark/api/openapi"
	"github.com/bulwarkhq/bulwark/api/response"
	"github.com/bulwarkhq/bulwark/portal/access"
	"github.com/bulwarkhq/bulwark/portal/account"
	"github.com/bulwarkhq/bulwark/portal/action"
	"github.com/bulwarkhq/bulwark/portal/alert"
	"github.com/bulwarkhq/bulwark/portal/detection"
	"github.com/bulwarkhq/bulwark/portal/eventstore"
	"github.com/bulwarkhq/bulwark/portal/export"
	"github.com/bulwarkhq/bulwark/portal/fleet"
	"github.com/bulwarkhq/bulwark/portal/hunting"
	"github.com/bulwarkhq/bulwark/portal/incident"
	"github.com/bulwarkhq/bulwark/portal/indicator"
	"github.com/bulwarkhq/bulwark/portal/inventory"
	"github.com/bulwarkhq/bulwark/portal/quarantine"
	"github.com/bulwarkhq/bulwark/portal/rest/odata"
	"github.com/bulwarkhq/bulwark/portal/status"
)

// Limits of the API: requests per caller (token, or address without one) and
// minute, and the largest body in bytes.
const (
	PerMinute = 100
	maxBody   = 64 << 10
	// maxQuery is the largest body with a query.
	maxQuery = 256 << 10
)

// Config is what the API works on.
type Config struct {
	Inventory *inventory.Service
	Alerts    *alert.Service
	Accounts  *account.Service
	Hunter    *hunting.Hunter
	Actions   *action.Service
	// Detections are custom detections, Rules the rules of behaviour that the
	// product ships.
	Detections *detection.Service
	Rules      fs.FS
	// Files of actions; nil for none.
	Files *action.Files
	// Packages and PackageTokens make and keep onboarding packages.
	Packages      Packages
	PackageTokens PackageTokens
	Indicators    *indicator.Service
	Incidents     *incident.Service
	Fleet         *fleet.Service
	// Exports are the destinations of exports; nil for none.
	Exports *export.Service
	// Status is that of the portal.
	Status *status.Service
	// Receipts is the ledger of a device's events by class; nil: it is not told.
	Receipts func(ctx context.Context, deviceID string) (map[string]eventstore.Receipt, error)
	Logger   *slog.Logger
	// Now is time.Now outside of tests.
	Now func() time.Time
}

// API is the handler of /api/.
type API struct {
	cfg    Config
	router *access.Router
	limit  *windows
	// rules are read when somebody asks for them first.
	rules func() ([]detection.Shipped, error)
	// quarantine is what devices have in theirs.
	quarantine *quarantine.Service
}

// New makes the API.
func New(cfg Config) *API {
	a := &API{cfg: cfg, limit: newWindows(PerMinute, time.Minute)}
	a.quarantine = quarantine.New(cfg.Alerts, cfg.Actions, cfg.Now)
	a.rules = sync.OnceValues(func() ([]detection.Shipped, error) { return detection.ReadShipped(cfg.Rules) })
	a.router = access.NewRouter(a.authenticate, a.deny)
	for _, r := range []struct {
		pattern string
		need    access.Permission
		h       func(http.ResponseWriter, *http.Request) error
	}{
		{"GET /api/machines", access.MachineRead, a.machines},
		{"GET /api/machines/{id}", access.MachineRead, a.machine},
		{"GET /api/machines/{id}/alerts", access.AlertRead, a.machineAlerts},
		{"POST /api/machines/{id}/tags", access.MachineWrite, a.tag},
		{"GET /api/alerts", access.AlertRead, a.alerts},
		{"GET /api/alerts/{id}", access.AlertRead, a.alert},
		{"PATCH /api/alerts/{id}", access.AlertWrite, a.updateAlert},
		{"POST /api/advancedqueries/run", access.HuntingRead, a.runQuery},
		{"POST /api/advancedhunting/run", access.HuntingRead, a.runQuery},
		{"POST /api/advancedqueries/export", access.HuntingRead, a.exportQuery},
		{"POST /api/machines/{id}/runAntiVirusScan", access.MachineScan, a.runScan},
		{"GET /api/machineactions", access.MachineRead, a.machineActions},
		{"GET /api/machineactions/{id}", access.MachineRead, a.machineAction},
		{"POST /api/machineactions/{id}/cancel", access.MachineScan, a.cancelAction},
		{"POST /api/machines/{id}/isolate", access.MachineIsolate, a.isolate},
		{"POST /api/machines/{id}/unisolate", access.MachineIsolate, a.simple(response.Unisolate)},
		{"POST /api/machines/{id}/StopAndQuarantineFile", access.MachineQuarantine, a.stopAndQuarantine},
		{"POST /api/machines/{id}/stopProcess", access.MachineQuarantine, a.stopProcess},
		{"POST /api/machines/{id}/restoreFile", access.MachineQuarantine, a.restoreFile},
		{"POST /api/machines/{id}/removeQuarantinedFile", access.MachineQuarantine, a.removeQuarantined},
		{"GET /api/quarantine/{sha256}", access.AlertRead, a.quarantined},
		{"POST /api/quarantine/{sha256}/restore", access.MachineQuarantine, a.orderQuarantined(response.RestoreFile)},
		{"POST /api/quarantine/{sha256}/remove", access.MachineQuarantine, a.orderQuarantined(response.RemoveQuarantinedFile)},
		{"POST /api/machines/{id}/updateDefinitions", access.MachineScan, a.simple(response.UpdateDefinitions)},
		{"POST /api/machines/{id}/collectInvestigationPackage", access.MachineCollect, a.simple(response.CollectInvestigationPackage)},
		{"POST /api/machines/{id}/runliveresponse", access.MachineLive, a.runLive},
		{"POST /api/machines/{id}/offboard", access.MachineOffboard, a.simple(response.Offboard)},
		{"POST /api/machineactions/{id}/releaseToken", access.MachineIsolate, a.releaseToken},
		{"GET /api/machineactions/{id}/GetPackageUri", access.MachineCollect, a.packageURI},
		{"GET /api/machineactions/{id}/package", access.MachineCollect, a.packageFile},
		{"GET /api/onboarding/packages", access.OnboardingRead, a.onboardingPackages},
		{"POST /api/onboarding/packages", access.Onboarding, a.createOnboardingPackage},
		{"POST /api/onboarding/packages/{id}/revoke", access.Onboarding, a.revokeOnboardingPackage},
		{"GET /api/incidents", access.IncidentRead, a.incidents},
		{"GET /api/incidents/{id}", access.IncidentRead, a.incident},
		{"PATCH /api/incidents/{id}", access.IncidentWrite, a.updateIncident},
		{"GET /api/indicators", access.IndicatorRead, a.indicators},
		{"POST /api/indicators", access.IndicatorWrite, a.putIndicator},
		{"POST /api/indicators/import", access.IndicatorWrite, a.importIndicators},
		{"POST /api/indicators/BatchDelete", access.IndicatorWrite, a.deleteIndicators},
		{"GET /api/indicators/{id}", access.IndicatorRead, a.indicator},
		{"DELETE /api/indicators/{id}", access.IndicatorWrite, a.deleteIndicator},
		{"GET /api/security/rules/detectionRules", access.DetectionRead, a.detections},
		{"POST /api/security/rules/detectionRules", access.DetectionWrite, a.createDetection},
		{"GET /api/security/rules/detectionRules/{id}", access.DetectionRead, a.detection},
		{"PATCH /api/security/rules/detectionRules/{id}", access.DetectionWrite, a.updateDetection},
		{"DELETE /api/security/rules/detectionRules/{id}", access.DetectionWrite, a.deleteDetection},
		{"GET /api/security/rules/behaviorRules", access.DetectionRead, a.behaviorRules},
		{"GET /api/security/rules/behaviorRules/{id}", access.DetectionRead, a.behaviorRule},
		{"POST /api/security/rules/behaviorRules/{id}/setMode", access.PolicyWrite, a.setRuleMode},
		{"GET /api/exports", access.ExportManage, a.exports},
		{"POST /api/exports", access.ExportManage, a.createExport},
		{"GET /api/exports/{id}", access.ExportManage, a.export},
		{"PATCH /api/exports/{id}", access.ExportManage, a.updateExport},
		{"DELETE /api/exports/{id}", access.ExportManage, a.deleteExport},
		{"POST /api/exports/{id}/test", access.ExportManage, a.testExport},
		{"POST /api/exports/{id}/skip", access.ExportManage, a.skipExport},
		{"GET /api/settings", access.SettingsRead, a.settings},
		{"GET /api/openapi.json", access.Public, a.openAPI},
	} {
		a.router.Handle(r.pattern, r.need, func(w http.ResponseWriter, req *http.Request) {
			if err := r.h(w, req); err != nil {
				a.fail(w, req, err)
			}
		})
	}
	return a
}

// Routes returns the routes and the permission that each needs.
func (a *API) Routes() []access.Route { return a.router.Routes() }

// ServeHTTP answers /api/... and /api/v1.0/...
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	if rest, ok := strings.CutPrefix(r.URL.Path, "/api/v1.0/"); ok {
		u := *r.URL
		u.Path, u.RawPath = "/api/"+rest, ""
		r = r.Clone(r.Context())
		r.URL = &u
	}
	if !a.router.Match(r) {
		a.unknown(w, r)
		return
	}
	a.router.ServeHTTP(w, r)
}

// unknown answers a path or method that no route has.
func (a *API) unknown(w http.ResponseWriter, r *http.Request) {
	var allowed []string
	for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodPatch, http.MethodDelete} {
		probe := r.Clone(r.Context())
		probe.Method = method
		if a.router.Match(probe) {
			allowed = append(allowed, method)
		}
	}
	if len(allowed) > 0 {
		w.Header().Set("Allow", strings.Join(allowed, ", "))
		a.fail(w, r, &failure{http.StatusMethodNotAllowed, "MethodNotAllowed", fmt.Sprintf("%.16s is not possible here: use %s", r.Method, strings.Join(allowed, " or ")), ""})
		return
	}
	a.fail(w, r, &failure{http.StatusNotFound, "ResourceNotFound", "there is nothing at this path: /api/openapi.json describes the API", ""})
}

// authenticate returns the principal of the bearer token and counts the
// request against its limit.
func (a *API) authenticate(r *http.Request) (access.Principal, error) {
	address := Address(r)
	header := r.Header.Get("Authorization")
	if header == "" {
		if err := a.take("address " + address); err != nil {
			return access.Principal{}, err
		}
		return access.Principal{}, access.ErrNoCredentials
	}
	scheme, token, _ := strings.Cut(header, " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return access.Principal{}, fmt.Errorf("%w: the Authorization header is not of the form: Bearer TOKEN", access.ErrBadCredentials)
	}
	p, err := a.cfg.Accounts.Authenticate(r.Context(), strings.TrimSpace(token))
	if err != nil {
		if limited := a.take("address " + address); limited != nil {
			return access.Principal{}, limited
		}
		return access.Principal{}, err
	}
	p.Address = address
	return p, a.take("token " + p.ID)
}

// limited is returned when a caller makes too many requests.
type limited struct{ wait time.Duration }

func (l *limited) Error() string {
	return fmt.Sprintf("more than %d requests in a minute: try again in %d s", PerMinute, l.seconds())
}

func (l *limited) seconds() int { return int(math.Ceil(l.wait.Seconds())) }

func (a *API) take(key string) error {
	if wait := a.limit.take(key, a.cfg.Now()); wait > 0 {
		return &limited{wait}
	}
	return nil
}

// Address is the client's address without the port.
func Address(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}

func (a *API) deny(w http.ResponseWriter, r *http.Request, p access.Principal, err error) {
	var l *limited
	switch {
	case errors.As(err, &l):
		a.fail(w, r, err)
	case errors.Is(err, access.ErrNoCredentials):
		w.Header().Set("WWW-Authenticate", `Bearer realm="bulwark"`)
		a.fail(w, r, &failure{http.StatusUnauthorized, "Unauthorized", "an API token is needed: send the header Authorization: Bearer TOKEN", "Authorization"})
	case errors.Is(err, access.ErrBadCredentials):
		w.Header().Set("WWW-Authenticate", `Bearer realm="bulwark", error="invalid_token"`)
		a.fail(w, r, &failure{http.StatusUnauthorized, "Unauthorized", err.Error(), "Authorization"})
	case err != nil:
		a.fail(w, r, err)
	default:
		a.fail(w, r, &failure{http.StatusForbidden, "Forbidden", fmt.Sprintf("the token %q lacks the scope that this needs", p.Name), ""})
	}
}

// failure is an error with its answer.
type failure struct {
	status  int
	code    string
	message string
	target  string
}

func (f *failure) Error() string { return f.message }

func bad(target, format string, args ...any) *failure {
	return &failure{http.StatusBadRequest, "BadRequest", fmt.Sprintf(format, args...), target}
}

// fail answers with the error's shape and status.
func (a *API) fail(w http.ResponseWriter, r *http.Request, err error) {
	var f *failure
	var invalid *alert.Invalid
	var order *action.Invalid
	var entry *indicator.Invalid
	var option *odata.Error
	var rule *detection.Invalid
	var profile *fleet.Invalid
	var l *limited
	var setting *export.Invalid
	switch {
	case errors.As(err, &f):
	case errors.As(err, &setting):
		f = &failure{http.StatusBadRequest, "BadRequest", setting.Message, setting.Target}
	case errors.Is(err, export.ErrTooMany), errors.Is(err, export.ErrTaken), errors.Is(err, export.ErrConflict):
		f = conflictOfExport(err)
	case errors.As(err, &option):
		f = &failure{http.StatusBadRequest, "BadRequest", option.Message, option.Option}
	case errors.As(err, &invalid):
		f = &failure{http.StatusBadRequest, "BadRequest", invalid.Message, invalid.Target}
	case errors.As(err, &order):
		f = &failure{http.StatusBadRequest, "BadRequest", order.Message, order.Target}
	case errors.As(err, &entry):
		f = &failure{http.StatusBadRequest, "BadRequest", entry.Message, entry.Target}
	case errors.As(err, &rule):
		f = &failure{http.StatusBadRequest, "BadRequest", rule.Message, rule.Target}
	case errors.As(err, &profile):
		f = &failure{http.StatusBadRequest, "BadRequest", profile.Message, profile.Target}
	case errors.Is(err, fleet.ErrNotFound):
		f = &failure{http.StatusNotFound, "ResourceNotFound", "there is no such policy", "policyId"}
	case errors.Is(err, fleet.ErrConflict):
		f = &failure{http.StatusConflict, "Conflict", fleet.ErrConflict.Error(), "policyId"}
	case errors.Is(err, detection.ErrForbidden):
		f = &failure{http.StatusForbidden, "Forbidden", "the token lacks the scope that the action of the custom detection needs", "responseActions"}
	case errors.Is(err, detection.ErrTooMany):
		f = &failure{http.StatusBadRequest, "BadRequest", err.Error(), ""}
	case errors.Is(err, detection.ErrConflict):
		f = &failure{http.StatusConflict, "Conflict", detection.ErrConflict.Error(), "id"}
	case errors.Is(err, action.ErrRunning):
		f = &failure{http.StatusBadRequest, "ActiveRequestAlreadyExists", action.ErrRunning.Error(), "id"}
	case errors.Is(err, action.ErrStarted):
		f = &failure{http.StatusBadRequest, "BadRequest", action.ErrStarted.Error(), "id"}
	case errors.Is(err, action.ErrNotIsolation):
		f = &failure{http.StatusBadRequest, "BadRequest", action.ErrNotIsolation.Error(), "id"}
	case errors.Is(err, action.ErrOffboarded):
		f = &failure{http.StatusBadRequest, "BadRequest", action.ErrOffboarded.Error(), "id"}
	case errors.As(err, &l):
		w.Header().Set("Retry-After", strconv.Itoa(l.seconds()))
		f = &failure{http.StatusTooManyRequests, "TooManyRequests", l.Error(), ""}
	case errors.Is(err, inventory.ErrNotFound), errors.Is(err, alert.ErrNotFound), errors.Is(err, action.ErrNotFound), errors.Is(err, action.ErrNoFile), errors.Is(err, action.ErrNoLibraryFile), errors.Is(err, indicator.ErrNotFound), errors.Is(err, incident.ErrNotFound), errors.Is(err, detection.ErrNotFound), errors.Is(err, export.ErrNotFound):
		f = &failure{http.StatusNotFound, "ResourceNotFound", err.Error(), "id"}
	case errors.Is(err, context.Canceled):
		return
	default:
		a.cfg.Logger.ErrorContext(r.Context(), "a request failed", "method", r.Method, "path", r.URL.Path, "error", err)
		f = &failure{http.StatusInternalServerError, "InternalServerError", "the portal could not answer; its log says why", ""}
	}
	a.write(w, f.status, map[string]any{"error": errorBody{f.code, f.message, f.target}})
}

type errorBody struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	Target  string `json:"target"`
}

func (a *API) write(w http.ResponseWriter, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		a.cfg.Logger.Error("an answer cannot be encoded", "error", err)
		status, b = http.StatusInternalServerError, []byte(`{"error":{"code":"InternalServerError","message":"the answer cannot be encoded","target":""}}`)
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	w.Write(append(b, '\n')) //nolint:errcheck // the client is gone
}

// read decodes a JSON body strictly: an unknown or wrongly typed member is
// named.
func read(w http.ResponseWriter, r *http.Request, into any) error {
	return readUpTo(maxBody, w, r, into)
}

func readUpTo(limit int64, w http.ResponseWriter, r *http.Request, into any) error {
	if t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || t != "application/json" {
		return &failure{http.StatusUnsupportedMediaType, "UnsupportedMediaType", "the body must have the Content-Type application/json", "Content-Type"}
	}
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, limit))
	d.DisallowUnknownFields()
	err := d.Decode(into)
	if err == nil {
		if _, err = d.Token(); errors.Is(err, io.EOF) {
			return nil
		}
		return bad("", "the body holds more than one JSON object")
	}
	var tooLarge *http.MaxBytesError
	var wrongType *json.UnmarshalTypeError
	switch {
	case errors.As(err, &tooLarge):
		return &failure{http.StatusRequestEntityTooLarge, "PayloadTooLarge", fmt.Sprintf("the body is larger than %d bytes", limit), ""}
	case errors.As(err, &wrongType):
		return bad(wrongType.Field, "%s cannot be a %s", wrongType.Field, wrongType.Value)
	case strings.HasPrefix(err.Error(), "json: unknown field "):
		name := strings.Trim(strings.TrimPrefix(err.Error(), "json: unknown field "), `"`)
		return bad(name, "the member %.64s is unknown", name)
	}
	return bad("", "the body is not a JSON object: %v", err)
}

func (a *API) openAPI(w http.ResponseWriter, _ *http.Request) error {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("Cache-Control", "public, max-age=300")
	w.Write(openapi.Document()) //nolint:errcheck // the client is gone
	return nil
}
