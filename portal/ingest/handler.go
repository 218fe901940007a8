package ingest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unsafe"

	"connectrpc.com/connect"

	agentv1 "github.com/bulwarkhq/bulwark/api/agent/v1"
	"github.com/bulwarkhq/bulwark/api/agent/v1/agentv1connect"
	"github.com/bulwarkhq/bulwark/event"
	"github.com/bulwarkhq/bulwark/portal/enroll"
)

// handler is the AgentService of a Service.
type handler Service

var _ agentv1connect.AgentServiceHandler = (*handler)(nil)

// Deliver decodes a batch and stores it.
func (h *handler) Deliver(ctx context.Context, req *connect.Request[agentv1.DeliverRequest]) (*connect.Response[agentv1.DeliverResponse], error) {
	c, err := callerOf(ctx)
	if err != nil {
		return nil, err
	}
	s, m, id := (*Service)(h), req.Msg, c.device.ID
	if !s.begin(id) {
		s.counts.busy.Add(1)
		return nil, agentv1.NewError(connect.CodeResourceExhausted, agentv1.ReasonBusy, busyRetry, "an earlier batch of this device is still being stored")
	}
	defer s.end(id)
	if wait, tell := s.quotas.wait(id, len(m.AlertsJson) > 0); wait > 0 {
		s.counts.quota.Add(1)
		if tell {
			s.cfg.Log.Warn("a device delivers more events than it may and keeps them for now", "device", id, "limit_per_minute", s.cfg.EventsPerMinute)
		}
		return nil, agentv1.NewError(connect.CodeResourceExhausted, agentv1.ReasonBusy, wait, "this device has delivered more than %d events a minute", s.cfg.EventsPerMinute)
	}
	slice, _ := s.events.Get().(*[]event.Event)
	defer func() {
		if cap(*slice) > maxPooledEvents {
			return
		}
		clear(*slice) // the strings must not be held
		*slice = (*slice)[:0]
		s.events.Put(slice)
	}()
	b := &Batch{DeviceID: id, SpoolID: m.SpoolId, Sequence: m.Sequence, Received: s.cfg.Now().UTC()}
	free, err := s.admit(ctx, m, b, slice)
	if err != nil {
		return nil, err
	}
	defer free()
	switch err := s.cfg.Sink.StoreBatch(ctx, b); {
	case err == nil:
	case errors.Is(err, ErrBusy):
		s.counts.busy.Add(1)
		return nil, agentv1.NewError(connect.CodeResourceExhausted, agentv1.ReasonBusy, busyRetry, "%w", err)
	case ctx.Err() != nil:
		return nil, connect.NewError(connect.CodeCanceled, ctx.Err())
	default:
		s.counts.failed.Add(1)
		s.cfg.Log.Error("batch not stored", "device", id, "spool", m.SpoolId, "sequence", m.Sequence, "error", err)
		return nil, agentv1.NewError(connect.CodeUnavailable, agentv1.ReasonInternal, busyRetry, "the portal cannot store events at this moment; see its log")
	}
	s.quotas.charge(id, len(b.Events))
	return connect.NewResponse(&agentv1.DeliverResponse{AcknowledgedSequence: m.Sequence}), nil
}

// admit decodes the message into b, a few of them at a time, and waits until there
// is room for it among those that are being stored: there many wait at a time, so
// that they are stored together. free gives the room back.
func (s *Service) admit(ctx context.Context, m *agentv1.DeliverRequest, b *Batch, slice *[]event.Event) (free func(), err error) {
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	case <-ctx.Done():
		return nil, connect.NewError(connect.CodeCanceled, ctx.Err())
	}
	size, err := s.decode(m, b, slice)
	if err != nil {
		s.cfg.Log.Warn("batch refused", "device", b.DeviceID, "spool", m.SpoolId, "sequence", m.Sequence, "error", err)
		return nil, err
	}
	weight := min(int64(size)+int64(cap(*slice))*int64(unsafe.Sizeof(event.Event{}))+1, maxDecoded)
	if err := s.room.Acquire(ctx, weight); err != nil {
		return nil, connect.NewError(connect.CodeCanceled, err)
	}
	return func() { s.room.Release(weight) }, nil
}

