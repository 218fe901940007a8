package enroll

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"time"

	"connectrpc.com/connect"

	agentv1 "github.com/bulwarkhq/bulwark/api/agent/v1"
	"github.com/bulwarkhq/bulwark/api/agent/v1/agentv1connect"
	"github.com/bulwarkhq/bulwark/event"
	"github.com/bulwarkhq/bulwark/portal/pki"
)

// handler is the EnrollmentService of a Service.
type handler Service

var _ agentv1connect.EnrollmentServiceHandler = (*handler)(nil)

type tlsKey struct{}

// withTLS hands the state of the connection to the Connect handlers, which do
// not see the request.
func withTLS(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), tlsKey{}, r.TLS)))
	})
}

func tlsOf(ctx context.Context) *tls.ConnectionState {
	cs, _ := ctx.Value(tlsKey{}).(*tls.ConnectionState)
	return cs
}

// handlerOptions bound the size of messages and keep a panic to its request.
func handlerOptions(log *slog.Logger, maxBytes int) []connect.HandlerOption {
	return []connect.HandlerOption{
		connect.WithReadMaxBytes(maxBytes),
		connect.WithCompressMinBytes(1 << 10),
		connect.WithRecover(func(_ context.Context, spec connect.Spec, _ http.Header, p any) error {
			log.Error("panic while answering an agent", "procedure", spec.Procedure, "panic", p, "stack", string(debug.Stack()))
			return agentv1.NewError(connect.CodeInternal, agentv1.ReasonInternal, 0, "the portal failed; see its log")
		}),
	}
}

// rateRetry is the advice to an agent that came too often.
const rateRetry = 30 * time.Second

// Ping answers when the portal is ready.
func (h *handler) Ping(context.Context, *connect.Request[agentv1.PingRequest]) (*connect.Response[agentv1.PingResponse], error) {
	return connect.NewResponse(&agentv1.PingResponse{PortalVersion: h.cfg.Version, TimeUnixMs: h.cfg.Now().UnixMilli()}), nil
}

// Enroll gives a device its identity or renews its certificate.
func (h *handler) Enroll(ctx context.Context, req *connect.Request[agentv1.EnrollRequest]) (*connect.Response[agentv1.EnrollResponse], error) {
	s := (*Service)(h)
	if !s.all.AllowN(s.cfg.Now(), 1) {
		return nil, agentv1.NewError(connect.CodeResourceExhausted, agentv1.ReasonRateLimited, rateRetry, "too many devices enroll at this moment: try again in a while")
	}
	info, err := CleanInfo(req.Msg.Device)
	if err != nil {
		return nil, agentv1.NewError(connect.CodeInvalidArgument, agentv1.ReasonBadRequest, 0, "%w", err)
	}
	if !event.IsHex(info.HardwareId, 64) || info.MachineGuid == "" {
		return nil, agentv1.NewError(connect.CodeInvalidArgument, agentv1.ReasonBadRequest, 0, "device: hardware_id must be 64 hex digits and machine_guid must be set")
	}
	plan, err := s.plan(ctx, tlsOf(ctx), req.Msg.Token, info)
	if err != nil {
		return nil, s.refuse(req.Peer().Addr, info, err)
	}
	cert, err := s.cfg.CA.SignClient(req.Msg.CertificateRequest, plan.device.ID)
	if err != nil {
		return nil, agentv1.NewError(connect.CodeInvalidArgument, agentv1.ReasonBadRequest, 0, "%w", err)
	}
	err = s.cfg.Store.Enroll(ctx, Enrollment{
		Device:      plan.device,
		Certificate: Certificate{Serial: pki.Serial(cert.SerialNumber), DeviceID: plan.device.ID, NotBefore: cert.NotBefore, NotAfter: cert.NotAfter},
		TokenID:     plan.tokenID,
	})
	if errors.Is(err, ErrTokenUsedUp) {
		err = &tokenError{agentv1.ReasonTokenUsedUp, "the enrollment token is used up: make a new onboarding package in the portal"}
	}
	if err != nil {
		return nil, s.refuse(req.Peer().Addr, info, err)
	}
	s.cfg.Log.Info("device enrolled", "device", plan.device.ID, "host", info.HostName, "how", plan.how, "token", plan.tokenID,
		"replaces", plan.device.ReplacesID, "address", req.Peer().Addr)
	return connect.NewResponse(&agentv1.EnrollResponse{
		DeviceId: plan.device.ID, OrgId: s.cfg.OrgID, Certificate: cert.Raw,
		RenewAfterUnix: s.cfg.Now().Add(pki.ClientRenewAfter).Unix(),
	}), nil
}

