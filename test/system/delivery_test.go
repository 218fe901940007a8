//go:build system

package system

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/api/control"
	"github.com/bulwarkhq/bulwark/event"
)

// wire passes connections on to the first portal that takes them, and can keep the
// answers back.
type wire struct {
	net.Listener
	to []string

	mu      sync.Mutex
	passing sync.Cond
	silent  bool
	open    map[net.Conn]bool
}

func newWire(t *testing.T, to ...string) *wire {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{Listener: l, to: to, open: map[net.Conn]bool{}}
	w.passing.L = &w.mu
	t.Cleanup(func() { l.Close(); w.cut() })
	go func() {
		for {
			agent, err := l.Accept()
			if err != nil {
				return
			}
			portal := w.dial()
			if portal == nil {
				agent.Close() // none is there; the agent comes again
				continue
			}
			w.mu.Lock()
			w.open[agent], w.open[portal] = true, true
			w.mu.Unlock()
			go w.pass(portal, agent, false)
			go w.pass(agent, portal, true)
		}
	}()
	return w
}

func (w *wire) dial() net.Conn {
	for _, address := range w.to {
		if c, err := net.Dial("tcp", address); err == nil {
			return c
		}
	}
	return nil
}

// pass passes on what comes until one end is closed.
func (w *wire) pass(to, from net.Conn, answers bool) {
	defer func() {
		to.Close()
		from.Close()
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.open, to)
	}()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if answers && n > 0 {
			w.mu.Lock()
			for w.silent && w.open[to] {
				w.passing.Wait()
			}
			gone := !w.open[to]
			w.mu.Unlock()
			if gone {
				return
			}
		}
		if _, werr := to.Write(buf[:n]); err != nil || werr != nil {
			return
		}
	}
}

// silence keeps the portal's answers back until the connections are cut.
func (w *wire) silence() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.silent = true
}

// cut closes all connections with what was kept back, and lets later ones pass.
func (w *wire) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.silent = false
	for c := range w.open {
		c.Close()
	}
	clear(w.open)
	w.passing.Broadcast()
}

// numbered makes events with numbers: files that are created.
type numbered struct {
	p    *product
	hunt *hunt
	dir  string
	made int
	last time.Time // of a question: the portal takes some in a minute only

	mu       sync.Mutex
	reported map[string]bool // by the agent that is followed
}

func numberedName(n int) string { return fmt.Sprintf("event-%05d", n) }

// next makes one, and gives its name.
func (n *numbered) next() string {
	n.p.t.Helper()
	name := numberedName(n.made)
	f, err := os.Create(filepath.Join(n.dir, name))
	if err != nil {
		n.p.t.Fatal(err)
	}
	f.Close()
	n.made++
	return name
}

// stored tells how often each is in the portal's store.
func (n *numbered) stored() map[string]int {
	n.p.t.Helper()
	var rows []struct {
		FileName string
		Times    int
	}
	time.Sleep(time.Until(n.last.Add(1500 * time.Millisecond)))
	defer func() { n.last = time.Now() }()
	n.hunt.run(fmt.Sprintf("DeviceFileEvents | where ActionType == 'FileCreated' and FolderPath startswith %q | summarize Times = count() by FileName", n.dir+"/"), &rows)
	times := map[string]int{}
	for _, r := range rows {
		times[r.FileName] = r.Times
	}
	return times
}

// missing are those that were made and are not stored.
func (n *numbered) missing(stored map[string]int) (names []string) {
	for i := range n.made {
		if name := numberedName(i); stored[name] == 0 {
			names = append(names, name)
		}
	}
	return names
}

// untilStored makes events until one of them is stored that was made now.
func (n *numbered) untilStored() {
	n.p.t.Helper()
	var mine []string
	n.p.until("a new event is stored", func() error {
		mine = append(mine, n.next())
		times := n.stored()
		for _, name := range mine {
			if times[name] > 0 {
				return nil
			}
		}
		return fmt.Errorf("%d made, %d stored", n.made, len(times))
	})
}

// follow has the agent tell what it reports, as long as it lives.
func (n *numbered) follow() {
	n.p.t.Helper()
	cmd := exec.CommandContext(n.p.t.Context(), filepath.Join(n.p.bin, "bulwark"), "--root", n.p.root,
		"edr", "events", "--follow", "--action", event.FileCreated, "--text", n.dir+"/", "--output", "json")
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		n.p.t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for lines := json.NewDecoder(out); ; {
			var e event.Event
			if err := lines.Decode(&e); err != nil {
				return // the agent was killed
			}
			n.mu.Lock()
			n.reported[e.File.FileName] = true
			n.mu.Unlock()
		}
	}()
	n.p.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-done
		_ = cmd.Wait()
	})
	n.p.until("the agent tells what it reports", func() error {
		name := n.next()
		time.Sleep(time.Second)
		n.mu.Lock()
		defer n.mu.Unlock()
		if !n.reported[name] {
			return fmt.Errorf("%s is not among %d", name, len(n.reported))
		}
		return nil
	})
}

