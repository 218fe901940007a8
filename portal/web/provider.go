package web

import (
	"errors"
	"net/http"

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
	cookie, u, err := s.cfg.Accounts.SignInExternal(r.Context(), account.External{Issuer: id.Issuer, Subject: id.Subject, Name: id.Name, Role: id.Role}, address(r), r.UserAgent())
	if errors.Is(err, account.ErrSignIn) {
		return s.showSignIn(w, r, http.StatusForbidden, signInPage{Next: "/"}, "Your account in this portal is disabled. An administrator can enable it.")
	}
	if err != nil {
		return err
	}
	return s.signedIn(w, r, cookie, u, next)
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
