package control

import (
	"context"
	"net/http"

	api "github.com/bulwarkhq/bulwark/api/control"
)

// Threats is the protection history, the allow list and what to do with each
// type of threat.
type Threats interface {
	// ListThreats returns the history, newest first.
	ListThreats(ctx context.Context) ([]api.Threat, error)
	// Threat returns one by tracking id; NotFound for an unknown one.
	Threat(ctx context.Context, id string) (api.Threat, error)
	AllowedThreats(ctx context.Context) ([]api.AllowedThreat, error)
	// AllowThreat and DisallowThreat change the local allow list. Managed when
	// policy forbids it, NotFound when there is nothing to remove.
	AllowThreat(ctx context.Context, t api.ThreatName) error
	DisallowThreat(ctx context.Context, t api.ThreatName) error
	ThreatPolicies(ctx context.Context) ([]api.ThreatPolicy, error)
	SetThreatPolicy(ctx context.Context, p api.ThreatPolicy) error
}

// Quarantine keeps infected files where they do no harm.
type Quarantine interface {
	// ListQuarantine returns the items, newest first.
	ListQuarantine(ctx context.Context) ([]api.QuarantineItem, error)
	// AddToQuarantine moves the file of a threat there: of its id, or of t.Path,
	// which is clean and absolute.
	AddToQuarantine(ctx context.Context, t api.ThreatID) error
	// RemoveFromQuarantine deletes one item for good: that of the id, or the
	// newest of the path.
	RemoveFromQuarantine(ctx context.Context, t api.ThreatID) error
	EmptyQuarantine(ctx context.Context) (removed int, err error)
	// RestoreFromQuarantine takes the item of r.ID, or the newest of r.Path,
	// out. r.Destination is clean and absolute, or empty for the original
	// folder. Conflict when a file is in the way.
	RestoreFromQuarantine(ctx context.Context, r api.RestoreRequest) (api.Restored, error)
}

func (s *Server) threatRoutes(h Threats) {
	part := s.part("threat history", h != nil)
	read(part, "GET /v1/threats", func(r *http.Request) (api.ThreatList, error) {
		threats, err := h.ListThreats(r.Context())
		return api.ThreatList{Threats: list(threats)}, err
	})
	read(part, "GET /v1/threats/{id}", func(r *http.Request) (api.Threat, error) {
		return h.Threat(r.Context(), r.PathValue("id"))
	})
	read(part, "GET /v1/threats/allowed", func(r *http.Request) (api.AllowedThreats, error) {
		allowed, err := h.AllowedThreats(r.Context())
		return api.AllowedThreats{Allowed: list(allowed)}, err
	})
	change(part, "POST /v1/threats/allowed/add", func(r *http.Request, in api.ThreatName) (api.Done, error) {
		if err := checkThreatName(in); err != nil {
			return api.Done{}, err
		}
		return api.Done{Message: "Threat allowed"}, h.AllowThreat(r.Context(), in)
	})
	change(part, "POST /v1/threats/allowed/remove", func(r *http.Request, in api.ThreatName) (api.Done, error) {
		if err := checkThreatName(in); err != nil {
			return api.Done{}, err
		}
		return api.Done{Message: "Threat no longer allowed"}, h.DisallowThreat(r.Context(), in)
	})
	read(part, "GET /v1/threats/policy", func(r *http.Request) (api.ThreatPolicies, error) {
		policies, err := h.ThreatPolicies(r.Context())
		return api.ThreatPolicies{Policies: list(policies)}, err
	})
	change(part, "POST /v1/threats/policy", func(r *http.Request, in api.ThreatPolicy) (api.Done, error) {
		return api.Done{Message: "Configuration property updated"}, h.SetThreatPolicy(r.Context(), in)
	})
}

func checkThreatName(t api.ThreatName) error {
	if (t.Name == "") == (t.SHA256 == "") {
		return invalid("want a threat name or a SHA-256, one of them")
	}
	if t.SHA256 != "" && !isHex(t.SHA256, 64) {
		return invalid("SHA-256 %q: want 64 hexadecimal digits", t.SHA256)
	}
	return nil
}

func checkThreatID(t *api.ThreatID) error {
	if (t.ID == "") == (t.Path == "") {
		return invalid("want the id or the path of a threat, one of them")
	}
	if t.Path == "" {
		return nil
	}
	clean, err := cleanPath(t.Path)
	t.Path = clean
	return err
}

func isHex(s string, n int) bool {
	if len(s) != n {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if !(c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F') {
			return false
		}
	}
	return true
}

func (s *Server) quarantineRoutes(h Quarantine) {
	part := s.part("quarantine", h != nil)
	read(part, "GET /v1/quarantine", func(r *http.Request) (api.QuarantineList, error) {
		items, err := h.ListQuarantine(r.Context())
		return api.QuarantineList{Items: list(items)}, err
	})
	change(part, "POST /v1/quarantine/add", func(r *http.Request, in api.ThreatID) (api.Done, error) {
		if err := checkThreatID(&in); err != nil {
			return api.Done{}, err
		}
		return api.Done{Message: "Threat quarantined"}, h.AddToQuarantine(r.Context(), in)
	})
	change(part, "POST /v1/quarantine/remove", func(r *http.Request, in api.ThreatID) (api.Done, error) {
		if err := checkThreatID(&in); err != nil {
			return api.Done{}, err
		}
		return api.Done{Message: "Quarantined file removed"}, h.RemoveFromQuarantine(r.Context(), in)
	})
	change(part, "POST /v1/quarantine/remove-all", func(r *http.Request, _ struct{}) (api.Removed, error) {
		n, err := h.EmptyQuarantine(r.Context())
		return api.Removed{Count: n}, err
	})
	change(part, "POST /v1/quarantine/restore", func(r *http.Request, in api.RestoreRequest) (api.Restored, error) {
		if (in.ID == "") == (in.Path == "") {
			return api.Restored{}, invalid("want the id or the original path of a quarantined file, one of them")
		}
		for _, p := range []*api.Path{&in.Path, &in.Destination} {
			if *p == "" {
				continue
			}
			clean, err := cleanPath(*p)
			if err != nil {
				return api.Restored{}, err
			}
			*p = clean
		}
		return h.RestoreFromQuarantine(r.Context(), in)
	})
}
