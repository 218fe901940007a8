package web

import (
	"errors"
	"net/http"

	"github.com/bulwarkhq/bulwark/portal/access"
	"github.com/bulwarkhq/bulwark/portal/account"
)

type usersPage struct {
	Users []userRow
	Roles []access.Role
	CSRF  string
	// Name and Password are of an account that was made or reset.
	Name, Password string
	Local          bool // accounts with passwords can sign in
	// Provider is set with an identity provider, ProviderGroups when it decides the
	// device groups of its accounts.
	Provider, ProviderGroups bool
	Scope                    scopeForm // of a new account
}

type userRow struct {
	account.User
	Scope  scopeForm
	State  string
	Factor string
	Self   bool
}

func (s *Site) users(w http.ResponseWriter, r *http.Request) error {
	return s.showUsers(w, r, http.StatusOK, usersPage{}, "")
}

func (s *Site) showUsers(w http.ResponseWriter, r *http.Request, status int, p usersPage, problem string) error {
	list, err := s.cfg.Accounts.Users(r.Context())
	if err != nil {
		return err
	}
	v := visitOf(r.Context())
	p.Local, p.Provider, p.ProviderGroups = !s.cfg.Accounts.LocalOff(), s.cfg.Provider != nil, s.cfg.Accounts.ProviderGroups()
	groups, err := s.cfg.Fleet.Groups(r.Context())
	if err != nil {
		return err
	}
	p.Scope = newScopeForm(groups, nil)
	p.CSRF, p.Roles = v.session.CSRF, access.Roles()
	for _, u := range list {
		row := userRow{User: u, Scope: newScopeForm(groups, u.Groups), State: "Active", Self: u.ID == v.user.ID}
		switch {
		case u.Disabled:
			row.State = "Disabled"
		case u.MustChange:
			row.State = "One-time password"
		}
		switch {
		case u.Issuer != "":
			row.Factor = "at the provider"
		case u.SecondFactor:
			row.Factor = "on"
		case s.cfg.Accounts.Required(u.Role):
			row.Factor = "required, not set up"
		default:
			row.Factor = "off"
		}
		p.Users = append(p.Users, row)
	}
	return s.render(w, r, status, "users", frame{Title: "Users", Section: "users", Problem: problem, Page: p})
}

func (s *Site) createUser(w http.ResponseWriter, r *http.Request) error {
	role, err := access.ParseRole(r.PostForm.Get("role"))
	if err != nil {
		return &invalid{http.StatusBadRequest, upperFirst(err.Error()) + "."}
	}
	groups, err := s.scopeOf(r)
	if err != nil {
		return err
	}
	p, name := access.From(r.Context()), r.PostForm.Get("name")
	password, err := s.cfg.Accounts.CreateUser(r.Context(), name, role, p.Name, p.Address, groups...)
	var wrong *account.Invalid
	switch {
	case errors.Is(err, account.ErrExists):
		return s.showUsers(w, r, http.StatusConflict, usersPage{}, "There is an account of that name already.")
	case errors.As(err, &wrong):
		return s.showUsers(w, r, http.StatusBadRequest, usersPage{}, upperFirst(wrong.Message)+".")
	case err != nil:
		return err
	}
	return s.showUsers(w, r, http.StatusOK, usersPage{Name: name, Password: password}, "")
}

func (s *Site) changeUser(w http.ResponseWriter, r *http.Request) error {
	a, p, id, ctx := s.cfg.Accounts, access.From(r.Context()), r.PathValue("id"), r.Context()
	u, err := a.User(ctx, id)
	if err != nil {
		return err
	}
	switch r.PostForm.Get("do") {
	case "role":
		role, wrong := access.ParseRole(r.PostForm.Get("role"))
		if wrong != nil {
			return &invalid{http.StatusBadRequest, upperFirst(wrong.Error()) + "."}
		}
		err = a.SetRole(ctx, id, role, p)
	case "groups":
		groups, wrong := s.scopeOf(r)
		if wrong != nil {
			return wrong
		}
		err = a.SetGroups(ctx, id, groups, p)
	case "disable":
		err = a.SetDisabled(ctx, id, true, p)
	case "enable":
		err = a.SetDisabled(ctx, id, false, p)
	case "reset-second-factor":
		err = a.ResetFactor(ctx, u.Name, p.Name, p.Address)
	case "reset-password":
		if u.ID == p.ID {
			redirect(w, r, "/account/password")
			return nil
		}
		var password string
		if password, err = a.ResetPassword(ctx, u.Name, p.Name, p.Address); err == nil {
			return s.showUsers(w, r, http.StatusOK, usersPage{Name: u.Name, Password: password}, "")
		}
	default:
		return &invalid{http.StatusBadRequest, "The form is incomplete: load the page again."}
	}
	switch {
	case errors.Is(err, account.ErrSelf), errors.Is(err, account.ErrExternal):
		return s.showUsers(w, r, http.StatusConflict, usersPage{}, upperFirst(err.Error())+".")
	case errors.Is(err, account.ErrNotFound):
		return s.showUsers(w, r, http.StatusConflict, usersPage{}, "This was changed in another window.")
	case err != nil:
		return err
	}
	redirect(w, r, "/users")
	return nil
}
