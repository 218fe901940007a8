package uplink

import (
	"context"
	"errors"
	"fmt"
	"time"

	"connectrpc.com/connect"
	"github.com/klauspost/compress/zstd"

	agentv1 "github.com/bulwarkhq/bulwark/api/agent/v1"
	"github.com/bulwarkhq/bulwark/api/indicator"
)

// A list that cannot be applied is fetched again after firstRefusal, and each
// time after a pause that doubles up to mostRefusal: it is large, and all devices
// have it.
const (
	firstRefusal = time.Minute
	mostRefusal  = time.Hour
)

// refusal is a version of the list that could not be applied.
type refusal struct {
	version string
	times   int
	until   time.Time
}

// due reports whether the version may be fetched: another one at once.
func (r *refusal) due(version string, now time.Time) bool {
	// A clock that was set back must not make the pause longer than it can be.
	return r.version != version || !now.Before(r.until) || r.until.Sub(now) > mostRefusal
}

// add notes why the version could not be applied, and returns the pause: none
// where the portal did not give it.
func (r *refusal) add(version string, why error, now time.Time) time.Duration {
	if call := (*connect.Error)(nil); errors.As(why, &call) {
		return 0
	}
	if r.version != version {
		*r = refusal{version: version}
	}
	pause := min(firstRefusal<<min(r.times, 10), mostRefusal)
	r.times++
	r.until = now.Add(pause)
	return pause
}

// indicators fetches the list of a version and puts it in force. Then the
// portal is told at once, so that it can show who has it.
func (s *session) indicators(ctx context.Context, version string) error {
	if s.u.opts.ApplyIndicators == nil {
		return nil
	}
	packed, err := s.fetchIndicators(ctx, version)
	if err != nil {
		return err
	}
	list, err := unpackIndicators(packed)
	if err != nil {
		return err
	}
	if err := s.u.opts.ApplyIndicators(list); err != nil {
		return err
	}
	now, count := s.u.opts.Indicators()
	if now != version {
		return fmt.Errorf("the list says that it is version %.64q", now)
	}
	s.u.opts.Log.Info("indicators of the portal", "version", version, "in_force", count)
	s.u.CheckInSoon()
	return nil
}

// fetchIndicators brings the compressed list, part by part.
func (s *session) fetchIndicators(ctx context.Context, version string) ([]byte, error) {
	var packed []byte
	for {
		cctx, cancel := context.WithTimeout(ctx, callTimeout)
		res, err := s.agent.FetchIndicators(cctx, connect.NewRequest(&agentv1.FetchIndicatorsRequest{Version: version, Offset: uint64(len(packed))}))
		cancel()
		if err != nil {
			return nil, fmt.Errorf("fetch the indicators: %w", err)
		}
		size := res.Msg.Size
		if size > indicator.MaxBytes || uint64(len(packed)+len(res.Msg.Data)) > size {
			return nil, fmt.Errorf("the portal's list of indicators is larger than it says, or than %d bytes", indicator.MaxBytes)
		}
		packed = append(packed, res.Msg.Data...)
		if uint64(len(packed)) == size {
			return packed, nil
		}
		if len(res.Msg.Data) == 0 {
			return nil, errors.New("the portal's list of indicators ends too early")
		}
	}
}

func unpackIndicators(packed []byte) ([]byte, error) {
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(indicator.MaxBytes), zstd.WithDecoderMaxWindow(8<<20))
	if err != nil {
		return nil, fmt.Errorf("decompress the indicators: %w", err)
	}
	defer dec.Close()
	list, err := dec.DecodeAll(packed, nil)
	if err != nil {
		return nil, fmt.Errorf("decompress the indicators: %w", err)
	}
	return list, nil
}
