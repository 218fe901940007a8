package rest

import (
	"net/http"
	"strings"
	"time"

	"github.com/bulwarkhq/bulwark/api/response"
	"github.com/bulwarkhq/bulwark/portal/access"
	"github.com/bulwarkhq/bulwark/portal/quarantine"
)

// quarantinedFile is a file that a device took away, with what was last ordered
// about it. It is our own: the reference product restores by file only.
type quarantinedFile struct {
	MachineID       string               `json:"machineId"`
	ComputerDNSName string               `json:"computerDnsName"`
	AlertID         string               `json:"alertId"`
	ThreatName      string               `json:"threatName"`
	FilePath        string               `json:"filePath"`
	Time            time.Time            `json:"detectionTime"`
	Action          string               `json:"action"`
	Quarantined     bool                 `json:"quarantined"`
	LastOrder       *machineActionObject `json:"lastOrder"`
}

// quarantined lists where a file was found, and whether it is in quarantine there.
func (a *API) quarantined(w http.ResponseWriter, r *http.Request) error {
	items, err := a.quarantine.Items(r.Context(), "", strings.ToLower(r.PathValue("sha256")), a.cfg.Now().Add(-quarantine.Kept))
	if err != nil {
		return err
	}
	who := access.From(r.Context())
	out := make([]quarantinedFile, len(items))
	for i, item := range items {
		d := item.Alert.Detection
		out[i] = quarantinedFile{
			MachineID: item.Alert.DeviceID, ComputerDNSName: item.Alert.DeviceName, AlertID: d.ID, ThreatName: d.ThreatName, FilePath: d.File.FolderPath,
			Time: d.Time, Action: d.Action, Quarantined: item.Kept(),
		}
		if item.Order != nil && who.May(access.MachineRead) {
			o := toMachineAction(who, *item.Order)
			out[i].LastOrder = &o
		}
	}
	a.write(w, http.StatusOK, map[string]any{"value": out})
	return nil
}

// orderQuarantined gives an order about a file to the devices that have it in
// their quarantine.
func (a *API) orderQuarantined(kind string) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error {
		var body struct {
			Comment    string
			MachineIDs []string `json:"MachineIds"`
		}
		if err := read(w, r, &body); err != nil {
			return err
		}
		if len(body.MachineIDs) > quarantine.MaxDevices {
			return bad("MachineIds", "at most %d machines get an order at once", quarantine.MaxDevices)
		}
		who := access.From(r.Context())
		done, err := a.quarantine.Order(r.Context(), quarantine.Request{
			Type: kind, SHA256: strings.ToLower(r.PathValue("sha256")), Devices: body.MachineIDs, Comment: body.Comment, By: who.Name, Address: who.Address,
		})
		if err != nil {
			return err
		}
		actions, refused := []machineActionObject{}, []map[string]string{}
		for _, one := range done.Actions {
			actions = append(actions, toMachineAction(who, one))
		}
		for _, one := range done.Refused {
			refused = append(refused, map[string]string{"machineId": one.DeviceID, "computerDnsName": one.DeviceName, "message": one.Err.Error()})
		}
		a.write(w, http.StatusCreated, map[string]any{"value": actions, "refused": refused, "remaining": done.Left})
		return nil
	}
}

func (a *API) removeQuarantined(w http.ResponseWriter, r *http.Request) error {
	var body struct {
		Comment, Sha256 string
		ItemID          string `json:"ItemId"`
	}
	if err := read(w, r, &body); err != nil {
		return err
	}
	return a.order(w, r, response.RemoveQuarantinedFile, body.Comment, response.RestoreParameters{ItemID: body.ItemID, SHA256: strings.ToLower(body.Sha256)})
}
