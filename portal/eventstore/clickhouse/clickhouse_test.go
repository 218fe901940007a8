package clickhouse_test

import (
	"fmt"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/portal/eventstore"
	"github.com/bulwarkhq/bulwark/portal/eventstore/clickhouse"
	"github.com/bulwarkhq/bulwark/portal/eventstore/eventstoretest"
	server "github.com/bulwarkhq/bulwark/test/clickhouse"
)

// databases counts those that tests made.
var databases atomic.Int64

// address is the connection string of a new database on the servers.
func address(options string, servers ...*server.Server) string {
	var hosts []string
	for _, s := range servers {
		hosts = append(hosts, s.HTTP)
	}
	return fmt.Sprintf("clickhouse://%s:%s@%s/test_%d%s", server.User, url.PathEscape(server.Password), strings.Join(hosts, ","), databases.Add(1), options)
}

// open opens the store with the address.
func open(t *testing.T, address string, change func(*clickhouse.Config)) *clickhouse.Store {
	t.Helper()
	cfg, err := clickhouse.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Gather = 20 * time.Millisecond
	// The events of the suite have just happened.
	past := time.Since(eventstoretest.Start.Add(time.Minute))
	cfg.Now = func() time.Time { return time.Now().Add(-past) }
	if change != nil {
		change(&cfg)
	}
	s, err := clickhouse.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestStore(t *testing.T) {
	one := server.Start(t)
	eventstoretest.Run(t, func(t *testing.T) eventstore.Store { return open(t, address("", one), nil) })
}
