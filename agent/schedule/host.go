package schedule

import (
	"bufio"
	"bytes"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bulwarkhq/bulwark/atomicfile"
)

// hostZone is the time zone of the host, which may change while the daemon runs.
type hostZone struct {
	path string

	mu    sync.Mutex
	stamp unix.Stat_t
	zone  *time.Location
}

func (h *hostZone) get() *time.Location {
	if os.Getenv("TZ") != "" {
		return time.Local // whoever started the daemon decided
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	var st unix.Stat_t
	if err := unix.Stat(h.path, &st); err != nil {
		return time.Local
	}
	if h.zone != nil && st.Ino == h.stamp.Ino && st.Dev == h.stamp.Dev && st.Ctim == h.stamp.Ctim {
		return h.zone
	}
	data, err := atomicfile.Read(h.path, 1<<20)
	if err != nil {
		return time.Local
	}
	zone, err := time.LoadLocationFromTZData("Local", data)
	if err != nil {
		return time.Local
	}
	h.stamp, h.zone = st, zone
	return zone
}

// idleness tells whether nobody uses the CPUs, from two looks and more.
type idleness struct {
	path       string
	busy, all  uint64
	idleInARow int
}

const (
	maxBusyPercent = 20
	idleLooks      = 3 // that many looks in a row, a minute
)

func newIdleness() *idleness { return &idleness{path: "/proc/stat"} }

// idle looks once more; calls are some seconds apart.
func (i *idleness) idle() bool {
	f, err := os.Open(i.path)
	if err != nil {
		return true // no way to know: the scan runs
	}
	defer f.Close()
	line, err := bufio.NewReader(io.LimitReader(f, 4096)).ReadBytes('\n')
	if err != nil {
		return true
	}
	busy, all := cpuTimes(line)
	spent, used := all-i.all, busy-i.busy
	first := i.all == 0
	i.busy, i.all = busy, all
	if first || spent == 0 || spent > all || used*100 > spent*maxBusyPercent {
		i.idleInARow = 0
		return false
	}
	i.idleInARow++
	return i.idleInARow >= idleLooks
}

// cpuTimes reads the line "cpu user nice system idle iowait irq softirq steal
// guest guest_nice" of /proc/stat (proc(5)); guests are in user already. Waiting
// for disks is use.
func cpuTimes(line []byte) (busy, all uint64) {
	if !bytes.HasPrefix(line, []byte("cpu ")) {
		return 0, 0
	}
	for n, f := range strings.Fields(string(line))[1:] {
		v, err := strconv.ParseUint(f, 10, 64)
		if err != nil || n > 7 {
			break
		}
		all += v
		if n != 3 {
			busy += v
		}
	}
	return busy, all
}
