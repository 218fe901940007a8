package rest

import (
	"errors"
	"net/http"
	"time"

	"github.com/bulwarkhq/bulwark/event"
	"github.com/bulwarkhq/bulwark/portal/access"
	"github.com/bulwarkhq/bulwark/portal/export"
)

// exportDestination is a destination as programs see it. Secrets never leave the
// portal: target names scheme and host only.
type exportDestination struct {
	ID               string     `json:"id"`
	DisplayName      string     `json:"displayName"`
	Type             string     `json:"type"`
	IsEnabled        bool       `json:"isEnabled"`
	Alerts           bool       `json:"alerts"`
	AuditLog         bool       `json:"auditLog"`
	MinSeverity      string     `json:"minSeverity"`
	Target           string     `json:"target"`
	Address          string     `json:"address,omitempty"`
	Transport        string     `json:"transport,omitempty"`
	Format           string     `json:"format,omitempty"`
	Facility         *int       `json:"facility,omitempty"`
	Topic            string     `json:"topic,omitempty"`
	SASLMechanism    string     `json:"saslMechanism,omitempty"`
	Username         string     `json:"username,omitempty"`
	CACertificates   string     `json:"caCertificates,omitempty"`
	Signed           bool       `json:"signed"`
	Authorization    bool       `json:"authorization"`
	State            string     `json:"state"`
	Waiting          int        `json:"waiting"`
	Delivered        int64      `json:"delivered"`
	Refused          int64      `json:"refused"`
	Failures         int        `json:"consecutiveFailures"`
	LastSuccess      *time.Time `json:"lastSuccessDateTime"`
	LastTried        *time.Time `json:"lastTriedDateTime"`
	NextTry          *time.Time `json:"nextTryDateTime"`
	LastError        string     `json:"lastError"`
	CreatedBy        string     `json:"createdBy"`
	CreatedTime      time.Time  `json:"createdDateTime"`
	LastModifiedBy   string     `json:"lastModifiedBy"`
	LastModifiedTime time.Time  `json:"lastModifiedDateTime"`
}

func (a *API) toExport(r *http.Request, d *export.Destination) (exportDestination, error) {
	waiting, err := a.cfg.Exports.Waiting(r.Context(), d)
	if err != nil {
		return exportDestination{}, err
	}
	out := exportDestination{
		ID: d.ID, DisplayName: d.Name, Type: d.Kind, IsEnabled: d.Enabled, Alerts: d.Alerts, AuditLog: d.Audit, MinSeverity: string(d.MinSeverity),
		Target: d.Target(), Address: d.Address, Transport: d.Transport, Format: d.Format, Topic: d.Topic, SASLMechanism: d.Mechanism, Username: d.User, CACertificates: d.CA, Signed: d.Secret != "", Authorization: d.Authorization != "",
		State: d.State(), Waiting: waiting, Delivered: d.Delivered, Refused: d.Refused, Failures: d.Failures, LastSuccess: moment(d.LastSuccess),
		LastTried: moment(d.LastTried), LastError: d.LastError, CreatedBy: d.CreatedBy, CreatedTime: d.Created, LastModifiedBy: d.UpdatedBy, LastModifiedTime: d.Updated,
	}
	if d.Failures > 0 {
		out.NextTry = moment(d.Next)
	}
	if d.Kind == export.Syslog {
		out.Facility = &d.Facility
	}
	return out, nil
}

// exportBody is what a program writes. Members that a PATCH does not have stay.
type exportBody struct {
	DisplayName    *string `json:"displayName"`
	Type           *string `json:"type"`
	IsEnabled      *bool   `json:"isEnabled"`
	Alerts         *bool   `json:"alerts"`
	AuditLog       *bool   `json:"auditLog"`
	MinSeverity    *string `json:"minSeverity"`
	URL            *string `json:"url"`
	Secret         *string `json:"secret"`
	Authorization  *string `json:"authorization"`
	Address        *string `json:"address"`
	Transport      *string `json:"transport"`
	Format         *string `json:"format"`
	Facility       *int    `json:"facility"`
	Topic          *string `json:"topic"`
	SASLMechanism  *string `json:"saslMechanism"`
	Username       *string `json:"username"`
	Password       *string `json:"password"`
	CACertificates *string `json:"caCertificates"`
}

func set[T any](to, from *T) {
	if from != nil {
		*to = *from
	}
}

func (b *exportBody) apply(d *export.Destination) error {
	if b.Type != nil && d.ID != "" && *b.Type != d.Kind {
		return bad("type", "the type of a destination cannot be changed: make another")
	}
	set(&d.Name, b.DisplayName)
	set(&d.Kind, b.Type)
	set(&d.Enabled, b.IsEnabled)
	set(&d.Alerts, b.Alerts)
	set(&d.Audit, b.AuditLog)
	set((*string)(&d.MinSeverity), b.MinSeverity)
	set(&d.URL, b.URL)
	set(&d.Secret, b.Secret)
	set(&d.Authorization, b.Authorization)
	set(&d.Password, b.Password)
	d.Given = export.Given{Secret: b.Secret != nil, Authorization: b.Authorization != nil, Password: b.Password != nil}
	set(&d.Address, b.Address)
	set(&d.Transport, b.Transport)
	set(&d.Format, b.Format)
	set(&d.Facility, b.Facility)
	set(&d.Topic, b.Topic)
	set(&d.Mechanism, b.SASLMechanism)
	set(&d.User, b.Username)
	set(&d.CA, b.CACertificates)
	return nil
}