// untilOnDisk waits until what was made is on the agent's disk, since what is in
// its memory cannot outlive it. Events may overtake one another while many wait
// until their files were read, so that the last one says nothing of the others.
func (n *numbered) untilOnDisk() {
	n.p.t.Helper()
	stored := n.stored() // those before it was followed, too
	n.p.until("all events are reported", func() error {
		n.mu.Lock()
		defer n.mu.Unlock()
		for _, name := range n.missing(stored) {
			if !n.reported[name] {
				return fmt.Errorf("no event of %s; the agent tells of losses:\n%s", name, n.p.run("health", "--details", "edr").stdout)
			}
		}
		return nil
	})
	// Nothing is acknowledged meanwhile. Each second all that is in memory is
	// written, in at most three records or so.
	first := n.p.health().EventsWaiting
	n.p.until("all of memory is written", func() error {
		if now := n.p.health().EventsWaiting; now < first+8 {
			return fmt.Errorf("%d records, %d at first", now, first)
		}
		return nil
	})
}

// TestKilledBetweenSendingAndAcknowledgement kills the agent, and then the portal,
// when a batch is stored and its acknowledgement has not arrived. The batch comes
// again, and each of the numbered events is in the store once.
func TestKilledBetweenSendingAndAcknowledgement(t *testing.T) {
	t.Parallel()
	p := prepare(t)
	p.startPortal()
	w := newWire(t, p.portalAddr)
	p.portalCommand("onboarding", "create", "--portal-url", "https://"+w.Addr().String(), "--out", p.dirs.Onboarding())
	p.startAgent()
	p.untilHealthy()
	n := &numbered{p: p, hunt: newHunt(p), dir: filepath.Join(p.root, "numbered"), reported: map[string]bool{}}
	if err := os.Mkdir(n.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	n.follow()
	for _, victim := range [][]string{{"bulwarkd", "run"}, {"bulwark-portal", "serve"}} {
		n.untilStored()
		w.silence()
		// Every batch has events of ours. One more is stored, or the last one was
		// on its way: its acknowledgement does not come.
		before := len(n.stored())
		for i := 0; i < 8 && len(n.stored()) == before; i++ {
			n.next()
		}
		if victim[0] == "bulwarkd" {
			n.untilOnDisk()
		}
		if p.health().EventsWaiting == 0 {
			t.Error("nothing waits for its acknowledgement")
		}
		pid := p.one(victim[0], victim[1:]...)
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		w.cut()
		p.until("another process works", func() error {
			if now := p.processes(victim[0], victim[1:]...); len(now) != 1 || now[0] == pid {
				return fmt.Errorf("processes %v, killed %d", now, pid)
			}
			// What is made before files are seen again is seen by nobody.
			var d control.HealthDetails
			r := p.run("health", "--details", "edr", "--output", "json")
			if err := json.Unmarshal([]byte(r.stdout), &d); err != nil {
				return fmt.Errorf("%s: %w", r.stderr, err)
			}
			for _, f := range d.Fields {
				if f.Name == "state_file" && f.Value == "active" {
					return nil
				}
			}
			return fmt.Errorf("%+v", d.Fields)
		})
		p.until("the portal answers", func() error {
			conn, err := net.DialTimeout("tcp", p.portalAddr, time.Second)
			if err != nil {
				return err
			}
			return conn.Close()
		})
		// Batches come in order: with one of later all of before have come again.
		n.untilStored()
	}
	var all map[string]int
	p.until("all are stored", func() error {
		if all = n.stored(); len(all) != n.made {
			return fmt.Errorf("%d of %d, not %q; the agent tells of losses:\n%s", len(all), n.made, n.missing(all), p.run("health", "--details", "edr").stdout)
		}
		return nil
	})
	for name, times := range all {
		if times != 1 {
			t.Errorf("%s is stored %d times", name, times)
		}
	}
	t.Logf("%d events", n.made)
}

// run runs a query and decodes its rows into results.
func (h *hunt) run(query string, results any) {
	h.p.t.Helper()
	body, err := json.Marshal(map[string]string{"Query": query})
	if err != nil {
		h.p.t.Fatal(err)
	}
	status, out := h.do(http.MethodPost, "/api/advancedqueries/run", string(body))
	answer := struct{ Results any }{results}
	if err := json.Unmarshal(out, &answer); err != nil || status != http.StatusOK {
		h.p.t.Fatalf("%d %s", status, out)
	}
}
