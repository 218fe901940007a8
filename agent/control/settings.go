package control

import (
	"context"
	"net/http"
	"slices"

	api "github.com/bulwarkhq/bulwark/api/control"
)

// Config is the configuration with the origin of every value.
type Config interface {
	Settings(ctx context.Context) (api.Settings, error)
	// Setting, Set and Unset: NotFound for an unknown key (naming the nearest),
	// InvalidArgument for a value outside its type or range, Managed for a
	// setting that policy governs.
	Setting(ctx context.Context, key string) (api.Setting, error)
	Set(ctx context.Context, r api.SetRequest) (api.Setting, error)
	Unset(ctx context.Context, key string) (api.Setting, error)
}

// Exclusions are the exclusions of all origins; changes concern the local ones.
type Exclusions interface {
	Exclusions(ctx context.Context) ([]api.Exclusion, error)
	// AddExclusion returns the exclusion as stored, with a warning where it will
	// not do what it seems to say.
	AddExclusion(ctx context.Context, e api.Exclusion) (api.Exclusion, error)
	RemoveExclusion(ctx context.Context, e api.Exclusion) (api.Exclusion, error)
	TestExclusion(ctx context.Context, q api.ExclusionQuery) (api.ExclusionAnswer, error)
}

// Log is the daemon's log.
type Log interface {
	LogLevel(ctx context.Context) (api.LogLevel, error)
	SetLogLevel(ctx context.Context, l api.LogLevel) (api.LogLevel, error)
}

func (s *Server) configRoutes(h Config) {
	part := s.part("configuration", h != nil)
	read(part, "GET /v1/config", func(r *http.Request) (api.Settings, error) {
		return h.Settings(r.Context())
	})
	read(part, "GET /v1/config/{key}", func(r *http.Request) (api.Setting, error) {
		return h.Setting(r.Context(), r.PathValue("key"))
	})
	change(part, "POST /v1/config/set", func(r *http.Request, in api.SetRequest) (api.Setting, error) {
		if in.Key == "" || len(in.Value) == 0 {
			return api.Setting{}, invalid("want a key and a value")
		}
		return h.Set(r.Context(), in)
	})
	change(part, "POST /v1/config/unset", func(r *http.Request, in api.SettingKey) (api.Setting, error) {
		return h.Unset(r.Context(), in.Key)
	})
}

func (s *Server) exclusionRoutes(h Exclusions) {
	part := s.part("exclusions", h != nil)
	read(part, "GET /v1/exclusions", func(r *http.Request) (api.Exclusions, error) {
		exclusions, err := h.Exclusions(r.Context())
		return api.Exclusions{Exclusions: list(exclusions)}, err
	})
	change(part, "POST /v1/exclusions/add", func(r *http.Request, in api.Exclusion) (api.Exclusion, error) {
		return h.AddExclusion(r.Context(), in)
	})
	change(part, "POST /v1/exclusions/remove", func(r *http.Request, in api.Exclusion) (api.Exclusion, error) {
		return h.RemoveExclusion(r.Context(), in)
	})
	ask(part, "POST /v1/exclusions/test", anybody, func(r *http.Request, in api.ExclusionQuery) (api.ExclusionAnswer, error) {
		clean, err := cleanPath(in.Path)
		if err != nil {
			return api.ExclusionAnswer{}, err
		}
		in.Path = clean
		return h.TestExclusion(r.Context(), in)
	})
}

// edrExclusionRoutes answers which exclusions EDR obeys: those of the scope
// global. What EDR does not see is nothing for everybody to know.
func (s *Server) edrExclusionRoutes(h Exclusions) {
	part := s.part("exclusions", h != nil)
	ask(part, "GET /v1/edr/exclusions", administrators, func(r *http.Request, _ struct{}) (api.Exclusions, error) {
		all, err := h.Exclusions(r.Context())
		all = slices.DeleteFunc(all, func(x api.Exclusion) bool { return !slices.Contains(x.Scopes, "global") })
		return api.Exclusions{Exclusions: list(all)}, err
	})
}

func (s *Server) logRoutes(h Log) {
	part := s.part("log", h != nil)
	read(part, "GET /v1/log/level", func(r *http.Request) (api.LogLevel, error) {
		return h.LogLevel(r.Context())
	})
	change(part, "POST /v1/log/level", func(r *http.Request, in api.LogLevel) (api.LogLevel, error) {
		return h.SetLogLevel(r.Context(), in)
	})
}
