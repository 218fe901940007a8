package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	_ "modernc.org/sqlite" // the driver "sqlite"
)

// errAbsent means that a workload's programs are not installed.
var errAbsent = errors.New("not installed")

// sqlite runs transactions, each with a journal of its own that is made and
// removed, and returns the mean time of one.
func sqlite(dir string) (time.Duration, error) {
	ctx := context.Background()
	db, err := sql.Open("sqlite", filepath.Join(dir, "sqlite.db"))
	if err != nil {
		return 0, err
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	if _, err := db.ExecContext(ctx, "PRAGMA journal_mode=DELETE; CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT)"); err != nil {
		return 0, fmt.Errorf("sqlite: %w", err)
	}
	const transactions = 400
	start := time.Now()
	for i := range transactions {
		tx, err := db.BeginTx(ctx, nil)
		if err != nil {
			return 0, fmt.Errorf("sqlite: %w", err)
		}
		for range 10 {
			if _, err := tx.ExecContext(ctx, "INSERT INTO t (v) VALUES (?)", strings.Repeat("x", 100+i%50)); err != nil {
				return 0, errors.Join(fmt.Errorf("sqlite: %w", err), tx.Rollback())
			}
		}
		if err := tx.Commit(); err != nil {
			return 0, fmt.Errorf("sqlite: %w", err)
		}
	}
	return time.Since(start) / transactions, nil
}

// postgresBin finds PostgreSQL's programs as Debian installs them.
func postgresBin() (string, error) {
	for _, root := range []string{os.Getenv("PEERS"), ""} {
		found, err := filepath.Glob(root + "/usr/lib/postgresql/*/bin")
		if err != nil {
			return "", err
		}
		if len(found) > 0 {
			return slices.Max(found), nil
		}
	}
	return "", fmt.Errorf("PostgreSQL: %w", errAbsent)
}

// asNobody runs a program as nobody, as PostgreSQL wants it.
func asNobody(ctx context.Context, dir, program string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "HOME="+dir, "LC_ALL=C")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Credential: &syscall.Credential{Uid: 65534, Gid: 65534},
		Pdeathsig:  syscall.SIGINT, // PostgreSQL's fast end
	}
	return cmd
}

var pgbenchTPS = regexp.MustCompile(`(?m)^tps = ([0-9.]+) `)

