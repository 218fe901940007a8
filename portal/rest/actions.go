package rest

import (
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/bulwarkhq/bulwark/api/response"
	"github.com/bulwarkhq/bulwark/portal/access"
	"github.com/bulwarkhq/bulwark/portal/action"
)

// machineActionObject is the MachineAction of the API.
type machineActionObject struct {
	ID                  string     `json:"id"`
	Type                string     `json:"type"`
	Title               *string    `json:"title"`
	Scope               *string    `json:"scope"`
	Requestor           string     `json:"requestor"`
	RequestorComment    string     `json:"requestorComment"`
	RequestSource       string     `json:"requestSource"`
	Status              string     `json:"status"`
	Message             string     `json:"message"`
	MachineID           string     `json:"machineId"`
	ComputerDNSName     string     `json:"computerDnsName"`
	CreationTime        time.Time  `json:"creationDateTimeUtc"`
	LastUpdateTime      time.Time  `json:"lastUpdateDateTimeUtc"`
	CancellationTime    *time.Time `json:"cancellationDateTimeUtc"`
	CancellationBy      *string    `json:"cancellationRequestor"`
	CancellationComment *string    `json:"cancellationComment"`
	ExpirationTime      time.Time  `json:"expirationDateTimeUtc"`
	// Result is what the device reported; of live response the outputs.
	Result json.RawMessage `json:"result,omitempty"`
	// Package is the file that the device sent.
	Package     *actionFile  `json:"package,omitempty"`
	RelatedFile *relatedFile `json:"relatedFileInfo"`
}

type actionFile struct {
	FileName string `json:"fileName"`
	Size     int64  `json:"size"`
	SHA256   string `json:"sha256"`
}

type relatedFile struct {
	Identifier string `json:"fileIdentifier"`
	Type       string `json:"fileIdentifierType"`
}

// toMachineAction shows an action. What a device answered is for those who may
// give such an order.
func toMachineAction(p access.Principal, a action.Action) machineActionObject {
	m := machineActionObject{
		ID: a.ID, Type: a.Type, Requestor: a.Requestor, RequestorComment: a.Comment, RequestSource: "Portal", Status: a.Status, Message: a.Message,
		MachineID: a.DeviceID, ComputerDNSName: a.DeviceName, CreationTime: a.Created, LastUpdateTime: a.Updated, ExpirationTime: a.Expires,
	}
	if !a.Cancelled.IsZero() {
		m.CancellationTime, m.CancellationBy, m.CancellationComment = &a.Cancelled, &a.CancelledBy, &a.CancelNote
	}
	if a.File.Name != "" {
		m.Package = &actionFile{a.File.Name, a.File.Size, a.File.SHA256}
	}
	if p.May(action.Permission(a.Type)) {
		m.Result = a.Result
	}
	if a.Type == response.QuarantineFile || a.Type == response.StopAndQuarantineFile {
		var f response.FileParameters
		if err := json.Unmarshal(a.Parameters, &f); err == nil {
			switch {
			case f.SHA1 != "":
				m.RelatedFile = &relatedFile{f.SHA1, "Sha1"}
			case f.SHA256 != "":
				m.RelatedFile = &relatedFile{f.SHA256, "Sha256"}
			}
		}
	}
	return m
}

func (a *API) runScan(w http.ResponseWriter, r *http.Request) error {
	var body struct{ Comment, ScanType string }
	if err := read(w, r, &body); err != nil {
		return err
	}
	p := access.From(r.Context())
	done, err := a.cfg.Actions.Scan(r.Context(), r.PathValue("id"), body.ScanType, body.Comment, p.Name, p.Address)
	if err != nil {
		return err
	}
	a.write(w, http.StatusCreated, toMachineAction(p, done))
	return nil
}

func (a *API) machineActions(w http.ResponseWriter, r *http.Request) error {
	fields := action.Fields()
	delete(fields, "parameters") // who may not see what was typed must not find it by guessing
	o, err := parse(r, fields)
	if err != nil {
		return err
	}
	list, count, err := a.cfg.Actions.List(r.Context(), o.Query)
	if err != nil {
		return err
	}
	values := make([]machineActionObject, len(list))
	for i, m := range list {
		values[i] = toMachineAction(access.From(r.Context()), m)
	}
	a.write(w, http.StatusOK, newPage(r, "MachineActions", o.Query, values, len(values), count))
	return nil
}

