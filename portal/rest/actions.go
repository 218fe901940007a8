package rest

import (
	"net/http"
	"time"

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
}

func toMachineAction(a action.Action) machineActionObject {
	m := machineActionObject{
		ID: a.ID, Type: a.Type, Requestor: a.Requestor, RequestorComment: a.Comment, RequestSource: "Portal", Status: a.Status, Message: a.Message,
		MachineID: a.DeviceID, ComputerDNSName: a.DeviceName, CreationTime: a.Created, LastUpdateTime: a.Updated, ExpirationTime: a.Expires,
	}
	if !a.Cancelled.IsZero() {
		m.CancellationTime, m.CancellationBy, m.CancellationComment = &a.Cancelled, &a.CancelledBy, &a.CancelNote
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
	a.write(w, http.StatusCreated, toMachineAction(done))
	return nil
}

func (a *API) machineActions(w http.ResponseWriter, r *http.Request) error {
	o, err := parse(r, action.Fields())
	if err != nil {
		return err
	}
	list, count, err := a.cfg.Actions.List(r.Context(), o.Query)
	if err != nil {
		return err
	}
	values := make([]machineActionObject, len(list))
	for i, m := range list {
		values[i] = toMachineAction(m)
	}
	a.write(w, http.StatusOK, newPage(r, "MachineActions", o.Query, values, len(values), count))
	return nil
}

func (a *API) machineAction(w http.ResponseWriter, r *http.Request) error {
	m, err := a.cfg.Actions.Get(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	a.write(w, http.StatusOK, toMachineAction(m))
	return nil
}

func (a *API) cancelAction(w http.ResponseWriter, r *http.Request) error {
	var body struct{ Comment string }
	if err := read(w, r, &body); err != nil {
		return err
	}
	p := access.From(r.Context())
	m, err := a.cfg.Actions.Cancel(r.Context(), r.PathValue("id"), body.Comment, p.Name, p.Address)
	if err != nil {
		return err
	}
	a.write(w, http.StatusOK, toMachineAction(m))
	return nil
}
