package web

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/bulwarkhq/bulwark/portal/access"
	"github.com/bulwarkhq/bulwark/portal/account"
	"github.com/bulwarkhq/bulwark/portal/enroll"
)

type onboardingPage struct {
	Tokens []enrollmentToken
	CSRF   string
	May    bool
}

type enrollmentToken struct {
	enroll.Token
	State string // Valid, Expired, Revoked, Used up
}

func (s *Site) onboarding(w http.ResponseWriter, r *http.Request) error {
	list, err := s.cfg.Tokens.Tokens(r.Context())
	if err != nil {
		return err
	}
	p := onboardingPage{CSRF: visitOf(r.Context()).session.CSRF, May: access.From(r.Context()).May(access.Onboarding)}
	for _, t := range list {
		e := enrollmentToken{t, "Valid"}
		switch {
		case !t.Revoked.IsZero():
			e.State = "Revoked"
		case s.cfg.Now().After(t.Expires):
			e.State = "Expired"
		case t.MaxUses > 0 && t.Uses >= t.MaxUses:
			e.State = "Used up"
		}
		p.Tokens = append(p.Tokens, e)
	}
	return s.render(w, r, http.StatusOK, "onboarding", frame{Title: "Onboarding", Section: "onboarding", Page: p})
}

// days reads a number of days from a form.
func days(text string, most int) (time.Duration, error) {
	n, err := strconv.Atoi(strings.TrimSpace(text))
	if err != nil || n < 1 || n > most {
		return 0, &invalid{http.StatusBadRequest, fmt.Sprintf("The number of days must be from 1 to %d.", most)}
	}
	return time.Duration(n) * 24 * time.Hour, nil
}

// createPackage answers with the package as a file: its secret is kept nowhere.
func (s *Site) createPackage(w http.ResponseWriter, r *http.Request) error {
	validity, err := days(r.PostForm.Get("days"), 366)
	if err != nil {
		return err
	}
	form := r.PostForm.Get("form")
	if form != "" && !slices.Contains(enroll.Forms, form) {
		return &invalid{http.StatusBadRequest, "The form must be one of " + strings.Join(enroll.Forms, ", ") + "."}
	}
	p := access.From(r.Context())
	spec := enroll.PackageSpec{Name: strings.TrimSpace(r.PostForm.Get("name")), CreatedBy: p.Name, Validity: validity}
	if text := strings.TrimSpace(r.PostForm.Get("uses")); text != "" {
		if spec.MaxUses, err = strconv.ParseInt(text, 10, 32); err != nil || spec.MaxUses < 0 {
			return &invalid{http.StatusBadRequest, "The number of devices must be a whole number; leave it empty for any number."}
		}
	}
	if group := strings.TrimSpace(r.PostForm.Get("group")); group != "" {
		spec.Tags = []enroll.Tag{{Key: "GROUP", Value: group}}
	}
	t, text, err := s.cfg.Onboarding.NewPackage(r.Context(), spec)
	if err != nil {
		return &invalid{http.StatusBadRequest, err.Error()}
	}
	file, err := enroll.Form(form, t, text)
	if err != nil {
		return err
	}
	if err := s.cfg.Accounts.Record(r.Context(), p.Name, p.Address, "onboarding.create", t.ID, spec.Name); err != nil {
		return err
	}
	sendFile(w, file)
	return nil
}

func sendFile(w http.ResponseWriter, f enroll.File) {
	w.Header().Set("Content-Type", f.ContentType)
	w.Header().Set("Content-Disposition", fmt.Sprintf("attachment; filename=%q", f.Name))
	w.Header().Set("Cache-Control", "no-store")
	w.Write(f.Text) //nolint:errcheck // the client is gone
}

// offboardingScript answers with the script that takes a host out.
func (s *Site) offboardingScript(w http.ResponseWriter, _ *http.Request) error {
	sendFile(w, enroll.Offboarding())
	return nil
}

func (s *Site) revokePackage(w http.ResponseWriter, r *http.Request) error {
	id, p := r.PathValue("id"), access.From(r.Context())
	if err := s.cfg.Tokens.RevokeToken(r.Context(), id, s.cfg.Now()); err != nil {
		return err
	}
	if err := s.cfg.Accounts.Record(r.Context(), p.Name, p.Address, "onboarding.revoke", id, ""); err != nil {
		return err
	}
	redirect(w, r, "/onboarding")
	return nil
}

