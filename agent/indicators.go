package agent

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/bulwarkhq/bulwark/agent/onaccess"
	"github.com/bulwarkhq/bulwark/api/indicator"
	"github.com/bulwarkhq/bulwark/engine/verdict"
	"github.com/bulwarkhq/bulwark/event"
)

// indicator gives the indicator whose hash a match is, and whether it is one's at
// all; nil and true for one that is gone by now.
func (r *remediation) indicator(m verdict.Match) (i *indicator.Indicator, ours bool) {
	if r.a.indicators == nil {
		return nil, false
	}
	return r.a.indicators.OfThreat(m.Threat)
}

// onlyBlocked reports whether a file was found by nothing but indicators that
// say to block it, not to take it away.
func (r *remediation) onlyBlocked(matches []verdict.Match) bool {
	return len(matches) > 0 && !slices.ContainsFunc(matches, func(m verdict.Match) bool {
		i, ours := r.indicator(m)
		// A pattern of paths may mean half of the system: nothing is taken away by it.
		return !ours || i != nil && i.Action == indicator.Remediate && i.Type != indicator.FilePath
	})
}

// atBlockedPath adds the match of a file that an indicator blocks by its path.
func (a *Agent) atBlockedPath(access onaccess.Access, v verdict.Verdict) verdict.Verdict {
	if a.indicators == nil {
		return v
	}
	if name := a.indicators.BlockedPath(access.Path); name != "" {
		v.Matches = append(slices.Clip(v.Matches), verdict.Match{Threat: name, Type: verdict.Malware, Signature: name, Source: "indicators", Offset: -1})
	}
	return v
}

// blocksPaths reports whether the name under which a file is opened matters.
func (a *Agent) blocksPaths() bool { return a.indicators != nil && a.indicators.BlocksPaths() }

// sums remembers the hashes of files that their path has blocked: the engine
// tells only those of what it found itself, and a file may be asked for often.
type sums struct {
	mu    sync.Mutex
	known map[string]string // by device, inode, time of change and size
}

// Bounds of sums. Of a file that is larger nothing is recorded.
const (
	maxSums   = 256
	maxSummed = 1 << 30
)

// into gives v the hash of the file where it has none.
func (s *sums) into(v *verdict.Verdict, f *os.File) error {
	if v.SHA256 != "" {
		return nil
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return fmt.Errorf("hash of a file that its path has blocked: %w", err)
	}
	if st.Size > maxSummed {
		return fmt.Errorf("a file that its path has blocked has more than %d bytes", maxSummed)
	}
	key := fmt.Sprint(st.Dev, st.Ino, st.Ctim, st.Size)
	s.mu.Lock()
	defer s.mu.Unlock()
	hash, ok := s.known[key]
	if !ok {
		sum := sha256.New()
		if _, err := io.Copy(sum, io.NewSectionReader(f, 0, st.Size)); err != nil {
			return fmt.Errorf("hash of a file that its path has blocked: %w", err)
		}
		hash = hex.EncodeToString(sum.Sum(nil))
		if len(s.known) >= maxSums || s.known == nil {
			s.known = map[string]string{}
		}
		s.known[key] = hash
	}
	v.SHA256, v.Size = hash, st.Size
	return nil
}

// asIndicator makes the alert about a file the one that the indicator's author
// wrote.
func asIndicator(a *event.Alert, i *indicator.Indicator) {
	a.Title, a.Severity = i.Title, event.Severity(i.Severity)
	a.Source, a.Category, a.DetectorID = event.SourceIndicator, "SuspiciousActivity", "indicator:"+i.Type+":"+i.Value
	a.ThreatName, a.ThreatFamily = "", ""
	a.Description = i.Description
	if a.Description == "" {
		a.Description = fmt.Sprintf("The file %s is the indicator %s %s.", a.File.FolderPath, i.Type, i.Value)
	}
}