// plan is what an Enroll call will do.
type plan struct {
	device  Device
	tokenID string
	how     string
}

// plan decides between renewal (same id, proven by the certificate of the
// connection) and a new identity, for which a good token is needed.
func (s *Service) plan(ctx context.Context, cs *tls.ConnectionState, secret string, info *agentv1.DeviceInfo) (plan, error) {
	old, fresh, err := s.proven(ctx, cs)
	if err != nil {
		return plan{}, err
	}
	d := Device{HardwareID: info.HardwareId, MachineGUID: info.MachineGuid, Info: info, Enrolled: s.cfg.Now()}
	same := old.ID != "" && old.HardwareID == info.HardwareId
	if same && fresh {
		d.ID = old.ID
		return plan{device: d, how: "renewal"}, nil
	}
	token, err := s.checkToken(ctx, secret)
	if err != nil {
		return plan{}, err
	}
	d.TokenID = token.ID
	info.Tags = mergeTags(info.Tags, token.Tags)
	if same {
		d.ID = old.ID
		return plan{device: d, tokenID: token.ID, how: "renewal of an expired certificate"}, nil
	}
	if d.ID, err = randomHex(20); err != nil {
		return plan{}, err
	}
	p := plan{device: d, tokenID: token.ID, how: "new"}
	switch {
	case old.ID != "": // its certificate on other hardware: a cloned disk
		p.device.ReplacesID, p.how = old.ID, "clone of another device"
	default:
		twins, err := s.cfg.Store.DevicesByHardwareID(ctx, info.HardwareId)
		if err != nil {
			return plan{}, fmt.Errorf("looking for devices with the same hardware: %w", err)
		}
		if len(twins) > 0 {
			p.device.ReplacesID, p.how = twins[0].ID, "new installation on known hardware"
		}
	}
	return p, nil
}

// proven returns the device whose certificate the connection presented, none
// when it has no usable one. fresh is false when the certificate has expired.
func (s *Service) proven(ctx context.Context, cs *tls.ConnectionState) (d Device, fresh bool, err error) {
	id, err := s.cfg.CA.VerifyClient(cs)
	expired := errors.Is(err, pki.ErrExpired)
	if err != nil && !expired {
		return Device{}, false, nil // no proof: a token is needed
	}
	c, d, err := s.cfg.Store.Certificate(ctx, id.Serial)
	if errors.Is(err, ErrNotFound) {
		return Device{}, false, nil
	}
	if err != nil {
		return Device{}, false, fmt.Errorf("looking up the client certificate: %w", err)
	}
	if !c.Revoked.IsZero() || !d.Revoked.IsZero() || d.ID != id.DeviceID {
		// What was refused once proves nothing any more.
		return Device{}, false, nil
	}
	return d, !expired, nil
}

// refuse turns an error into what the agent is told.
func (s *Service) refuse(addr string, info *agentv1.DeviceInfo, err error) error {
	var t *tokenError
	if errors.As(err, &t) {
		if !s.failures.allow(addr) {
			return agentv1.NewError(connect.CodeResourceExhausted, agentv1.ReasonRateLimited, rateRetry, "too many failed enrollments from this address: try again in a while")
		}
		s.cfg.Log.Warn("enrollment refused", "host", info.HostName, "address", addr, "reason", t.reason)
		return agentv1.NewError(connect.CodeUnauthenticated, t.reason, 0, "%w", t)
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return connect.NewError(connect.CodeCanceled, err)
	}
	s.cfg.Log.Error("enrollment failed", "host", info.HostName, "address", addr, "error", err)
	return agentv1.NewError(connect.CodeUnavailable, agentv1.ReasonInternal, 0, "the portal cannot enroll devices at this moment; see its log")
}

func mergeTags(have []*agentv1.Tag, add []Tag) []*agentv1.Tag {
	for _, a := range add {
		found := false
		for _, h := range have {
			found = found || h.Key == a.Key && h.Value == a.Value
		}
		if !found {
			have = append(have, &agentv1.Tag{Key: a.Key, Value: a.Value})
		}
	}
	return have
}