type tokensPage struct {
	Tokens []apiToken
	Scopes []access.Permission
	Secret string
	CSRF   string
	Scope  scopeForm // of a new token
}

type apiToken struct {
	account.Token
	State   string
	Devices scopeForm
}

func (s *Site) tokens(w http.ResponseWriter, r *http.Request) error {
	return s.showTokens(w, r, http.StatusOK, "", "")
}

func (s *Site) showTokens(w http.ResponseWriter, r *http.Request, status int, secret, problem string) error {
	list, err := s.cfg.Accounts.Tokens(r.Context())
	if err != nil {
		return err
	}
	groups, err := s.cfg.Fleet.Groups(r.Context())
	if err != nil {
		return err
	}
	p := tokensPage{Scopes: access.Scopes(), Secret: secret, CSRF: visitOf(r.Context()).session.CSRF, Scope: newScopeForm(groups, nil)}
	for _, t := range list {
		a := apiToken{t, "Valid", newScopeForm(groups, t.Groups)}
		switch {
		case !t.Revoked.IsZero():
			a.State = "Revoked"
		case !t.Expires.IsZero() && s.cfg.Now().After(t.Expires):
			a.State = "Expired"
		}
		p.Tokens = append(p.Tokens, a)
	}
	return s.render(w, r, status, "tokens", frame{Title: "API tokens", Section: "tokens", Problem: problem, Page: p})
}

func (s *Site) createToken(w http.ResponseWriter, r *http.Request) error {
	var scopes []access.Permission
	for _, name := range r.PostForm["scope"] {
		sc, err := access.ParseScope(name)
		if err != nil {
			return &invalid{http.StatusBadRequest, err.Error()}
		}
		scopes = append(scopes, sc)
	}
	lifetime, err := days(r.PostForm.Get("days"), 3650)
	if err != nil {
		return err
	}
	groups, err := s.scopeOf(r)
	if err != nil {
		return err
	}
	p := access.From(r.Context())
	_, secret, err := s.cfg.Accounts.CreateToken(r.Context(), r.PostForm.Get("name"), scopes, lifetime, p.Name, p.Address, groups...)
	var wrong *account.Invalid
	if errors.As(err, &wrong) {
		return s.showTokens(w, r, http.StatusBadRequest, "", "No token was made: "+wrong.Message+".")
	}
	if err != nil {
		return err
	}
	return s.showTokens(w, r, http.StatusOK, secret, "")
}

func (s *Site) revokeToken(w http.ResponseWriter, r *http.Request) error {
	p := access.From(r.Context())
	if err := s.cfg.Accounts.RevokeToken(r.Context(), r.PathValue("id"), p.Name, p.Address); err != nil {
		return err
	}
	redirect(w, r, "/tokens")
	return nil
}

type auditPage struct {
	Entries []account.Audit
	// Older is the address of the entries before these, empty at the end.
	Older string
	// Broken is the id of the first entry that was changed, zero for none.
	Broken   int64
	Verified bool
}

const auditRows = 100

func (s *Site) audit(w http.ResponseWriter, r *http.Request) error {
	before, err := strconv.ParseInt(r.URL.Query().Get("before"), 10, 64)
	if err != nil {
		before = 0
	}
	list, err := s.cfg.Accounts.AuditEntries(r.Context(), before, auditRows+1)
	if err != nil {
		return err
	}
	var p auditPage
	if len(list) > auditRows {
		list = list[:auditRows]
		p.Older = "/audit?" + url.Values{"before": {strconv.FormatInt(list[auditRows-1].ID, 10)}}.Encode()
	}
	p.Entries = list
	if r.URL.Query().Get("verify") == "1" {
		if p.Broken, err = s.cfg.Accounts.VerifyAudit(r.Context()); err != nil {
			return err
		}
		p.Verified = true
	}
	return s.render(w, r, http.StatusOK, "audit", frame{Title: "Audit log", Section: "audit", Page: p})
}
