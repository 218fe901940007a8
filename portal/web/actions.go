package web

import (
	"net/http"
	"strings"

	"github.com/bulwarkhq/bulwark/portal/access"
	"github.com/bulwarkhq/bulwark/portal/action"
	"github.com/bulwarkhq/bulwark/portal/query"
)

type actionsPage struct {
	listing
	Statuses  []string
	Actions   []action.Action
	MayCancel bool
	CSRF      string
}

func (s *Site) actions(w http.ResponseWriter, r *http.Request) error {
	l := newListing(r.URL, []string{"status"}, []string{"creationDateTimeUtc", "status", "computerDnsName", "requestor", "type"}, "-creationDateTimeUtc")
	filter := query.All(l.contains("computerDnsName", "requestor", "type", "id"), l.equals("status", "status", action.Statuses()))
	list, total, err := s.cfg.Actions.List(r.Context(), l.query(filter))
	if err != nil {
		return err
	}
	l.Total, l.Shown = total, len(list)
	return s.render(w, r, http.StatusOK, "actions", frame{Title: "Actions", Section: "actions", Page: actionsPage{
		l, action.Statuses(), list, access.From(r.Context()).May(access.MachineScan), visitOf(r.Context()).session.CSRF,
	}})
}

func (s *Site) orderScan(w http.ResponseWriter, r *http.Request) error {
	p := access.From(r.Context())
	id := r.PathValue("id")
	if _, err := s.cfg.Actions.Scan(r.Context(), id, r.PostForm.Get("type"), r.PostForm.Get("comment"), p.Name, p.Address); err != nil {
		return err
	}
	redirect(w, r, "/devices/"+id+"#actions")
	return nil
}

func (s *Site) cancelAction(w http.ResponseWriter, r *http.Request) error {
	p := access.From(r.Context())
	if _, err := s.cfg.Actions.Cancel(r.Context(), r.PathValue("id"), r.PostForm.Get("comment"), p.Name, p.Address); err != nil {
		return err
	}
	redirect(w, r, "/actions")
	return nil
}

func upperFirst(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}
