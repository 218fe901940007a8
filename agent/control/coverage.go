package control

import (
	"context"
	"net/http"

	api "github.com/bulwarkhq/bulwark/api/control"
)

// Coverage proves on which mounts real-time protection works.
type Coverage interface {
	// Coverage is the last result; Checked is zero when there is none.
	Coverage(ctx context.Context) (api.Coverage, error)
	// CheckCoverage tries every mount now. Conflict when a check is running.
	CheckCoverage(ctx context.Context) (api.Coverage, error)
}

func (s *Server) coverageRoutes(h Coverage) {
	part := s.part("coverage check", h != nil)
	answer := func(c api.Coverage, err error) (api.Coverage, error) {
		c.Mounts, c.Problems = list(c.Mounts), list(c.Problems)
		return c, err
	}
	read(part, "GET /v1/coverage", func(r *http.Request) (api.Coverage, error) {
		return answer(h.Coverage(r.Context()))
	})
	change(part, "POST /v1/coverage", func(r *http.Request, _ struct{}) (api.Coverage, error) {
		return answer(h.CheckCoverage(r.Context()))
	})
}
