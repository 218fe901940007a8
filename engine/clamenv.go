package engine

import (
	"slices"

	"github.com/bulwarkhq/bulwark/engine/clamdb"
	"github.com/bulwarkhq/bulwark/engine/definitions"
	"github.com/bulwarkhq/bulwark/engine/exefmt"
	"github.com/bulwarkhq/bulwark/engine/filetype"
	"github.com/bulwarkhq/bulwark/engine/imagehash"
)

// clamEnv is the worker as a logical signature sees it.
type clamEnv struct {
	*worker
	rule *definitions.Rule
}

// Matches is how often the pattern of a sub-signature was found.
func (e *clamEnv) Matches(n int) int {
	if n < 0 || uint32(n) >= e.rule.NStrings {
		return 0
	}
	return len(e.matches(e.rule.Strings + uint32(n)))
}

// Start is where the i-th of these matches begins.
func (e *clamEnv) Start(n, i int) int64 { return e.matches(e.rule.Strings + uint32(n))[i].Start }

// Layout is that of the program.
func (e *clamEnv) Layout() *exefmt.Layout { return e.layout() }

// Containers are the types of the containers around the object.
func (e *clamEnv) Containers() []string {
	var out []string
	for o := e.o; o.parent != nil; o = o.parent {
		out = append(out, filetype.ClamType(o.container))
	}
	slices.Reverse(out)
	return out
}

// ImageHash is the perceptual hash of a picture, computed when first asked for.
func (e *clamEnv) ImageHash() (uint64, bool) {
	w := e.worker
	if !w.hashed {
		w.hashed = true
		if w.o.normal == 0 && filetype.IsGraphics(w.fileType) {
			h, err := imagehash.Of(w.o.Data, w.size, w.fileType, w.s.stop)
			w.imageHash, w.isImage = h, err == nil
		}
	}
	return w.imageHash, w.isImage
}

// Regexps is the worker's cache of compiled expressions.
func (e *clamEnv) Regexps() *clamdb.Regexps { return &e.regexps }

// Stop reports that the scan's time is over.
func (e *clamEnv) Stop() bool { return e.s.stop() }
