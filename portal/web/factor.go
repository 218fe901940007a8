package web

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"image"
	"net/http"
	"strings"
	"time"

	"github.com/boombuler/barcode/qr"

	"github.com/bulwarkhq/bulwark/portal/access"
	"github.com/bulwarkhq/bulwark/portal/account"
	"github.com/bulwarkhq/bulwark/portal/securitykey"
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

type codePage struct {
	Next string
	// Ask are the options for a security key, in JSON; empty for who has none.
	Ask string
}

func (s *Site) codePage(w http.ResponseWriter, r *http.Request) error {
	if access.From(r.Context()).Kind != "" {
		redirect(w, r, "/")
		return nil
	}
	return s.codeForm(w, r, http.StatusOK, r.URL.Query().Get("next"), "")
}

func (s *Site) codeForm(w http.ResponseWriter, r *http.Request, status int, next, problem string) error {
	c, err := r.Cookie(ticketCookie)
	if err != nil {
		return errNoTicket
	}
	ask, err := s.cfg.Accounts.AskTicket(r.Context(), c.Value)
	if errors.Is(err, account.ErrTicket) {
		sendCookie(w, ticketCookie, "", 0)
		return errNoTicket
	}
	if err != nil {
		return err
	}
	return s.render(w, r, status, "sign-in-code", frame{Title: "Second factor", Problem: problem, Page: codePage{Next: nextPath(next), Ask: string(ask)}})
}

func proofOf(r *http.Request) account.Proof {
	return account.Proof{Code: r.PostForm.Get("code"), Answer: r.PostForm.Get("answer")}
}

func (s *Site) signInCode(w http.ResponseWriter, r *http.Request) error {
	c, err := r.Cookie(ticketCookie)
	if err != nil {
		return errNoTicket
	}
	next := r.PostForm.Get("next")
	cookie, u, err := s.cfg.Accounts.SignInProof(r.Context(), c.Value, proofOf(r), address(r), r.UserAgent())
	var wait *account.TooManyAttempts
	switch {
	case errors.Is(err, account.ErrTicket):
		sendCookie(w, ticketCookie, "", 0)
		return errNoTicket
	case errors.Is(err, account.ErrCode):
		return s.codeForm(w, r, http.StatusUnauthorized, next, upperFirst(err.Error())+".")
	case errors.Is(err, securitykey.ErrRefused):
		s.logKey(r, err)
		return s.codeForm(w, r, http.StatusUnauthorized, next, keyRefused)
	case errors.Is(err, account.ErrChallenge), errors.Is(err, securitykey.ErrNoName):
		return s.codeForm(w, r, http.StatusBadRequest, next, upperFirst(err.Error())+".")
	case errors.As(err, &wait):
		return s.codeForm(w, r, http.StatusTooManyRequests, next, upperFirst(wait.Error())+".")
	case err != nil:
		return err
	}
	sendCookie(w, ticketCookie, "", 0)
	return s.signedIn(w, r, cookie, u, nextPath(next))
}

const keyRefused = "The security key was not accepted. The portal's log says why."

func (s *Site) logKey(r *http.Request, err error) {
	s.cfg.Logger.WarnContext(r.Context(), "a security key was not accepted", "from", r.RemoteAddr, "error", err)
}

type factorPage struct {
	CSRF string
	// State of the authenticator is "external", "off", "begun" or "on".
	State    string
	Required bool
	Since    time.Time
	On       bool // the authenticator or a key
	Several  bool // more than one of them: each may be removed
	Left     int  // recovery codes
	Keys     []keyRow
	// KeyHost is the name that keys are for; empty when the portal has none.
	KeyHost string
	NoName  string // what says so
	// Register and Ask are the options for a new key and for one that is
	// registered, in JSON; empty where there is nothing to register or to ask.
	Register, Ask string
	// QR is the picture of a secret that is being set up, Secret its text.
	QR     picture
	Secret []string
	// Codes are new recovery codes.
	Codes []string
}

type keyRow struct {
	account.SecurityKey
	Value string // of its button
}

// removeKey begins the value of the button that removes a key; the rest is its id
// in hex.
const removeKey = "remove-key "

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
	ctx, v, a := r.Context(), visitOf(r.Context()), s.cfg.Accounts
	p := factorPage{CSRF: v.session.CSRF, State: "off", Required: a.Required(v.user.Role), Codes: codes, KeyHost: a.KeyHost(), NoName: upperFirst(securitykey.ErrNoName.Error()) + "."}
	if v.user.Issuer != "" {
		p.State = "external"
		return s.render(w, r, status, "second-factor", frame{Title: "Second factor", Problem: problem, Page: p})
	}
	f, err := a.Factor(ctx, v.user)
	switch {
	case errors.Is(err, account.ErrNotFound):
	case err != nil:
		return err
	case !f.Confirmed.IsZero():
		p.State, p.Since = "on", f.Confirmed
	default:
		uri, text, err := a.FactorURI(f, v.user, "Bulwark "+s.cfg.Host)
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
	if err := s.keysOf(ctx, v, &p); err != nil {
		return err
	}
	return s.render(w, r, status, "second-factor", frame{Title: "Second factor", Problem: problem, Page: p})
}