// decode fills b from the message within the limits. slice is the room for the
// events. size is that of what was decoded, in bytes.
func (s *Service) decode(m *agentv1.DeliverRequest, b *Batch, slice *[]event.Event) (size int, err error) {
	bad := func(reason, format string, args ...any) (int, error) {
		return 0, agentv1.NewError(connect.CodeInvalidArgument, reason, 0, format, args...)
	}
	if !event.IsHex(m.SpoolId, 32) {
		return bad(agentv1.ReasonBatchUnreadable, "spool_id %.64q is not 32 hex digits", m.SpoolId)
	}
	if m.Sequence == 0 || m.Sequence > 1<<62 {
		return bad(agentv1.ReasonBatchUnreadable, "sequence %d is out of range", m.Sequence)
	}
	if len(m.EventsZstd) > MaxCompressed {
		return bad(agentv1.ReasonBatchTooLarge, "events_zstd has %d bytes, the limit is %d", len(m.EventsZstd), MaxCompressed)
	}
	if len(m.AlertsJson) > MaxAlerts {
		return bad(agentv1.ReasonBatchTooLarge, "%d alerts, the limit is %d", len(m.AlertsJson), MaxAlerts)
	}
	if len(m.EventsZstd) > 0 {
		plain, err := s.zstd.DecodeAll(m.EventsZstd, nil)
		size += len(plain)
		if err != nil {
			return bad(agentv1.ReasonBatchUnreadable, "events_zstd: %w (at most %d bytes uncompressed)", err, MaxUncompressed)
		}
		err = event.DecodeEvents(plain, func(e *event.Event) error {
			*slice = append(*slice, *e)
			return nil
		})
		if err != nil {
			return bad(agentv1.ReasonBatchUnreadable, "%w", err)
		}
	}
	if uint32(len(*slice)) != m.EventCount {
		return bad(agentv1.ReasonBatchUnreadable, "%d events in the batch, event_count says %d", len(*slice), m.EventCount)
	}
	b.Events = *slice
	b.Lost = cleanLost(m.Lost)
	total := 0
	for i, text := range m.AlertsJson {
		if total += len(text); total > maxAlertBytes {
			return bad(agentv1.ReasonBatchTooLarge, "alerts have more than %d bytes", maxAlertBytes)
		}
		a, err := event.DecodeAlert(text)
		if err != nil {
			// One that cannot be read must not keep the others away.
			s.cfg.Log.Error("alert of a device cannot be read and is lost", "device", b.DeviceID, "index", i, "error", err)
			if b.Lost == nil {
				b.Lost = map[string]uint64{}
			}
			b.Lost["alert"]++
			continue
		}
		b.Alerts = append(b.Alerts, a)
	}
	return size + total, nil
}

// cleanLost keeps what can be a counter of a class.
func cleanLost(in map[string]uint64) map[string]uint64 {
	var out map[string]uint64
	for k, v := range in {
		if k == "" || len(k) > 32 || v == 0 || v > 1<<50 || strings.Trim(k, "abcdefghijklmnopqrstuvwxyz0123456789_") != "" {
			continue
		}
		if out == nil {
			out = map[string]uint64{}
		}
		if len(out) < maxLost {
			out[k] = v
		}
	}
	return out
}

