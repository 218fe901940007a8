package web

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/bulwarkhq/bulwark/api/response"
	"github.com/bulwarkhq/bulwark/portal/access"
	"github.com/bulwarkhq/bulwark/portal/action"
	"github.com/bulwarkhq/bulwark/portal/query"
)

type actionsPage struct {
	listing
	Statuses []string
	Actions  []action.Action
	May      func(string) bool // may cancel actions of a type
	CSRF     string
}

func (s *Site) actions(w http.ResponseWriter, r *http.Request) error {
	l := newListing(r.URL, []string{"status"}, []string{"creationDateTimeUtc", "status", "computerDnsName", "requestor", "type"}, "-creationDateTimeUtc")
	filter := query.All(l.contains("computerDnsName", "requestor", "type", "id"), l.equals("status", "status", action.Statuses()))
	list, total, err := s.cfg.Actions.List(r.Context(), l.query(filter))
	if err != nil {
		return err
	}
	l.Total, l.Shown = total, len(list)
	return s.render(w, r, http.StatusOK, "actions", frame{Title: "Actions", Section: "actions", Page: actionsPage{
		l, action.Statuses(), list, mayOrder(r), visitOf(r.Context()).session.CSRF,
	}})
}

func (s *Site) orderScan(w http.ResponseWriter, r *http.Request) error {
	p := access.From(r.Context())
	id := r.PathValue("id")
	if _, err := s.cfg.Actions.Scan(r.Context(), id, r.PostForm.Get("type"), r.PostForm.Get("comment"), p.Name, p.Address); err != nil {
		return err
	}
	redirect(w, r, "/devices/"+id+"#actions")
	return nil
}

func (s *Site) cancelAction(w http.ResponseWriter, r *http.Request) error {
	p := access.From(r.Context())
	a, err := s.cfg.Actions.Get(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	if !p.May(action.Permission(a.Type)) {
		return &invalid{http.StatusForbidden, "Your role does not include this kind of action."}
	}
	if _, err := s.cfg.Actions.Cancel(r.Context(), r.PathValue("id"), r.PostForm.Get("comment"), p.Name, p.Address); err != nil {
		return err
	}
	redirect(w, r, "/actions")
	return nil
}

// mayOrder says of which types the user may give and cancel orders.
func mayOrder(r *http.Request) func(string) bool {
	p := access.From(r.Context())
	return func(kind string) bool { return p.May(action.Permission(kind)) }
}

// order gives an order from a form of a device's page or an alert's.
func (s *Site) order(w http.ResponseWriter, r *http.Request, kind string, parameters any) error {
	p := access.From(r.Context())
	a, err := s.cfg.Actions.Order(r.Context(), action.Request{
		Device: r.PathValue("id"), Type: kind, Parameters: parameters, Comment: r.PostForm.Get("comment"), By: p.Name, Address: p.Address,
	})
	if err != nil {
		return err
	}
	redirect(w, r, "/actions/"+a.ID)
	return nil
}

func (s *Site) orderSimple(kind string) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error { return s.order(w, r, kind, nil) }
}

func (s *Site) orderIsolate(w http.ResponseWriter, r *http.Request) error {
	return s.order(w, r, response.Isolate, response.IsolateParameters{Allow: strings.Fields(strings.ReplaceAll(r.PostForm.Get("allow"), ",", " "))})
}

func (s *Site) orderQuarantine(w http.ResponseWriter, r *http.Request) error {
	p := response.FileParameters{Path: r.PostForm.Get("path")}
	switch hash := strings.ToLower(strings.TrimSpace(r.PostForm.Get("hash"))); len(hash) {
	case 0:
	case 40:
		p.SHA1 = hash
	default:
		p.SHA256 = hash // checked with the order
	}
	kind := response.QuarantineFile
	if r.PostForm.Get("stop") != "" {
		kind = response.StopAndQuarantineFile
	}
	return s.order(w, r, kind, p)
}

func (s *Site) orderStop(w http.ResponseWriter, r *http.Request) error {
	pid, err := strconv.ParseInt(strings.TrimSpace(r.PostForm.Get("pid")), 10, 32)
	if err != nil {
		return &invalid{http.StatusBadRequest, "The number of the process is missing."}
	}
	return s.order(w, r, response.StopProcess, response.ProcessParameters{ProcessID: int32(pid), SHA256: r.PostForm.Get("sha256"), Started: r.PostForm.Get("started")})
}

