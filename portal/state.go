package portal

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/bulwarkhq/bulwark/portal/eventstore"
	"github.com/bulwarkhq/bulwark/portal/repository"
	"github.com/bulwarkhq/bulwark/portal/status"
)

// license is that of the product (SPDX).
const license = "Apache-2.0"

// sources are where a report about this portal comes from.
func (p *Portal) sources(started time.Time) status.Sources {
	c := &p.cfg
	return status.Sources{
		Portal: status.Portal{
			Version: c.Version, License: license, Go: runtime.Version(), Started: started.UTC(), URL: c.URL, Listen: c.Listen, Metrics: c.MetricsListen,
		},
		Options: c.Options, Certificates: p.certificates, Control: c.Control.Inspect, Events: p.inspectEvents, Ingest: p.ingestState,
		Exports: p.exportState, Archive: p.archiveState, SignIn: p.signInState, Definitions: p.definitionsState, Packages: p.packagesState,
		Log: p.log, Now: c.Now,
	}
}

func (p *Portal) certificates() []status.Certificate {
	root := p.cfg.CA.Certificate()
	server := status.Certificate{Use: "portal"}
	if c, renewed, err := p.cfg.CA.ServerCertificate(); err != nil {
		server.Error = err.Error()
	} else {
		server.Subject, server.Expires, server.Renewed, server.Names = c.Subject.CommonName, c.NotAfter, renewed, slices.Clone(c.DNSNames)
		for _, ip := range c.IPAddresses {
			server.Names = append(server.Names, ip.String())
		}
	}
	return []status.Certificate{server, {Use: "authority", Subject: root.Subject.CommonName, Expires: root.NotAfter}}
}

func (p *Portal) inspectEvents(ctx context.Context) (eventstore.Inspection, error) {
	if i, ok := p.cfg.Events.(eventstore.Inspector); ok {
		return i.Inspect(ctx)
	}
	st, err := p.cfg.Events.Stats(ctx)
	return eventstore.Inspection{Kind: fmt.Sprintf("%T", p.cfg.Events), Events: st.Hot + st.Archived, Bytes: st.HotBytes + st.ArchivedBytes, Files: st.Segments}, err
}

func (p *Portal) ingestState() status.Ingest {
	refused := p.ingest.Refused()
	perSecond, events := p.sink.stored.rate(time.Now())
	return status.Ingest{
		EventsPerSecond: perSecond, Events: events, Batches: p.sink.batches.Load(), Repeated: p.sink.repeated.Load(),
		RefusedQuota: refused.Quota, RefusedBusy: refused.Busy, Failed: refused.Failed, Limited: refused.Limited, EventsPerMinute: p.cfg.EventsPerMinute,
	}
}

func (p *Portal) exportState(ctx context.Context) (out status.Exports, err error) {
	out.Destinations = []status.Export{}
	if p.exports == nil {
		return out, nil
	}
	list, err := p.exports.List(ctx)
	if err != nil {
		return out, err
	}
	for i := range list {
		d := &list[i]
		n, err := p.exports.Waiting(ctx, d)
		if err != nil {
			return out, err
		}
		out.Destinations = append(out.Destinations, status.Export{ID: d.ID, Name: d.Name, Kind: d.Kind, State: d.State(), Waiting: n, LastSuccess: d.LastSuccess, LastError: d.LastError})
	}
	return out, nil
}

func (p *Portal) archiveState() status.Archive {
	if p.cfg.Archive == nil {
		return status.Archive{}
	}
	st := p.cfg.Archive.Status()
	return status.Archive{URL: p.cfg.Archive.URL(), Files: st.Files, Bytes: st.Bytes, Archived: st.Archived, LastSuccess: st.Success, LastError: st.Error}
}

func (p *Portal) signInState(ctx context.Context) (status.SignIn, error) {
	s := status.SignIn{LocalOff: p.cfg.LocalOff}
	for _, r := range p.cfg.SecondFactor {
		s.Required = append(s.Required, string(r))
	}
	users, err := p.accounts.Users(ctx)
	if err != nil {
		return s, err
	}
	for i := range users {
		u := &users[i]
		if u.Disabled {
			s.Disabled++
		}
		switch {
		case u.Issuer != "":
			s.External++
			continue
		case u.SecondFactor:
			s.SecondFactor++
		case p.accounts.Required(u.Role) && !u.Disabled:
			s.Lacking++
		}
		s.Local++
	}
	if p.cfg.Provider == nil {
		return s, nil
	}
	s.Issuer = p.cfg.Provider.Issuer()
	switch s.ProviderAsked, err = p.cfg.Provider.State(ctx); {
	case ctx.Err() != nil:
		s.ProviderError = "does not answer in time"
	case err != nil:
		s.ProviderError = err.Error()
	}
	return s, nil
}

func (p *Portal) definitionsState(context.Context) (status.Definitions, error) {
	out := status.Definitions{Releases: []status.Release{}}
	if p.cfg.Definitions == nil {
		return out, nil
	}
	last := p.cfg.Definitions.LastBuild()
	out.Built = last.Ended
	failed := []error{last.Err}
	for _, name := range slices.Sorted(maps.Keys(last.Stale)) {
		failed = append(failed, fmt.Errorf("source %s: %w", name, last.Stale[name]))
	}
	if err := errors.Join(failed...); err != nil {
		out.BuildError = strings.ReplaceAll(err.Error(), "\n", "; ")
	}
	sets, err := p.cfg.Definitions.Newest()
	for _, s := range sets {
		out.Releases = append(out.Releases, status.Release{Channel: s.Channel, Version: s.Version, Created: s.Created, Signatures: s.Signatures, Engine: s.Engine})
	}
	return out, err
}

// packagesState is the package of each channel and format that was published last.
func (p *Portal) packagesState(context.Context) (status.Packages, error) {
	out := status.Packages{Channels: []status.Channel{}}
	if p.cfg.Packages == nil {
		return out, nil
	}
	list, err := p.cfg.Packages.List()
	if err != nil {
		return out, err
	}
	type place struct{ channel, format string }
	newest := map[place]repository.Package{}
	for _, k := range list {
		at := place{k.Channel, k.Format}
		if have, ok := newest[at]; !ok || k.Published.After(have.Published) {
			newest[at] = k
		}
	}
	for _, at := range slices.SortedFunc(maps.Keys(newest), func(a, b place) int {
		return strings.Compare(a.channel+" "+a.format, b.channel+" "+b.format)
	}) {
		k := newest[at]
		out.Channels = append(out.Channels, status.Channel{Channel: k.Channel, Format: k.Format, Name: k.Name, Version: k.Version, Published: k.Published, Rollout: k.Rollout})
	}
	return out, nil
}
