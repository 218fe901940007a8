package web

import (
	"errors"
	"net/http"
	"net/url"
	"strings"

	"github.com/bulwarkhq/bulwark/portal/access"
	"github.com/bulwarkhq/bulwark/portal/account"
)

type signInPage struct {
	Next, Name string
	// Local is whether accounts with passwords can sign in, Provider the name of
	// the identity provider if there is one.
	Local    bool
	Provider string
	// SignOut is where to sign out at the provider too.
	SignOut string
}

func (s *Site) signInPage(w http.ResponseWriter, r *http.Request) error {
	if access.From(r.Context()).Kind != "" {
		redirect(w, r, "/")
		return nil
	}
	return s.showSignIn(w, r, http.StatusOK, signInPage{Next: nextPath(r.URL.Query().Get("next"))}, "")
}

// nextPath returns a path of this site, never another site's address.
func nextPath(s string) string {
	u, err := url.Parse(s)
	if err != nil || u.IsAbs() || u.Host != "" || u.User != nil || !strings.HasPrefix(u.Path, "/") || strings.HasPrefix(u.Path, "//") ||
		strings.ContainsAny(s, "\\\r\n\t") || len(s) > 2000 || strings.HasPrefix(u.Path, "/sign-") {
		return "/"
	}
	return u.RequestURI()
}

func (s *Site) signIn(w http.ResponseWriter, r *http.Request) error {
	name := r.PostForm.Get("name")
	page := signInPage{Next: nextPath(r.PostForm.Get("next")), Name: name}
	cookie, u, err := s.cfg.Accounts.SignIn(r.Context(), name, r.PostForm.Get("password"), address(r), r.UserAgent())
	var wait *account.TooManyAttempts
	var code *account.CodeNeeded
	switch {
	case errors.Is(err, account.ErrSignIn):
		return s.showSignIn(w, r, http.StatusUnauthorized, page, "The user name or the password is wrong.")
	case errors.As(err, &code):
		sendCookie(w, ticketCookie, code.Ticket, account.TicketLifetime)
		redirect(w, r, "/sign-in/code?"+url.Values{"next": {page.Next}}.Encode())
		return nil
	case errors.As(err, &wait):
		return s.showSignIn(w, r, http.StatusTooManyRequests, page, upperFirst(wait.Error())+".")
	case err != nil:
		return err
	}
	return s.signedIn(w, r, cookie, u, page.Next)
}

// signedIn hands a new session to the browser.
func (s *Site) signedIn(w http.ResponseWriter, r *http.Request, cookie string, u account.User, next string) error {
	// A session that the browser still had ends: the new one is another.
	if v := visitOf(r.Context()); v.err == nil {
		if err := s.cfg.Accounts.SignOut(r.Context(), v.session, v.user, address(r)); err != nil && !errors.Is(err, account.ErrNotFound) {
			return err
		}
	}
	setCookie(w, cookie)
	if u.MustChange {
		next = "/account/password"
	}
	redirect(w, r, next)
	return nil
}

func (s *Site) signOut(w http.ResponseWriter, r *http.Request) error {
	v := visitOf(r.Context())
	if err := s.cfg.Accounts.SignOut(r.Context(), v.session, v.user, address(r)); err != nil && !errors.Is(err, account.ErrNotFound) {
		return err
	}
	setCookie(w, "")
	w.Header().Set("Clear-Site-Data", `"cache"`)
	redirect(w, r, signedOut(v.user))
	return nil
}

type passwordPage struct {
	OneTime bool
	Minimum int
}

func (s *Site) passwordPage(w http.ResponseWriter, r *http.Request) error {
	return s.passwordForm(w, r, http.StatusOK, "")
}

func (s *Site) passwordForm(w http.ResponseWriter, r *http.Request, status int, problem string) error {
	return s.render(w, r, status, "password", frame{
		Title: "Change your password", Problem: problem,
		Page: passwordPage{OneTime: visitOf(r.Context()).user.MustChange, Minimum: account.MinPassword},
	})
}

func (s *Site) changePassword(w http.ResponseWriter, r *http.Request) error {
	next := r.PostForm.Get("new")
	if next != r.PostForm.Get("again") {
		return s.passwordForm(w, r, http.StatusBadRequest, "The two new passwords differ.")
	}
	cookie, err := s.cfg.Accounts.ChangePassword(r.Context(), visitOf(r.Context()).user, r.PostForm.Get("current"), next, address(r), r.UserAgent())
	var weak *account.WeakPassword
	var wait *account.TooManyAttempts
	switch {
	case errors.Is(err, account.ErrExternal):
		return s.passwordForm(w, r, http.StatusBadRequest, upperFirst(err.Error())+".")
	case errors.As(err, &weak):
		return s.passwordForm(w, r, http.StatusBadRequest, weak.Reason)
	case errors.As(err, &wait):
		return s.passwordForm(w, r, http.StatusTooManyRequests, "Too many wrong passwords: "+wait.Error()+".")
	case err != nil:
		return err
	}
	setCookie(w, cookie)
	redirect(w, r, "/")
	return nil
}
