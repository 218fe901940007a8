package ingest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/sync/semaphore"

	agentv1 "github.com/bulwarkhq/bulwark/api/agent/v1"
	"github.com/bulwarkhq/bulwark/api/agent/v1/agentv1connect"
	"github.com/bulwarkhq/bulwark/event"
	"github.com/bulwarkhq/bulwark/portal/enroll"
)

// Limits of what one agent may send in one call.
const (
	MaxCompressed   = 4 << 20   // bytes of DeliverRequest.events_zstd
	MaxUncompressed = 32 << 20  // bytes of events after decompression
	MaxAlerts       = 256       // alerts of a batch
	MaxHealth       = 256 << 10 // bytes of CheckInRequest.health_json
	maxMessage      = 16 << 20  // bytes of any message
	minCompressed   = 1 << 10   // bytes of an answer; most have a few
	maxAlertBytes   = 8 << 20   // bytes of all alerts of a batch
	maxLost         = 32        // entries of DeliverRequest.lost
	// requestTime bounds reading a request and writing its answer, so that a
	// slow or hostile sender does not hold memory for ever.
	requestTime = 5 * time.Minute
	// keepAlive is the pause after which a command stream sends a sign of life, and
	// looks for commands that nobody told it about (those made by another portal).
	keepAlive = 30 * time.Second
	busyRetry = 2 * time.Second
	// maxDecoded bounds what the batches that are being stored together take of
	// memory, in bytes.
	maxDecoded = 256 << 20
	// maxPooledEvents is the largest room for events that is kept (10 MB).
	maxPooledEvents = 10_000
)

// Config is what a Service needs.
type Config struct {
	Authenticator *enroll.Authenticator
	Sink          Sink
	// Commands may be nil: then there are never any.
	Commands Commands
	// Files may be nil: then none are taken or given.
	Files Files
	// Samples may be nil: then none are taken.
	Samples Samples
	// Indicators may be nil: then there are none.
	Indicators Indicators
	// CheckInInterval is what agents are told; 5 minutes when zero.
	CheckInInterval time.Duration
	// EventsPerMinute is how many events a device may deliver in the long run; none
	// is refused when zero.
	EventsPerMinute int
	Log             *slog.Logger
	// Now is the clock; time.Now when nil.
	Now func() time.Time
}

// Service answers the AgentService of the agent protocol. It is safe for
// concurrent use.
type Service struct {
	cfg   Config
	zstd  *zstd.Decoder
	slots chan struct{} // bounds the batches that are decoded at once
	// room bounds the bytes of the batches that wait to be stored; beside them is
	// one more that was just decoded for each slot.
	room   *semaphore.Weighted
	events sync.Pool // *[]event.Event
	closed chan struct{}
	once   sync.Once

	quotas quotas
	counts counts

	mu   sync.Mutex
	busy map[string]struct{} // devices with a delivery in progress
}

// New returns a Service.
func New(cfg Config) (*Service, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.CheckInInterval == 0 {
		cfg.CheckInInterval = 5 * time.Minute
	}
	if cfg.Commands == nil {
		cfg.Commands = noCommands{}
	}
	slots := max(4, runtime.GOMAXPROCS(0))
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(slots), zstd.WithDecoderMaxMemory(MaxUncompressed), zstd.WithDecoderMaxWindow(8<<20))
	if err != nil {
		return nil, fmt.Errorf("ingest: %w", err)
	}
	return &Service{
		cfg: cfg, zstd: dec, slots: make(chan struct{}, slots), room: semaphore.NewWeighted(maxDecoded), closed: make(chan struct{}), busy: map[string]struct{}{},
		events: sync.Pool{New: func() any { return new([]event.Event) }},
		quotas: quotas{perMinute: cfg.EventsPerMinute, now: cfg.Now, by: map[string]*quota{}},
	}, nil
}

// Close ends all command streams, so that the server can shut down; agents
// reconnect later.
func (s *Service) Close() { s.once.Do(func() { close(s.closed) }) }

