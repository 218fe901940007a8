package control

import (
	"context"
	"net/http"

	api "github.com/bulwarkhq/bulwark/api/control"
)

// Definitions are the scan engine's definitions.
type Definitions interface {
	Definitions(ctx context.Context) (api.Definitions, error)
	// UpdateDefinitions fetches and loads now, ReloadDefinitions loads what is
	// in the folder, RestoreDefinitions goes back to the set of the package.
	// What does not load is named in Problems and leaves the old set in force.
	// UpdateDefinitions calls send on its way, and with the result at its end.
	UpdateDefinitions(ctx context.Context, send func(api.DefinitionsProgress) error) error
	ReloadDefinitions(ctx context.Context) (api.DefinitionsResult, error)
	RestoreDefinitions(ctx context.Context) (api.DefinitionsResult, error)
	// SetDefinitionsPath makes folder (clean and absolute; empty for the usual
	// one) the folder of the host's own definitions and loads what is there.
	// InvalidArgument when it is none that can be trusted.
	SetDefinitionsPath(ctx context.Context, folder string) (api.DefinitionsResult, error)
}

// Connectivity tests the agent's connections.
type Connectivity interface {
	// TestConnectivity tries every address and calls send as each has answered.
	// An address that fails is no error of the test.
	TestConnectivity(ctx context.Context, send func(api.ConnectivityResult) error) error
}

// ProductUpdates looks for newer versions of the product.
type ProductUpdates interface {
	// CheckProductUpdate asks the repository of the host's channel. One that does
	// not answer is no error: the state is unknown then.
	CheckProductUpdate(ctx context.Context) (api.ProductUpdate, error)
}

// SelfTest proves the whole chain on this host.
type SelfTest interface {
	// SelfTest runs the steps and calls send as each has ended; it leaves
	// nothing behind, also when ctx ends. Conflict when one is running.
	SelfTest(ctx context.Context, send func(api.SelfTestStep) error) error
}

// Diagnostics makes support bundles.
type Diagnostics interface {
	CreateDiagnostic(ctx context.Context, r api.DiagnosticRequest) (api.Diagnostic, error)
	// Facts are what an analysis needs; Outgoing is what leaves the host.
	Facts(ctx context.Context) (api.Facts, error)
	Outgoing(ctx context.Context) (api.Outgoing, error)
}

// Statistics are the counters of real-time protection.
type Statistics interface {
	// RealTimeStatistics returns one counter per process, in no order.
	RealTimeStatistics(ctx context.Context) ([]api.Counter, error)
	// FollowOnAccess sends all counters at once and then every second.
	FollowOnAccess(ctx context.Context, send func(api.OnAccess) error) error
	// FollowHotEventSources counts events by "files" or "executables" while it
	// runs, and sends the counts every second.
	FollowHotEventSources(ctx context.Context, kind string, send func(api.HotEventSources) error) error
}

// EDR is the state of endpoint detection and response.
type EDR interface {
	EDR(ctx context.Context) (api.EDR, error)
	Rules(ctx context.Context) (api.Rules, error)
	SetTag(ctx context.Context, t api.Tag) error
	RemoveTag(ctx context.Context, t api.Tag) error
	SetGroup(ctx context.Context, id string) error
	SetEarlyPreview(ctx context.Context, enabled bool) error
}

// Events lets clients follow what happens.
type Events interface {
	// FollowEvents calls send for everything from now on until ctx ends or send
	// fails. A follower that is too slow loses events, never delays the agent.
	FollowEvents(ctx context.Context, send func(api.AgentEvent) error) error
}

func (s *Server) definitionsRoutes(h Definitions) {
	part := s.part("definitions", h != nil)
	read(part, "GET /v1/definitions", func(r *http.Request) (api.Definitions, error) {
		return h.Definitions(r.Context())
	})
	stream(part, "POST /v1/definitions/update", administrators, func(r *http.Request, send func(api.DefinitionsProgress) error) error {
		return h.UpdateDefinitions(r.Context(), send)
	})
	change(part, "POST /v1/definitions/reload", func(r *http.Request, _ struct{}) (api.DefinitionsResult, error) {
		return h.ReloadDefinitions(r.Context())
	})
	change(part, "POST /v1/definitions/restore", func(r *http.Request, _ struct{}) (api.DefinitionsResult, error) {
		return h.RestoreDefinitions(r.Context())
	})
	change(part, "POST /v1/definitions/path", func(r *http.Request, in api.DefinitionsPath) (api.DefinitionsResult, error) {
		if in.Path != "" {
			clean, err := cleanPath(in.Path)
			if err != nil {
				return api.DefinitionsResult{}, err
			}
			in.Path = clean
		}
		return h.SetDefinitionsPath(r.Context(), string(in.Path))
	})
}

