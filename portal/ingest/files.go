package ingest

import (
	"context"
	"errors"
	"time"

	"connectrpc.com/connect"

	agentv1 "github.com/bulwarkhq/bulwark/api/agent/v1"
	"github.com/bulwarkhq/bulwark/event"
)

// maxPart bounds the data of one message of a transfer, in bytes.
const maxPart = 1 << 20

// SendFile stores a part of what a command collected.
func (h *handler) SendFile(ctx context.Context, req *connect.Request[agentv1.SendFileRequest]) (*connect.Response[agentv1.SendFileResponse], error) {
	c, err := callerOf(ctx)
	if err != nil {
		return nil, err
	}
	m := req.Msg
	switch {
	case h.cfg.Files == nil:
		return nil, agentv1.NewError(connect.CodeUnimplemented, agentv1.ReasonBadRequest, 0, "this portal takes no files")
	case len(m.Data) > maxPart || len(m.FileName) > 4096 || m.Offset > 1<<40:
		return nil, agentv1.NewError(connect.CodeInvalidArgument, agentv1.ReasonBadRequest, 0, "a part of %d bytes at %d is out of bounds", len(m.Data), m.Offset)
	case m.Last && !event.IsHex(m.Sha256, 64):
		return nil, agentv1.NewError(connect.CodeInvalidArgument, agentv1.ReasonBadRequest, 0, "the last part has no SHA-256")
	}
	next, err := h.cfg.Files.ReceivePart(ctx, c.device.ID, m.CommandId, FilePart{Name: m.FileName, Offset: m.Offset, Data: m.Data, Last: m.Last, SHA256: m.Sha256})
	switch {
	case errors.Is(err, ErrUnknownCommand):
		return nil, agentv1.NewError(connect.CodeNotFound, agentv1.ReasonBadRequest, 0, "%w", err)
	case errors.Is(err, ErrTooLarge):
		return nil, agentv1.NewError(connect.CodeFailedPrecondition, agentv1.ReasonBadRequest, 0, "%w", err)
	case err != nil:
		return nil, h.failed(ctx, "file of a command", c.device.ID, err)
	}
	return connect.NewResponse(&agentv1.SendFileResponse{NextOffset: next}), nil
}

// FetchFile returns a part of a file that a command brings.
func (h *handler) FetchFile(ctx context.Context, req *connect.Request[agentv1.FetchFileRequest]) (*connect.Response[agentv1.FetchFileResponse], error) {
	c, err := callerOf(ctx)
	if err != nil {
		return nil, err
	}
	if h.cfg.Files == nil {
		return nil, agentv1.NewError(connect.CodeUnimplemented, agentv1.ReasonBadRequest, 0, "this portal gives no files")
	}
	data, size, err := h.cfg.Files.FetchPart(ctx, c.device.ID, req.Msg.CommandId, req.Msg.Sha256, req.Msg.Offset)
	switch {
	case errors.Is(err, ErrUnknownCommand):
		return nil, agentv1.NewError(connect.CodeNotFound, agentv1.ReasonBadRequest, 0, "%w", err)
	case err != nil:
		return nil, h.failed(ctx, "file for a command", c.device.ID, err)
	}
	return connect.NewResponse(&agentv1.FetchFileResponse{Data: data, Size: size}), nil
}

// SendSample stores a part of a suspicious file.
func (h *handler) SendSample(ctx context.Context, req *connect.Request[agentv1.SendSampleRequest]) (*connect.Response[agentv1.SendSampleResponse], error) {
	c, err := callerOf(ctx)
	if err != nil {
		return nil, err
	}
	m := req.Msg
	switch {
	case h.cfg.Samples == nil:
		return nil, agentv1.NewError(connect.CodeFailedPrecondition, agentv1.ReasonBadRequest, 0, "this portal takes no samples")
	case len(m.Data) > maxPart || !event.IsHex(m.Sha256, 64):
		return nil, agentv1.NewError(connect.CodeInvalidArgument, agentv1.ReasonBadRequest, 0, "a part of %d bytes of the file %.70q is out of bounds", len(m.Data), m.Sha256)
	}
	next, stored, err := h.cfg.Samples.ReceiveSample(ctx, c.device.ID, m.AlertId, SamplePart{SHA256: m.Sha256, Size: m.Size, Offset: m.Offset, Data: m.Data})
	switch {
	case errors.Is(err, ErrUnknownAlert):
		return nil, agentv1.NewError(connect.CodeNotFound, agentv1.ReasonBadRequest, 0, "%w", err)
	case errors.Is(err, ErrTooLarge):
		return nil, agentv1.NewError(connect.CodeFailedPrecondition, agentv1.ReasonBadRequest, 0, "%w", err)
	case errors.Is(err, ErrLater):
		return nil, agentv1.NewError(connect.CodeResourceExhausted, agentv1.ReasonBusy, sampleRetry, "%w", err)
	case err != nil:
		return nil, h.failed(ctx, "sample", c.device.ID, err)
	}
	return connect.NewResponse(&agentv1.SendSampleResponse{NextOffset: next, Stored: stored}), nil
}

// sampleRetry is when a device may send more samples.
const sampleRetry = time.Hour