// Handler returns the path prefix and the handler to mount on the portal's
// server. The server's TLS configuration must be that of the portal's
// certificate authority.
func (s *Service) Handler() (string, http.Handler) {
	path, h := agentv1connect.NewAgentServiceHandler((*handler)(s),
		connect.WithReadMaxBytes(maxMessage),
		connect.WithCompressMinBytes(minCompressed),
		connect.WithRecover(func(_ context.Context, spec connect.Spec, _ http.Header, p any) error {
			s.cfg.Log.Error("panic while answering an agent", "procedure", spec.Procedure, "panic", p, "stack", string(debug.Stack()))
			return agentv1.NewError(connect.CodeInternal, agentv1.ReasonInternal, 0, "the portal failed; see its log")
		}))
	writer := connect.NewErrorWriter()
	return path, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// Before anything is read of the body.
		d, err := s.cfg.Authenticator.Authenticate(r.Context(), r.TLS)
		if err != nil {
			s.cfg.Log.Debug("agent refused", "address", r.RemoteAddr, "error", err)
			if !writer.IsSupported(r) {
				http.Error(w, "this address is for agents", http.StatusNotFound)
				return
			}
			if err := writer.Write(w, r, err); err != nil {
				s.cfg.Log.Debug("cannot answer an agent", "address", r.RemoteAddr, "error", err)
			}
			return
		}
		ctx := context.WithValue(r.Context(), callerKey{}, caller{device: d, request: r})
		rc := http.NewResponseController(w)
		deadline := time.Now().Add(requestTime)
		if r.URL.Path == agentv1connect.AgentServiceCommandsProcedure {
			deadline = time.Time{} // a stream stays open
		}
		// Not every server can set deadlines; then its own hold.
		if err := errors.Join(rc.SetReadDeadline(deadline), rc.SetWriteDeadline(deadline)); err != nil && !errors.Is(err, http.ErrNotSupported) {
			s.cfg.Log.Debug("cannot set a deadline", "address", r.RemoteAddr, "error", err)
		}
		h.ServeHTTP(w, r.WithContext(ctx))
	})
}

// counts are batches since the start that were not stored.
type counts struct{ quota, busy, failed atomic.Int64 }

// Refused are the batches since the start that devices were told to deliver later:
// they had delivered too much, or the portal was busy, or the store failed.
type Refused struct {
	Quota, Busy, Failed int64
	// Limited are the devices that had delivered too much within limitedFor.
	Limited int
}

// Refused counts.
func (s *Service) Refused() Refused {
	return Refused{s.counts.quota.Load(), s.counts.busy.Load(), s.counts.failed.Load(), s.quotas.limited()}
}

type callerKey struct{}

// caller is who called, as verified.
type caller struct {
	device  enroll.Device
	request *http.Request
}

func callerOf(ctx context.Context) (caller, error) {
	c, ok := ctx.Value(callerKey{}).(caller)
	if !ok {
		return c, agentv1.NewError(connect.CodeInternal, agentv1.ReasonInternal, 0, "the request was not authenticated")
	}
	return c, nil
}

// address returns the caller's IP address.
func (c caller) address() string {
	host, _, err := net.SplitHostPort(c.request.RemoteAddr)
	if err != nil {
		return ""
	}
	return strings.TrimPrefix(host, "::ffff:")
}

// begin notes that a delivery of the device is in progress; false when one is.
func (s *Service) begin(deviceID string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, busy := s.busy[deviceID]; busy {
		return false
	}
	s.busy[deviceID] = struct{}{}
	return true
}

func (s *Service) end(deviceID string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.busy, deviceID)
}

// noCommands is the queue of a portal without response actions.
type noCommands struct{}

func (noCommands) Pending(context.Context, string) ([]Command, error) { return nil, nil }
func (noCommands) Watch(string) (<-chan struct{}, func())             { return nil, func() {} }
func (noCommands) Complete(context.Context, string, Completion) error { return ErrUnknownCommand }
