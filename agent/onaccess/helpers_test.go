package onaccess

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bulwarkhq/bulwark/engine/verdict"
)

// helperLife is how long a daemon of startDaemon may live, and hold those who open
// files of the test.
const helperLife = 4 * time.Minute

func itoa(n int) string { return strconv.Itoa(n) }

func discard() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// helperDaemon is a daemon whose scanner never answers and whose deadline is
// far away. With BULWARK_ONACCESS_SCANNING it scans, and prints a line for what it
// finds. It ends by itself after helperLife, killed or not.
func helperDaemon() {
	time.AfterFunc(helperLife, func() { os.Exit(3) })
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
	cfg := Config{
		Log: discard(), Deadline: deadline, Guard: testGuard,
		OnlyMounts: filepath.SplitList(os.Getenv("BULWARK_ONACCESS_DIR")),
		Scan: func(context.Context, *os.File, Access) (verdict.Verdict, error) {
			select {}
		},
	}
	if os.Getenv("BULWARK_ONACCESS_SCANNING") != "" {
		cfg.Scan = new(scanner).scan
		cfg.OnDetection = func(d Detection) {
			d.File.Close()
			fmt.Printf("%v %s late %v denied %v\n", d.Access.Kind, d.Access.Path, d.Late, d.Denied)
		}
	}
	w, err := New(cfg)
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
