package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
	"golang.org/x/term"

	api "github.com/bulwarkhq/bulwark/api/control"
)

// topOrder is one order of the view.
type topOrder struct {
	name      string
	processes func(p api.OnAccessProcess) int64
	files     func(f api.OnAccessFile) int64
}

// topOrders are the orders, in which the key s goes through them.
var topOrders = []topOrder{
	{"time", func(p api.OnAccessProcess) int64 { return p.ScanNS }, func(f api.OnAccessFile) int64 { return f.ScanNS }},
	{"files", func(p api.OnAccessProcess) int64 { return p.Files }, func(f api.OnAccessFile) int64 { return f.Scans }},
	{"bytes", func(p api.OnAccessProcess) int64 { return p.Bytes }, func(f api.OnAccessFile) int64 { return f.Bytes }},
	{"hits", func(p api.OnAccessProcess) int64 { return p.CacheHits }, func(f api.OnAccessFile) int64 { return f.Scans }},
	{"denied", func(p api.OnAccessProcess) int64 { return p.Denied }, func(f api.OnAccessFile) int64 { return f.Denied }},
	{"deadlines", func(p api.OnAccessProcess) int64 { return p.DeadlinesMissed }, func(f api.OnAccessFile) int64 { return f.MaxScanNS }},
}

func topNames() []string {
	var names []string
	for _, o := range topOrders {
		names = append(names, o.name)
	}
	return names
}

func (a *app) topCommand() *cobra.Command {
	var once bool
	var order string
	c := a.command("top", "Show live what real-time protection scans, for whom", func(ctx context.Context) error {
		at := slices.Index(topNames(), order)
		if at < 0 {
			return fmt.Errorf("--sort %q: want %s", order, strings.Join(topNames(), ", "))
		}
		if once || a.json() || !a.terminal {
			s, err := a.firstFrame(ctx)
			if err != nil {
				return err
			}
			sortTop(&s, topOrders[at])
			if a.json() {
				return a.printJSON(s)
			}
			for _, line := range topLines(s, nil, order, 120, 1000) {
				a.say("%s", line)
			}
			return nil
		}
		return a.topLive(ctx, at)
	})
	c.Flags().BoolVar(&once, "once", false, "show the counters once, without a live view")
	c.Flags().StringVar(&order, "sort", "time", strings.Join(topNames(), ", "))
	complete(c, "sort", topNames()...)
	return c
}

func sortTop(s *api.OnAccess, o topOrder) {
	slices.SortStableFunc(s.Processes, func(x, y api.OnAccessProcess) int {
		return cmp.Or(cmp.Compare(o.processes(y), o.processes(x)), cmp.Compare(x.PID, y.PID))
	})
	slices.SortStableFunc(s.Files, func(x, y api.OnAccessFile) int {
		return cmp.Or(cmp.Compare(o.files(y), o.files(x)), cmp.Compare(x.Path, y.Path))
	})
}

// topLines is the view: at most height lines of at most width columns. before
// are the counters a moment ago, for rates; nil for none.
func topLines(s api.OnAccess, before *api.OnAccess, order string, width, height int) []string {
	state := "observing"
	if s.Holding {
		state = "blocking"
	}
	head := fmt.Sprintf("Bulwark: %s, %s, sorted by %s", visible(s.Mode), state, order)
	if before != nil {
		if seconds := s.Time.Sub(before.Time).Seconds(); seconds > 0 {
			head += fmt.Sprintf("   %s events/s, %s scans/s", countText(int64(float64(s.Events-before.Events)/seconds)), countText(int64(float64(s.Scans-before.Scans)/seconds)))
		}
	}
	lines := []string{
		head,
		fmt.Sprintf("events %s  scans %s  cache hits %s  ignore marks %s  detections %s  denied %s  deadlines missed %s  held %d  queued %d",
			countText(s.Events), countText(s.Scans), countText(s.CacheHits), countText(s.IgnoreMarks), countText(s.Detections), countText(s.Denied), countText(s.DeadlinesMissed), s.Held, s.Queue),
		"",
		fmt.Sprintf("%7s %-16s %8s %9s %9s %9s %8s %6s %5s  %s", "PID", "PROCESS", "FILES", "BYTES", "TIME", "LONGEST", "HITS", "DENIED", "LATE", "PROGRAM"),
	}
	room := max(2, height-len(lines)-2)
	processes := min(len(s.Processes), max(1, room*2/3))
	for _, p := range s.Processes[:processes] {
		name := visible(p.Name)
		if !p.Active {
			name = "(" + name + ")"
		}
		lines = append(lines, fmt.Sprintf("%7d %-16s %8d %9s %9s %9s %8d %6d %5d  %s", p.PID, fit(name, 16), p.Files, bytesText(p.Bytes),
			shortDuration(p.ScanNS), shortDuration(p.MaxScanNS), p.CacheHits, p.Denied, p.DeadlinesMissed, shown(p.Path)))
	}
	lines = append(lines, "", fmt.Sprintf("%8s %9s %9s %9s %6s  %s", "SCANS", "BYTES", "TIME", "LONGEST", "DENIED", "FILE"))
	for _, f := range s.Files[:min(len(s.Files), max(0, room-processes))] {
		lines = append(lines, fmt.Sprintf("%8d %9s %9s %9s %6d  %s", f.Scans, bytesText(f.Bytes), shortDuration(f.ScanNS), shortDuration(f.MaxScanNS), f.Denied, shown(f.Path)))
	}
	for i := range lines {
		lines[i] = fit(lines[i], width)
	}
	return lines[:min(len(lines), height)]
}

