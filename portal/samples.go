package portal

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/bulwarkhq/bulwark/portal/alert"
	"github.com/bulwarkhq/bulwark/portal/ingest"
	"github.com/bulwarkhq/bulwark/portal/sample"
)

// samples are the ingest.Samples over package sample: a device may send the
// files that its own alerts are about.
type samples struct {
	store  *sample.Store
	alerts *alert.Service
}

// ReceiveSample implements ingest.Samples.
func (s samples) ReceiveSample(ctx context.Context, device, alertID string, p ingest.SamplePart) (uint64, bool, error) {
	a, err := s.alerts.Get(ctx, alertID)
	if errors.Is(err, alert.ErrNotFound) {
		return 0, false, fmt.Errorf("%w: %w", ingest.ErrUnknownAlert, err)
	}
	if err != nil {
		return 0, false, err
	}
	if a.DeviceID != device || !strings.EqualFold(a.Detection.File.SHA256, p.SHA256) {
		return 0, false, ingest.ErrUnknownAlert
	}
	next, stored, err := s.store.Receive(device, sample.Part{SHA256: strings.ToLower(p.SHA256), Size: p.Size, Offset: p.Offset, Data: p.Data})
	switch {
	case errors.Is(err, sample.ErrNotFound), errors.Is(err, sample.ErrRefused):
		return 0, false, fmt.Errorf("%w: %w", ingest.ErrTooLarge, err)
	case errors.Is(err, sample.ErrTooMany):
		return 0, false, fmt.Errorf("%w: %w", ingest.ErrLater, err)
	}
	return next, stored, err
}