func (s *Server) productRoutes(h ProductUpdates) {
	ask(s.part("product updates", h != nil), "POST /v1/update-check", anybody, func(r *http.Request, _ struct{}) (api.ProductUpdate, error) {
		return h.CheckProductUpdate(r.Context())
	})
}

func (s *Server) testRoutes(c Connectivity, t SelfTest) {
	stream(s.part("portal connection", c != nil), "POST /v1/connectivity-test", anybody, func(r *http.Request, send func(api.ConnectivityResult) error) error {
		return c.TestConnectivity(r.Context(), send)
	})
	stream(s.part("self-test", t != nil), "POST /v1/selftest", administrators, func(r *http.Request, send func(api.SelfTestStep) error) error {
		return t.SelfTest(r.Context(), send)
	})
}

func (s *Server) diagnosticRoutes(d Diagnostics, st Statistics) {
	change(s.part("diagnostics", d != nil), "POST /v1/diagnostics", func(r *http.Request, in api.DiagnosticRequest) (api.Diagnostic, error) {
		if in.Folder != "" {
			clean, err := cleanPath(in.Folder)
			if err != nil {
				return api.Diagnostic{}, err
			}
			in.Folder = clean
		}
		return d.CreateDiagnostic(r.Context(), in)
	})
	// Both name files, programs and users.
	ask(s.part("diagnostics", d != nil), "GET /v1/diagnostics/facts", administrators, func(r *http.Request, _ struct{}) (api.Facts, error) {
		return d.Facts(r.Context())
	})
	ask(s.part("diagnostics", d != nil), "GET /v1/diagnostics/outgoing", administrators, func(r *http.Request, _ struct{}) (api.Outgoing, error) {
		return d.Outgoing(r.Context())
	})
	read(s.part("real-time protection", st != nil), "GET /v1/statistics/real-time-protection", func(r *http.Request) (api.Statistics, error) {
		counters, err := st.RealTimeStatistics(r.Context())
		return api.Statistics{Counters: list(counters)}, err
	})
	// The names of accessed files are not for everybody.
	stream(s.part("real-time protection", st != nil), "GET /v1/statistics/on-access", administrators, func(r *http.Request, send func(api.OnAccess) error) error {
		return st.FollowOnAccess(r.Context(), send)
	})
	stream(s.part("real-time protection", st != nil), "GET /v1/statistics/hot-event-sources/{kind}", administrators, func(r *http.Request, send func(api.HotEventSources) error) error {
		return st.FollowHotEventSources(r.Context(), r.PathValue("kind"), send)
	})
}

func (s *Server) edrRoutes(h EDR) {
	part := s.part("EDR", h != nil)
	after := func(r *http.Request, err error) (api.EDR, error) {
		if err != nil {
			return api.EDR{}, err
		}
		return h.EDR(r.Context())
	}
	read(part, "GET /v1/edr", func(r *http.Request) (api.EDR, error) { return h.EDR(r.Context()) })
	read(part, "GET /v1/rules", func(r *http.Request) (api.Rules, error) { return h.Rules(r.Context()) })
	change(part, "POST /v1/edr/tags/set", func(r *http.Request, in api.Tag) (api.EDR, error) {
		return after(r, h.SetTag(r.Context(), in))
	})
	change(part, "POST /v1/edr/tags/remove", func(r *http.Request, in api.Tag) (api.EDR, error) {
		return after(r, h.RemoveTag(r.Context(), in))
	})
	change(part, "POST /v1/edr/group", func(r *http.Request, in api.GroupID) (api.EDR, error) {
		return after(r, h.SetGroup(r.Context(), in.GroupID))
	})
	change(part, "POST /v1/edr/early-preview", func(r *http.Request, in api.EarlyPreview) (api.EDR, error) {
		return after(r, h.SetEarlyPreview(r.Context(), in.Enabled))
	})
}

func (s *Server) eventRoutes(h Events) {
	stream(s.part("event feed", h != nil), "GET /v1/events", anybody, func(r *http.Request, send func(api.AgentEvent) error) error {
		return h.FollowEvents(r.Context(), send)
	})
}
