package web

import (
	"errors"
	"fmt"
	"image"
	"net/http"
	"strings"
	"time"

	"github.com/boombuler/barcode/qr"

	"github.com/bulwarkhq/bulwark/portal/access"
	"github.com/bulwarkhq/bulwark/portal/account"
)

// ticketCookie holds a sign-in between the password and the code.
const ticketCookie = "__Host-bulwark-sign-in"

func (s *Site) accountRoutes(get, post func(string, access.Permission, func(http.ResponseWriter, *http.Request) error)) {
	get("/sign-in", access.Public, s.signInPage)
	post("/sign-in", access.Public, s.signIn)
	get("/sign-in/code", access.Public, s.codePage)
	post("/sign-in/code", access.Public, s.signInCode)
	get("/sign-in/provider", access.Public, s.beginProvider)
	get("/sign-in/provider/callback", access.Public, s.finishProvider)
	post("/sign-out", access.SignedIn, s.signOut)
	get("/account/password", access.SignedIn, s.passwordPage)
	post("/account/password", access.SignedIn, s.changePassword)
	get("/account/second-factor", access.SignedIn, s.factorPage)
	post("/account/second-factor", access.SignedIn, s.changeFactor)
	get("/users", access.UserManage, s.users)
	post("/users", access.UserManage, s.createUser)
	post("/users/{id}", access.UserManage, s.changeUser)
}

var errNoTicket = &invalid{http.StatusBadRequest, "The sign-in has ended: it took too long, or there were too many wrong codes. Go to the sign-in page and begin again with the password."}

func (s *Site) codePage(w http.ResponseWriter, r *http.Request) error {
	if access.From(r.Context()).Kind != "" {
		redirect(w, r, "/")
		return nil
	}
	if _, err := r.Cookie(ticketCookie); err != nil {
		return errNoTicket
	}
	return s.codeForm(w, r, http.StatusOK, r.URL.Query().Get("next"), "")
}

func (s *Site) codeForm(w http.ResponseWriter, r *http.Request, status int, next, problem string) error {
	return s.render(w, r, status, "sign-in-code", frame{Title: "Second factor", Problem: problem, Page: signInPage{Next: nextPath(next)}})
}

func (s *Site) signInCode(w http.ResponseWriter, r *http.Request) error {
	c, err := r.Cookie(ticketCookie)
	if err != nil {
		return errNoTicket
	}
	next := r.PostForm.Get("next")
	cookie, u, err := s.cfg.Accounts.SignInCode(r.Context(), c.Value, r.PostForm.Get("code"), address(r), r.UserAgent())
	var wait *account.TooManyAttempts
	switch {
	case errors.Is(err, account.ErrTicket):
		sendCookie(w, ticketCookie, "", 0)
		return errNoTicket
	case errors.Is(err, account.ErrCode):
		return s.codeForm(w, r, http.StatusUnauthorized, next, upperFirst(err.Error())+".")
	case errors.As(err, &wait):
		return s.codeForm(w, r, http.StatusTooManyRequests, next, upperFirst(wait.Error())+".")
	case err != nil:
		return err
	}
	sendCookie(w, ticketCookie, "", 0)
	return s.signedIn(w, r, cookie, u, nextPath(next))
}

type factorPage struct {
	CSRF string
	// State is "external", "off", "begun" or "on".
	State    string
	Required bool
	Since    time.Time
	Left     int // recovery codes
	// QR is the picture of a secret that is being set up, Secret its text.
	QR     picture
	Secret []string
	// Codes are new recovery codes.
	Codes []string
}

// picture is a QR code: a path of squares of length 1 and the length of a side.
type picture struct {
	Path string
	Size int
}

// Around is the view box with the quiet zone of four modules that ISO/IEC 18004
// asks for.
func (p picture) Around() string { return fmt.Sprintf("-4 -4 %d %d", p.Size+8, p.Size+8) }

func isDark(p image.Image, x, y int) bool {
	r, _, _, _ := p.At(x, y).RGBA()
	return r == 0
}

