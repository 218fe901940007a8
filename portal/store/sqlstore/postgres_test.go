package sqlstore_test

import (
	"log/slog"
	"testing"

	"github.com/bulwarkhq/bulwark/portal/enroll"
	"github.com/bulwarkhq/bulwark/portal/enroll/enrolltest"
	"github.com/bulwarkhq/bulwark/portal/store/sqlstore"
	"github.com/bulwarkhq/bulwark/portal/store/storetest"
	"github.com/bulwarkhq/bulwark/test/postgres"
)

func openPostgres(t *testing.T, database string) *sqlstore.Store {
	t.Helper()
	s, err := sqlstore.OpenPostgres(t.Context(), database, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// TestPostgres has one server for all.
func TestPostgres(t *testing.T) {
	server := postgres.Start(t)
	t.Run("enroll", func(t *testing.T) {
		enrolltest.Run(t, func(t *testing.T) enroll.Store { return openPostgres(t, server.NewDatabase(t)).Enroll() })
	})
	t.Run("suite", func(t *testing.T) {
		storetest.Run(t, func(t *testing.T) storetest.Control { return openPostgres(t, server.NewDatabase(t)) })
	})
}
