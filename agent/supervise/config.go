package supervise

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"time"
)

// Config says what to run and how long to wait for it.
type Config struct {
	Name    string   // names the program in the log
	PidFile string   // holds the supervisor's process id; locked while it runs
	LogFile string   // the program's output and the supervisor's log; "" is standard error
	User    string   // run the program as this user; "" is the supervisor's own
	Program []string // path and arguments

	// Simple is for a program that does not speak sd_notify: it counts as ready
	// once it is started and has no watchdog.
	Simple bool

	Watchdog     time.Duration // killed when silent for longer; 0 is no watchdog
	StartTimeout time.Duration // killed when not ready by then
	StopTimeout  time.Duration // killed when it has not ended by then

	// The pause before a restart doubles from MinPause to MaxPause; a program
	// that ran for MaxPause and more starts over with MinPause.
	MinPause, MaxPause time.Duration
	// The supervisor gives up when the program was started StartLimit times
	// within StartInterval. 0 is never.
	StartLimit    int
	StartInterval time.Duration
}

// defaults suit a daemon that answers permission requests: nobody may be held
// for long.
func defaults() Config {
	return Config{
		Watchdog:      20 * time.Second,
		StartTimeout:  60 * time.Second,
		StopTimeout:   15 * time.Second,
		MinPause:      200 * time.Millisecond,
		MaxPause:      30 * time.Second,
		StartLimit:    10,
		StartInterval: 5 * time.Minute,
	}
}

const usage = `Usage: bulwarkd supervise --name NAME --pidfile FILE [flags] -- PROGRAM [ARGUMENT...]

Keeps PROGRAM running on a host without systemd. SIGTERM and SIGINT stop it,
SIGHUP is passed on.
`

// ParseArgs reads the command line after "supervise". It returns [flag.ErrHelp]
// when help was asked for and written to output.
func ParseArgs(args []string, output io.Writer) (Config, error) {
	c := defaults()
	fs := flag.NewFlagSet("supervise", flag.ContinueOnError)
	fs.SetOutput(output)
	fs.Usage = func() {
		_, _ = io.WriteString(output, usage)
		fs.PrintDefaults()
	}
	fs.StringVar(&c.Name, "name", "", "`name` of the program in the log")
	fs.StringVar(&c.PidFile, "pidfile", "", "`file` that holds the supervisor's process id; locked while it runs")
	fs.StringVar(&c.LogFile, "log", "", "append output and log to this `file` instead of standard error")
	fs.StringVar(&c.User, "user", "", "run the program as this `user`")
	fs.BoolVar(&c.Simple, "simple", false, "the program does not speak sd_notify")
	fs.DurationVar(&c.Watchdog, "watchdog", c.Watchdog, "kill the program when it is silent for longer; 0 is never")
	fs.DurationVar(&c.StartTimeout, "start-timeout", c.StartTimeout, "kill the program when it is not ready by then")
	fs.DurationVar(&c.StopTimeout, "stop-timeout", c.StopTimeout, "kill the program when it has not ended by then")
	fs.DurationVar(&c.MinPause, "min-pause", c.MinPause, "first pause before a restart")
	fs.DurationVar(&c.MaxPause, "max-pause", c.MaxPause, "longest pause before a restart")
	fs.IntVar(&c.StartLimit, "start-limit", c.StartLimit, "give up after this many starts within the interval; 0 is never")
	fs.DurationVar(&c.StartInterval, "start-interval", c.StartInterval, "interval of the start limit")
	if err := fs.Parse(args); err != nil {
		return Config{}, err
	}
	c.Program = fs.Args()
	return c, c.validate()
}

func (c Config) validate() error {
	switch {
	case c.Name == "":
		return errors.New("--name is missing")
	case c.PidFile == "":
		return errors.New("--pidfile is missing")
	case len(c.Program) == 0:
		return errors.New("no program given: put it behind --")
	case c.Watchdog < 0:
		return fmt.Errorf("--watchdog %v: want 0 or more", c.Watchdog)
	case c.StartTimeout <= 0:
		return fmt.Errorf("--start-timeout %v: want more than 0", c.StartTimeout)
	case c.StopTimeout <= 0:
		return fmt.Errorf("--stop-timeout %v: want more than 0", c.StopTimeout)
	case c.MinPause <= 0 || c.MaxPause < c.MinPause:
		return fmt.Errorf("--min-pause %v, --max-pause %v: want 0 < min <= max", c.MinPause, c.MaxPause)
	case c.StartLimit < 0:
		return fmt.Errorf("--start-limit %d: want 0 or more", c.StartLimit)
	}
	return nil
}
