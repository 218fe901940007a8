// Package testrelease publishes definitions as the portal does, for tests of the
// agent (which must not import the portal).
package testrelease

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/portal/definitions"
)

// Repository is a repository of releases.
type Repository struct {
	p      *definitions.Publisher
	t      testing.TB
	source string
}

// New makes an empty one with its keys; now is its clock.
func New(t testing.TB, now func() time.Time) *Repository {
	t.Helper()
	return &Repository{
		t: t, source: t.TempDir(),
		p: definitions.New(definitions.Config{Dir: filepath.Join(t.TempDir(), "definitions"), Now: now, KnownClean: []string{}}),
	}
}

// Root is the root metadata.
func (r *Repository) Root() []byte {
	r.t.Helper()
	root, err := r.p.Root()
	if err != nil {
		r.t.Fatal(err)
	}
	return root
}

// Repository is the published folder.
func (r *Repository) Repository() string { return r.p.Repository() }

// Publish publishes a release with one file.
func (r *Repository) Publish(name, text string) {
	r.t.Helper()
	if err := os.WriteFile(filepath.Join(r.source, name), []byte(text), 0o644); err != nil {
		r.t.Fatal(err)
	}
	_, err := r.p.Build(context.Background(), definitions.BuildOptions{
		Channel: "production", Sources: []definitions.Source{{Kind: "folder", Name: "own", Location: r.source}},
	})
	if err != nil {
		r.t.Fatal(err)
	}
}
