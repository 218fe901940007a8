// Package scanner is the inside of a scanner process: it locks itself up, maps
// the compiled definitions it was handed and answers scans until the daemon
// closes the socket. With the compile set-up it compiles definitions instead
// and ends.
//
// The process starts as the daemon's own program (`bulwarkd scanner`), so this
// package runs before anything of the daemon: it opens nothing, and everything
// it needs comes as descriptors 3 (socket), 4 (definitions), 5 (empty
// directory) and 6 (the direct line).
package scanner

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"time"

	"github.com/bulwarkhq/bulwark/agent/scan/sandbox"
	"github.com/bulwarkhq/bulwark/agent/scan/wire"
	"github.com/bulwarkhq/bulwark/engine/verdict"
	"golang.org/x/sys/unix"
)

// Options of one scan.
type Options struct {
	// Name is the path of the file as the daemon saw it.
	Name string
	// Archives also looks into containers.
	Archives bool
	// Timeout is when the daemon gives up; the engine should be done before. 0 is
	// no bound beyond the context.
	Timeout time.Duration
}

// Engine gives verdicts; many goroutines use it at once.
type Engine interface {
	Scan(ctx context.Context, r io.ReaderAt, size int64, opt Options) (verdict.Verdict, error)
	Info() wire.Info
}

// Loader makes engines and definitions. The functions are called after the
// process has locked itself up.
type Loader interface {
	// Open loads compiled definitions from f, which stays open for the life of
	// the process.
	Open(f *os.File) (Engine, error)
	// Compile reads the sources (files and folders) and writes compiled
	// definitions to out. The result carries what is wrong with them; an error
	// or a fatal problem means that out is of no use.
	Compile(ctx context.Context, out *os.File, sources []string) (wire.Compiled, error)
}

// Exit statuses of the process.
const (
	exitDone     = 0
	exitUsage    = 2
	exitNotReady = 3 // the reason went to the daemon
)

// Run is the whole life of the process; it returns the exit status.
func Run(loader Loader) int {
	conn, err := socket()
	if err != nil {
		fmt.Fprintln(os.Stderr, "scanner:", err)
		fmt.Fprintln(os.Stderr, "this program is started by the bulwark daemon")
		return exitUsage
	}
	p := process{loader: loader, conn: conn, running: map[uint64]context.CancelFunc{}}
	if err := p.run(); err != nil {
		fmt.Fprintln(os.Stderr, "scanner:", err)
		return exitNotReady
	}
	return exitDone
}

const (
	descriptorSocket      = 3
	descriptorDefinitions = 4
	descriptorRoot        = 5
	descriptorLine        = 6
)

func socket() (*net.UnixConn, error) {
	f := os.NewFile(descriptorSocket, "daemon")
	defer f.Close() // FileConn duplicates it
	c, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("descriptor %d is not the daemon's socket: %w", descriptorSocket, err)
	}
	conn, ok := c.(*net.UnixConn)
	if !ok {
		c.Close()
		return nil, fmt.Errorf("descriptor %d is not a local socket", descriptorSocket)
	}
	return conn, nil
}

// process is the state of a scanner process.
type process struct {
	loader Loader
	conn   *net.UnixConn
	engine Engine

	sendMu sync.Mutex

	mu      sync.Mutex
	running map[uint64]context.CancelFunc
	onLine  int // of running, on the direct line
}

