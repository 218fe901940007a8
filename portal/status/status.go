// Package status is what administrators are told about the portal itself: what its
// stores are and how they fare, what comes in and goes out, who may sign in, and
// what it was told by which option.
//
// Each part is asked at the same time and for Patience at most: one that does not
// answer says so, and the others are there.
package status

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"github.com/bulwarkhq/bulwark/portal/eventstore"
)

// Patience is how long a part may take to answer.
const Patience = 3 * time.Second

// grace is what part of Patience a part has to return when that is over.
const grace = 4

// Report is the state of the portal. A part that could not be asked, or not to its
// end, has an Error.
type Report struct {
	Time        time.Time     `json:"time"`
	Portal      Portal        `json:"portal"`
	Certificate []Certificate `json:"certificates"`
	Control     Control       `json:"controlStore"`
	Events      Events        `json:"eventStore"`
	Ingest      Ingest        `json:"ingest"`
	Exports     Exports       `json:"exports"`
	Archive     Archive       `json:"archive"`
	SignIn      SignIn        `json:"signIn"`
	Definitions Definitions   `json:"definitions"`
	Packages    Packages      `json:"packages"`
	// Options are all that `serve` has, by name.
	Options []Option `json:"options"`
}

// Portal is the program.
type Portal struct {
	Version string `json:"version"`
	License string `json:"license"`
	// Go is the version of the compiler and the libraries of the language.
	Go      string    `json:"go"`
	Started time.Time `json:"started"`
	URL     string    `json:"url"`
	// Listen and Metrics are the addresses that it listens on; Metrics is empty for
	// none.
	Listen  string `json:"listen,omitempty"`
	Metrics string `json:"metricsListen,omitempty"`
}

// Certificate is one of those that browsers and agents see.
type Certificate struct {
	Use     string    `json:"use"`
	Subject string    `json:"subject"`
	Names   []string  `json:"names,omitempty"`
	Expires time.Time `json:"expires"`
	// Renewed is when the portal makes a new one by itself; zero for never.
	Renewed time.Time `json:"renewed,omitzero"`
	Error   string    `json:"error,omitempty"`
}

// Control is the store of control data.
type Control struct {
	Kind     string `json:"kind"`
	Version  string `json:"version,omitempty"`
	Schema   int64  `json:"schemaVersion,omitempty"`
	Location string `json:"location"`
	Bytes    int64  `json:"bytes"`
	// Rows are those of the tables that grow.
	Rows []Rows `json:"rows"`
	// Connections of portals, this one's too, where the database tells.
	Connections int64 `json:"portalConnections,omitempty"`
	// Standbys are the copies that the database streams to.
	Standbys []Standby `json:"standbys,omitempty"`
	// Waiting are small changes that wait to be made together.
	Waiting int    `json:"changesWaiting"`
	Error   string `json:"error,omitempty"`
}

// Rows of a table.
type Rows struct {
	Table string `json:"table"`
	Rows  int64  `json:"rows"`
}

// Standby is a copy of the control database.
type Standby struct {
	Name  string `json:"name"`
	State string `json:"state"`
	// LagBytes are what it has yet to replay.
	LagBytes int64 `json:"lagBytes"`
}

// Events is the event store.
type Events struct {
	eventstore.Inspection
	Error string `json:"error,omitempty"`
}

// Ingest is what comes in at this portal, since it started where it is not a rate.
type Ingest struct {
	EventsPerSecond float64 `json:"eventsPerSecond"` // of the last minute
	Events          int64   `json:"events"`
	Batches         int64   `json:"batches"`
	Repeated        int64   `json:"batchesRepeated"`
	RefusedQuota    int64   `json:"batchesRefusedByQuota"`
	RefusedBusy     int64   `json:"batchesRefusedBusy"`
	Failed          int64   `json:"batchesFailed"`
	// Limited are the devices that were refused by their quota within the last ten
	// minutes.
	Limited int `json:"devicesLimited"`
	// EventsPerMinute is the quota of a device; zero for none.
	EventsPerMinute int `json:"eventsPerMinuteOfDevice"`
}

// Exports are the destinations of exports.
type Exports struct {
	Destinations []Export `json:"destinations"`
	Error        string   `json:"error,omitempty"`
}

// Export is a destination.
type Export struct {
	ID          string    `json:"id"`
	Name        string    `json:"displayName"`
	Kind        string    `json:"type"`
	State       string    `json:"state"`
	Waiting     int       `json:"waiting"`
	LastSuccess time.Time `json:"lastSuccess,omitzero"`
	LastError   string    `json:"lastError,omitempty"`
}

// Archive is that of events.
type Archive struct {
	URL         string    `json:"url,omitempty"` // empty without
	Files       int64     `json:"filesWaiting"`
	Bytes       int64     `json:"bytesWaiting"`
	Archived    int64     `json:"filesArchived"` // since the start
	LastSuccess time.Time `json:"lastSuccess,omitzero"`
	LastError   string    `json:"lastError,omitempty"`
}

// SignIn is who may sign in, and how.
type SignIn struct {
	// LocalOff: passwords open nothing.
	LocalOff bool `json:"localAccountsOff"`
	Local    int  `json:"localAccounts"`
	// SecondFactor of the local accounts have one, Lacking ones must set it up at
	// their next sign-in.
	SecondFactor int      `json:"withSecondFactor"`
	Lacking      int      `json:"lackingSecondFactor"`
	Required     []string `json:"secondFactorRequired,omitempty"`
	// External accounts are of the identity provider, Disabled ones of either.
	External int `json:"providerAccounts"`
	Disabled int `json:"disabledAccounts"`
	// Issuer is the identity provider; empty without. ProviderError is why it cannot
	// be used, ProviderAsked when it was found out.
	Issuer        string    `json:"issuer,omitempty"`
	ProviderAsked time.Time `json:"providerAsked,omitzero"`
	ProviderError string    `json:"providerError,omitempty"`
	Error         string    `json:"error,omitempty"`
}

