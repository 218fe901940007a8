package onaccess

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/bulwarkhq/bulwark/engine/verdict"
)

func discard() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// helperDaemon is a daemon whose scanner never answers and whose deadline is
// far away. It ends by itself after 30 seconds, killed or not.
func helperDaemon() {
	time.AfterFunc(30*time.Second, func() { os.Exit(3) })
	w, err := New(Config{
		Log: discard(), Deadline: 10 * time.Minute,
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
