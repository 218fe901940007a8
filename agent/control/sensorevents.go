package control

import (
	"context"
	"fmt"
	"net/http"
	"strconv"

	api "github.com/bulwarkhq/bulwark/api/control"
)

// SensorEvents shows what the sensors deliver.
type SensorEvents interface {
	RecentEvents(ctx context.Context, f api.EventFilter) (api.SensorEvents, error)
	FollowSensorEvents(ctx context.Context, f api.EventFilter, send func(api.SensorEvents) error) error
	ProcessTree(ctx context.Context, pid int64) (api.ProcessTree, error)
}

// maxFilterText bounds the text of a filter.
const maxFilterText = 1024

func (s *Server) sensorEventRoutes(h SensorEvents) {
	part := s.part("sensor events", h != nil)
	// What everybody executes and opens is not for everybody.
	part.handle("GET /v1/edr/events", administrators, func(w http.ResponseWriter, r *http.Request) error {
		f, err := eventFilter(r)
		if err != nil {
			return err
		}
		out, err := h.RecentEvents(r.Context(), f)
		if err != nil {
			return err
		}
		return write(w, out)
	})
	stream(part, "GET /v1/edr/events/follow", administrators, func(r *http.Request, send func(api.SensorEvents) error) error {
		f, err := eventFilter(r)
		if err != nil {
			return err
		}
		return h.FollowSensorEvents(r.Context(), f, send)
	})
	part.handle("GET /v1/edr/tree/{pid}", administrators, func(w http.ResponseWriter, r *http.Request) error {
		pid, err := strconv.ParseInt(r.PathValue("pid"), 10, 32)
		if err != nil || pid <= 0 {
			return &api.Error{Code: api.InvalidArgument, Message: fmt.Sprintf("%q is no process id: want a whole number from 1", r.PathValue("pid"))}
		}
		out, err := h.ProcessTree(r.Context(), pid)
		if err != nil {
			return err
		}
		return write(w, out)
	})
}

func eventFilter(r *http.Request) (api.EventFilter, error) {
	q := r.URL.Query()
	f := api.EventFilter{Category: q.Get("category"), Action: q.Get("action"), Text: q.Get("text")}
	if len(f.Category)+len(f.Action)+len(f.Text) > maxFilterText {
		return f, &api.Error{Code: api.InvalidArgument, Message: fmt.Sprintf("the filter is longer than %d bytes", maxFilterText)}
	}
	if text := q.Get("pid"); text != "" {
		pid, err := strconv.ParseInt(text, 10, 32)
		if err != nil || pid <= 0 {
			return f, &api.Error{Code: api.InvalidArgument, Message: fmt.Sprintf("pid %q: want a whole number from 1", text)}
		}
		f.PID = pid
	}
	return f, nil
}
