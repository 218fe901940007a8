package rest

import "net/http"

// settings tells what the portal is made of and how it fares.
func (a *API) settings(w http.ResponseWriter, r *http.Request) error {
	a.write(w, http.StatusOK, a.cfg.Status.Report(r.Context()))
	return nil
}
