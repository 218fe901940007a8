package onaccess

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestRandomModel compares the outcome of each open with the file's content
// at that moment. Each of several processes owns a few files, on which it
// does one random thing after the other, while all of them also open each
// other's files to keep the caches busy. A process's own files change only
// through itself, so what an open of them must say is known exactly.
func TestRandomModel(t *testing.T) {
	for _, c := range []struct {
		fsType string
		ignore IgnorePolicy
	}{
		{"tmpfs", IgnoreOff},
		{"tmpfs", IgnoreAll},
		{"ext4", IgnoreOff},
		{"ext4", IgnoreAll},
		{"btrfs", IgnoreAll},
		{"xfs", IgnoreAll},
		{"overlay", IgnoreAll},
	} {
		t.Run(c.fsType+"/"+string(c.ignore), func(t *testing.T) {
			haveUring(t)
			const owners, files = 4, 5
			rounds := 150
			if faultTime > 0 {
				rounds *= 8
			}
			ignore := c.ignore
			dir := ""
			if c.fsType == "tmpfs" {
				dir = tmpfs(t)
			} else {
				dir = loopFS(t, c.fsType)
			}
			// The same files on another mount, which nobody watches.
			other := t.TempDir()
			if err := unix.Mount(dir, other, "", unix.MS_BIND, ""); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := unix.Unmount(other, unix.MNT_DETACH); err != nil {
					t.Error(err)
				}
			})
			var generation atomic.Uint64
			r := newRigOn(t, dir, func(c *Config) {
				c.Ignore, c.sweepPause = ignore, time.Millisecond
				c.Generation = generation.Load
				// Opening for writing must work on bad files: writers open through
				// another name.
				c.Excluded = func(a Access) bool { return strings.HasSuffix(a.Path, ".rw") || strings.HasSuffix(a.Path, ".source") }
			})
			seed := uint64(time.Now().UnixNano())
			t.Logf("seed %d", seed)
			var wg sync.WaitGroup
			for o := range owners {
				actor := startAccessor(t)
				wg.Go(func() {
					rnd := rand.New(rand.NewPCG(seed, uint64(o)))
					m := model{rig: r, actor: actor, rnd: rnd, owner: o, owners: owners, ignore: ignore, other: other, generation: &generation}
					m.clones = c.fsType == "btrfs" || c.fsType == "xfs"
					m.direct = c.fsType != "overlay"
					if err := m.run(files, rounds); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			s := r.Stats(0)
			t.Logf("opens %d, hits %d, scans %d, denied %d, ignore marks %d, joined %d",
				s.Opens, s.CacheHits, s.Scans, s.Denied, s.IgnoreMarks, s.Joined)
			if s.DeadlinesMissed+s.AllowedStalled+s.AllowedSaturated+s.QueueFull+s.ScanErrors+s.Panics > 0 {
				t.Errorf("accesses without verdict: %+v", s)
			}
			if s.Denied == 0 || s.IgnoreMarks == 0 && ignore == IgnoreAll && c.fsType != "overlay" {
				t.Error("the test did not reach what it is for")
			}
		})
	}
}

// model is one process with the files that it owns.
type model struct {
	*rig
	actor          *process
	rnd            *rand.Rand
	owner, owners  int
	ignore         IgnorePolicy
	other          string // another mount of the same files
	generation     *atomic.Uint64
	clones, direct bool // the file system can
}

const modelSize = 6000

var modelClean = strings.Repeat("harmless", modelSize/8)

func (m *model) name(owner, i int) string { return m.path(fmt.Sprintf("f%d.%d", owner, i)) }

func (m *model) run(files, rounds int) error {
	content := make([]string, files)
	for i := range files {
		m.actor.must(request{Op: "write", Path: m.name(m.owner, i), Data: modelClean})
		content[i] = modelClean
		// The name for writing is a hard link.
		if err := os.Link(m.name(m.owner, i), m.name(m.owner, i)+".rw"); err != nil {
			return err
		}
	}
	var trace []string
	for round := range rounds {
		i := m.rnd.IntN(files)
		p := m.name(m.owner, i)
		op, now, err := m.change(p, content[i])
		if err != nil {
			return err
		}
		content[i] = now
		trace = append(trace, fmt.Sprintf("%d:%s", i, op))
		trace = trace[max(0, len(trace)-40):]
		for range 1 + m.rnd.IntN(3) {
			got := m.actor.do(request{Op: "read", Path: p})
			infected := strings.Contains(content[i], bad)
			switch {
			case infected && got.Errno != eperm:
				return fmt.Errorf("round %d: %s opened although it holds bad content (%q); operations %s", round, p, got.Err, trace)
			case !infected && got.Err != "":
				return fmt.Errorf("round %d: %s refused although it is clean: %s; operations %s", round, p, got.Err, trace)
			case !infected && got.Content != content[i]:
				return fmt.Errorf("round %d: the test's model of %s is wrong; operations %s", round, p, trace)
			}
		}
	}
	return nil
}

// change does one random thing with a file and returns its content afterwards.
func (m *model) change(p, content string) (op, now string, err error) {
	ops := []string{
		"patch", "truncate", "write", "punch", "splice", "rename over", "map", "settle", "settle", "settle", "open", "uringwrite", "attributes",
		"copyrange", "other mount", "namespace", "definitions", "policy",
	}
	if m.clones {
		ops = append(ops, "clone")
	}
	if m.direct {
		ops = append(ops, "direct")
	}
	op = ops[m.rnd.IntN(len(ops))]
	if (op == "map" || op == "copyrange") && len(content) < modelSize {
		op = "patch"
	}
	rw := p + ".rw"
	data := bad
	if m.rnd.IntN(2) == 0 {
		data = strings.Repeat("-", len(bad))
	}
	off := int64(m.rnd.IntN(modelSize - len(bad)))
	patched := func() string {
		c := content
		if need := int(off) + len(data); len(c) < need {
			c += strings.Repeat("\x00", need-len(c))
		}
		return c[:off] + data + c[int(off)+len(data):]
	}
	// source is a file of the process's own, never opened for reading by anybody
	// who is watched.
	source := func(whole string) (string, error) {
		s := p + ".source"
		return s, os.WriteFile(s, []byte(whole), 0o644)
	}
	switch op {
	case "patch", "splice", "uringwrite":
		m.actor.must(request{Op: op, Path: rw, Data: data, Off: off})
		return op, patched(), nil
	case "other mount":
		m.actor.must(request{Op: "patch", Path: filepath.Join(m.other, filepath.Base(rw)), Data: data, Off: off})
		return op, patched(), nil
	case "namespace":
		m.actor.must(request{Op: op, Path: rw, Data: data, Off: off})
		return op, patched(), nil
	case "truncate":
		m.actor.must(request{Op: op, Path: rw, Off: off})
		return op, (content + strings.Repeat("\x00", modelSize*2))[:off], nil
	case "write":
		m.actor.must(request{Op: op, Path: rw, Data: data + modelClean})
		return op, data + modelClean, nil
	case "punch":
		if content == "" {
			return op, content, nil
		}
		m.actor.must(request{Op: op, Path: rw, N: len(content)})
		return op, strings.Repeat("\x00", len(content)), nil
	case "rename over": // a new file under the old names
		m.actor.must(request{Op: "write", Path: p + ".new.rw", Data: modelClean + data})
		m.actor.must(request{Op: "rename", Path: p + ".new.rw", To: rw})
		m.actor.must(request{Op: "remove", Path: p})
		return op, modelClean + data, os.Link(rw, p)
	case "map":
		m.actor.must(request{Op: op, Path: rw, N: modelSize})
		m.actor.must(request{Op: "store", Path: rw, Data: data, Off: off})
		m.actor.must(request{Op: "unmap", Path: rw})
		if m.ignore == IgnoreAll && strings.Contains(patched(), bad) {
			// The window that IgnoreAll documents: the mark goes when the
			// CLOSE_WRITE is read, which on a busy machine takes its time.
			for end := time.Now().Add(patience); m.actor.do(request{Op: "read", Path: p}).Errno != eperm; settle() {
				if time.Now().After(end) {
					return op, patched(), fmt.Errorf("%s is opened although bad content was written through a mapping", p)
				}
			}
		}
		return op, patched(), nil
	case "direct":
		page := (data + modelClean)[:4096]
		m.actor.must(request{Op: op, Path: rw, Data: page})
		return op, page + content[min(len(content), 4096):], nil
	case "attributes":
		m.actor.must(request{Op: op, Path: rw, N: 0o600 + m.rnd.IntN(8), Off: int64(m.rnd.IntN(1 << 30))})
	case "copyrange", "clone":
		whole := data + modelClean
		s, err := source(whole)
		if err != nil {
			return op, content, err
		}
		m.actor.must(request{Op: op, Path: s, To: rw})
		if op == "clone" {
			return op, whole, os.Remove(s)
		}
		return op, whole + content[min(len(content), len(whole)):], os.Remove(s)
	case "settle": // let the time stamps settle, so that verdicts are kept
		settle()
	case "open": // somebody else's file: any outcome is right
		m.actor.do(request{Op: "open", Path: m.name((m.owner+1)%m.owners, m.rnd.IntN(5))})
	case "definitions":
		m.generation.Add(1)
	case "policy":
		m.Forget()
		m.ExclusionsChanged()
	}
	return op, content, nil
}
