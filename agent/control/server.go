package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	api "github.com/bulwarkhq/bulwark/api/control"
)

// Bounds of the server.
const (
	headerTimeout = 10 * time.Second
	bodyTimeout   = 30 * time.Second
	writeTimeout  = 30 * time.Second // for one frame of a stream, or a whole answer
	idleTimeout   = 2 * time.Minute
	// keepAlive is how often an empty line is sent on a stream without news, so
	// that a client that has gone is noticed.
	keepAlive = 15 * time.Second
	// shutdownTimeout bounds waiting for requests at the end.
	shutdownTimeout = 5 * time.Second
)

// Server serves the local API.
type Server struct {
	mux      *http.ServeMux
	log      *slog.Logger
	admins   adminCheck
	licensed func() bool
	// writeTimeout bounds writing one frame of a stream.
	writeTimeout time.Duration
}

// New returns a server of the given parts.
func New(parts Services, log *slog.Logger) *Server {
	s := &Server{mux: http.NewServeMux(), log: log, admins: adminCheck{group: api.Group}, licensed: parts.Licensed, writeTimeout: writeTimeout}
	s.healthRoutes(parts.Health)
	s.scanRoutes(parts.Scans)
	s.threatRoutes(parts.Threats)
	s.quarantineRoutes(parts.Quarantine)
	s.definitionsRoutes(parts.Definitions)
	s.configRoutes(parts.Config)
	s.exclusionRoutes(parts.Exclusions)
	s.logRoutes(parts.Log)
	s.productRoutes(parts.Updates)
	s.testRoutes(parts.Connectivity, parts.SelfTest)
	s.diagnosticRoutes(parts.Diagnostics, parts.Statistics)
	s.coverageRoutes(parts.Coverage)
	s.edrRoutes(parts.EDR)
	s.edrExclusionRoutes(parts.Exclusions)
	s.eventRoutes(parts.Events)
	s.eventStatisticsRoutes(parts.EventCounts)
	s.sensorEventRoutes(parts.SensorEvents)
	s.explainRoutes(parts.Explain)
	s.offboardRoutes(parts.Offboard)
	s.isolationRoutes(parts.Isolation)
	s.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		s.fail(w, r, &api.Error{
			Code: api.NotFound, Message: fmt.Sprintf("the API has no %s %s", r.Method, r.URL.Path),
			Hint: "the program and the daemon may be of different versions",
		})
	})
	return s
}

// Serve answers on l, a listener of Listen, until ctx ends. It then waits a few
// seconds for running requests, and closes l.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	srv := &http.Server{
		Handler:           s.recover(s.mux),
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    32 << 10,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
		// Streams end with the daemon: their context is derived from ctx.
		BaseContext: func(net.Listener) context.Context { return ctx },
		ConnContext: withCaller,
	}
	var wg sync.WaitGroup
	stop := make(chan struct{})
	wg.Go(func() {
		select {
		case <-stop:
		case <-ctx.Done():
			end, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
			defer cancel()
			if err := srv.Shutdown(end); err != nil {
				srv.Close()
			}
		}
	})
	err := srv.Serve(l)
	close(stop)
	wg.Wait()
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serve the local API: %w", err)
}

// access says who may call.
type access bool

const (
	anybody        access = false
	administrators access = true
)

// part is a resource of the API.
type part struct {
	s       *Server
	name    string
	present bool
}

func (s *Server) part(name string, present bool) part { return part{s, name, present} }

func (p part) handle(pattern string, who access, f func(http.ResponseWriter, *http.Request) error) {
	p.s.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		if err := p.admit(r, who); err != nil {
			p.s.fail(w, r, err)
			return
		}
		if err := f(w, r); err != nil {
			p.s.fail(w, r, err)
		}
	})
}

func (p part) admit(r *http.Request, who access) error {
	if who == administrators {
		caller := CallerFrom(r.Context())
		if !p.s.admins.allowed(caller) {
			return &api.Error{
				Code:    api.PermissionDenied,
				Message: fmt.Sprintf("this changes the agent and is for root and members of the group %q", p.s.admins.group),
				Hint:    "run the command as root, e.g. with sudo",
			}
		}
		p.s.log.Info("local API: change", "call", r.Method+" "+r.URL.Path, "uid", caller.UID, "pid", caller.PID)
	}
	if !p.present {
		return &api.Error{Code: api.Unavailable, Message: "the " + p.name + " does not run in this daemon", Hint: "bulwark health says why"}
	}
	return nil
}

// read registers a call without body that everybody may make.
func read[Out any](p part, pattern string, f func(*http.Request) (Out, error)) {
	p.handle(pattern, anybody, func(w http.ResponseWriter, r *http.Request) error {
		out, err := f(r)
		if err != nil {
			return err
		}
		return write(w, out)
	})
}

// ask registers a call with a body.
func ask[In, Out any](p part, pattern string, who access, f func(*http.Request, In) (Out, error)) {
	p.handle(pattern, who, func(w http.ResponseWriter, r *http.Request) error {
		var in In
		if err := decode(w, r, &in); err != nil {
			return err
		}
		out, err := f(r, in)
		if err != nil {
			return err
		}
		return write(w, out)
	})
}

// change registers a call with a body that changes something.
func change[In, Out any](p part, pattern string, f func(*http.Request, In) (Out, error)) {
	ask(p, pattern, administrators, f)
}

