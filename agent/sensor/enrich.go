package sensor

import (
	"context"
	"strconv"
	"time"

	"github.com/bulwarkhq/bulwark/agent/process"
	"github.com/bulwarkhq/bulwark/event"
)

// Bounds of the enrichment of files.
const (
	fileQueue = 4096
	// settleTime is how long a file that was created or written to is left alone
	// before it is read: what was written is in it then, most of the time.
	settleTime = 500 * time.Millisecond
	// fileWait is how long an event waits for its file's hashes.
	fileWait = 3 * time.Second
)

// readsFile says whether the event is about a file whose content matters, and
// how long after the event to read it.
func readsFile(ev *event.Event) (time.Duration, bool) {
	switch ev.Action {
	case event.FileCreated, event.FileModified:
		return settleTime, ev.Additional["FileType"] == ""
	case event.FileRenamed, event.ImageLoaded:
		return 0, true
	case event.DriverLoaded, event.DriverLoadFailed:
		return 0, ev.File.FolderPath != ""
	}
	return 0, false
}

// reading is an event whose file is being read.
type reading struct {
	*item
	began   time.Time
	pending process.Pending
}

// enrichFiles has the files of events read and passes the events on in the
// order in which they came, until the queue is closed. The events of other
// things do not wait for it.
func (p *Pipeline) enrichFiles(hurry <-chan struct{}) {
	read := make(chan reading, fileQueue/4)
	go func() {
		defer close(p.enriched)
		for r := range read {
			p.guard("enrichment of files", func() { p.fileFacts(r, hurry) })
			p.enriched <- r.item
		}
	}()
	defer close(read)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for it := range p.files {
		if delay, _ := readsFile(&it.ev); delay > 0 {
			timer.Reset(delay - time.Since(it.at))
			select {
			case <-timer.C:
			case <-hurry:
			}
		}
		r := reading{item: it, began: time.Now()}
		if p.Hasher != nil && it.ev.File.SHA256 == "" {
			p.guard("reading a file", func() { r.pending = p.Hasher.File(it.ev.Initiating, it.ev.File.FolderPath) })
		}
		read <- r
	}
}

func (p *Pipeline) fileFacts(r reading, hurry <-chan struct{}) {
	ev := &r.ev
	if p.Packages != nil && ev.Initiating.ContainerID == "" {
		if owner := p.Packages.Owner(ev.File.FolderPath); owner != "" {
			addition(ev, "FilePackage", owner)
		}
	}
	ctx, cancel := context.WithDeadline(context.Background(), r.began.Add(fileWait))
	defer cancel()
	select {
	case <-hurry:
		cancel()
	default:
	}
	h, err := r.pending.Wait(ctx)
	if err != nil || h == (process.Hashes{}) {
		return // gone, not a regular file, or too busy: counted by the hasher
	}
	ev.File.MD5, ev.File.SHA1, ev.File.SHA256, ev.File.Size = h.MD5, h.SHA1, h.SHA256, h.Size
	if h.Read && h.Size > 0 {
		addition(ev, "FileEntropy", strconv.FormatFloat(h.Entropy, 'f', 2, 64))
		addition(ev, "FileHeader", h.Header)
		if h.Fuzzy != "" {
			addition(ev, "FileFuzzyHash", h.Fuzzy)
		}
	}
}

func addition(ev *event.Event, key, value string) {
	if ev.Additional == nil {
		ev.Additional = make(map[string]string, 4)
	}
	ev.Additional[key] = value
}

// complete completes the processes of ev: hashes, package, container.
func (p *Pipeline) complete(ev *event.Event, image process.Image) {
	wait := p.HashWait
	if p.inbox.crowded() {
		wait = 0 // catching up is more important
	}
	until := time.Now().Add(wait)
	if ev.Action == event.ProcessCreated {
		p.completeProcess(until, &ev.Process, image)
	}
	p.completeProcess(until, &ev.Initiating, process.Image{})
}

func (p *Pipeline) completeProcess(until time.Time, proc *event.Process, image process.Image) {
	if proc.FolderPath == "" {
		return
	}
	if proc.SHA256 == "" || proc.ContainerID != "" && proc.ContainerName == "" {
		if known, ok := p.Table.Get(proc.PID, proc.StartTime); ok && known.FolderPath == proc.FolderPath && known.SHA256 != "" {
			process.CopyFacts(proc, &known)
		}
	}
	var facts process.Facts
	changed := false
	if proc.Package == "" && proc.ContainerID == "" && p.Packages != nil && proc.SHA256 == "" {
		facts.Package = p.Packages.Owner(proc.FolderPath)
		changed = facts.Package != ""
	}
	if proc.ContainerID != "" && proc.ContainerName == "" && p.Containers != nil {
		c, ok := p.Containers.Lookup(proc.ContainerID)
		facts.Container, changed = c, changed || ok
	}
	if p.Hasher != nil && proc.SHA256 == "" {
		if h, err := p.Hasher.Executable(proc, image).WaitUntil(until); err == nil && h.SHA256 != "" {
			facts.Hashes, changed = h, true
		} // else counted by the hasher
	}
	if changed {
		p.Table.Complete(proc, facts)
	}
}
