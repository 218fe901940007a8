package ingest

import (
	"context"
	"errors"

	"connectrpc.com/connect"

	agentv1 "github.com/bulwarkhq/bulwark/api/agent/v1"
)

// Indicators gives devices the list of indicators that they should have.
type Indicators interface {
	// IndicatorsPart returns at most 1 MiB of the compressed list of a version
	// from an offset on, and the size of all of it. The error wraps
	// ErrOtherVersion when the device should have another one by now.
	IndicatorsPart(ctx context.Context, deviceID, version string, offset uint64) (data []byte, size uint64, err error)
}

// ErrOtherVersion is returned (wrapped) by Indicators.IndicatorsPart.
var ErrOtherVersion = errors.New("this is not the version that the device should have")

// maxVersion is the longest version of a list in bytes.
const maxVersion = 128

// FetchIndicators gives a device a part of its list of indicators.
func (h *handler) FetchIndicators(ctx context.Context, req *connect.Request[agentv1.FetchIndicatorsRequest]) (*connect.Response[agentv1.FetchIndicatorsResponse], error) {
	c, err := callerOf(ctx)
	if err != nil {
		return nil, err
	}
	if req.Msg.Version == "" || len(req.Msg.Version) > maxVersion {
		return nil, agentv1.NewError(connect.CodeInvalidArgument, agentv1.ReasonBadRequest, 0, "version must have 1 to %d bytes", maxVersion)
	}
	if h.cfg.Indicators == nil {
		return nil, agentv1.NewError(connect.CodeNotFound, agentv1.ReasonBadRequest, 0, "this portal has no indicators")
	}
	data, size, err := h.cfg.Indicators.IndicatorsPart(ctx, c.device.ID, req.Msg.Version, req.Msg.Offset)
	switch {
	case errors.Is(err, ErrOtherVersion):
		return nil, agentv1.NewError(connect.CodeNotFound, agentv1.ReasonBadRequest, 0, "%w", err)
	case err != nil:
		return nil, h.failed(ctx, "indicators", c.device.ID, err)
	}
	return connect.NewResponse(&agentv1.FetchIndicatorsResponse{Data: data, Size: size}), nil
}
