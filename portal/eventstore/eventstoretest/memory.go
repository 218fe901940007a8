package eventstoretest

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/bulwarkhq/bulwark/event"
	"github.com/bulwarkhq/bulwark/portal/eventstore"
	"github.com/bulwarkhq/bulwark/portal/hunting"
)

// Memory is an eventstore.Store in memory, for tests of packages that need one
// and not DuckDB.
type Memory struct {
	mu    sync.Mutex
	marks map[[2]string]uint64
	rows  map[string][]eventstore.Row
	lost  map[string]map[string]uint64
	// receipts by device and class
	receipts map[string]map[string]eventstore.Receipt
}

// NewMemory returns an empty store.
func NewMemory() *Memory {
	return &Memory{marks: map[[2]string]uint64{}, rows: map[string][]eventstore.Row{}, lost: map[string]map[string]uint64{}, receipts: map[string]map[string]eventstore.Receipt{}}
}

// Append implements eventstore.Store.
func (m *Memory) Append(ctx context.Context, b *eventstore.Batch) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	k := [2]string{b.DeviceID, b.SpoolID}
	if b.Sequence <= m.marks[k] {
		return nil
	}
	m.marks[k] = b.Sequence
	for i := range b.Events {
		r := row(&b.Events[i])
		if b.Events[i].Time.IsZero() {
			r.Time = b.Received.UTC().Truncate(time.Microsecond)
		}
		m.rows[b.DeviceID] = append(m.rows[b.DeviceID], r)
	}
	if m.lost[b.DeviceID] == nil {
		m.lost[b.DeviceID] = map[string]uint64{}
	}
	for class, n := range b.Losses() {
		sum := eventstore.Receipt{Lost: m.lost[b.DeviceID][class]}
		m.lost[b.DeviceID][class] = sum.Plus(eventstore.Receipt{Lost: n}).Lost
	}
	if m.receipts[b.DeviceID] == nil {
		m.receipts[b.DeviceID] = map[string]eventstore.Receipt{}
	}
	for class, r := range b.Receipts() {
		m.receipts[b.DeviceID][class] = m.receipts[b.DeviceID][class].Plus(r)
	}
	return nil
}

func row(e *event.Event) eventstore.Row {
	c := func(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }
	r := eventstore.Row{
		Time: e.Time.UTC().Truncate(time.Microsecond), Table: e.Class.TableName(), Action: c(e.Action), ReportID: int64(e.ReportID),
		FileName: c(e.File.FileName), FolderPath: c(e.File.FolderPath), SHA256: c(e.File.SHA256), Account: c(e.Logon.AccountName),
		RemoteIP: c(e.Network.RemoteIP), RemotePort: e.Network.RemotePort, RemoteURL: c(e.Network.RemoteURL), LocalIP: c(e.Network.LocalIP),
		LocalPort: e.Network.LocalPort, Protocol: c(e.Network.Protocol), LogonType: c(e.Logon.Type), Failure: c(e.Logon.FailureReason),
		InitiatingFileName: c(e.Initiating.FileName), InitiatingFolderPath: c(e.Initiating.FolderPath), InitiatingID: e.Initiating.PID,
		InitiatingCommandLine: c(e.Initiating.CommandLine), InitiatingAccount: c(e.Initiating.AccountName), Additional: c(event.AdditionalFields(e)),
	}
	switch e.Class {
	case event.ClassProcess:
		r.FileName, r.FolderPath, r.SHA256, r.Account = c(e.Process.FileName), c(e.Process.FolderPath), c(e.Process.SHA256), c(e.Process.AccountName)
		r.ProcessID, r.CommandLine = e.Process.PID, c(e.Process.CommandLine)
	case event.ClassLogon:
		r.RemoteIP, r.RemotePort, r.Protocol = c(e.Logon.RemoteIP), e.Logon.RemotePort, c(e.Logon.Protocol)
	}
	return r
}

// Stored implements eventstore.Store.
func (m *Memory) Stored(_ context.Context, deviceID, spoolID string) (uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.marks[[2]string{deviceID, spoolID}], nil
}

// Timeline implements eventstore.Store.
func (m *Memory) Timeline(_ context.Context, q eventstore.TimelineQuery) ([]eventstore.Row, error) {
	if err := q.Check(); err != nil {
		return nil, err
	}
	m.mu.Lock()
	rows := slices.Clone(m.rows[q.DeviceID])
	m.mu.Unlock()
	rows = slices.DeleteFunc(rows, func(r eventstore.Row) bool {
		text := strings.ToLower(strings.Join([]string{
			r.Action, r.FileName, r.FolderPath, r.SHA256, r.CommandLine, r.Account, r.RemoteIP, r.RemoteURL,
			r.InitiatingFileName, r.InitiatingFolderPath, r.InitiatingCommandLine, r.InitiatingAccount, r.Additional,
		}, "\n"))
		return (!q.Since.IsZero() && r.Time.Before(q.Since)) || (!q.Until.IsZero() && !r.Time.Before(q.Until)) ||
			(len(q.Tables) > 0 && !slices.Contains(q.Tables, r.Table)) || !strings.Contains(text, strings.ToLower(q.Text)) ||
			(q.After != nil && (r.Time.After(q.After.Time) || (r.Time.Equal(q.After.Time) && r.ReportID >= q.After.ReportID))) ||
			(q.Before != nil && (r.Time.Before(q.Before.Time) || (r.Time.Equal(q.Before.Time) && r.ReportID <= q.Before.ReportID)))
	})
	slices.SortFunc(rows, func(a, b eventstore.Row) int {
		return cmp.Or(b.Time.Compare(a.Time), cmp.Compare(b.ReportID, a.ReportID))
	})
	if q.Before != nil {
		return rows[max(0, len(rows)-q.Limit):], nil
	}
	return rows[:min(len(rows), q.Limit)], nil
}

// Lost implements eventstore.Store.
func (m *Memory) Lost(_ context.Context, deviceID string, _ time.Time) (map[string]uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := map[string]uint64{}
	for class, n := range m.lost[deviceID] {
		out[class] = n
	}
	return out, nil
}

// Receipts implements eventstore.Store.
func (m *Memory) Receipts(_ context.Context, deviceID string) (map[string]eventstore.Receipt, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.receipts[deviceID]), nil
}

// Stats implements eventstore.Store.
func (m *Memory) Stats(context.Context) (eventstore.Stats, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var st eventstore.Stats
	for _, rows := range m.rows {
		st.Hot += int64(len(rows))
	}
	return st, nil
}

// Close implements eventstore.Store.
func (m *Memory) Close() error { return nil }

var _ eventstore.Store = (*Memory)(nil)

// Hunt implements hunting.Store; this store cannot be hunted in.
func (m *Memory) Hunt(context.Context) (hunting.Session, error) {
	return nil, errors.New("the store in memory cannot be hunted in")
}
