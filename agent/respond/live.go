package respond

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bulwarkhq/bulwark/api/response"
)

const (
	// scriptTime bounds a script, as in the reference product.
	scriptTime = 10 * time.Minute
	// sessionIdle is how long a session is remembered after its last command.
	sessionIdle = time.Hour
	maxSessions = 25
)

// Live does the commands of live response sessions. A session is a current
// folder; everything else is in the commands. It is safe for concurrent use.
type Live struct {
	// Dir is the folder for scripts and programs of the library, which is emptied
	// when the daemon starts unless they are kept.
	Dir string
	Run Runner
	// Send brings a file to the portal, Fetch a file of the library from there.
	Send  func(ctx context.Context, command, name string, f io.ReaderAt, size int64) error
	Fetch func(ctx context.Context, command, sha256 string, limit int64, w io.Writer) error
	// More are commands of the daemon's, by name.
	More map[string]func(ctx context.Context, args []string) (string, error)
	Proc string // /proc
	Now  func() time.Time

	mu       sync.Mutex
	sessions map[string]*liveSession
}

type liveSession struct {
	folder string
	last   time.Time
}

// errUsage is the error of a command line that cannot be understood.
func errUsage(format string, args ...any) error {
	return fmt.Errorf(format+"; `help` lists the commands", args...)
}

// Do does the commands of an order until one fails; it reports whether all
// succeeded.
func (l *Live) Do(ctx context.Context, id string, p response.LiveParameters) (response.LiveResult, bool) {
	s := l.session(p.Session)
	var out response.LiveResult
	for _, c := range p.Commands {
		o := response.LiveOutput{Command: c.String(), Status: "Completed"}
		text := &bounded{max: response.MaxLiveOutput}
		err := l.one(ctx, id, s, c, text, &o)
		o.Output, o.Cut, o.Folder = strings.ToValidUTF8(text.String(), "\uFFFD"), text.cut, l.folder(s)
		if err != nil {
			o.Status, o.Error = "Failed", err.Error()
		}
		out.Commands = append(out.Commands, o)
		if err != nil {
			return out, false
		}
	}
	return out, true
}

func (l *Live) session(id string) *liveSession {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.sessions == nil {
		l.sessions = map[string]*liveSession{}
	}
	for k, s := range l.sessions {
		if l.Now().Sub(s.last) > sessionIdle || len(l.sessions) > maxSessions {
			delete(l.sessions, k)
		}
	}
	s := l.sessions[id]
	if s == nil {
		s = &liveSession{folder: "/"}
		l.sessions[id] = s
	}
	s.last = l.Now()
	return s
}

func (l *Live) folder(s *liveSession) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return s.folder
}

func (l *Live) one(ctx context.Context, id string, s *liveSession, c response.LiveCommand, w io.Writer, o *response.LiveOutput) error {
	switch c.Type {
	case response.LiveShell:
		return l.shell(ctx, s, c.Line, w)
	case response.LiveGetFile:
		return l.getFile(ctx, id, c.Path, w)
	case response.LivePutFile:
		return l.putFile(ctx, id, s, c, w)
	case response.LiveRunScript:
		return l.script(ctx, id, s, c, w, o)
	}
	return fmt.Errorf("the command type %.32q is unknown to this agent", c.Type)
}

// words splits a command line at spaces; quotes keep them.
func words(line string) ([]string, error) {
	var out []string
	var b strings.Builder
	quote, open := rune(0), false
	for _, r := range line {
		switch {
		case quote != 0 && r == quote:
			quote = 0
		case quote != 0:
			b.WriteRune(r)
		case r == '"' || r == '\'':
			quote, open = r, true
		case r == ' ' || r == '\t' || r == '\n':
			if open || b.Len() > 0 {
				out = append(out, b.String())
				b.Reset()
				open = false
			}
		default:
			b.WriteRune(r)
		}
	}
	if quote != 0 {
		return nil, errors.New("a quote is not closed")
	}
	if open || b.Len() > 0 {
		out = append(out, b.String())
	}
	return out, nil
}

const liveHelp = `cd FOLDER                       change the session's folder
dir [FOLDER]                    list a folder
fileinfo FILE                   size, owner, times and SHA-256 of a file
findfile NAME [FOLDER]          find files by name, with * and ?
getfile FILE                    fetch a file
help                            this list
processes [-name NAME|-pid N]   running processes
putfile NAME [-overwrite|-keep] bring a file of the library into the session's folder
remediate file PATH             quarantine a file
remediate process PID           end a process
remediate list                  what is in the quarantine
run NAME ["ARGUMENTS"]          run a script of the library
status                          the agent's health
`

