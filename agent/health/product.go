package health

import (
	"context"
	"fmt"
	"runtime"
	"time"

	api "github.com/bulwarkhq/bulwark/api/control"
)

// Product describes the running program.
type Product struct {
	Version string
	Commit  string
	// Built is when; the zero time for builds that do not expire (from source,
	// without a stamp).
	Built       time.Time
	Ring        string // Production, External, InsiderFast, Dogfood
	MachineGUID string
}

// monthsOfLife is how long a build is good for.
const monthsOfLife = 9

// expiryWarning is how long before that a warning begins.
const expiryWarning = 30 * 24 * time.Hour

// Expires is when the build expires; zero for never.
func (p Product) Expires() time.Time {
	if p.Built.IsZero() {
		return time.Time{}
	}
	return p.Built.AddDate(0, monthsOfLife, 0)
}

// Expiry says how a build stands at a time: never, valid, expires_soon or expired.
func (p Product) Expiry(now time.Time) string {
	expires := p.Expires()
	switch left := expires.Sub(now); {
	case expires.IsZero():
		return api.ExpiryNever
	case left <= 0:
		return api.ExpiryExpired
	case left < expiryWarning:
		return api.ExpirySoon
	}
	return api.ExpiryValid
}

// Source reports about the product. An expired build keeps protecting and
// keeps getting definitions: only the health says so.
func (p Product) Source(now func() time.Time) Source {
	return func(context.Context) Report {
		r := Report{Fill: func(h *api.Health) {
			h.AppVersion, h.EDRClientVersion = p.Version, p.Version
			h.MachineGUID, h.ProductExpiration = p.MachineGUID, p.Expires()
			if p.Ring != "" {
				h.ReleaseRing = p.Ring
			}
		}}
		expires := p.Expires()
		r.Details = []api.Field{
			{Name: "product_version", Value: p.Version},
			{Name: "product_expiration_status", Value: p.Expiry(now())},
		}
		if !expires.IsZero() {
			r.Details = append(r.Details, api.Field{Name: "product_built", Value: p.Built.UTC().Format(time.RFC3339)}, api.Field{Name: "product_expiration", Value: expires.UTC().Format(time.RFC3339)})
		}
		if expires.IsZero() {
			return r
		}
		const remedy = "install the current package: apt-get install --only-upgrade bulwark, yum update bulwark or zypper update bulwark"
		switch p.Expiry(now()) {
		case api.ExpiryExpired:
			r.Issues = append(r.Issues, api.Issue{
				ID: ProductExpired, State: api.StateExpired,
				Message: fmt.Sprintf("version %s expired on %s; it keeps protecting and keeps getting definitions", p.Version, expires.UTC().Format(time.DateOnly)),
				Remedy:  remedy,
			})
		case api.ExpirySoon:
			r.Issues = append(r.Issues, api.Issue{
				ID: "product expires soon", Warning: true,
				Message: fmt.Sprintf("version %s expires on %s", p.Version, expires.UTC().Format(time.DateOnly)), Remedy: remedy,
			})
		}
		return r
	}
}

// Versions returns what `bulwark version` shows, with the engine's and the
// definitions' versions from health.
func (p Product) Versions(h api.Health) api.Version {
	return api.Version{App: p.Version, Engine: h.EngineVersion, Definitions: h.DefinitionsVersion, Commit: p.Commit, Go: runtime.Version()}
}

// NotEnrolled is the issue of a host without an onboarding package.
func NotEnrolled(path string) api.Issue {
	return api.Issue{
		ID: MissingLicense, Component: "portal", State: api.StateNotEnrolled,
		Message: "this host is not enrolled: there is no onboarding package at " + path,
		Remedy:  "download the onboarding package in the portal and put it there; no restart is needed",
	}
}

// PortalUnreachable is the issue of a portal that has not answered since the
// given time (zero for never).
func PortalUnreachable(url string, lastSeen time.Time, err error) api.Issue {
	when := "has never answered"
	if !lastSeen.IsZero() {
		when = "has not answered since " + lastSeen.UTC().Format(time.RFC3339)
	}
	return api.Issue{
		ID: Unreachable, Component: "portal", State: api.StateUnreachable,
		Message: fmt.Sprintf("the portal %s %s: %v", url, when, err),
		Remedy:  "run `bulwark connectivity test`; events are kept and delivered when it answers again",
	}
}