func (s *Site) orderRestore(w http.ResponseWriter, r *http.Request) error {
	return s.order(w, r, response.RestoreFile, response.RestoreParameters{ItemID: r.PostForm.Get("item"), SHA256: strings.ToLower(r.PostForm.Get("sha256"))})
}

func (s *Site) orderRemove(w http.ResponseWriter, r *http.Request) error {
	return s.order(w, r, response.RemoveQuarantinedFile, response.RestoreParameters{ItemID: r.PostForm.Get("item"), SHA256: strings.ToLower(r.PostForm.Get("sha256"))})
}

type actionPage struct {
	Action     action.Action
	Parameters []fact
	Result     string
	Live       []response.LiveOutput
	MayCancel  bool
	MayFile    bool
	MayRelease bool
	Token      string
	Expires    time.Time
	CSRF       string
}

func (s *Site) action(w http.ResponseWriter, r *http.Request) error {
	return s.showAction(w, r, "", time.Time{})
}

func (s *Site) showAction(w http.ResponseWriter, r *http.Request, token string, expires time.Time) error {
	a, err := s.cfg.Actions.Get(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	may := mayOrder(r)(a.Type)
	p := actionPage{Action: a, Token: token, Expires: expires, CSRF: visitOf(r.Context()).session.CSRF, MayCancel: may && a.Status == action.Pending, MayFile: may, MayRelease: may && a.Type == response.Isolate}
	p.Parameters = parameterFacts(a.Parameters)
	if a.Type == response.LiveResponse {
		var live response.LiveResult
		if len(a.Result) > 0 && json.Unmarshal(a.Result, &live) == nil && may {
			p.Live = live.Commands
		}
	} else if len(a.Result) > 2 {
		p.Result = string(a.Result)
	}
	return s.render(w, r, http.StatusOK, "action", frame{Title: words(a.Type) + " on " + a.DeviceName, Section: "actions", Page: p})
}

// parameterFacts are the parameters of an order for people, without keys.
func parameterFacts(raw json.RawMessage) []fact {
	var m map[string]any
	if err := json.Unmarshal(raw, &m); err != nil {
		return nil
	}
	var out []fact
	for _, k := range slices.Sorted(maps.Keys(m)) {
		if k == "ReleaseKey" || k == "Order" || k == "Commands" || k == "Session" {
			continue
		}
		out = append(out, fact{Name: words(k), Value: fmt.Sprint(m[k])})
	}
	return out
}

func (s *Site) releaseToken(w http.ResponseWriter, r *http.Request) error {
	hours, err := strconv.Atoi(r.PostForm.Get("hours"))
	if err != nil || hours < 1 || hours > int(response.ReleaseLifetime.Hours()) {
		return &invalid{http.StatusBadRequest, fmt.Sprintf("A token is good for 1 to %d hours.", int(response.ReleaseLifetime.Hours()))}
	}
	p := access.From(r.Context())
	token, expires, err := s.cfg.Actions.ReleaseToken(r.Context(), r.PathValue("id"), time.Duration(hours)*time.Hour, r.PostForm.Get("comment"), p.Name, p.Address)
	if err != nil {
		return err
	}
	return s.showAction(w, r, token, expires)
}

// actionPackage sends what the device sent. It is foreign: never shown, only
// saved.
func (s *Site) actionPackage(w http.ResponseWriter, r *http.Request) error {
	a, err := s.cfg.Actions.Get(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	p := access.From(r.Context())
	if !p.May(action.Permission(a.Type)) {
		return &invalid{http.StatusForbidden, "Your role does not include the files of this kind of action."}
	}
	if s.cfg.Files == nil {
		return action.ErrNoFile
	}
	f, err := s.cfg.Files.Open(a)
	if err != nil {
		return err
	}
	defer f.Close() // read-only
	if err := s.cfg.Accounts.Record(r.Context(), p.Name, p.Address, "action.download", a.ID, a.File.Name); err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Disposition", mime.FormatMediaType("attachment", map[string]string{"filename": a.File.Name}))
	w.Header().Set("Content-Length", strconv.FormatInt(a.File.Size, 10))
	io.Copy(w, f) //nolint:errcheck // the client is gone
	return nil
}

func upperFirst(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}
