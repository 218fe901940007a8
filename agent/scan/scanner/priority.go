package scanner

import (
	"fmt"
	"os"
	"strconv"

	"github.com/bulwarkhq/bulwark/agent/scan/idle"
)

// lowPriority puts every thread, and with them those to come, into the idle
// classes.
func lowPriority() error {
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return fmt.Errorf("lowering the priority: %w", err)
	}
	for _, t := range threads {
		id, err := strconv.Atoi(t.Name())
		if err != nil {
			continue
		}
		if err := idle.Thread(id); err != nil {
			return err
		}
	}
	return nil
}
