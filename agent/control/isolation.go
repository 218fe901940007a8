package control

import (
	"context"
	"net/http"

	api "github.com/bulwarkhq/bulwark/api/control"
)

// Isolation is the host's isolation from the network.
type Isolation interface {
	Isolation(ctx context.Context) (api.Isolation, error)
	// ReleaseIsolation ends it with a token that the portal signed. Conflict when
	// the host is not isolated, PermissionDenied for a token that is not good.
	ReleaseIsolation(ctx context.Context, token string) (api.Done, error)
}

func (s *Server) isolationRoutes(h Isolation) {
	p := s.part("isolation", h != nil)
	read(p, "GET /v1/isolation", func(r *http.Request) (api.Isolation, error) {
		i, err := h.Isolation(r.Context())
		i.Allowed, i.Portal = list(i.Allowed), list(i.Portal)
		return i, err
	})
	change(p, "POST /v1/isolation/release", func(r *http.Request, in api.ReleaseToken) (api.Done, error) {
		if in.Token == "" {
			return api.Done{}, invalid("a release token is wanted")
		}
		return h.ReleaseIsolation(r.Context(), in.Token)
	})
}