func (a *API) machineAction(w http.ResponseWriter, r *http.Request) error {
	m, err := a.cfg.Actions.Get(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	a.write(w, http.StatusOK, toMachineAction(access.From(r.Context()), m))
	return nil
}

func (a *API) cancelAction(w http.ResponseWriter, r *http.Request) error {
	var body struct{ Comment string }
	if err := read(w, r, &body); err != nil {
		return err
	}
	p := access.From(r.Context())
	m, err := a.cfg.Actions.Get(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	// Whoever may order it may cancel it.
	if need := action.Permission(m.Type); !p.May(need) {
		return &failure{http.StatusForbidden, "Forbidden", fmt.Sprintf("cancelling this action needs the scope %s", need), ""}
	}
	m, err = a.cfg.Actions.Cancel(r.Context(), r.PathValue("id"), body.Comment, p.Name, p.Address)
	if err != nil {
		return err
	}
	a.write(w, http.StatusOK, toMachineAction(access.From(r.Context()), m))
	return nil
}

// order gives an order and answers with it.
func (a *API) order(w http.ResponseWriter, r *http.Request, kind, comment string, parameters any) error {
	p := access.From(r.Context())
	done, err := a.cfg.Actions.Order(r.Context(), action.Request{
		Device: r.PathValue("id"), Type: kind, Parameters: parameters, Comment: comment, By: p.Name, Address: p.Address,
	})
	if err != nil {
		return err
	}
	a.write(w, http.StatusCreated, toMachineAction(p, done))
	return nil
}

// simple is an order that has a comment only.
func (a *API) simple(kind string) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error {
		var body struct{ Comment string }
		if err := read(w, r, &body); err != nil {
			return err
		}
		return a.order(w, r, kind, body.Comment, nil)
	}
}

func (a *API) isolate(w http.ResponseWriter, r *http.Request) error {
	var body struct {
		Comment, IsolationType string
		Allow                  []string
	}
	if err := read(w, r, &body); err != nil {
		return err
	}
	if body.IsolationType != "Full" {
		return bad("IsolationType", "IsolationType is Full on Linux, not %.32q", body.IsolationType)
	}
	return a.order(w, r, response.Isolate, body.Comment, response.IsolateParameters{Allow: body.Allow})
}

func (a *API) stopAndQuarantine(w http.ResponseWriter, r *http.Request) error {
	var body struct {
		Comment, Sha1, Sha256, Path string
		KeepRunning                 bool
	}
	if err := read(w, r, &body); err != nil {
		return err
	}
	kind := response.StopAndQuarantineFile
	if body.KeepRunning {
		kind = response.QuarantineFile
	}
	return a.order(w, r, kind, body.Comment, response.FileParameters{Path: body.Path, SHA1: strings.ToLower(body.Sha1), SHA256: strings.ToLower(body.Sha256)})
}

func (a *API) stopProcess(w http.ResponseWriter, r *http.Request) error {
	var body struct {
		Comment, Sha256, ProcessCreationTime string
		ProcessID                            int32 `json:"ProcessId"`
	}
	if err := read(w, r, &body); err != nil {
		return err
	}
	return a.order(w, r, response.StopProcess, body.Comment, response.ProcessParameters{ProcessID: body.ProcessID, SHA256: strings.ToLower(body.Sha256), Started: body.ProcessCreationTime})
}

func (a *API) restoreFile(w http.ResponseWriter, r *http.Request) error {
	var body struct {
		Comment, Sha256 string
		ItemID          string `json:"ItemId"`
	}
	if err := read(w, r, &body); err != nil {
		return err
	}
	return a.order(w, r, response.RestoreFile, body.Comment, response.RestoreParameters{ItemID: body.ItemID, SHA256: strings.ToLower(body.Sha256)})
}

// releaseToken makes the token with which an isolated host is released on site.
func (a *API) releaseToken(w http.ResponseWriter, r *http.Request) error {
	var body struct {
		Comment string
		Hours   int
	}
	if err := read(w, r, &body); err != nil {
		return err
	}
	if body.Hours < 1 || body.Hours > int(response.ReleaseLifetime.Hours()) {
		return bad("Hours", "Hours is between 1 and %d", int(response.ReleaseLifetime.Hours()))
	}
	p := access.From(r.Context())
	token, expires, err := a.cfg.Actions.ReleaseToken(r.Context(), r.PathValue("id"), time.Duration(body.Hours)*time.Hour, body.Comment, p.Name, p.Address)
	if err != nil {
		return err
	}
	a.write(w, http.StatusOK, map[string]any{"token": token, "expirationDateTimeUtc": expires})
	return nil
}

// packageURI is where the file of an action is.
func (a *API) packageURI(w http.ResponseWriter, r *http.Request) error {
	m, err := a.cfg.Actions.Get(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	if m.File.Name == "" {
		return action.ErrNoFile
	}
	a.write(w, http.StatusOK, map[string]any{"@odata.context": "/api/$metadata#Edm.String", "value": "/api/machineactions/" + m.ID + "/package"})
	return nil
}

// packageFile is the file of an action itself. What live response fetched needs
// its own permission.
func (a *API) packageFile(w http.ResponseWriter, r *http.Request) error {
	m, err := a.cfg.Actions.Get(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	p := access.From(r.Context())
	if need := action.Permission(m.Type); !p.May(need) {
		return &failure{http.StatusForbidden, "Forbidden", fmt.Sprintf("the file of this action needs the scope %s", need), ""}
	}
	if a.cfg.Files == nil {
		return action.ErrNoFile
	}
	f, err := a.cfg.Files.Open(m)
	if err != nil {
		return err
	}
	defer f.Close() // read-only
	if err := a.cfg.Accounts.Record(r.Context(), p.Name, p.Address, "action.download", m.ID, m.File.Name); err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Disposition", mime.FormatMediaType("attachment", map[string]string{"filename": m.File.Name}))
	w.Header().Set("Content-Length", strconv.FormatInt(m.File.Size, 10))
	io.Copy(w, f) //nolint:errcheck // the client is gone
	return nil
}