// shortDuration formats nanoseconds in at most nine columns.
func shortDuration(ns int64) string {
	d := time.Duration(ns)
	switch {
	case d < time.Millisecond:
		return fmt.Sprintf("%d us", d.Microseconds())
	case d < time.Second:
		return fmt.Sprintf("%.1f ms", float64(ns)/1e6)
	case d < time.Hour:
		return fmt.Sprintf("%.1f s", d.Seconds())
	}
	return fmt.Sprintf("%.1f h", d.Hours())
}

// liveView redraws lines in place on a terminal.
type liveView struct {
	app   *app
	drawn int
}

// draw replaces what was drawn before. Lines end with CR LF: the terminal may
// be in raw mode.
func (v *liveView) draw(lines []string) {
	var b strings.Builder
	if v.drawn > 0 {
		fmt.Fprintf(&b, "\r\x1b[%dA", v.drawn)
	}
	b.WriteString("\x1b[J")
	for _, l := range lines {
		b.WriteString(fit(l, max(20, v.app.width-1)) + "\r\n")
	}
	v.drawn = len(lines)
	fmt.Fprint(v.app.stdout, b.String())
}

func (v *liveView) clear() {
	if v.drawn > 0 {
		fmt.Fprintf(v.app.stdout, "\r\x1b[%dA\x1b[J", v.drawn)
		v.drawn = 0
	}
}

// topLive shows the counters until q, Ctrl-C or the end of the daemon.
func (a *app) topLive(ctx context.Context, at int) error {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	keys, restore, err := readKeys()
	if err != nil {
		return err
	}
	defer restore()
	// The other screen: what was on the terminal comes back.
	fmt.Fprint(a.stdout, "\x1b[?1049h\x1b[?25l")
	defer fmt.Fprint(a.stdout, "\x1b[?25h\x1b[?1049l")
	return a.topLoop(ctx, at, keys)
}

func (a *app) topLoop(ctx context.Context, at int, keys <-chan byte) error {
	following, cancel := context.WithCancel(ctx)
	defer cancel()
	frames, ended := make(chan api.OnAccess), make(chan error, 1)
	go func() {
		ended <- a.daemon().FollowOnAccess(following, func(s api.OnAccess) error {
			select {
			case frames <- s:
				return nil
			case <-following.Done():
				return following.Err()
			}
		})
	}()
	var now, before *api.OnAccess
	draw := func() {
		if now == nil {
			return
		}
		width, height := a.screen()
		s := *now
		sortTop(&s, topOrders[at])
		lines := topLines(s, before, topOrders[at].name, width, height-1)
		fmt.Fprint(a.stdout, "\x1b[H"+strings.Join(lines, "\x1b[K\r\n")+"\x1b[K\r\n\x1b[J"+fit("q quit   s sort", width))
	}
	for {
		select {
		case s := <-frames:
			now, before = &s, now
			draw()
		case k, ok := <-keys:
			switch {
			case !ok, k == 'q', k == 3: // 3: Ctrl-C
				return nil
			case k == 's':
				at = (at + 1) % len(topOrders)
				draw()
			}
		case <-ctx.Done():
			return nil
		case err := <-ended:
			if err == nil {
				err = errors.New("the daemon ended the statistics")
			}
			return err
		}
	}
}

// screen is the size of the terminal now.
func (a *app) screen() (width, height int) {
	if f, ok := a.stdout.(*os.File); ok {
		if w, h, err := term.GetSize(int(f.Fd())); err == nil && w > 0 && h > 0 {
			return w, h
		}
	}
	return a.width, 24
}

// readKeys delivers single keys of the terminal until restore is called, which
// leaves the terminal as it was. Without a terminal as input there are no keys.
func readKeys() (keys <-chan byte, restore func(), err error) {
	fd := int(os.Stdin.Fd())
	if !term.IsTerminal(fd) {
		return nil, func() {}, nil
	}
	state, err := term.MakeRaw(fd)
	if err != nil {
		return nil, nil, fmt.Errorf("terminal: %w", err)
	}
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		_ = term.Restore(fd, state)
		return nil, nil, fmt.Errorf("terminal: %w", err)
	}
	out := make(chan byte)
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		defer close(out)
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}, {Fd: int32(pipe[0]), Events: unix.POLLIN}}
		var buf [1]byte
		for {
			if _, err := unix.Poll(fds, -1); err != nil && !errors.Is(err, unix.EINTR) {
				return
			}
			if fds[1].Revents != 0 {
				return
			}
			if fds[0].Revents == 0 {
				continue
			}
			if n, err := unix.Read(fd, buf[:]); n != 1 || err != nil {
				return
			}
			select {
			case out <- buf[0]:
			case <-time.After(time.Second): // nobody takes keys any more
				return
			}
		}
	}()
	return out, func() {
		unix.Close(pipe[1]) // its other end is readable then
		<-stopped
		unix.Close(pipe[0])
		_ = term.Restore(fd, state)
	}, nil
}
