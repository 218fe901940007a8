package onaccess

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bulwarkhq/bulwark/engine/verdict"
)

func itoa(n int) string { return strconv.Itoa(n) }

func discard() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// helperDaemon is a daemon whose scanner never answers and whose deadline is
// far away. It ends by itself after 30 seconds, killed or not.
func helperDaemon() {
	time.AfterFunc(30*time.Second, func() { os.Exit(3) })
	deadline := 10 * time.Minute
	if limit, err := strconv.ParseUint(os.Getenv("BULWARK_ONACCESS_NOFILE"), 10, 32); err == nil {
		deadline = 300 * time.Millisecond
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: limit, Max: limit}); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	if d, err := time.ParseDuration(os.Getenv("BULWARK_ONACCESS_DEADLINE")); err == nil {
		deadline = d
	}
	w, err := New(Config{
		Log: discard(), Deadline: deadline, Guard: testGuard,
		OnlyMounts: []string{os.Getenv("BULWARK_ONACCESS_DIR")},
		Scan: func(context.Context, *os.File, Access) (verdict.Verdict, error) {
			select {}
		},
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	go func() {
		<-w.Ready()
		os.Stdout.WriteString("r")
	}()
	if err := w.Run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// testGuard starts this binary as the guard.
func testGuard(cmd *exec.Cmd) error {
	cmd.Path, cmd.Args, cmd.Env = "/proc/self/exe", []string{"guard"}, []string{helperEnv + "=guard"}
	return cmd.Start()
}
