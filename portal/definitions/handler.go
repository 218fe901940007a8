package definitions

import (
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/bulwarkhq/bulwark/api/release"
)

// slowestDownload is the rate in bytes per second that a client must reach.
const slowestDownload = 4 << 10

// Handler serves the repository below release.Path. It needs no sign-in: what
// it serves is public to whoever may reach the portal, and signed.
func (p *Publisher) Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
			return
		}
		name := strings.TrimPrefix(r.URL.Path, release.Path)
		dir, _, _ := strings.Cut(name, "/")
		if !fs.ValidPath(name) || strings.Contains(name, "/.") || dir != release.MetadataDir && dir != release.TargetsDir {
			http.NotFound(w, r)
			return
		}
		f, err := os.Open(filepath.Join(p.Repository(), filepath.FromSlash(name)))
		if err != nil {
			http.NotFound(w, r)
			return
		}
		defer f.Close()
		st, err := f.Stat()
		if err != nil || !st.Mode().IsRegular() {
			http.NotFound(w, r)
			return
		}
		// Every other file never changes.
		cache := "public, max-age=31536000, immutable"
		if name == release.MetadataDir+"/timestamp.json" || name == release.MetadataDir+"/root.json" {
			cache = "no-cache"
		}
		h := w.Header()
		h.Set("Cache-Control", cache)
		h.Set("Content-Type", "application/octet-stream")
		if filepath.Ext(name) == ".json" {
			h.Set("Content-Type", "application/json")
		}
		h.Set("X-Content-Type-Options", "nosniff")
		// Large files over slow lines take longer than pages may. Not every server
		// can set deadlines; then its own hold.
		limit := time.Minute + time.Duration(st.Size()/slowestDownload)*time.Second
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(limit))
		http.ServeContent(w, r, "", st.ModTime(), f)
	})
}
