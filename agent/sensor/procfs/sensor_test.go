package procfs

import (
	"os/exec"
	"testing"

	"github.com/bulwarkhq/bulwark/agent/sensor/sensortest"
	"github.com/bulwarkhq/bulwark/event"
	"github.com/bulwarkhq/bulwark/test/need"
)

func TestShortLivedProcesses(t *testing.T) {
	need.Root(t)
	table := sensortest.Table(t)
	s := New(table, sensortest.Log(t))
	sink := sensortest.Start(t, s)
	const n = 500
	complete := sensortest.ShortLived(t, table, sink, n, false)
	total := n + (n+2)/3
	t.Logf("%d of %d processes complete", complete, total)
	// What it cannot read it must still report as a process that ran.
	incomplete := len(sink.Find(func(e *event.Event) bool {
		return e.Action == event.ProcessCreated && e.Additional["Incomplete"] != ""
	}))
	if complete == 0 || complete+incomplete < total {
		t.Errorf("%d complete and %d incomplete of %d", complete, incomplete, total)
	}
	if st := s.Stats(); st.Malformed != 0 || st.Seen != st.Delivered+st.Lost+st.Filtered {
		t.Errorf("%+v", st)
	}
}

func TestLongerProcessIsComplete(t *testing.T) {
	need.Root(t)
	for _, polling := range []bool{false, true} {
		table := sensortest.Table(t)
		s := New(table, sensortest.Log(t))
		if polling {
			s = NewPolling(table, sensortest.Log(t))
		}
		t.Run(s.Name(), func(t *testing.T) {
			sink := sensortest.Start(t, s)
			cmd := exec.Command("/bin/sleep", "1.5")
			if err := cmd.Run(); err != nil {
				t.Fatal(err)
			}
			e := sink.Wait(t, 1, "created", func(e *event.Event) bool {
				return e.Action == event.ProcessCreated && e.Process.PID == int64(cmd.Process.Pid) && e.Process.CommandLine == "/bin/sleep 1.5"
			})[0]
			if e.Process.AccountName != "root" || e.Initiating.CommandLine == "" {
				t.Errorf("%+v", e)
			}
			sink.Wait(t, 1, "ended", func(e *event.Event) bool {
				return e.Action == event.ProcessTerminated && e.Process.PID == int64(cmd.Process.Pid)
			})
		})
	}
}