// CheckIn records health and inventory.
func (h *handler) CheckIn(ctx context.Context, req *connect.Request[agentv1.CheckInRequest]) (*connect.Response[agentv1.CheckInResponse], error) {
	c, err := callerOf(ctx)
	if err != nil {
		return nil, err
	}
	m := req.Msg
	info, err := enroll.CleanInfo(m.Device)
	if err != nil {
		return nil, agentv1.NewError(connect.CodeInvalidArgument, agentv1.ReasonBadRequest, 0, "%w", err)
	}
	if info.HardwareId != c.device.HardwareID {
		return nil, agentv1.NewError(connect.CodeFailedPrecondition, agentv1.ReasonReenroll, 0,
			"the hardware is not that of the enrollment (a cloned disk, or a new mainboard): the device must enroll again to get an identity of its own")
	}
	health, err := compactHealth(m.HealthJson)
	if err != nil {
		return nil, agentv1.NewError(connect.CodeInvalidArgument, agentv1.ReasonBadRequest, 0, "%w", err)
	}
	if len(m.PolicyVersion) > 128 {
		return nil, agentv1.NewError(connect.CodeInvalidArgument, agentv1.ReasonBadRequest, 0, "policy_version is longer than 128 bytes")
	}
	if len(m.IndicatorsVersion) > maxVersion {
		return nil, agentv1.NewError(connect.CodeInvalidArgument, agentv1.ReasonBadRequest, 0, "indicators_version is longer than %d bytes", maxVersion)
	}
	reply, err := h.cfg.Sink.CheckIn(ctx, &CheckIn{
		DeviceID: c.device.ID, Received: h.cfg.Now().UTC(), Address: c.address(), Info: info,
		Health: health, PolicyVersion: m.PolicyVersion, IndicatorsVersion: m.IndicatorsVersion, IndicatorsCount: int(m.IndicatorsCount),
	})
	if err != nil {
		return nil, h.failed(ctx, "check-in", c.device.ID, err)
	}
	pending, err := h.cfg.Commands.Pending(ctx, c.device.ID)
	if err != nil {
		return nil, h.failed(ctx, "check-in", c.device.ID, err)
	}
	return connect.NewResponse(&agentv1.CheckInResponse{
		CheckInIntervalSeconds: int64(h.cfg.CheckInInterval / time.Second),
		PolicyJson:             reply.Policy, PolicyVersion: reply.PolicyVersion, CommandsPending: len(pending) > 0,
		IndicatorsVersion: reply.IndicatorsVersion,
	}), nil
}

// compactHealth checks that the health report is a JSON object.
func compactHealth(text []byte) ([]byte, error) {
	if len(text) == 0 {
		return []byte("{}"), nil
	}
	if len(text) > MaxHealth {
		return nil, fmt.Errorf("health_json has %d bytes, the limit is %d", len(text), MaxHealth)
	}
	var b bytes.Buffer
	if err := json.Compact(&b, text); err != nil {
		return nil, fmt.Errorf("health_json: %w", err)
	}
	if b.Bytes()[0] != '{' {
		return nil, errors.New("health_json is not a JSON object")
	}
	return b.Bytes(), nil
}

// failed logs an error of the store and returns what the agent is told.
func (h *handler) failed(ctx context.Context, what, device string, err error) error {
	if ctx.Err() != nil {
		return connect.NewError(connect.CodeCanceled, ctx.Err())
	}
	h.cfg.Log.Error(what+" failed", "device", device, "error", err)
	return agentv1.NewError(connect.CodeUnavailable, agentv1.ReasonInternal, busyRetry, "the portal cannot do this at this moment; see its log")
}

// Commands sends the commands of a device as they are ordered.
func (h *handler) Commands(ctx context.Context, req *connect.Request[agentv1.CommandsRequest], stream *connect.ServerStream[agentv1.Command]) error {
	c, err := callerOf(ctx)
	if err != nil {
		return err
	}
	changed, stop := h.cfg.Commands.Watch(c.device.ID)
	defer stop()
	poll := time.NewTicker(keepAlive)
	defer poll.Stop()
	sent := map[string]bool{}
	for {
		n, err := h.sendPending(ctx, c.device.ID, stream, sent)
		if err != nil {
			return err
		}
		if req.Msg.Poll {
			return nil
		}
		if n == 0 { // a sign of life
			if err := stream.Send(&agentv1.Command{}); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-h.closed:
			return agentv1.NewError(connect.CodeUnavailable, agentv1.ReasonBusy, time.Second, "the portal is shutting down")
		case <-changed:
		case <-poll.C:
			// A device that was revoked meanwhile gets no more commands.
			if _, err := h.cfg.Authenticator.Authenticate(ctx, c.request.TLS); err != nil {
				return err
			}
		}
	}
}

// sendPending sends the pending commands that this stream has not sent yet.
func (h *handler) sendPending(ctx context.Context, device string, stream *connect.ServerStream[agentv1.Command], sent map[string]bool) (int, error) {
	pending, err := h.cfg.Commands.Pending(ctx, device)
	if err != nil {
		return 0, h.failed(ctx, "commands", device, err)
	}
	n := 0
	still := make(map[string]bool, len(pending))
	for _, p := range pending {
		still[p.ID] = true
		if sent[p.ID] {
			continue
		}
		if err := stream.Send(&agentv1.Command{Id: p.ID, Type: p.Type, ParametersJson: p.Parameters, ExpiresUnix: p.Expires.Unix()}); err != nil {
			return n, err
		}
		sent[p.ID] = true
		n++
	}
	for id := range sent {
		if !still[id] {
			delete(sent, id)
		}
	}
	return n, nil
}