func drawQR(text string) (picture, error) {
	code, err := qr.Encode(text, qr.M, qr.Auto)
	if err != nil {
		return picture{}, fmt.Errorf("QR code: %w", err)
	}
	var b strings.Builder
	p := picture{Size: code.Bounds().Dx()}
	for y := range p.Size {
		for x := 0; x < p.Size; x++ {
			from := x
			for x < p.Size && isDark(code, x, y) {
				x++
			}
			if x > from {
				fmt.Fprintf(&b, "M%d %dh%dv1h-%dz", from, y, x-from, x-from)
			}
		}
	}
	p.Path = b.String()
	return p, nil
}

func (s *Site) factorPage(w http.ResponseWriter, r *http.Request) error {
	return s.showFactor(w, r, http.StatusOK, nil, "")
}

func (s *Site) showFactor(w http.ResponseWriter, r *http.Request, status int, codes []string, problem string) error {
	v := visitOf(r.Context())
	p := factorPage{CSRF: v.session.CSRF, State: "off", Required: s.cfg.Accounts.Required(v.user.Role), Codes: codes}
	f, err := s.cfg.Accounts.Factor(r.Context(), v.user)
	switch {
	case v.user.Issuer != "":
		p.State = "external"
	case errors.Is(err, account.ErrNotFound):
	case err != nil:
		return err
	case !f.Confirmed.IsZero():
		p.State, p.Since, p.Left = "on", f.Confirmed, f.Codes
	default:
		uri, text, err := s.cfg.Accounts.FactorURI(f, v.user, "Bulwark "+s.cfg.Host)
		if err != nil {
			return err
		}
		if p.QR, err = drawQR(uri); err != nil {
			return err
		}
		p.State = "begun"
		for len(text) > 0 {
			n := min(4, len(text))
			p.Secret, text = append(p.Secret, text[:n]), text[n:]
		}
	}
	return s.render(w, r, status, "second-factor", frame{Title: "Second factor", Problem: problem, Page: p})
}

func (s *Site) changeFactor(w http.ResponseWriter, r *http.Request) error {
	ctx, v, form, a := r.Context(), visitOf(r.Context()), r.PostForm, s.cfg.Accounts
	if v.user.Issuer != "" {
		return s.showFactor(w, r, http.StatusBadRequest, nil, upperFirst(account.ErrExternal.Error())+".")
	}
	password, code := form.Get("password"), form.Get("code")
	var codes []string
	var err error
	switch form.Get("do") {
	case "begin":
		err = a.BeginFactor(ctx, v.user)
	case "confirm":
		codes, err = a.ConfirmFactor(ctx, v.session, v.user, password, code, address(r))
	case "codes":
		codes, err = a.NewRecoveryCodes(ctx, v.user, password, code, address(r))
	case "disable":
		err = a.DisableFactor(ctx, v.session, v.user, password, code, address(r))
	default:
		return &invalid{http.StatusBadRequest, "The form is incomplete: load the page again."}
	}
	var weak *account.WeakPassword
	var wait *account.TooManyAttempts
	switch {
	case errors.As(err, &weak):
		return s.showFactor(w, r, http.StatusBadRequest, nil, weak.Reason)
	case errors.As(err, &wait):
		return s.showFactor(w, r, http.StatusTooManyRequests, nil, upperFirst(wait.Error())+".")
	case errors.Is(err, account.ErrCode):
		return s.showFactor(w, r, http.StatusBadRequest, nil, "The code is wrong or was used already. If it keeps being refused, compare the clocks of the authenticator and of the portal.")
	case errors.Is(err, account.ErrRequired), errors.Is(err, account.ErrNoKey):
		return s.showFactor(w, r, http.StatusBadRequest, nil, upperFirst(err.Error())+".")
	case errors.Is(err, account.ErrExists), errors.Is(err, account.ErrNotFound):
		return s.showFactor(w, r, http.StatusConflict, nil, "This was changed in another window.")
	case err != nil:
		return err
	case codes != nil:
		return s.showFactor(w, r, http.StatusOK, codes, "")
	}
	redirect(w, r, "/account/second-factor")
	return nil
}