func (p *process) run() error {
	setup, err := p.receiveSetup()
	if err != nil {
		return err
	}
	runtime.GOMAXPROCS(max(1, setup.Threads))
	if setup.MemoryLimit > 0 {
		debug.SetMemoryLimit(setup.MemoryLimit)
	}
	if setup.LowPriority {
		if err := lowPriority(); err != nil {
			fmt.Fprintln(os.Stderr, "scanner:", err) // slower for others, not unsafe
		}
	}
	definitions := os.NewFile(descriptorDefinitions, "definitions")
	profile := sandbox.Profile{
		UID: setup.UID, GID: setup.GID,
		MaxFileSize: setup.MaxFileSize, MaxData: setup.MaxData,
		MaxFiles: setup.MaxFiles, MaxProcesses: setup.MaxProcesses,
	}
	root := os.NewFile(descriptorRoot, "empty directory")
	if setup.Compile {
		profile.ReadDirs, profile.ReadAll, profile.Output = setup.Sources, true, true
	} else {
		profile.Root = root
	}
	report, err := sandbox.Enter(profile)
	root.Close()
	if err != nil {
		return errors.Join(err, p.send(&wire.Hello{Sandbox: report, Error: err.Error()}))
	}
	if setup.Compile {
		return p.compile(definitions, setup.Sources, report)
	}
	engine, err := open(p.loader, definitions)
	if err != nil {
		return errors.Join(err, p.send(&wire.Hello{Sandbox: report, Error: err.Error()}))
	}
	p.engine = engine
	if err := p.send(&wire.Hello{Info: engine.Info(), Sandbox: report}); err != nil {
		return err
	}
	go p.serveLine()
	return p.serve(max(1, setup.Workers))
}

func (p *process) receiveSetup() (*wire.Setup, error) {
	b := make([]byte, wire.MaxMessage)
	n, err := p.conn.Read(b)
	if err != nil {
		return nil, fmt.Errorf("waiting for the set-up: %w", err)
	}
	m, err := wire.Decode(b[:n])
	if err != nil {
		return nil, err
	}
	setup, ok := m.(*wire.Setup)
	if !ok {
		return nil, fmt.Errorf("%w: %T instead of the set-up", wire.ErrProtocol, m)
	}
	return setup, nil
}

// open turns a panic over damaged definitions into an error.
func open(l Loader, f *os.File) (e Engine, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("loading definitions: panic: %v", v)
			os.Stderr.Write(debug.Stack())
		}
	}()
	return l.Open(f)
}

func (p *process) compile(out *os.File, sources []string, report sandbox.Report) error {
	compiled, err := func() (c wire.Compiled, err error) {
		defer func() {
			if v := recover(); v != nil {
				err = fmt.Errorf("compiling definitions: panic: %v", v)
				os.Stderr.Write(debug.Stack())
			}
		}()
		return p.loader.Compile(context.Background(), out, sources)
	}()
	compiled.Sandbox = report
	if err != nil {
		compiled.Error = err.Error()
	}
	compiled.Trim()
	return p.send(&compiled)
}

// serve answers until the daemon closes the socket. The daemon keeps to the
// number of workers; what is beyond it is refused.
func (p *process) serve(workers int) error {
	b := make([]byte, wire.MaxMessage)
	rights := make([]byte, unix.CmsgSpace(4*4))
	for {
		n, nrights, flags, _, err := p.conn.ReadMsgUnix(b, rights)
		if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) {
			return nil // scans that still run end with the process
		}
		if err != nil {
			return fmt.Errorf("reading from the daemon: %w", err)
		}
		file, err := descriptor(rights[:nrights])
		if err != nil {
			return err
		}
		if flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
			return fmt.Errorf("%w: packet cut short", wire.ErrProtocol)
		}
		m, err := wire.Decode(b[:n])
		if err != nil {
			return err
		}
		switch m := m.(type) {
		case *wire.Cancel:
			p.mu.Lock()
			if cancel := p.running[m.ID]; cancel != nil {
				cancel()
			}
			p.mu.Unlock()
		case *wire.Scan:
			if file == nil {
				return fmt.Errorf("%w: scan without a descriptor", wire.ErrProtocol)
			}
			ctx, free := p.begin(m.ID, workers)
			if !free {
				file.Close()
				if err := p.send(&wire.Answer{ID: m.ID, Error: fmt.Sprintf("all %d workers of the scanner are busy", workers)}); err != nil {
					return err
				}
				continue
			}
			go p.scan(ctx, m, file)
		default:
			return fmt.Errorf("%w: unexpected %T", wire.ErrProtocol, m)
		}
		if file != nil {
			if _, ok := m.(*wire.Scan); !ok {
				file.Close()
			}
		}
	}
}

