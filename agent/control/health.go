package control

import (
	"context"
	"net/http"

	api "github.com/bulwarkhq/bulwark/api/control"
)

// Health tells the agent's condition.
type Health interface {
	Version(ctx context.Context) (api.Version, error)
	Health(ctx context.Context) (api.Health, error)
	// HealthDetails returns the fields of a component; NotFound (listing the
	// components) for an unknown one.
	HealthDetails(ctx context.Context, component string) (api.HealthDetails, error)
}

func (s *Server) healthRoutes(h Health) {
	part := s.part("health", h != nil)
	read(part, "GET /v1/version", func(r *http.Request) (api.Version, error) {
		return h.Version(r.Context())
	})
	read(part, "GET /v1/health", func(r *http.Request) (api.Health, error) {
		return h.Health(r.Context())
	})
	read(part, "GET /v1/health/{component}", func(r *http.Request) (api.HealthDetails, error) {
		return h.HealthDetails(r.Context(), r.PathValue("component"))
	})
}
