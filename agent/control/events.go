package control

import (
	"context"
	"net/http"

	api "github.com/bulwarkhq/bulwark/api/control"
)

// EventStatistics counts what the sensors deliver.
type EventStatistics interface {
	// FollowEventStatistics counts while it runs and sends the counts every
	// second.
	FollowEventStatistics(ctx context.Context, send func(api.EventStatistics) error) error
}

func (s *Server) eventStatisticsRoutes(h EventStatistics) {
	// Who executes what is not for everybody.
	stream(s.part("event statistics", h != nil), "GET /v1/statistics/events", administrators, func(r *http.Request, send func(api.EventStatistics) error) error {
		return h.FollowEventStatistics(r.Context(), send)
	})
}