// serveLine answers the scans of the direct line, one after the other, on a
// thread of its own: it sleeps in the read, so that nothing of the runtime comes
// between the daemon's write and the scan. The line ends with what it must not
// carry; the daemon then uses the other socket.
func (p *process) serveLine() {
	runtime.LockOSThread()
	defer unix.Close(descriptorLine)
	b := make([]byte, wire.MaxMessage)
	rights := make([]byte, unix.CmsgSpace(4*4))
	var out []byte
	for {
		n, nrights, flags, _, err := unix.Recvmsg(descriptorLine, b, rights, unix.MSG_CMSG_CLOEXEC)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n == 0 {
			return
		}
		file, err := descriptor(rights[:nrights])
		var m wire.Message
		if err == nil {
			m, err = wire.Decode(b[:n])
		}
		s, ok := m.(*wire.Scan)
		if err != nil || !ok || file == nil || flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
			fmt.Fprintln(os.Stderr, "scanner: no scan on the direct line:", err)
			return
		}
		ctx, cancel := context.WithCancel(context.Background())
		p.mu.Lock()
		p.running[s.ID] = cancel
		p.onLine++
		p.mu.Unlock()
		answer := p.answer(ctx, s, file)
		p.mu.Lock()
		p.onLine--
		p.mu.Unlock()
		if out, err = wire.Append(out[:0], answer); err != nil {
			return
		}
		if _, err := unix.Write(descriptorLine, out); err != nil {
			return
		}
	}
}

// begin notes a scan as running; false when there are enough already.
func (p *process) begin(id uint64, workers int) (context.Context, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, twice := p.running[id]; twice || len(p.running)-p.onLine >= workers {
		return nil, false
	}
	ctx, cancel := context.WithCancel(context.Background())
	p.running[id] = cancel
	return ctx, true
}

// descriptor takes the one file out of a control message; nil without one.
func descriptor(rights []byte) (*os.File, error) {
	if len(rights) == 0 {
		return nil, nil
	}
	messages, err := unix.ParseSocketControlMessage(rights)
	if err != nil {
		return nil, fmt.Errorf("%w: control message: %w", wire.ErrProtocol, err)
	}
	var fds []int
	for i := range messages {
		got, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			return nil, fmt.Errorf("%w: control message: %w", wire.ErrProtocol, err)
		}
		fds = append(fds, got...)
	}
	if len(fds) != 1 {
		for _, fd := range fds {
			unix.Close(fd)
		}
		return nil, fmt.Errorf("%w: %d descriptors", wire.ErrProtocol, len(fds))
	}
	return os.NewFile(uintptr(fds[0]), "scanned file"), nil
}

func (p *process) scan(ctx context.Context, m *wire.Scan, file *os.File) {
	if err := p.send(p.answer(ctx, m, file)); err != nil {
		// Nobody listens any more; the reading side ends the process.
		fmt.Fprintln(os.Stderr, "scanner:", err)
	}
}

// answer does a scan that is noted as running.
func (p *process) answer(ctx context.Context, m *wire.Scan, file *os.File) *wire.Answer {
	v, err := p.verdict(ctx, m, file)
	file.Close()
	p.mu.Lock()
	p.running[m.ID]() // releases the context
	delete(p.running, m.ID)
	p.mu.Unlock()
	answer := &wire.Answer{ID: m.ID, Verdict: v}
	if err != nil {
		answer.Verdict, answer.Error = verdict.Verdict{}, err.Error()
	}
	return answer
}

// verdict asks the engine; its panic costs this file's verdict only.
func (p *process) verdict(ctx context.Context, m *wire.Scan, file *os.File) (v verdict.Verdict, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic in the engine: %v", r)
			os.Stderr.Write(debug.Stack())
		}
	}()
	// The time is the engine's to keep, which gives a verdict over what it saw;
	// the daemon cancels a scan that goes beyond.
	return p.engine.Scan(ctx, file, m.Size, Options{Name: m.Name, Archives: m.Archives, Timeout: m.Timeout})
}

func (p *process) send(m wire.Message) error {
	b, err := wire.Append(nil, m)
	if err != nil {
		return err
	}
	p.sendMu.Lock()
	defer p.sendMu.Unlock()
	if _, err := p.conn.Write(b); err != nil {
		return fmt.Errorf("answering the daemon: %w", err)
	}
	return nil
}
