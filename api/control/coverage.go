package control

import (
	"context"
	"time"
)

// Coverage is on which mounts real-time protection was proven to work, by
// opening a harmless probe file on each.
type Coverage struct {
	// Checked is when; absent when no check was made yet.
	Checked    time.Time `json:"checked,omitzero"`
	DurationMS float64   `json:"duration_ms"`
	// Namespaces is the number of mount namespaces.
	Namespaces int `json:"namespaces"`
	// Percent is Protected of Protected, Unprotected and Unproven together.
	Percent       float64 `json:"protected_percent"`
	Protected     int     `json:"protected"`
	Unprotected   int     `json:"unprotected"`
	Unproven      int     `json:"unproven"`
	NotApplicable int     `json:"not_applicable"`

	Mounts []CoverageMount `json:"mounts"`
	// Problems are mount tables that could not be read.
	Problems []string `json:"problems"`
}

// CoverageMount is one mount of one mount namespace.
type CoverageMount struct {
	Point      Path   `json:"mount"`
	Filesystem string `json:"filesystem"`
	// Namespace is the kernel's number of the mount namespace; PID and Process
	// are a member of it, absent for the daemon's own.
	Namespace string `json:"namespace"`
	PID       int    `json:"pid,omitempty"`
	Process   Path   `json:"process,omitempty"`
	// Status: protected, unprotected, unproven (the probe could not be made),
	// not_applicable (read-only, or no place for files).
	Status string `json:"status"`
	// Reason says why the mount is not protected.
	Reason string `json:"reason,omitempty"`
}

// Coverage asks for the last coverage result.
func (c *Client) Coverage(ctx context.Context) (Coverage, error) {
	return call[Coverage](ctx, c, "GET", "/v1/coverage", nil)
}

// CheckCoverage tries every mount now.
func (c *Client) CheckCoverage(ctx context.Context) (Coverage, error) {
	return call[Coverage](ctx, c, "POST", "/v1/coverage", struct{}{})
}
