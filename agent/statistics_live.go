package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/bulwarkhq/bulwark/agent/onaccess"
	api "github.com/bulwarkhq/bulwark/api/control"
)

const (
	// liveEvery is the time between two answers to those who follow.
	liveEvery = time.Second
	// maxLive bounds processes, files and sources in one answer, so that it fits
	// a frame whatever the paths are.
	maxLive = 64
	maxHot  = 500
	// pathBytes bounds the paths of an answer: a path has up to 4096 bytes, and a
	// byte up to six in JSON.
	pathBytes = 96 << 10
)

// FollowOnAccess implements control.Statistics.
func (s statistics) FollowOnAccess(ctx context.Context, send func(api.OnAccess) error) error {
	return every(ctx, func() error { return send(onAccess(s.a.realtime.stats(0), time.Now())) })
}

// every calls f at once and then every second until ctx ends.
func every(ctx context.Context, f func() error) error {
	tick := time.NewTicker(liveEvery)
	defer tick.Stop()
	for {
		if err := f(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func onAccess(st onaccess.Stats, now time.Time) api.OnAccess {
	out := api.OnAccess{
		Time: now, Mode: string(st.Mode), Holding: st.Holding,
		Events: int64(st.Events), Scans: int64(st.Scans), CacheHits: int64(st.CacheHits), IgnoreMarks: int64(st.IgnoreMarks),
		Detections: int64(st.Detections), Denied: int64(st.Denied), DeadlinesMissed: int64(st.DeadlinesMissed),
		Held: st.Held, Queue: st.QueueDepth,
		Processes: []api.OnAccessProcess{}, Files: []api.OnAccessFile{}, Suggestions: []api.ExclusionSuggestion{},
	}
	left := pathBytes
	for _, p := range st.Processes[:min(len(st.Processes), maxLive)] {
		if left -= len(p.Path); left < 0 {
			break
		}
		out.Processes = append(out.Processes, api.OnAccessProcess{
			PID: int(p.PID), Name: p.Name, Path: api.Path(p.Path), Active: p.Active,
			Events: int64(p.Events), Files: int64(p.Files), Bytes: int64(p.Bytes), CacheHits: int64(p.CacheHits),
			Denied: int64(p.Denied), DeadlinesMissed: int64(p.DeadlinesMissed),
			ScanNS: p.TotalScan.Nanoseconds(), MaxScanNS: p.MaxScan.Nanoseconds(),
		})
	}
	for _, f := range st.Files[:min(len(st.Files), maxLive)] {
		if left -= len(f.Path); left < 0 {
			break
		}
		out.Files = append(out.Files, api.OnAccessFile{
			Path: api.Path(f.Path), Scans: int64(f.Scans), Bytes: int64(f.Bytes), Denied: int64(f.Denied),
			ScanNS: f.TotalScan.Nanoseconds(), MaxScanNS: f.MaxScan.Nanoseconds(),
		})
	}
	for _, x := range onaccess.Suggest(st, nil) {
		if left -= len(x.Value); left < 0 || len(out.Suggestions) == maxLive {
			break
		}
		out.Suggestions = append(out.Suggestions, api.ExclusionSuggestion{
			Type: x.Type, Value: api.Path(x.Value), Scans: int64(x.Scans), SavesNS: x.Saves.Nanoseconds(),
			Share: x.Share, Risk: string(x.Risk), Why: x.Why,
		})
	}
	return out
}

// FollowHotEventSources implements control.Statistics.
func (s statistics) FollowHotEventSources(ctx context.Context, kind string, send func(api.HotEventSources) error) error {
	if !onaccess.HotKind(kind).Valid() {
		return &api.Error{Code: api.InvalidArgument, Message: fmt.Sprintf("%q is not one of files, executables", kind)}
	}
	w := s.a.realtime.watcher.Load()
	if w == nil {
		return &api.Error{Code: api.Unavailable, Message: "real-time protection is not running: " + s.a.realtime.stats(onaccess.NoTop).Reason, Hint: "bulwark health --explain says what to do"}
	}
	count := w.CountHot(onaccess.HotKind(kind))
	defer count.End()
	return every(ctx, func() error {
		if s.a.realtime.watcher.Load() != w {
			return errors.New("real-time protection was started anew with other settings; start again")
		}
		r := count.Report(maxHot)
		out := api.HotEventSources{
			Start: r.Start.UnixMicro(), End: r.End.UnixMicro(), Total: int64(r.Total), Sources: []api.HotEventSource{},
		}
		left := pathBytes
		for _, x := range r.Sources {
			if left -= len(x.Path); left < 0 {
				break
			}
			out.Sources = append(out.Sources, api.HotEventSource{
				Auth: int64(x.Auth), Notify: int64(x.Notify), Path: api.Path(x.Path), Processes: int64(x.Processes),
			})
		}
		return send(out)
	})
}
