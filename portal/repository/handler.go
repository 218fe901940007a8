package repository

import (
	"io/fs"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"
)

// slowestDownload is the rate in bytes per second that a client must reach.
const slowestDownload = 4 << 10

// Handler serves the published tree below Path. It needs no sign-in: hosts
// that are not enrolled yet install from it, and everything is signed.
func (p *Publisher) Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
			return
		}
		// apt asks for a//b and a/./b now and then.
		name := strings.TrimPrefix(path.Clean("/"+strings.TrimPrefix(r.URL.Path, Path)), "/")
		if !fs.ValidPath(name) || strings.HasPrefix(name, ".") || strings.Contains(name, "/.") {
			http.NotFound(w, r)
			return
		}
		f, err := os.Open(p.path("current", filepath.FromSlash(name)))
		if err != nil {
			if _, missing := os.Stat(p.path("current")); missing != nil {
				http.Error(w, ErrNothing.Error(), http.StatusNotFound)
				return
			}
			http.NotFound(w, r)
			return
		}
		defer f.Close()
		st, err := f.Stat()
		if err != nil || !st.Mode().IsRegular() {
			http.NotFound(w, r)
			return
		}
		h := w.Header()
		h.Set("Content-Type", contentType(name))
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Cache-Control", "no-cache")
		if strings.Contains(name, "/by-hash/") || strings.HasSuffix(name, ".deb") || strings.HasSuffix(name, ".rpm") || strings.HasSuffix(name, ".xml.gz") {
			h.Set("Cache-Control", "public, max-age=31536000, immutable") // named by content or version
		}
		// Large files over slow lines take longer than pages may. Not every server
		// can set deadlines; then its own hold.
		limit := time.Minute + time.Duration(st.Size()/slowestDownload)*time.Second
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(limit))
		http.ServeContent(w, r, "", st.ModTime(), f)
	})
}

func contentType(name string) string {
	switch path.Ext(name) {
	case ".deb":
		return "application/vnd.debian.binary-package"
	case ".rpm":
		return "application/x-rpm"
	case ".json":
		return "application/json"
	case ".xml":
		return "application/xml"
	case ".sh", ".list", ".sources", ".repo", ".asc", ".conf", ".pem":
		return "text/plain; charset=utf-8"
	}
	return "application/octet-stream"
}