// stream registers a call that answers with frames.
func stream[T any](p part, pattern string, who access, f func(*http.Request, func(T) error) error) {
	p.handle(pattern, who, func(w http.ResponseWriter, r *http.Request) error {
		if r.Method == http.MethodPost {
			if err := decode(w, r, &struct{}{}); err != nil {
				return err
			}
		}
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		out := &frames{w: w, rc: http.NewResponseController(w), cancel: cancel, timeout: p.s.writeTimeout}
		stopped := out.keepAlive(ctx)
		err := f(r.WithContext(ctx), func(v T) error { return sendValue(out, v) })
		cancel()
		<-stopped
		if err != nil && !out.started {
			return err
		}
		if err != nil && r.Context().Err() == nil {
			return out.write(api.Frame{Error: p.s.apiError(r, err)})
		}
		if !out.started {
			w.Header().Set("Content-Type", "application/x-ndjson")
			w.WriteHeader(http.StatusOK)
		}
		return nil
	})
}

func sendValue[T any](out *frames, v T) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode frame: %w", err)
	}
	return out.write(api.Frame{Value: data})
}

// frames writes the lines of a stream.
type frames struct {
	mu      sync.Mutex
	w       http.ResponseWriter
	rc      *http.ResponseController
	cancel  context.CancelFunc
	timeout time.Duration
	started bool
	last    time.Time
}

func (f *frames) write(frame api.Frame) error {
	data, err := json.Marshal(frame)
	if err != nil {
		return fmt.Errorf("encode frame: %w", err)
	}
	if len(data) > api.MaxFrameBytes {
		return fmt.Errorf("a frame of %d bytes is more than %d", len(data), api.MaxFrameBytes)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.line(append(data, '\n'))
}

// line writes and flushes one line; f.mu is held.
func (f *frames) line(data []byte) error {
	if !f.started {
		f.started = true
		f.w.Header().Set("Content-Type", "application/x-ndjson")
	}
	f.last = time.Now()
	err := f.rc.SetWriteDeadline(f.last.Add(f.timeout))
	if err == nil {
		_, err = f.w.Write(data)
	}
	if err == nil {
		err = f.rc.Flush()
	}
	if err != nil {
		f.cancel()
		return fmt.Errorf("write to the client: %w", err)
	}
	return nil
}

// keepAlive writes an empty line when nothing else was written for a while. The
// returned channel is closed when it has stopped, after ctx has ended.
func (f *frames) keepAlive(ctx context.Context) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(keepAlive)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				f.mu.Lock()
				if time.Since(f.last) >= keepAlive {
					f.line([]byte("\n")) //nolint:errcheck // a failure has cancelled the stream
				}
				f.mu.Unlock()
			}
		}
	}()
	return done
}

// decode reads the body of a request; an empty one counts as {}.
func decode(w http.ResponseWriter, r *http.Request, into any) error {
	rc := http.NewResponseController(w)
	if err := rc.SetReadDeadline(time.Now().Add(bodyTimeout)); err != nil {
		return fmt.Errorf("read request: %w", err)
	}
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, api.MaxRequestBytes))
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return &api.Error{Code: api.TooLarge, Message: fmt.Sprintf("the request is larger than %d bytes", api.MaxRequestBytes)}
	}
	if err != nil {
		return &api.Error{Code: api.InvalidArgument, Message: "the request could not be read: " + err.Error()}
	}
	if err := rc.SetReadDeadline(time.Time{}); err != nil {
		return fmt.Errorf("read request: %w", err)
	}
	if len(bytes.TrimSpace(data)) == 0 {
		return nil
	}
	if !utf8.Valid(data) {
		return invalid("the request is not valid UTF-8 (file names that are not have the form {\"base64\": ...})")
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil {
		return invalid("the request is not as the API wants it: %v", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return invalid("the request has something after its JSON value")
	}
	return nil
}

func write(w http.ResponseWriter, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode answer: %w", err)
	}
	if err := http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return fmt.Errorf("answer: %w", err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Write(append(data, '\n')) //nolint:errcheck // the client has gone: nobody to tell
	return nil
}

func (s *Server) apiError(r *http.Request, err error) *api.Error {
	var e *api.Error
	if errors.As(err, &e) {
		if wrapped := err.Error(); wrapped != e.Error() {
			// Keep what the wrapping says about the context.
			return &api.Error{Code: e.Code, Message: strings.ReplaceAll(wrapped, e.Error(), e.Message), Hint: e.Hint}
		}
		return e
	}
	s.log.Error("local API: call failed", "call", r.Method+" "+r.URL.Path, "err", err)
	return &api.Error{Code: api.Internal, Message: err.Error()}
}

func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	e := s.apiError(r, err)
	data, err := json.Marshal(api.ErrorBody{Error: e})
	if err != nil {
		data = []byte(`{"error":{"code":"internal","message":"the error could not be encoded"}}`)
	}
	if err := http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(e.Code.Status())
	w.Write(append(data, '\n')) //nolint:errcheck // the client has gone: nobody to tell
}

func (s *Server) recover(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			if v := recover(); v != nil {
				s.log.Error("local API: panic", "call", r.Method+" "+r.URL.Path, "panic", v, "stack", string(debug.Stack()))
				s.fail(w, r, errors.New("a fault in the daemon; its log has the particulars"))
			}
		}()
		if s.licensed != nil && !s.licensed() {
			w.Header().Set(api.LicenseHeader, "missing")
		}
		next.ServeHTTP(w, r)
	})
}

func invalid(format string, args ...any) error {
	return &api.Error{Code: api.InvalidArgument, Message: fmt.Sprintf(format, args...)}
}

// list makes an absent list an empty one: in JSON it is never null.
func list[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}