// postgres sets a cluster up, and lets pgbench work on it. It returns the time of the
// set-up and the transactions per second.
func postgres(dir string) (setUp time.Duration, tps string, err error) {
	bin, err := postgresBin()
	if err != nil {
		return 0, "", err
	}
	home := filepath.Join(dir, "postgres")
	if err := os.Mkdir(home, 0o700); err != nil {
		return 0, "", err
	}
	if err := os.Chown(home, 65534, 65534); err != nil {
		return 0, "", err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	run := func(program string, args ...string) (string, error) {
		out, err := asNobody(ctx, home, filepath.Join(bin, program), args...).CombinedOutput()
		if err != nil {
			return "", fmt.Errorf("%s: %w\n%.2000s", program, err, out)
		}
		return string(out), nil
	}
	data := filepath.Join(home, "data")
	start := time.Now()
	if _, err := run("initdb", "-D", data, "-U", "bench", "-A", "trust", "--no-sync"); err != nil {
		return 0, "", err
	}
	server := asNobody(ctx, home, filepath.Join(bin, "postgres"), "-D", data, "-k", home, "-c", "listen_addresses=", "-c", "shared_buffers=32MB")
	// A fast end, with its children, when we end.
	server.Cancel = func() error { return server.Process.Signal(syscall.SIGINT) }
	server.WaitDelay = 10 * time.Second
	server.Stdout, server.Stderr = io.Discard, io.Discard
	if err := server.Start(); err != nil {
		return 0, "", err
	}
	defer func() {
		cancel()
		_ = server.Wait() // ended by us
	}()
	for {
		if _, err := run("pgbench", "-h", home, "-U", "bench", "-i", "-q", "-s", "2", "postgres"); err == nil {
			break
		} else if time.Since(start) > 40*time.Second {
			return 0, "", err
		}
		time.Sleep(100 * time.Millisecond)
	}
	setUp = time.Since(start)
	// -C: a connection, and so a server process, for every transaction.
	out, err := run("pgbench", "-h", home, "-U", "bench", "-n", "-C", "-c", "4", "-T", "5", "postgres")
	if err != nil {
		return 0, "", err
	}
	m := pgbenchTPS.FindStringSubmatch(out)
	if m == nil {
		return 0, "", fmt.Errorf("pgbench says no tps: %.500s", out)
	}
	return setUp, m[1], nil
}

// sources writes C files for ccache.
func sources(dir string) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	for i := range 15 {
		text := fmt.Sprintf("#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\nint f%d(void) { return puts(\"%d\"); }\n", i, i)
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("f%d.c", i)), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// find looks a program up among the peers' and the system's.
func find(name string) (string, error) {
	if peers := os.Getenv("PEERS"); peers != "" {
		if path := filepath.Join(peers, "usr/bin", name); isProgram(path) {
			return path, nil
		}
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("%s: %w", name, errAbsent)
	}
	return path, nil
}

func isProgram(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0
}

// compile builds the C files with ccache.
func compile(dir string) (time.Duration, error) {
	ccache, err := find("ccache")
	if err != nil {
		return 0, err
	}
	if _, err := find("gcc"); err != nil {
		return 0, err
	}
	script := `for f in *.c; do "$1" gcc -c -o "${f%.c}.o" "$f" || exit 1; done`
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-c", script, "sh", ccache)
	cmd.Dir = filepath.Join(dir, "c")
	cmd.Env = append(os.Environ(), "CCACHE_DIR="+filepath.Join(dir, "ccache"), "TMPDIR="+dir)
	start := time.Now()
	if out, err := cmd.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("ccache: %w\n%.1000s", err, out)
	}
	return time.Since(start), nil
}

// unpack installs a package as apt has dpkg do it, into a root of its own.
func unpack(dir string) (time.Duration, error) {
	dpkg, err := find("dpkg")
	if err != nil {
		return 0, err
	}
	root := filepath.Join(dir, "root")
	for _, d := range []string{"info", "updates", "triggers"} {
		if err := os.MkdirAll(filepath.Join(root, "var/lib/dpkg", d), 0o755); err != nil {
			return 0, err
		}
	}
	for _, f := range []string{"status", "available"} {
		if err := os.WriteFile(filepath.Join(root, "var/lib/dpkg", f), nil, 0o644); err != nil {
			return 0, err
		}
	}
	d, err := command(dir, []string{dpkg, "--root=" + root, "--force-all", "--no-triggers", "--unpack", filepath.Join(dir, "package.deb")})
	return d, errors.Join(err, os.RemoveAll(root))
}

// makePackage makes a package of the source tree, for unpack.
func makePackage(dir, source string) error {
	if _, err := exec.LookPath("dpkg-deb"); err != nil {
		return nil // unpack will say so
	}
	tree, err := os.MkdirTemp(filepath.Dir(source), "package-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tree)
	files := filepath.Join(tree, "usr/share/bench")
	for _, d := range []string{files, filepath.Join(tree, "DEBIAN")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	if err := os.Chmod(tree, 0o755); err != nil {
		return err
	}
	control := "Package: bench\nVersion: 1\nArchitecture: all\nMaintainer: bench <bench@example.org>\nDescription: files\n"
	if err := os.WriteFile(filepath.Join(tree, "DEBIAN/control"), []byte(control), 0o644); err != nil {
		return err
	}
	if _, err := command(dir, []string{"tar", "-xf", source, "-C", files, "--exclude=.git"}); err != nil {
		return err
	}
	_, err = command(dir, []string{"dpkg-deb", "-Zgzip", "-z1", "--build", tree, filepath.Join(dir, "package.deb")})
	return err
}
