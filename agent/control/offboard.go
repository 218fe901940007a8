package control

import (
	"context"
	"net/http"

	api "github.com/bulwarkhq/bulwark/api/control"
)

// Offboard takes the host out of its portal.
type Offboard interface {
	// Offboard deletes what is of the portal. Conflict when the host is not
	// enrolled.
	Offboard(ctx context.Context) (api.Done, error)
}

func (s *Server) offboardRoutes(h Offboard) {
	change(s.part("portal connection", h != nil), "POST /v1/offboard", func(r *http.Request, _ struct{}) (api.Done, error) {
		return h.Offboard(r.Context())
	})
}
