package sandbox

import (
	"os"
	"strings"
	"testing"
)

// What happens in the box stays there, and the kernel is out of its reach.
func TestBoxKeepsTheHost(t *testing.T) {
	Need(t)
	motd, _ := os.ReadFile("/etc/motd")
	b := Box{StandIns: []string{"no-such-program"}}
	r, err := b.Run(t.Context(), t.TempDir(), `
echo changed > /etc/motd && cat /etc/motd
[ -w /proc/sys/kernel/panic ] && echo 1 2>/dev/null > /proc/sys/kernel/panic && echo KERNEL
date -s 2001-01-01 >/dev/null 2>&1 && echo CLOCK
mount -t tmpfs x /mnt 2>/dev/null && echo MOUNT
[ -f /proc/sysrq-trigger ] && echo UNMASKED
ls /run/old /sys/kernel/debug/tracing 2>/dev/null | head -1
no-such-program && echo stand-in
ls -A /home /tmp | grep -v : | head -1
echo "processes $(ls -d /proc/[0-9]* | wc -l)"
`)
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"KERNEL", "CLOCK", "MOUNT", "UNMASKED"} {
		if strings.Contains(r.Output, bad) {
			t.Errorf("%s in the box: %s", bad, r.Output)
		}
	}
	for _, want := range []string{"changed\n", "stand-in\n", "processes "} {
		if !strings.Contains(r.Output, want) {
			t.Errorf("%q is missing: %s (%v)", want, r.Output, r.Err)
		}
	}
	if now, _ := os.ReadFile("/etc/motd"); string(now) != string(motd) {
		t.Error("the host's file changed")
	}
	if len(r.Missing) != 1 || r.PID == 0 {
		t.Errorf("%+v", r)
	}
}