// isStatus reports whether a device may report this status.
func isStatus(s string) bool {
	switch s {
	case "InProgress", "Succeeded", "Failed", "TimeOut", "Cancelled":
		return true
	}
	return false
}

// CompleteCommand records the state of a command.
func (h *handler) CompleteCommand(ctx context.Context, req *connect.Request[agentv1.CompleteCommandRequest]) (*connect.Response[agentv1.CompleteCommandResponse], error) {
	c, err := callerOf(ctx)
	if err != nil {
		return nil, err
	}
	m := req.Msg
	if m.Id == "" || len(m.Id) > 128 || !isStatus(m.Status) {
		return nil, agentv1.NewError(connect.CodeInvalidArgument, agentv1.ReasonBadRequest, 0, "command %.64q, status %.32q: want an id and one of InProgress, Succeeded, Failed, TimeOut, Cancelled", m.Id, m.Status)
	}
	if len(m.ResultJson) > 0 && (len(m.ResultJson) > 4<<20 || !json.Valid(m.ResultJson)) {
		return nil, agentv1.NewError(connect.CodeInvalidArgument, agentv1.ReasonBadRequest, 0, "result_json of %d bytes is not valid JSON of at most 4 MiB", len(m.ResultJson))
	}
	message := m.Message
	if len(message) > 4096 {
		message = strings.ToValidUTF8(message[:4096], "")
	}
	err = h.cfg.Commands.Complete(ctx, c.device.ID, Completion{ID: m.Id, Status: m.Status, Message: message, Result: m.ResultJson})
	switch {
	case errors.Is(err, ErrUnknownCommand):
		return nil, agentv1.NewError(connect.CodeNotFound, agentv1.ReasonBadRequest, 0, "%w", err)
	case err != nil:
		return nil, h.failed(ctx, "command report", c.device.ID, err)
	}
	return connect.NewResponse(&agentv1.CompleteCommandResponse{}), nil
}

// Leave ends the identity of a device that is offboarded on its host.
func (h *handler) Leave(ctx context.Context, _ *connect.Request[agentv1.LeaveRequest]) (*connect.Response[agentv1.LeaveResponse], error) {
	c, err := callerOf(ctx)
	if err != nil {
		return nil, err
	}
	if err := h.cfg.Authenticator.RevokeDevice(ctx, c.device.ID); err != nil {
		return nil, h.failed(ctx, "offboarding", c.device.ID, err)
	}
	h.cfg.Log.Info("device offboarded on its host", "device", c.device.ID)
	return connect.NewResponse(&agentv1.LeaveResponse{}), nil
}

// FinishSelfTest tells which self-test alerts have arrived.
func (h *handler) FinishSelfTest(ctx context.Context, req *connect.Request[agentv1.FinishSelfTestRequest]) (*connect.Response[agentv1.FinishSelfTestResponse], error) {
	c, err := callerOf(ctx)
	if err != nil {
		return nil, err
	}
	if req.Msg.TestId == "" || len(req.Msg.TestId) > 128 {
		return nil, agentv1.NewError(connect.CodeInvalidArgument, agentv1.ReasonBadRequest, 0, "test_id must have 1 to 128 bytes")
	}
	as, err := h.cfg.Sink.SelfTestArrivals(ctx, c.device.ID, req.Msg.TestId, req.Msg.Remove)
	if err != nil {
		return nil, h.failed(ctx, "self-test", c.device.ID, err)
	}
	res := &agentv1.FinishSelfTestResponse{}
	for _, a := range as {
		res.Arrivals = append(res.Arrivals, &agentv1.FinishSelfTestResponse_Arrival{AlertId: a.AlertID, Source: a.Source, ArrivedUnixMs: a.Time.UnixMilli()})
	}
	return connect.NewResponse(res), nil
}
