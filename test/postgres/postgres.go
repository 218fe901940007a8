// Package postgres starts PostgreSQL servers of the distribution for tests: each
// with a data folder of its own, as a user without privileges, reachable by a Unix
// socket only.
package postgres

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/bulwarkhq/bulwark/test/need"
)

// patience is for a machine that does other things too.
const patience = 2 * time.Minute

// Server is a PostgreSQL server.
type Server struct {
	bin, dir string
	account  *syscall.SysProcAttr
	mu       sync.Mutex
	process  *exec.Cmd
	ended    chan struct{} // closed when the process has ended
	made     int
}

// Start makes a server, which ends with the test. Its default order of text is that
// of English, not that of bytes.
func Start(t testing.TB) *Server {
	t.Helper()
	s := &Server{bin: programs(t)}
	// Not t.TempDir: nobody but its owner reaches that. A socket's path is short.
	dir, err := os.MkdirTemp("", "bulwark-pg-")
	if err != nil {
		t.Fatal(err)
	}
	s.dir = dir
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	s.account = &syscall.SysProcAttr{Setpgid: true}
	if os.Geteuid() == 0 { // it refuses to run as root
		u, err := user.Lookup("postgres")
		if err != nil {
			need.Missing(t, "needs the user postgres of the package postgresql-common")
		}
		uid, err := strconv.Atoi(u.Uid)
		gid, err2 := strconv.Atoi(u.Gid)
		if err := errors.Join(err, err2); err != nil {
			t.Fatal(err)
		}
		s.account.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		if err := os.Chown(dir, uid, gid); err != nil {
			t.Fatal(err)
		}
	}
	out, err := s.command(t.Context(), "initdb", "--pgdata", s.data(), "--username", "portal", "--auth", "trust", "--encoding", "UTF8",
		"--locale-provider", "icu", "--icu-locale", "en-US", "--locale", "C", "--no-sync").CombinedOutput()
	if err != nil {
		t.Fatalf("initdb: %v\n%s", err, out)
	}
	t.Cleanup(func() { s.end(t, syscall.SIGINT) })
	s.Run(t)
	return s
}

// programs returns the folder of the programs.
func programs(t testing.TB) string {
	t.Helper()
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	if err != nil {
		t.Fatal(err)
	}
	if len(found) > 0 {
		slices.Sort(found)
		return filepath.Dir(found[len(found)-1])
	}
	return filepath.Dir(need.Command(t, "postgres"))
}

func (s *Server) data() string { return filepath.Join(s.dir, "data") }

func (s *Server) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	c := exec.CommandContext(ctx, filepath.Join(s.bin, name), args...)
	c.Dir, c.SysProcAttr = s.dir, s.account
	return c
}

// Command returns a program of PostgreSQL, such as pg_dump.
func (s *Server) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	return s.command(ctx, name, args...)
}

// address is the connection string of a database.
func (s *Server) address(database string) string {
	return "postgres://portal@/" + database + "?host=" + url.QueryEscape(s.dir)
}

// Run starts the server and waits until it answers.
func (s *Server) Run(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for {
		if s.ended == nil {
			if err := s.spawn(); err != nil {
				t.Fatal(err)
			}
		}
		c, err := pgx.Connect(ctx, s.address("postgres"))
		if err == nil {
			if err := c.Close(ctx); err != nil {
				t.Fatal(err)
			}
			return
		}
		select {
		case <-ctx.Done():
			log, _ := os.ReadFile(filepath.Join(s.dir, "log")) // the error says enough
			t.Fatalf("PostgreSQL does not answer: %v\n%s", err, log)
		case <-s.ended: // processes of one that was killed may still be there
			s.ended = nil
			time.Sleep(100 * time.Millisecond)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (s *Server) spawn() error {
	log, err := os.OpenFile(filepath.Join(s.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	// Without fsync nothing is lost when the server is killed, only when the machine
	// is.
	s.process = s.command(context.Background(), "postgres", "-D", s.data(), "-k", s.dir, "-c", "listen_addresses=", "-c", "fsync=off",
		"-c", "shared_buffers=16MB", "-c", "max_connections=100", "-c", "autovacuum=off")
	s.process.Stdout, s.process.Stderr = log, log
	if err := s.process.Start(); err != nil {
		return fmt.Errorf("starting PostgreSQL: %w", err)
	}
	ended := make(chan struct{})
	s.ended = ended
	go func(p *exec.Cmd) {
		defer close(ended)
		_ = p.Wait() // however it ended
	}(s.process)
	return nil
}

// Kill ends the server as a crash would.
func (s *Server) Kill(t testing.TB) {
	t.Helper()
	s.end(t, syscall.SIGKILL)
}

func (s *Server) end(t testing.TB, sig syscall.Signal) {
	t.Helper()
	if s.ended == nil {
		return
	}
	if err := s.process.Process.Signal(sig); err != nil {
		t.Error(err)
	}
	select {
	case <-s.ended:
	case <-time.After(patience):
		t.Error("PostgreSQL does not end")
		_ = s.process.Process.Kill()
		<-s.ended
	}
	s.ended = nil
}

// NewDatabase makes an empty database and returns its connection string.
func (s *Server) NewDatabase(t testing.TB) string {
	t.Helper()
	return s.create(t, "template1")
}

// Copy makes a database with what one of the server has, to which nobody is
// connected.
func (s *Server) Copy(t testing.TB, address string) string {
	t.Helper()
	return s.create(t, nameOf(address))
}

func (s *Server) create(t testing.TB, template string) string {
	t.Helper()
	s.mu.Lock()
	s.made++
	name := "t" + strconv.Itoa(s.made)
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, err := pgx.Connect(ctx, s.address("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(ctx)
	if _, err := c.Exec(ctx, "CREATE DATABASE "+name+" TEMPLATE "+template); err != nil {
		t.Fatal(err)
	}
	return s.address(name)
}

func nameOf(address string) string {
	name, _, _ := strings.Cut(strings.TrimPrefix(address, "postgres://portal@/"), "?")
	return name
}
