package web

import (
	"errors"
	"fmt"
	"net/http"
	"slices"

	"github.com/bulwarkhq/bulwark/portal/account"
	"github.com/bulwarkhq/bulwark/portal/identity"
)

// flowCookie holds a sign-in while the browser is at the identity provider.
const flowCookie = "__Host-bulwark-provider"

var errNoProvider = &invalid{http.StatusNotFound, "This portal has no identity provider."}

func (s *Site) beginProvider(w http.ResponseWriter, r *http.Request) error {
	if s.cfg.Provider == nil {
		return errNoProvider
	}
	location, keep, err := s.cfg.Provider.Begin(r.Context(), nextPath(r.URL.Query().Get("next")))
	if err != nil {
		return s.refuseProvider(w, r, err)
	}
	sendCookie(w, flowCookie, keep, identity.Lifetime)
	http.Redirect(w, r, location, http.StatusSeeOther)
	return nil
}

func (s *Site) finishProvider(w http.ResponseWriter, r *http.Request) error {
	if s.cfg.Provider == nil {
		return errNoProvider
	}
	keep := ""
	if c, err := r.Cookie(flowCookie); err == nil {
		keep = c.Value
	}
	id, next, err := s.cfg.Provider.Finish(r.Context(), keep, r.URL.Query())
	if err != nil {
		return s.refuseProvider(w, r, err)
	}
	sendCookie(w, flowCookie, "", 0)
	devices, err := s.devicesOf(r, id)
	if err != nil {
		return s.refuseProvider(w, r, err)
	}
	cookie, u, err := s.cfg.Accounts.SignInExternal(r.Context(), account.External{
		Issuer: id.Issuer, Subject: id.Subject, Name: id.Name, Role: id.Role, DecidesGroups: id.DecidesDevices, Groups: devices,
	}, address(r), r.UserAgent())
	if errors.Is(err, account.ErrSignIn) {
		return s.showSignIn(w, r, http.StatusForbidden, signInPage{Next: "/"}, "Your account in this portal is disabled. An administrator can enable it.")
	}
	if err != nil {
		return err
	}
	return s.signedIn(w, r, cookie, u, next)
}

// devicesOf finds the device groups that the provider names. It refuses somebody of
// whose there are none, who would otherwise be for all devices, or of too many.
func (s *Site) devicesOf(r *http.Request, id identity.Identity) (ids []string, err error) {
	if len(id.Devices) == 0 {
		return nil, nil
	}
	groups, err := s.cfg.Fleet.Groups(r.Context())
	if err != nil {
		return nil, err
	}
	for _, g := range groups {
		if slices.Contains(id.Devices, g.Name) {
			ids = append(ids, g.ID)
		}
	}
	if missing := len(id.Devices) - len(ids); missing > 0 {
		s.cfg.Logger.WarnContext(r.Context(), "device groups of an identity provider's groups are not there", "user", id.Name, "wanted", id.Devices, "missing", missing)
	}
	switch {
	case len(ids) == 0:
		return nil, &identity.Refused{Reason: fmt.Sprintf("none of the device groups of %s is there: %.500q", id.Name, id.Devices), Public: "The device groups that your groups have in this portal are not there. An administrator can make them.", Subject: id.Subject}
	case len(ids) > account.MaxGroups:
		return nil, &identity.Refused{Reason: fmt.Sprintf("%s has %d device groups, more than %d", id.Name, len(ids), account.MaxGroups), Public: fmt.Sprintf("Your groups have more than %d device groups in this portal.", account.MaxGroups), Subject: id.Subject}
	}
	return ids, nil
}

// refuseProvider shows the sign-in page with what went wrong. What was not begun
// here is not worth an entry in the audit log.
func (s *Site) refuseProvider(w http.ResponseWriter, r *http.Request, err error) error {
	var no *identity.Refused
	switch {
	case errors.As(err, &no):
		s.cfg.Logger.WarnContext(r.Context(), "a sign-in with the identity provider was refused", "from", r.RemoteAddr, "reason", no.Reason)
		if no.Subject != "" {
			if err := s.cfg.Accounts.RefusedExternal(r.Context(), no.Subject, address(r), no.Reason); err != nil {
				return err
			}
		}
		return s.showSignIn(w, r, http.StatusForbidden, signInPage{Next: "/"}, no.Public)
	case errors.Is(err, identity.ErrUnavailable):
		s.cfg.Logger.ErrorContext(r.Context(), "the identity provider failed", "error", err)
		return s.showSignIn(w, r, http.StatusBadGateway, signInPage{Next: "/"}, "The identity provider does not answer as it should. The portal's log says why.")
	}
	return err
}

// showSignIn shows the sign-in page, with what ways there are.
func (s *Site) showSignIn(w http.ResponseWriter, r *http.Request, status int, p signInPage, problem string) error {
	p.Local = !s.cfg.Accounts.LocalOff()
	if s.cfg.Provider != nil {
		p.Provider = s.cfg.Provider.Name()
		if r.URL.Query().Has("signed-out") {
			p.SignOut = s.cfg.Provider.SignOut()
		}
	}
	return s.render(w, r, status, "sign-in", frame{Title: "Sign in", Problem: problem, Page: p})
}

// signedOut is where somebody goes who has signed out.
func signedOut(u account.User) string {
	if u.Issuer != "" {
		return "/sign-in?signed-out=1"
	}
	return "/sign-in"
}
