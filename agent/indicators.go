package agent

import (
	"context"
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

// onlyByPath reports whether nothing but its path speaks against a file. The
// indicator may be gone by now; one of a hash comes with the hash.
func (r *remediation) onlyByPath(v verdict.Verdict) bool {
	return v.SHA256 == "" && !slices.ContainsFunc(v.Matches, func(m verdict.Match) bool {
		i, ours := r.indicator(m)
		return !ours || i != nil && i.Type != indicator.FilePath
	})
}

// atBlockedPath adds the match of a file that an indicator blocks by its path.
func (a *Agent) atBlockedPath(access onaccess.Access, v verdict.Verdict) verdict.Verdict {
	if name := a.indicators.BlockedPath(access.Path); name != "" {
		v.Matches = append(slices.Clip(v.Matches), verdict.Match{Threat: name, Type: verdict.Malware, Signature: name, Source: "indicators", Offset: -1})
	}
	return v
}

// sums remembers the hashes of files that their path has blocked: the engine
// tells only those of what it found itself, and a file may be asked for often.
type sums struct {
	mu    sync.Mutex
	known map[string]string // by device, inode, time of change and size
}

// Bounds of sums. A larger file goes without a hash: detections wait for it.
const (
	maxSums   = 256
	maxSummed = 64 << 20 // bytes
)

// into gives v the size of the file and its hash, where it is not too large.
func (s *sums) into(ctx context.Context, v *verdict.Verdict, f *os.File) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return fmt.Errorf("size of a file that its path has blocked: %w", err)
	}
	v.Size = st.Size
	if st.Size > maxSummed {
		return nil
	}
	key := fmt.Sprint(st.Dev, st.Ino, st.Ctim, st.Size)
	s.mu.Lock()
	hash, ok := s.known[key]
	s.mu.Unlock()
	if !ok {
		var err error
		// Not more than that, even if it grows.
		if hash, err = hashFile(ctx, io.NewSectionReader(f, 0, st.Size)); err != nil {
			return fmt.Errorf("hash of a file that its path has blocked: %w", err)
		}
		s.mu.Lock()
		if len(s.known) >= maxSums || s.known == nil {
			s.known = map[string]string{}
		}
		s.known[key] = hash
		s.mu.Unlock()
	}
	v.SHA256 = hash
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
