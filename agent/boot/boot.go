// Package boot tells the starts of the host apart.
package boot

import (
	"os"
	"strings"
)

// ID is the kernel's name for its run (random(4), boot_id): no other start of
// this or another host has it. It is empty where the kernel's files cannot be
// read. Each call reads one.
func ID() string {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(id))
}
