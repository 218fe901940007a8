package uplink

import (
	"context"
	"errors"
	"fmt"

	"connectrpc.com/connect"
	"github.com/klauspost/compress/zstd"

	agentv1 "github.com/bulwarkhq/bulwark/api/agent/v1"
	"github.com/bulwarkhq/bulwark/api/indicator"
)

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
