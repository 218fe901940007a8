// Package report is what the program inside a virtual machine tells the test
// outside: one JSON object a line, over a serial port of the machine.
package report

import (
	"encoding/json"
	"fmt"
	"io"
	"sync"
)

// Message is one line. Exactly one of its members is set.
type Message struct {
	// Log is progress, for whoever reads the test's output.
	Log string `json:"log,omitempty"`
	// Check is the outcome of something that must hold.
	Check *Check `json:"check,omitempty"`
	// Row is what was found about a file system, for the documentation.
	Row *Row `json:"row,omitempty"`
	// Reboot is the last message before the machine starts again.
	Reboot bool `json:"reboot,omitempty"`
	// Done is the last message: everything that was to be tried was tried.
	Done bool `json:"done,omitempty"`
}

// Check is something that must hold.
type Check struct {
	// Name of the check; parts are separated by slashes.
	Name string `json:"name"`
	// Failure says what happened instead; empty when the check holds.
	Failure string `json:"failure,omitempty"`
}

// Row is what was found about one type of file system: the value of each column
// of the table in docs/filesystems.md.
type Row struct {
	Type   string            `json:"type"`
	Values map[string]string `json:"values"`
}

// Writer sends messages. Its methods may be called from several goroutines.
type Writer struct {
	mu  sync.Mutex
	enc *json.Encoder
	err error
}

// NewWriter returns a Writer to w.
func NewWriter(w io.Writer) *Writer { return &Writer{enc: json.NewEncoder(w)} }

// Send sends a message.
func (w *Writer) Send(m Message) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = w.enc.Encode(m)
	}
}

// Logf sends progress.
func (w *Writer) Logf(format string, args ...any) {
	w.Send(Message{Log: fmt.Sprintf(format, args...)})
}

// Err is the first error of sending.
func (w *Writer) Err() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}
