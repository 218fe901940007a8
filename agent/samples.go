package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"github.com/bulwarkhq/bulwark/agent/health"
	"github.com/bulwarkhq/bulwark/agent/quarantine"
	"github.com/bulwarkhq/bulwark/agent/sample"
	"github.com/bulwarkhq/bulwark/agent/uplink"
	api "github.com/bulwarkhq/bulwark/api/control"
	"github.com/bulwarkhq/bulwark/policy"
)

// openSamples makes the queue of suspicious files on their way to the portal.
func (a *Agent) openSamples() (err error) {
	a.samples, err = sample.Open(sample.Options{
		Dir: filepath.Join(a.opts.Dirs.State, "samples"), Consent: a.sampleConsent,
		Quarantined: func(ctx context.Context, id string, w io.Writer) error { return a.quarantine.Content(ctx, id, w) },
		Ready:       func() bool { return a.uplink.Status().State == uplink.Connected },
		Send: func(ctx context.Context, f sample.File, content io.ReaderAt) error {
			err := a.uplink.SendSample(ctx, f.AlertID, f.SHA256, f.Size, content)
			if errors.Is(err, uplink.ErrSampleRefused) {
				return fmt.Errorf("%w: %w", sample.ErrRefused, err)
			}
			return err
		},
		Log: a.log.Logger("samples"),
	})
	return err
}

// sampleConsent is the setting; without cloud protection nothing is sent.
func (a *Agent) sampleConsent() sample.Consent {
	e := a.config.Current()
	if !e.Bool(policy.KeyCloudEnabled) {
		return sample.None
	}
	return sample.Consent(e.String(policy.KeySampleConsent))
}

// submit queues the file of an alert for the portal, if the setting allows it.
func (r *remediation) submit(alertID string, f finding, item quarantine.Item) {
	err := r.a.samples.Add(sample.File{
		AlertID: alertID, SHA256: f.verdict.SHA256, Size: f.verdict.Size, Kind: f.verdict.FileType, Path: []byte(f.path), QuarantineID: item.ID,
	})
	if err != nil {
		r.log.Info("the file is not sent to the portal", "path", f.path, "sha256", f.verdict.SHA256, "reason", err)
	}
}

// samplesShown is the part of `diagnostic show-outgoing` about files.
func (a *Agent) samplesShown() (waiting []api.OutgoingSample, note string) {
	waiting = []api.OutgoingSample{}
	for _, f := range a.samples.Waiting() {
		waiting = append(waiting, api.OutgoingSample{Path: api.Path(f.Path), SHA256: f.SHA256, Size: f.Size, Kind: f.Kind, Found: f.Found, AlertID: f.AlertID})
	}
	switch c := a.sampleConsent(); {
	case !a.config.Current().Bool(policy.KeyCloudEnabled):
		note = "Files: none, because " + policy.KeyCloudEnabled + " is false."
	case c == sample.All:
		note = "Files: every file in which a threat was found, of at most 32 MiB."
	case c == sample.Safe:
		note = "Files: programs, libraries and scripts in which a threat was found, of at most 32 MiB; no documents, archives, mail or text, which may hold personal data."
	default:
		note = "Files: none."
	}
	return waiting, note + fmt.Sprintf(" Sent since the start: %d.", a.samples.Stats().Sent)
}

func (a *Agent) samplesHealth(context.Context) health.Report {
	s := a.samples.Stats()
	r := health.Report{Details: []api.Field{
		{Name: "consent", Value: string(a.sampleConsent())}, {Name: "waiting", Value: s.Waiting}, {Name: "sent", Value: s.Sent}, {Name: "not_sent", Value: s.Dropped},
	}}
	if !s.LastSent.IsZero() {
		r.Details = append(r.Details, api.Field{Name: "last_sent", Value: s.LastSent})
	}
	return r
}