func exportWho(r *http.Request) export.Who {
	p := access.From(r.Context())
	return export.Who{Name: p.Name, Address: p.Address}
}

func conflictOfExport(err error) *failure {
	switch {
	case errors.Is(err, export.ErrTaken):
		return &failure{http.StatusConflict, "Conflict", export.ErrTaken.Error(), "displayName"}
	case errors.Is(err, export.ErrConflict):
		return &failure{http.StatusConflict, "Conflict", export.ErrConflict.Error(), "id"}
	}
	return bad("", "%s", export.ErrTooMany.Error())
}

// hasExports is an error on a portal that keeps no files and therefore no key.
func (a *API) hasExports() error {
	if a.cfg.Exports == nil {
		return &failure{http.StatusNotFound, "ResourceNotFound", "this portal exports nothing: it has no folder for the key of the secrets", ""}
	}
	return nil
}

func (a *API) findExport(r *http.Request) (export.Destination, error) {
	if err := a.hasExports(); err != nil {
		return export.Destination{}, err
	}
	return a.cfg.Exports.Get(r.Context(), r.PathValue("id"))
}

func (a *API) exports(w http.ResponseWriter, r *http.Request) error {
	if err := a.hasExports(); err != nil {
		return err
	}
	list, err := a.cfg.Exports.List(r.Context())
	if err != nil {
		return err
	}
	values := make([]exportDestination, len(list))
	for i := range list {
		if values[i], err = a.toExport(r, &list[i]); err != nil {
			return err
		}
	}
	a.write(w, http.StatusOK, map[string]any{"value": values})
	return nil
}

func (a *API) export(w http.ResponseWriter, r *http.Request) error {
	d, err := a.findExport(r)
	if err != nil {
		return err
	}
	return a.answerExport(w, r, http.StatusOK, &d)
}

func (a *API) answerExport(w http.ResponseWriter, r *http.Request, status int, d *export.Destination) error {
	out, err := a.toExport(r, d)
	if err != nil {
		return err
	}
	a.write(w, status, out)
	return nil
}

func (a *API) createExport(w http.ResponseWriter, r *http.Request) error {
	if err := a.hasExports(); err != nil {
		return err
	}
	return a.putExport(w, r, export.Destination{
		Enabled: true, Alerts: true, MinSeverity: event.SeverityInformational,
		Settings: export.Settings{Transport: export.TLS, Format: export.JSON, Facility: export.DefaultFacility},
	}, http.StatusCreated)
}

func (a *API) updateExport(w http.ResponseWriter, r *http.Request) error {
	d, err := a.findExport(r)
	if err != nil {
		return err
	}
	return a.putExport(w, r, d, http.StatusOK)
}

func (a *API) putExport(w http.ResponseWriter, r *http.Request, d export.Destination, status int) error {
	var body exportBody
	if err := read(w, r, &body); err != nil {
		return err
	}
	if err := body.apply(&d); err != nil {
		return err
	}
	kept, err := a.cfg.Exports.Put(r.Context(), d, exportWho(r))
	if err != nil {
		return err
	}
	return a.answerExport(w, r, status, &kept)
}

func (a *API) deleteExport(w http.ResponseWriter, r *http.Request) error {
	d, err := a.findExport(r)
	if err != nil {
		return err
	}
	if err := a.cfg.Exports.Delete(r.Context(), d.ID, exportWho(r)); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// exportTest is how a test went.
type exportTest struct {
	Delivered bool   `json:"delivered"`
	Error     string `json:"error"`
}

func (a *API) testExport(w http.ResponseWriter, r *http.Request) error {
	d, err := a.findExport(r)
	if err != nil {
		return err
	}
	err = a.cfg.Exports.Test(r.Context(), d.ID, exportWho(r))
	var failed *export.TestFailed
	switch {
	case errors.As(err, &failed):
		a.write(w, http.StatusOK, exportTest{false, failed.Reason})
	case err != nil:
		return err
	default:
		a.write(w, http.StatusOK, exportTest{true, ""})
	}
	return nil
}

// skipExport leaves out what waits.
func (a *API) skipExport(w http.ResponseWriter, r *http.Request) error {
	d, err := a.findExport(r)
	if err != nil {
		return err
	}
	if err := a.cfg.Exports.Skip(r.Context(), d.ID, exportWho(r)); err != nil {
		return err
	}
	if d, err = a.cfg.Exports.Get(r.Context(), d.ID); err != nil {
		return err
	}
	return a.answerExport(w, r, http.StatusOK, &d)
}
