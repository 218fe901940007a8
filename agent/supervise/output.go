package supervise

import (
	"fmt"
	"os"
)

// maxLog bounds the supervisor's log. Daemons keep logs of their own; what
// arrives here is a few lines per start, and stack traces.
const maxLog = 8 << 20

// output is the open log. It stays one file for the life of the supervisor: the
// program writes to the same descriptor, and rotation would open files.
type output struct {
	*os.File
	own bool // not standard error
}

func openLog(path string) (*output, error) {
	if path == "" {
		return &output{File: os.Stderr}, nil
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o640)
	if err != nil {
		return nil, fmt.Errorf("log of the supervisor: %w", err)
	}
	return &output{File: f, own: true}, nil
}

// limit empties a log that has grown too long.
func (o *output) limit() {
	if !o.own {
		return
	}
	if info, err := o.Stat(); err == nil && info.Size() > maxLog {
		_ = o.Truncate(0)
	}
}

// Close closes the log file; standard error stays open.
func (o *output) Close() error {
	if !o.own {
		return nil
	}
	return o.File.Close()
}