func (l *Live) shell(ctx context.Context, s *liveSession, line string, w io.Writer) error {
	args, err := words(line)
	if err != nil {
		return err
	}
	if len(args) == 0 {
		return errUsage("an empty command")
	}
	at := func(i int) string {
		if i >= len(args) {
			return l.folder(s)
		}
		if filepath.IsAbs(args[i]) {
			return filepath.Clean(args[i])
		}
		return filepath.Join(l.folder(s), args[i])
	}
	switch args[0] {
	case "help":
		_, err := io.WriteString(w, liveHelp)
		return err
	case "cd":
		st, err := os.Stat(at(1))
		if err != nil {
			return err
		}
		if !st.IsDir() {
			return fmt.Errorf("%s is no folder", at(1))
		}
		l.mu.Lock()
		s.folder = at(1)
		l.mu.Unlock()
		return nil
	case "dir":
		return listFolder(at(1), w)
	case "fileinfo":
		if len(args) != 2 {
			return errUsage("fileinfo wants one file")
		}
		return fileInfo(ctx, at(1), w)
	case "findfile":
		if len(args) < 2 || len(args) > 3 {
			return errUsage("findfile wants a name, and perhaps a folder")
		}
		return findFile(ctx, args[1], at(2), w)
	case "processes":
		return l.processes(args[1:], w)
	}
	if more := l.More[args[0]]; more != nil {
		text, err := more(ctx, args[1:])
		if err != nil {
			return err
		}
		_, err = io.WriteString(w, text)
		return err
	}
	return errUsage("there is no command %.64q", args[0])
}

func listFolder(path string, w io.Writer) error {
	list, err := os.ReadDir(path)
	for i, e := range list {
		if i == 5000 {
			fmt.Fprintf(w, "and %d more\n", len(list)-i)
			break
		}
		st, err := e.Info()
		if err != nil {
			continue // gone
		}
		fmt.Fprintf(w, "%s %10d %s %q\n", st.Mode(), st.Size(), st.ModTime().UTC().Format("2006-01-02 15:04:05"), e.Name())
	}
	return err
}

// openRegular opens a regular file without waiting for what is none.
func openRegular(path string) (*os.File, fs.FileInfo, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, nil, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%s is no regular file", path)
	}
	if err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	return f, st, nil
}

// maxInfo is the largest file that fileinfo reads, as in the reference product.
const maxInfo = 30 << 30

func fileInfo(ctx context.Context, path string, w io.Writer) error {
	f, st, err := openRegular(path)
	if err != nil {
		return err
	}
	defer f.Close() // read-only
	fmt.Fprintf(w, "path      %q\nsize      %d\nmode      %s\nmodified  %s\n", path, st.Size(), st.Mode(), st.ModTime().UTC().Format(time.RFC3339))
	if sys, ok := st.Sys().(*syscall.Stat_t); ok {
		fmt.Fprintf(w, "owner     %d:%d\ninode     %d, %d links\nchanged   %s\n", sys.Uid, sys.Gid, sys.Ino, sys.Nlink, time.Unix(sys.Ctim.Unix()).UTC().Format(time.RFC3339))
	}
	if st.Size() > maxInfo {
		return fmt.Errorf("the file is larger than %d GiB: its hash is not computed", maxInfo>>30)
	}
	h := sha256.New()
	if _, err := io.Copy(h, &untilDone{ctx, f}); err != nil {
		return err
	}
	fmt.Fprintf(w, "sha256    %s\n", hex.EncodeToString(h.Sum(nil)))
	return nil
}

// untilDone reads until ctx ends.
type untilDone struct {
	ctx context.Context
	r   io.Reader
}

func (u *untilDone) Read(p []byte) (int, error) {
	if err := u.ctx.Err(); err != nil {
		return 0, err
	}
	return u.r.Read(p)
}

// Bounds of findfile.
const (
	findTime = 5 * time.Minute
	maxFound = 1000
)

func findFile(ctx context.Context, pattern, root string, w io.Writer) error {
	if _, err := filepath.Match(pattern, "x"); err != nil {
		return fmt.Errorf("the name %.100q is no pattern: %w", pattern, err)
	}
	ctx, cancel := context.WithTimeout(ctx, findTime)
	defer cancel()
	n := 0
	return filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if ctx.Err() != nil {
			return fmt.Errorf("the search was given up: %w", ctx.Err())
		}
		if err != nil {
			return nil //nolint:nilerr // what cannot be looked into is left out
		}
		if e.IsDir() && (path == "/proc" || path == "/sys" || path == "/dev") && root != path {
			return fs.SkipDir
		}
		if ok, err := filepath.Match(pattern, e.Name()); err != nil || !ok {
			return err
		}
		fmt.Fprintf(w, "%q\n", path)
		if n++; n >= maxFound {
			fmt.Fprintf(w, "the first %d\n", n)
			return fs.SkipAll
		}
		return nil
	})
}