// Definitions are what this portal publishes.
type Definitions struct {
	Releases []Release `json:"releases"`
	// Built is when the last build ended that the portal made by itself, BuildError
	// what went wrong with it.
	Built      time.Time `json:"lastBuild,omitzero"`
	BuildError string    `json:"lastBuildError,omitempty"`
	Error      string    `json:"error,omitempty"`
}

// Release is the newest set of a channel.
type Release struct {
	Channel    string    `json:"channel"`
	Version    string    `json:"version"`
	Created    time.Time `json:"created"`
	Signatures int64     `json:"signatures"`
	Engine     string    `json:"engine"`
}

// Packages are those of the product that this portal publishes.
type Packages struct {
	Channels []Channel `json:"channels"`
	Error    string    `json:"error,omitempty"`
}

// Channel is the newest package of a channel and format.
type Channel struct {
	Channel   string    `json:"channel"`
	Format    string    `json:"format"`
	Name      string    `json:"name"`
	Version   string    `json:"version"`
	Published time.Time `json:"published"`
	Rollout   int       `json:"rolloutPercent"`
}

// Option is what the portal was told, or takes by itself.
type Option struct {
	Name string `json:"name"`
	// Value has no password in it.
	Value string `json:"value"`
	// Origin is the command line, an environment variable, a file, or the default.
	Origin string `json:"origin"`
	Help   string `json:"description"`
}

// Sources are where the parts of a Report come from. They return what they found
// out also beside an error. None may be nil.
type Sources struct {
	Portal       Portal
	Options      []Option
	Certificates func() []Certificate
	Control      func(context.Context) (Control, error)
	Events       func(context.Context) (eventstore.Inspection, error)
	Ingest       func() Ingest
	Exports      func(context.Context) (Exports, error)
	Archive      func() Archive
	SignIn       func(context.Context) (SignIn, error)
	Definitions  func(context.Context) (Definitions, error)
	Packages     func(context.Context) (Packages, error)
	Log          *slog.Logger
	Now          func() time.Time
}

// Service makes reports. It is safe for concurrent use.
type Service struct {
	from Sources
	// patience is Patience outside of tests.
	patience                                                  time.Duration
	control, events, exports, signIn, definitions, repository slot
}

// slot is held while a part is asked: one that hangs is not asked again.
type slot chan struct{}

// New returns a Service.
func New(from Sources) *Service {
	one := func() slot { return make(slot, 1) }
	return &Service{from: from, patience: Patience, control: one(), events: one(), exports: one(), signIn: one(), definitions: one(), repository: one()}
}

// Report asks all parts. It takes little longer than Patience.
func (s *Service) Report(ctx context.Context) Report {
	r := Report{
		Time: s.from.Now().UTC(), Portal: s.from.Portal, Options: s.from.Options,
		Certificate: s.from.Certificates(), Ingest: s.from.Ingest(), Archive: s.from.Archive(),
	}
	var wg sync.WaitGroup
	wg.Go(func() { r.Control, r.Control.Error = ask(ctx, s, "control store", s.control, s.from.Control) })
	wg.Go(func() { r.Events.Inspection, r.Events.Error = ask(ctx, s, "event store", s.events, s.from.Events) })
	wg.Go(func() { r.Exports, r.Exports.Error = ask(ctx, s, "exports", s.exports, s.from.Exports) })
	wg.Go(func() { r.SignIn, r.SignIn.Error = ask(ctx, s, "sign-in", s.signIn, s.from.SignIn) })
	wg.Go(func() {
		r.Definitions, r.Definitions.Error = ask(ctx, s, "definitions", s.definitions, s.from.Definitions)
	})
	wg.Go(func() { r.Packages, r.Packages.Error = ask(ctx, s, "packages", s.repository, s.from.Packages) })
	wg.Wait()
	return r
}

// unanswered is what a part says that took too long.
func unanswered(patience time.Duration) string {
	return fmt.Sprintf("does not answer within %s", patience)
}

// ask asks one part. Who asks waits no longer than it may, whatever the part does.
func ask[T any](ctx context.Context, s *Service, name string, busy slot, part func(context.Context) (T, error)) (T, string) {
	ctx, cancel := context.WithTimeout(ctx, s.patience)
	defer cancel()
	var none T
	select {
	case busy <- struct{}{}:
	case <-ctx.Done():
		return none, unanswered(s.patience)
	}
	type answer struct {
		value T
		err   error
	}
	done := make(chan answer, 1)
	go func() {
		var a answer
		defer func() {
			if v := recover(); v != nil {
				s.from.Log.Error("asking a part of the portal about itself panicked", "part", name, "panic", v, "stack", string(debug.Stack()))
				a = answer{err: errors.New("the portal failed; its log says why")}
			}
			<-busy
			done <- a
		}()
		a.value, a.err = part(ctx)
	}()
	// Who notices that the time is over has found out something until then.
	late := time.NewTimer(s.patience + s.patience/grace)
	defer late.Stop()
	select {
	case a := <-done:
		switch {
		case a.err == nil:
			return a.value, ""
		case errors.Is(a.err, context.DeadlineExceeded):
			return a.value, unanswered(s.patience)
		}
		return a.value, a.err.Error()
	case <-late.C:
		return none, unanswered(s.patience)
	}
}
