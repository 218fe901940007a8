package process

import (
	"bytes"
	"io"
	"os"
	"strconv"
	"sync"
	"time"
)

const (
	maxPasswd     = 8 << 20
	passwdRecheck = 5 * time.Second
)

// Users names user ids from the passwd file. It does not ask the name service:
// that needs cgo and may block on the network. Unknown ids have no name.
type Users struct {
	file string

	mu      sync.Mutex
	names   map[uint32]string
	checked time.Time
	mtime   time.Time
	size    int64
}

// NewUsers reads names from file (usually /etc/passwd) when first asked, and
// again when the file changed.
func NewUsers(file string) *Users { return &Users{file: file} }

// Name gives the name of uid, empty when there is none.
func (u *Users) Name(uid uint32) string {
	u.mu.Lock()
	defer u.mu.Unlock()
	if now := time.Now(); now.Sub(u.checked) > passwdRecheck {
		u.checked = now
		if st, err := os.Stat(u.file); err == nil && (u.names == nil || !st.ModTime().Equal(u.mtime) || st.Size() != u.size) {
			if f, err := os.Open(u.file); err == nil {
				if data, err := io.ReadAll(io.LimitReader(f, maxPasswd)); err == nil {
					u.names, u.mtime, u.size = ParsePasswd(data), st.ModTime(), st.Size()
				}
				f.Close()
			}
		}
	}
	return u.names[uid]
}

// ParsePasswd reads the text of a passwd file. Lines that are none are skipped;
// of several names for one id the first counts, as in the name service.
func ParsePasswd(data []byte) map[uint32]string {
	names := make(map[uint32]string)
	for line := range bytes.SplitSeq(data, []byte("\n")) {
		f := bytes.SplitN(line, []byte(":"), 4)
		if len(f) < 4 || len(f[0]) == 0 || len(f[0]) > 256 || f[0][0] == '#' {
			continue
		}
		uid, err := strconv.ParseUint(string(f[2]), 10, 32)
		if err != nil {
			continue
		}
		if _, ok := names[uint32(uid)]; !ok {
			names[uint32(uid)] = clean(string(f[0]))
		}
	}
	return names
}
