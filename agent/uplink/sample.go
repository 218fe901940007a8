package uplink

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"connectrpc.com/connect"

	"github.com/bulwarkhq/bulwark/agent/network"
	agentv1 "github.com/bulwarkhq/bulwark/api/agent/v1"
)

// ErrSampleRefused means that the portal does not take a file, now or later.
var ErrSampleRefused = errors.New("the portal refuses the sample")

const (
	samplePart    = 512 << 10
	sampleTimeout = 30 * time.Minute // for slow lines
)

// SendSample sends a suspicious file about which this device has raised an
// alert. It goes on where an earlier attempt was interrupted.
func (u *Uplink) SendSample(ctx context.Context, alertID, sha256 string, size int64, r io.ReaderAt) error {
	s, err := u.session()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, sampleTimeout)
	defer cancel()
	m := &agentv1.SendSampleRequest{AlertId: alertID, Sha256: sha256, Size: uint64(size)}
	// The first call asks. A portal that never goes forward is given up.
	for stuck := 0; ; {
		cctx, cancel := context.WithTimeout(ctx, callTimeout)
		res, err := s.agent.SendSample(cctx, connect.NewRequest(m))
		cancel()
		switch connect.CodeOf(err) {
		case connect.CodeFailedPrecondition, connect.CodeInvalidArgument, connect.CodeUnimplemented:
			if err != nil {
				return fmt.Errorf("%w: %s", ErrSampleRefused, network.Explain(err))
			}
		}
		if err != nil {
			return errors.New(network.Explain(err))
		}
		if res.Msg.Stored {
			return nil
		}
		next := res.Msg.NextOffset
		if next >= uint64(size) {
			return fmt.Errorf("%w: it wants bytes from %d of %d", ErrSampleRefused, next, size)
		}
		if next <= m.Offset && len(m.Data) > 0 {
			if stuck++; stuck > 3 {
				return fmt.Errorf("the portal asks for the bytes from %d again and again", next)
			}
		}
		m.Offset, m.Data = next, make([]byte, min(samplePart, size-int64(next)))
		if _, err := r.ReadAt(m.Data, int64(next)); err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("read the sample: %w", err)
		}
	}
}
