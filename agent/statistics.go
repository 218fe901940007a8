package agent

import (
	"context"

	api "github.com/bulwarkhq/bulwark/api/control"
	"github.com/bulwarkhq/bulwark/policy"
)

// statistics is the local API's resource of the counters of real-time
// protection.
type statistics struct{ a *Agent }

// maxCounters bounds the processes in an answer; the watcher keeps no more.
const maxCounters = 4096

func (s statistics) RealTimeStatistics(context.Context) ([]api.Counter, error) {
	if s.a.config.Current().String(policy.KeyStatistics) != policy.Enabled {
		return nil, &api.Error{
			Code: api.Conflict, Message: "processes are not counted: the statistics of real-time protection are off",
			Hint: "bulwark config real-time-protection-statistics --value enabled",
		}
	}
	st := s.a.realtime.stats(maxCounters)
	out := make([]api.Counter, 0, len(st.Processes))
	for _, p := range st.Processes {
		out = append(out, api.Counter{
			ID: int(p.PID), Active: p.Active, Name: p.Name, Path: api.Path(p.Path),
			MaxFileScanTime: p.MaxScan.Nanoseconds(), EventsSent: int64(p.Events),
			FilesScanned: int64(p.Files), ScanTime: p.TotalScan.Nanoseconds(),
		})
	}
	return out, nil
}
