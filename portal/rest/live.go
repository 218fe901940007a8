package rest

import (
	"crypto/rand"
	"encoding/hex"
	"net/http"
	"slices"

	"github.com/bulwarkhq/bulwark/api/response"
)

// liveCommand is a command of runliveresponse.
type liveCommand struct {
	Type   string `json:"type"`
	Params []struct {
		Key   string `json:"key"`
		Value string `json:"value"`
	} `json:"params"`
}

// runLive orders live response commands; each call is a session of its own.
func (a *API) runLive(w http.ResponseWriter, r *http.Request) error {
	var body struct {
		Comment  string
		Commands []liveCommand
	}
	if err := read(w, r, &body); err != nil {
		return err
	}
	var number [16]byte
	rand.Read(number[:]) // never fails
	p := response.LiveParameters{Session: hex.EncodeToString(number[:])}
	for _, c := range body.Commands {
		value := func(key string) string {
			i := slices.IndexFunc(c.Params, func(p struct {
				Key   string `json:"key"`
				Value string `json:"value"`
			},
			) bool {
				return p.Key == key
			})
			if i < 0 {
				return ""
			}
			return c.Params[i].Value
		}
		lc := response.LiveCommand{Type: c.Type}
		switch c.Type {
		case response.LiveRunScript:
			lc.Name, lc.Args = value("ScriptName"), value("Args")
		case response.LivePutFile:
			lc.Name = value("FileName")
		case response.LiveGetFile:
			lc.Path = value("Path")
		case response.LiveShell:
			lc.Line = value("Command")
		}
		if lc.Name != "" {
			if a.cfg.Files == nil {
				return bad("Commands", "this portal has no library")
			}
			f, err := a.cfg.Files.LibraryFile(r.Context(), lc.Name)
			if err != nil {
				return bad("Commands", "the library has no file %.64q", lc.Name)
			}
			lc.SHA256 = f.SHA256
		}
		p.Commands = append(p.Commands, lc)
	}
	return a.order(w, r, response.LiveResponse, body.Comment, p)
}