// keysOf fills in the part of the page that keys have.
func (s *Site) keysOf(ctx context.Context, v visit, p *factorPage) error {
	a := s.cfg.Accounts
	keys, err := a.SecurityKeys(ctx, v.user)
	if err != nil {
		return err
	}
	for _, k := range keys {
		p.Keys = append(p.Keys, keyRow{SecurityKey: k, Value: removeKey + hex.EncodeToString(k.ID)})
	}
	p.On = p.State == "on" || len(keys) > 0
	p.Several = (p.State == "on" && len(keys) > 0) || len(keys) > 1
	if p.Left, err = a.RecoveryCodesLeft(ctx, v.user); err != nil {
		return err
	}
	register, err := a.BeginKey(v.session, v.user, keys)
	if err != nil {
		return err
	}
	ask, err := a.Ask(v.session, v.user, keys)
	p.Register, p.Ask = string(register), string(ask)
	return err
}

func (s *Site) changeFactor(w http.ResponseWriter, r *http.Request) error {
	if visitOf(r.Context()).user.Issuer != "" {
		return s.showFactor(w, r, http.StatusBadRequest, nil, upperFirst(account.ErrExternal.Error())+".")
	}
	codes, err := s.applyFactor(r)
	var weak *account.WeakPassword
	var wait *account.TooManyAttempts
	var wrong *account.Invalid
	switch {
	case errors.As(err, &weak):
		return s.showFactor(w, r, http.StatusBadRequest, nil, weak.Reason)
	case errors.As(err, &wait):
		return s.showFactor(w, r, http.StatusTooManyRequests, nil, upperFirst(wait.Error())+".")
	case errors.As(err, &wrong):
		return s.showFactor(w, r, http.StatusBadRequest, nil, upperFirst(wrong.Message)+".")
	case errors.Is(err, account.ErrCode):
		return s.showFactor(w, r, http.StatusBadRequest, nil, "The code is wrong or was used already. If it keeps being refused, compare the clocks of the authenticator and of the portal.")
	case errors.Is(err, securitykey.ErrRefused):
		s.logKey(r, err)
		return s.showFactor(w, r, http.StatusBadRequest, nil, keyRefused)
	case errors.Is(err, account.ErrLast):
		return s.showFactor(w, r, http.StatusConflict, nil, upperFirst(account.ErrLast.Error())+".")
	case errors.Is(err, account.ErrRequired), errors.Is(err, account.ErrNoKey), errors.Is(err, securitykey.ErrNoName), errors.Is(err, account.ErrChallenge):
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

// applyFactor does what the form asks for and returns new recovery codes, if that
// makes some.
func (s *Site) applyFactor(r *http.Request) ([]string, error) {
	ctx, v, form, a, from := r.Context(), visitOf(r.Context()), r.PostForm, s.cfg.Accounts, address(r)
	password, proof := form.Get("password"), proofOf(r)
	do := form.Get("do")
	if id, ok := strings.CutPrefix(do, removeKey); ok {
		key, err := hex.DecodeString(id)
		if err != nil {
			return nil, errIncomplete
		}
		return nil, a.RemoveKey(ctx, v.session, v.user, key, password, proof, from)
	}
	switch do {
	case "begin":
		return nil, a.BeginFactor(ctx, v.user)
	case "confirm":
		proof.Code = form.Get("recovery")
		return a.ConfirmFactor(ctx, v.session, v.user, password, form.Get("code"), proof, from)
	case "codes":
		return a.NewRecoveryCodes(ctx, v.session, v.user, password, proof, from)
	case "remove-authenticator":
		return nil, a.RemoveAuthenticator(ctx, v.session, v.user, password, proof, from)
	case "disable":
		return nil, a.DisableFactor(ctx, v.session, v.user, password, proof, from)
	case "add-key":
		return a.AddKey(ctx, v.session, v.user, form.Get("name"), form.Get("created"), password, proof, from)
	}
	return nil, errIncomplete
}

var errIncomplete = &invalid{http.StatusBadRequest, "The form is incomplete: load the page again."}
