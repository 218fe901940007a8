package supervise

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bulwarkhq/bulwark/agent/supervise/notify"
)

// The supervisor needs a process for itself, and so does what it supervises;
// both are this test binary, told apart by the first argument.
const (
	roleSupervisor = "test-role-supervisor"
	roleProgram    = "test-role-program"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case roleSupervisor:
			os.Exit(Main(os.Args[2:], os.Stderr))
		case roleProgram:
			if err := program(os.Args[2], os.Args[3]); err != nil {
				fmt.Println("program:", err)
				os.Exit(1)
			}
			os.Exit(0)
		}
	}
	os.Exit(m.Run())
}

// program is what is supervised. dir is its folder: it appends a line to
// dir/starts first, so that it and the test know how often it ran.
func program(behaviour, dir string) error {
	// Whatever goes wrong, nothing outlives the test for long.
	time.AfterFunc(5*time.Minute, func() { os.Exit(77) })

	run, err := countStart(dir)
	if err != nil {
		return err
	}
	n, err := notify.FromEnv()
	if err != nil {
		return err
	}
	terms := make(chan os.Signal, 4)
	signal.Notify(terms, syscall.SIGTERM, syscall.SIGHUP)
	work := func() error { // healthy service until SIGTERM
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		go n.KeepAlive(ctx, func() error { return nil }, nil)
		for sig := range terms {
			if sig == syscall.SIGTERM {
				return os.WriteFile(filepath.Join(dir, "terminated"), nil, 0o600)
			}
			if err := os.WriteFile(filepath.Join(dir, "hangup"), nil, 0o600); err != nil {
				return err
			}
		}
		return nil
	}
	switch behaviour {
	case "serve":
		if err := n.Ready(); err != nil {
			return err
		}
		return work()
	case "exit":
		os.Exit(3)
	case "never-ready":
		return work()
	case "hang-once": // holds every open below dir in its first run
		if run > 1 {
			if err := n.Ready(); err != nil {
				return err
			}
			return work()
		}
		if err := holdOpens(dir); err != nil {
			return err
		}
		if err := n.Ready(); err != nil {
			return err
		}
		// The deadman: without the watchdog everybody is free again by now.
		time.Sleep(time.Minute)
		os.Exit(78)
	case "ignore-term":
		signal.Ignore(syscall.SIGTERM)
		if err := n.Ready(); err != nil {
			return err
		}
		n.KeepAlive(context.Background(), func() error { return nil }, nil)
	case "leave-child": // ends and leaves a child in its process group
		sleep := exec.Command("sleep", "50")
		if err := sleep.Start(); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("child-%d", run)), []byte(strconv.Itoa(sleep.Process.Pid)), 0o600); err != nil {
			return err
		}
		if run == 1 {
			return nil
		}
		if err := n.Ready(); err != nil {
			return err
		}
		return work()
	default:
		return fmt.Errorf("unknown behaviour %q", behaviour)
	}
	return nil
}

func countStart(dir string) (int, error) {
	name := filepath.Join(dir, "starts")
	f, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	if _, err := fmt.Fprintln(f, os.Getpid()); err != nil {
		return 0, err
	}
	b, err := os.ReadFile(name)
	return strings.Count(string(b), "\n"), err
}

// holdOpens asks the kernel to hold every open on the mount of dir until this
// process answers, which it never does.
func holdOpens(dir string) error {
	group, err := unix.FanotifyInit(unix.FAN_CLASS_CONTENT|unix.FAN_CLOEXEC, unix.O_RDONLY|unix.O_CLOEXEC)
	if err != nil {
		return fmt.Errorf("fanotify_init: %w", err)
	}
	var st, parent unix.Stat_t
	if err := errors.Join(unix.Stat(dir, &st), unix.Stat(filepath.Dir(dir), &parent)); err != nil {
		return err
	}
	if st.Dev == parent.Dev {
		return fmt.Errorf("%s is no mount of its own: refusing to hold a real file system", dir)
	}
	return unix.FanotifyMark(group, unix.FAN_MARK_ADD|unix.FAN_MARK_MOUNT, unix.FAN_OPEN_PERM, unix.AT_FDCWD, dir)
}
