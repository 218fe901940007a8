package health

import (
	"context"

	api "github.com/bulwarkhq/bulwark/api/control"
)

// Service is what the local API asks about health: the registry with the
// product's versions.
type Service struct {
	*Registry
	Product Product
}

// Version returns the versions of the daemon.
func (s Service) Version(ctx context.Context) (api.Version, error) {
	h, err := s.Health(ctx)
	if err != nil {
		return api.Version{}, err
	}
	return s.Product.Versions(h), nil
}
