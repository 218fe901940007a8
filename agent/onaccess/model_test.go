package onaccess

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
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
	}{{"tmpfs", IgnoreOff}, {"tmpfs", IgnoreAll}, {"ext4", IgnoreOff}, {"ext4", IgnoreAll}, {"btrfs", IgnoreAll}, {"overlay", IgnoreAll}} {
		t.Run(c.fsType+"/"+string(c.ignore), func(t *testing.T) {
			const owners, files, rounds = 4, 5, 150
			ignore := c.ignore
			dir := ""
			if c.fsType == "tmpfs" {
				dir = tmpfs(t)
			} else {
				dir = loopFS(t, c.fsType)
			}
			r := newRigOn(t, dir, func(c *Config) {
				c.Ignore = ignore
				c.Deadline = 20 * time.Second // a missed one would look like a wrong verdict
				// Opening for writing must work on bad files: writers open through
				// another name.
				c.Excluded = func(a Access) bool { return strings.HasSuffix(a.Path, ".rw") }
			})
			seed := uint64(time.Now().UnixNano())
			t.Logf("seed %d", seed)
			var wg sync.WaitGroup
			for o := range owners {
				actor := startAccessor(t)
				wg.Go(func() {
					rnd := rand.New(rand.NewPCG(seed, uint64(o)))
					if err := modelOwner(r, actor, rnd, o, files, rounds, owners, ignore); err != nil {
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

func modelOwner(r *rig, actor *process, rnd *rand.Rand, owner, files, rounds, owners int, ignore IgnorePolicy) error {
	name := func(o, i int) string { return r.path(fmt.Sprintf("f%d.%d", o, i)) }
	const size = 6000
	clean := strings.Repeat("harmless", size/8)
	content := make([]string, files)
	for i := range files {
		actor.must(request{Op: "write", Path: name(owner, i), Data: clean})
		content[i] = clean
		// The name for writing is a hard link.
		if err := os.Link(name(owner, i), name(owner, i)+".rw"); err != nil {
			return err
		}
	}
	var trace []string
	for round := range rounds {
		i := rnd.IntN(files)
		p := name(owner, i)
		rw := p + ".rw"
		data := bad
		if rnd.IntN(2) == 0 {
			data = strings.Repeat("-", len(bad))
		}
		off := int64(rnd.IntN(size - len(bad)))
		patched := func(c string) string {
			if need := int(off) + len(data); len(c) < need {
				c += strings.Repeat("\x00", need-len(c))
			}
			return c[:off] + data + c[int(off)+len(data):]
		}
		op := rnd.IntN(9)
		if op == 6 && len(content[i]) < size {
			op = 0
		}
		switch op {
		case 0:
			actor.must(request{Op: "patch", Path: rw, Data: data, Off: off})
			content[i] = patched(content[i])
		case 1:
			actor.must(request{Op: "truncate", Path: rw, Off: off})
			content[i] = content[i] + strings.Repeat("\x00", size*2)
			content[i] = content[i][:off]
		case 2:
			whole := data + clean
			actor.must(request{Op: "write", Path: rw, Data: whole})
			content[i] = whole
		case 3:
			if len(content[i]) > 0 {
				actor.must(request{Op: "punch", Path: rw, Off: 0, N: len(content[i])})
				content[i] = strings.Repeat("\x00", len(content[i]))
			}
		case 4:
			actor.must(request{Op: "splice", Path: rw, Data: data, Off: off})
			content[i] = patched(content[i])
		case 5:
			// A new file under the old names.
			whole := clean + data
			actor.must(request{Op: "write", Path: p + ".new.rw", Data: whole})
			actor.must(request{Op: "rename", Path: p + ".new.rw", To: rw})
			actor.must(request{Op: "remove", Path: p})
			if err := os.Link(rw, p); err != nil {
				return err
			}
			content[i] = whole
		case 6:
			actor.must(request{Op: "map", Path: rw, N: size})
			actor.must(request{Op: "store", Path: rw, Data: data, Off: off})
			actor.must(request{Op: "unmap", Path: rw})
			content[i] = patched(content[i])
			if ignore == IgnoreAll {
				// The window that IgnoreAll documents: the mark goes when the
				// CLOSE_WRITE is read.
				settle()
			}
		case 7: // let the time stamps settle, so that verdicts are kept
			settle()
		case 8: // somebody else's file: any outcome is right
			actor.do(request{Op: "open", Path: name((owner+1)%owners, i)})
		}
		trace = append(trace, fmt.Sprintf("%d:%d", i, op))
		for range 1 + rnd.IntN(3) {
			got := actor.do(request{Op: "read", Path: p})
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
