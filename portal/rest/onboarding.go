package rest

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/bulwarkhq/bulwark/portal/access"
	"github.com/bulwarkhq/bulwark/portal/enroll"
)

// Packages makes onboarding packages.
type Packages interface {
	NewPackage(ctx context.Context, spec enroll.PackageSpec) (enroll.Token, []byte, error)
}

// PackageTokens are the tokens of the packages that were issued.
type PackageTokens interface {
	Tokens(ctx context.Context) ([]enroll.Token, error)
	RevokeToken(ctx context.Context, id string, at time.Time) error
}

// onboardingPackage is an onboarding package that was issued.
type onboardingPackage struct {
	ID   string `json:"id"`
	Name string `json:"name"`
	// Status is Valid, Expired, Revoked or UsedUp.
	Status             string         `json:"status"`
	CreatedBy          string         `json:"createdBy"`
	CreationDateTime   time.Time      `json:"creationDateTimeUtc"`
	ExpirationDateTime time.Time      `json:"expirationDateTimeUtc"`
	RevocationDateTime *time.Time     `json:"revocationDateTimeUtc"`
	MaxDevices         int64          `json:"maxDevices"` // 0: any number
	Devices            int64          `json:"devices"`
	Tags               []packageTag   `json:"tags"`
	File               *onboardingDoc `json:"file,omitempty"`
}

type packageTag struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

// onboardingDoc is the package itself. Its bytes are signed: base64 keeps them.
type onboardingDoc struct {
	FileName    string `json:"fileName"`
	ContentType string `json:"contentType"`
	Content     string `json:"contentBase64"`
}

// packageOrder is the body of a request for a package.
type packageOrder struct {
	Name         string       `json:"name"`
	ValidityDays int          `json:"validityDays"` // 30 when zero
	MaxDevices   int64        `json:"maxDevices"`
	Tags         []packageTag `json:"tags"`
	Form         string       `json:"form"` // json (when empty), sh, py
}

func (a *API) toPackage(t enroll.Token) onboardingPackage {
	p := onboardingPackage{
		ID: t.ID, Name: t.Name, Status: statusOf(t, a.cfg.Now()), CreatedBy: t.CreatedBy, CreationDateTime: t.Created, ExpirationDateTime: t.Expires,
		MaxDevices: t.MaxUses, Devices: t.Uses, Tags: []packageTag{},
	}
	if !t.Revoked.IsZero() {
		p.RevocationDateTime = &t.Revoked
	}
	for _, tag := range t.Tags {
		p.Tags = append(p.Tags, packageTag(tag))
	}
	return p
}

func statusOf(t enroll.Token, now time.Time) string {
	switch {
	case !t.Revoked.IsZero():
		return "Revoked"
	case now.After(t.Expires):
		return "Expired"
	case t.MaxUses > 0 && t.Uses >= t.MaxUses:
		return "UsedUp"
	}
	return "Valid"
}

// onboardingPackages lists what was issued, the newest first. There are few:
// the list has no pages and no options.
func (a *API) onboardingPackages(w http.ResponseWriter, r *http.Request) error {
	if r.URL.RawQuery != "" {
		return bad("", "this list has no query options")
	}
	list, err := a.cfg.PackageTokens.Tokens(r.Context())
	if err != nil {
		return fmt.Errorf("onboarding packages: %w", err)
	}
	values := make([]onboardingPackage, len(list))
	for i, t := range list {
		values[i] = a.toPackage(t)
	}
	a.write(w, http.StatusOK, map[string]any{"@odata.context": "/api/$metadata#OnboardingPackages", "value": values})
	return nil
}

// createOnboardingPackage issues a package. The answer alone holds its secret.
func (a *API) createOnboardingPackage(w http.ResponseWriter, r *http.Request) error {
	var o packageOrder
	if err := read(w, r, &o); err != nil {
		return err
	}
	most := int(enroll.MaxTokenValidity / (24 * time.Hour))
	switch {
	case o.ValidityDays < 0 || o.ValidityDays > most:
		return bad("validityDays", "validityDays must be from 1 to %d", most)
	case o.MaxDevices < 0:
		return bad("maxDevices", "maxDevices must not be negative; 0 is any number")
	case o.Form != "" && !slices.Contains(enroll.Forms, o.Form):
		return bad("form", "form must be one of %s", strings.Join(enroll.Forms, ", "))
	}
	p := access.From(r.Context())
	spec := enroll.PackageSpec{Name: strings.TrimSpace(o.Name), CreatedBy: p.Name, Validity: time.Duration(o.ValidityDays) * 24 * time.Hour, MaxUses: o.MaxDevices}
	for _, tag := range o.Tags {
		if tag.Key = strings.TrimSpace(tag.Key); tag.Key == "" || len(tag.Key) > 100 || len(tag.Value) > 200 {
			return bad("tags", "a tag has a key of 1 to 100 bytes and a value of at most 200")
		}
		spec.Tags = append(spec.Tags, enroll.Tag(tag))
	}
	t, text, err := a.cfg.Packages.NewPackage(r.Context(), spec)
	var wrong *enroll.SpecError
	if errors.As(err, &wrong) {
		return bad(wrong.Field, "%s", wrong.Message)
	}
	if err != nil {
		return err
	}
	file, err := enroll.Form(o.Form, t, text)
	if err != nil {
		return err
	}
	if err := a.cfg.Accounts.Record(r.Context(), p.Name, p.Address, "onboarding.create", t.ID, spec.Name); err != nil {
		return err
	}
	out := a.toPackage(t)
	out.File = &onboardingDoc{file.Name, file.ContentType, base64.StdEncoding.EncodeToString(file.Text)}
	a.write(w, http.StatusCreated, out)
	return nil
}

// revokeOnboardingPackage revokes a package. Devices that enrolled with it stay.
func (a *API) revokeOnboardingPackage(w http.ResponseWriter, r *http.Request) error {
	id, p := r.PathValue("id"), access.From(r.Context())
	err := a.cfg.PackageTokens.RevokeToken(r.Context(), id, a.cfg.Now())
	if errors.Is(err, enroll.ErrNotFound) {
		return &failure{http.StatusNotFound, "ResourceNotFound", "there is no onboarding package of this id", "id"}
	}
	if err != nil {
		return fmt.Errorf("revoking an onboarding package: %w", err)
	}
	if err := a.cfg.Accounts.Record(r.Context(), p.Name, p.Address, "onboarding.revoke", id, ""); err != nil {
		return err
	}
	list, err := a.cfg.PackageTokens.Tokens(r.Context())
	if err != nil {
		return fmt.Errorf("onboarding packages: %w", err)
	}
	for _, t := range list {
		if t.ID == id {
			a.write(w, http.StatusOK, a.toPackage(t))
			return nil
		}
	}
	return &failure{http.StatusNotFound, "ResourceNotFound", "there is no onboarding package of this id", "id"}
}
