package portal

import (
	"context"
	"errors"
	"fmt"

	"github.com/bulwarkhq/bulwark/portal/action"
	"github.com/bulwarkhq/bulwark/portal/ingest"
)

// transfers are the ingest.Files over package action.
type transfers struct{ *action.Files }

func (t transfers) ReceivePart(ctx context.Context, device, command string, p ingest.FilePart) (uint64, error) {
	n, err := t.Receive(ctx, device, command, action.Part(p))
	return n, transferError(err)
}

func (t transfers) FetchPart(ctx context.Context, device, command, sha256 string, offset uint64) ([]byte, uint64, error) {
	data, size, err := t.Fetch(ctx, device, command, sha256, offset)
	return data, size, transferError(err)
}

func transferError(err error) error {
	switch {
	case errors.Is(err, action.ErrNotFound), errors.Is(err, action.ErrNoLibraryFile):
		return fmt.Errorf("%w: %w", ingest.ErrUnknownCommand, err)
	case errors.Is(err, action.ErrTooLarge):
		return fmt.Errorf("%w: %w", ingest.ErrTooLarge, err)
	}
	return err
}
