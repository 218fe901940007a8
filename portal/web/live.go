package web

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/bulwarkhq/bulwark/api/response"
	"github.com/bulwarkhq/bulwark/event"
	"github.com/bulwarkhq/bulwark/portal/access"
	"github.com/bulwarkhq/bulwark/portal/action"
	"github.com/bulwarkhq/bulwark/portal/inventory"
	"github.com/bulwarkhq/bulwark/portal/query"
)

type liveStep struct {
	action.Action
	Typed   string
	Outputs []response.LiveOutput
	Open    bool
}

type livePage struct {
	Device  inventory.Device
	Session string
	Reason  string
	Folder  string
	Steps   []liveStep // oldest first
	Waiting bool
	Library []action.LibraryFile
	CSRF    string
	Refresh string // address of the transcript, for htmx
}

// maxSteps bounds the transcript of a page.
const maxSteps = 200

// live is the shell of a device: what was typed and what came back, read from
// the actions, which are the record.
func (s *Site) live(w http.ResponseWriter, r *http.Request) error {
	p, err := s.livePage(r)
	if err != nil {
		return err
	}
	if r.URL.Query().Get("part") == "transcript" {
		return s.fragment(w, "live", "transcript", p)
	}
	return s.render(w, r, http.StatusOK, "live", frame{Title: "Live response on " + p.Device.HostName, Section: "devices", Page: p})
}

func (s *Site) livePage(r *http.Request) (livePage, error) {
	ctx := r.Context()
	d, err := s.cfg.Inventory.Get(ctx, r.PathValue("id"))
	if err != nil {
		return livePage{}, err
	}
	p := livePage{Device: d, Session: r.URL.Query().Get("session"), Folder: "/", CSRF: visitOf(ctx).session.CSRF}
	if !event.IsHex(p.Session, 32) {
		var number [16]byte
		rand.Read(number[:]) // never fails
		p.Session = hex.EncodeToString(number[:])
	}
	p.Refresh = "/devices/" + d.ID + "/live?part=transcript&session=" + p.Session
	if s.cfg.Files != nil {
		if p.Library, err = s.cfg.Files.Library(ctx); err != nil {
			return p, err
		}
	}
	list, _, err := s.cfg.Actions.List(ctx, query.Query{
		Filter: query.All(query.Compare{Field: "machineId", Op: query.Eq, Value: d.ID}, query.Compare{Field: "type", Op: query.Eq, Value: response.LiveResponse}),
		Order:  []query.Order{{Field: "creationDateTimeUtc", Descending: true}}, Top: maxSteps,
	})
	if err != nil {
		return p, err
	}
	for _, a := range slices.Backward(list) {
		in, err := response.DecodeLive(a.Parameters)
		if err != nil || in.Session != p.Session {
			continue
		}
		step := liveStep{Action: a, Open: a.Status == action.Pending || a.Status == action.InProgress}
		var typed []string
		for _, c := range in.Commands {
			typed = append(typed, c.String())
		}
		step.Typed = strings.Join(typed, "\n")
		var out response.LiveResult
		if len(a.Result) > 0 && json.Unmarshal(a.Result, &out) == nil {
			step.Outputs = out.Commands
			for _, o := range out.Commands {
				p.Folder = o.Folder
			}
		}
		p.Waiting = p.Waiting || step.Open
		p.Reason = a.Comment
		p.Steps = append(p.Steps, step)
	}
	return p, nil
}

// liveCommand reads what was typed: run, getfile and putfile have types of their
// own.
func (s *Site) liveCommand(r *http.Request, line, folder string) (response.LiveCommand, error) {
	line = strings.TrimSpace(line)
	verb, rest, _ := strings.Cut(line, " ")
	rest = strings.TrimSpace(rest)
	c := response.LiveCommand{Type: response.LiveShell, Line: line}
	switch verb {
	case "getfile":
		path := strings.Trim(rest, `"'`)
		if !strings.HasPrefix(path, "/") {
			path = strings.TrimSuffix(folder, "/") + "/" + path
		}
		return response.LiveCommand{Type: response.LiveGetFile, Path: path}, nil
	case "run":
		name, args, _ := strings.Cut(rest, " ")
		args = strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(args), "-parameters"))
		c = response.LiveCommand{Type: response.LiveRunScript, Name: name, Args: args}
	case "putfile":
		words := strings.Fields(rest)
		c = response.LiveCommand{Type: response.LivePutFile, Overwrite: slices.Contains(words, "-overwrite"), Keep: slices.Contains(words, "-keep")}
		for _, w := range words {
			if !strings.HasPrefix(w, "-") {
				c.Name = w
			}
		}
	default:
		return c, nil
	}
	if s.cfg.Files == nil {
		return c, &invalid{http.StatusBadRequest, "This portal has no library."}
	}
	f, err := s.cfg.Files.LibraryFile(r.Context(), c.Name)
	if errors.Is(err, action.ErrNoLibraryFile) {
		return c, &invalid{http.StatusBadRequest, fmt.Sprintf("The library has no file %.64q.", c.Name)}
	}
	c.SHA256 = f.SHA256
	return c, err
}

func (s *Site) runLive(w http.ResponseWriter, r *http.Request) error {
	form := r.PostForm
	c, err := s.liveCommand(r, form.Get("line"), form.Get("folder"))
	if err != nil {
		return err
	}
	p := access.From(r.Context())
	_, err = s.cfg.Actions.Order(r.Context(), action.Request{
		Device: r.PathValue("id"), Type: response.LiveResponse, Comment: form.Get("comment"), By: p.Name, Address: p.Address,
		Parameters: response.LiveParameters{Session: form.Get("session"), Commands: []response.LiveCommand{c}},
	})
	if err != nil {
		return err
	}
	redirect(w, r, "/devices/"+r.PathValue("id")+"/live?session="+form.Get("session")+"#prompt")
	return nil
}

type libraryPage struct {
	Files    []action.LibraryFile
	MayWrite bool
	CSRF     string
}

func (s *Site) library(w http.ResponseWriter, r *http.Request) error {
	p := libraryPage{MayWrite: access.From(r.Context()).May(access.LibraryWrite), CSRF: visitOf(r.Context()).session.CSRF}
	if s.cfg.Files != nil {
		var err error
		if p.Files, err = s.cfg.Files.Library(r.Context()); err != nil {
			return err
		}
	}
	return s.render(w, r, http.StatusOK, "library", frame{Title: "Library", Section: "actions", Page: p})
}

// upload takes a file for the library; its form has several parts.
func (s *Site) upload(w http.ResponseWriter, r *http.Request) error {
	if s.cfg.Files == nil {
		return &invalid{http.StatusBadRequest, "This portal has no library."}
	}
	f, _, err := r.FormFile("file")
	if err != nil {
		return &invalid{http.StatusBadRequest, "Choose a file."}
	}
	defer f.Close() // read-only
	p := access.From(r.Context())
	if _, err := s.cfg.Files.Upload(r.Context(), r.PostForm.Get("name"), r.PostForm.Get("description"), f, p.Name, p.Address); err != nil {
		return err
	}
	redirect(w, r, "/library")
	return nil
}

func (s *Site) deleteFile(w http.ResponseWriter, r *http.Request) error {
	if s.cfg.Files == nil {
		return action.ErrNoLibraryFile
	}
	p := access.From(r.Context())
	if err := s.cfg.Files.Delete(r.Context(), r.PostForm.Get("name"), p.Name, p.Address); err != nil {
		return err
	}
	redirect(w, r, "/library")
	return nil
}