func (l *Live) processes(args []string, w io.Writer) error {
	if len(args) != 0 && (len(args) != 2 || args[0] != "-name" && args[0] != "-pid") {
		return errUsage("processes wants -name NAME or -pid NUMBER")
	}
	var b strings.Builder
	var text bytes.Buffer
	if err := (Collector{Root: strings.TrimSuffix(l.Proc, "proc")}).processes(&text); err != nil {
		return err
	}
	for line := range strings.Lines(text.String()) {
		f := strings.Fields(line)
		keep := len(args) == 0 || len(f) > 0 && f[0] == "PID" || len(f) > 3 && (args[0] == "-pid" && f[0] == args[1] || args[0] == "-name" && strings.Contains(filepath.Base(strings.Trim(f[3], `"[]`)), args[1]))
		if keep {
			b.WriteString(line)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (l *Live) getFile(ctx context.Context, id, path string, w io.Writer) error {
	f, st, err := openRegular(path)
	if err != nil {
		return err
	}
	defer f.Close() // read-only
	if st.Size() > response.MaxGetFile {
		return fmt.Errorf("the file has %d bytes, the limit is %d", st.Size(), int64(response.MaxGetFile))
	}
	if err := l.Send(ctx, id, filepath.Base(path), f, st.Size()); err != nil {
		return err
	}
	fmt.Fprintf(w, "%d bytes of %q sent\n", st.Size(), path)
	return nil
}

// fetched brings a file of the library into a folder under a temporary name.
func (l *Live) fetched(ctx context.Context, id, folder, sum string, limit int64, mode fs.FileMode) (string, error) {
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return "", err
	}
	var number [8]byte
	rand.Read(number[:]) // never fails
	path := filepath.Join(folder, ".bulwark-"+hex.EncodeToString(number[:]))
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY|unix.O_NOFOLLOW, mode)
	if err != nil {
		return "", err
	}
	err = l.Fetch(ctx, id, sum, limit, f)
	if err = errors.Join(err, f.Close()); err != nil {
		return "", errors.Join(err, os.Remove(path))
	}
	return path, nil
}

func (l *Live) putFile(ctx context.Context, id string, s *liveSession, c response.LiveCommand, w io.Writer) error {
	folder := l.folder(s)
	if c.Path != "" {
		folder = c.Path
	}
	to := filepath.Join(folder, c.Name)
	if _, err := os.Lstat(to); err == nil && !c.Overwrite {
		return fmt.Errorf("%s is there already; -overwrite replaces it", to)
	}
	path, err := l.fetched(ctx, id, folder, c.SHA256, response.MaxPutFile, 0o600)
	if err != nil {
		return err
	}
	if err := os.Rename(path, to); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	fmt.Fprintf(w, "%s is there\n", to)
	return nil
}

func (l *Live) script(ctx context.Context, id string, s *liveSession, c response.LiveCommand, w io.Writer, o *response.LiveOutput) error {
	if err := response.CheckScriptArguments(c.Args); err != nil {
		return err
	}
	args, err := words(c.Args)
	if err != nil {
		return err
	}
	path, err := l.fetched(ctx, id, l.Dir, c.SHA256, response.MaxLibraryFile, 0o700)
	if err != nil {
		return err
	}
	defer os.Remove(path)
	ctx, cancel := context.WithTimeout(ctx, scriptTime)
	defer cancel()
	shell := "/bin/bash"
	if _, err := os.Stat(shell); err != nil {
		shell = "/bin/sh"
	}
	cmd := l.Run.Command(ctx, shell, append([]string{path}, args...)...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = l.folder(s), w, w
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C.UTF-8"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }
	if err := l.Run.Start(cmd); err != nil {
		return err
	}
	err = cmd.Wait()
	code := cmd.ProcessState.ExitCode()
	o.ExitCode = &code
	if ctx.Err() != nil {
		return fmt.Errorf("the script was ended: %w", ctx.Err())
	}
	var failed *exec.ExitError
	if errors.As(err, &failed) {
		return fmt.Errorf("the script ended with status %d", code)
	}
	return err
}
