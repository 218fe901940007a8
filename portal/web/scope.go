package web

import (
	"net/http"
	"slices"
	"strings"

	"github.com/bulwarkhq/bulwark/portal/fleet"
)

// scopeForm are the device groups that a user or a token may be limited to.
type scopeForm struct {
	Limited bool
	Groups  []scopeGroup
}

type scopeGroup struct {
	ID, Name string
	On       bool
}

// newScopeForm shows the groups, those of ids as chosen. A group that is deleted
// stays in it: without it a user of no other would be one for all devices.
func newScopeForm(groups []fleet.Group, ids []string) scopeForm {
	f := scopeForm{Limited: len(ids) > 0}
	for _, g := range groups {
		f.Groups = append(f.Groups, scopeGroup{g.ID, g.Name, slices.Contains(ids, g.ID)})
	}
	for _, id := range ids {
		if !slices.ContainsFunc(groups, func(g fleet.Group) bool { return g.ID == id }) {
			f.Groups = append(f.Groups, scopeGroup{id, "deleted group " + id, true})
		}
	}
	return f
}

// String names the devices.
func (f scopeForm) String() string {
	if !f.Limited {
		return "all"
	}
	var names []string
	for _, g := range f.Groups {
		if g.On {
			names = append(names, g.Name)
		}
	}
	return strings.Join(names, ", ")
}

// scopeOf reads the form.
func (s *Site) scopeOf(r *http.Request) ([]string, error) {
	ids := r.PostForm["group"]
	switch r.PostForm.Get("devices") {
	case "all":
		return nil, nil
	case "groups":
		if len(ids) == 0 {
			return nil, &invalid{http.StatusBadRequest, "Choose the device groups, or all devices."}
		}
		return ids, nil
	}
	return nil, &invalid{http.StatusBadRequest, "The form is incomplete: load the page again."}
}
