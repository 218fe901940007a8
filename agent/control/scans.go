package control

import (
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"

	api "github.com/bulwarkhq/bulwark/api/control"
)

// CurrentScan is the id that stands for the running scan.
const CurrentScan = "current"

const (
	maxScanPaths = 1000
	maxPathBytes = 4096 // PATH_MAX
)

// Scans runs on-demand scans.
type Scans interface {
	// StartScan starts a scan and returns at once. The request is valid and its
	// paths are absolute and clean. Conflict when a scan is running, NotFound
	// when a path does not exist. The scan does not depend on ctx.
	StartScan(ctx context.Context, r api.ScanRequest) (api.Scan, error)
	// CancelScan cancels and waits for the end. NotFound when id (or
	// CurrentScan) is not running.
	CancelScan(ctx context.Context, id string) (api.Scan, error)
	// FollowScan calls send with the state now and after every change that is
	// worth showing (a few times per second), until the scan has ended: the
	// last state is final. It returns when ctx ends or send fails. For a scan
	// that has ended it sends one state.
	FollowScan(ctx context.Context, id string, send func(api.ScanProgress) error) error
	// ScanHistory returns all known scans, newest first.
	ScanHistory(ctx context.Context) ([]api.Scan, error)
	// Scan returns one with what it left out; NotFound for an unknown id.
	Scan(ctx context.Context, id string) (api.ScanDetails, error)
}

func (s *Server) scanRoutes(h Scans) {
	part := s.part("scanner", h != nil)
	change(part, "POST /v1/scans", func(r *http.Request, in api.ScanRequest) (api.Scan, error) {
		if err := checkScan(&in); err != nil {
			return api.Scan{}, err
		}
		return h.StartScan(r.Context(), in)
	})
	read(part, "GET /v1/scans", func(r *http.Request) (api.ScanList, error) {
		scans, err := h.ScanHistory(r.Context())
		return api.ScanList{Scans: list(scans)}, err
	})
	read(part, "GET /v1/scans/{id}", func(r *http.Request) (api.ScanDetails, error) {
		return h.Scan(r.Context(), r.PathValue("id"))
	})
	stream(part, "GET /v1/scans/{id}/progress", anybody, func(r *http.Request, send func(api.ScanProgress) error) error {
		return h.FollowScan(r.Context(), r.PathValue("id"), send)
	})
	change(part, "POST /v1/scans/{id}/cancel", func(r *http.Request, _ struct{}) (api.Scan, error) {
		return h.CancelScan(r.Context(), r.PathValue("id"))
	})
}

func checkScan(r *api.ScanRequest) error {
	switch r.Type {
	case api.ScanQuick, api.ScanFull, api.ScanProcesses:
		if len(r.Paths) > 0 {
			return invalid("a %s scan takes no paths", r.Type)
		}
	case api.ScanCustom:
		if len(r.Paths) == 0 {
			return invalid("a custom scan needs a path")
		}
	default:
		return invalid("scan type %q: want quick, full, custom or processes", r.Type)
	}
	if len(r.Paths) > maxScanPaths {
		return &api.Error{Code: api.TooLarge, Message: fmt.Sprintf("%d paths: a scan takes at most %d", len(r.Paths), maxScanPaths)}
	}
	if r.Threads < 0 || r.Threads > 64 {
		return invalid("threads %d: want 0 to 64", r.Threads)
	}
	for i, p := range r.Paths {
		clean, err := cleanPath(p)
		if err != nil {
			return err
		}
		r.Paths[i] = clean
	}
	return nil
}

// cleanPath checks that a path from a request is absolute and can exist.
func cleanPath(p api.Path) (api.Path, error) {
	switch {
	case len(p) > maxPathBytes:
		return "", &api.Error{Code: api.TooLarge, Message: fmt.Sprintf("a path of %d bytes: the system's limit is %d", len(p), maxPathBytes)}
	case strings.ContainsRune(string(p), 0):
		return "", invalid("path %q contains a NUL byte", string(p))
	case !filepath.IsAbs(string(p)):
		return "", invalid("path %q is not absolute", string(p))
	}
	return api.Path(filepath.Clean(string(p))), nil
}
