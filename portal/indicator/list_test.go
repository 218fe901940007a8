package indicator

import (
	"bytes"
	"context"
	"encoding/csv"
	"errors"
	"reflect"
	"testing"
	"time"

	api "github.com/bulwarkhq/bulwark/api/indicator"
)

// TestExportImport: all that is kept of an indicator comes back.
func TestExportImport(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	want := Indicator{
		Type: api.IPAddress, Value: "192.0.2.1", Action: api.Audit, Title: "=t", Description: "d", Severity: "High", Recommended: "r",
		Application: "-app", EducateURL: "https://intern.example.org/why", Alerts: true, Expires: now.Add(time.Hour),
	}
	if err := want.normalize(now, nil); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	w := csv.NewWriter(&out)
	if err := errors.Join(w.Write(Columns()), w.Write(record(&want, nil))); err != nil {
		t.Fatal(err)
	}
	w.Flush()
	list, _, report, err := parseCSV(&out)
	if err != nil || len(list) != 1 {
		t.Fatalf("%d, %+v, %v", len(list), report, err)
	}
	if err := list[0].normalize(now, nil); err != nil || !reflect.DeepEqual(list[0], want) {
		t.Errorf("%+v, %v, it was %+v", list[0], err, want)
	}
}

// slowStore has lists that take a while to read.
type slowStore struct {
	Store
	revision int64
	builds   int
	each     func(group string)
}

func (s *slowStore) IndicatorsRevision(context.Context) (int64, error) { return s.revision, nil }
func (s *slowStore) ScopedGroups(context.Context) ([]string, error)    { return []string{"g"}, nil }
func (s *slowStore) PutApplied(context.Context, Applied) error         { return nil }
func (s *slowStore) EachIndicator(_ context.Context, group string, _ func(*Indicator) error) error {
	s.builds++
	s.each(group)
	return nil
}

func TestLists(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	store := &slowStore{revision: 5, each: func(string) {}}
	s := New(store, nil, func() time.Time { return now })
	get := func(group string, builds int, what string) {
		t.Helper()
		if _, err := s.CheckIn(t.Context(), "d", group, "", 0); err != nil || store.builds != builds {
			t.Errorf("%s: %d builds, want %d (%v)", what, store.builds, builds, err)
		}
	}
	get("", 1, "the first")
	store.revision = 4
	get("", 1, "who read the revision before the lists were made")
	// The pause is that of the list that took longest; that after the first, which a
	// machine that stands still may make long, is over.
	now = now.Add(24 * time.Hour)
	store.revision = 6
	store.each = func(group string) {
		if group == "" {
			time.Sleep(200 * time.Millisecond) // a pause of 4 seconds at least
		} else {
			time.Sleep(60 * time.Millisecond)
		}
	}
	get("", 2, "a change")
	get("g", 3, "of a group")
	store.revision = 7
	now = now.Add(2 * time.Second)
	get("", 3, "a change within the pause")
	// Who waits for another's build waits no longer than he wants.
	now = now.Add(24 * time.Hour)
	store.revision = 8
	begun, end := make(chan struct{}), make(chan struct{})
	store.each = func(string) {
		close(begun)
		<-end
	}
	done := make(chan error, 1)
	go func() {
		_, err := s.CheckIn(context.WithoutCancel(t.Context()), "d", "", "", 0)
		done <- err
	}()
	<-begun
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	waited := make(chan error, 1)
	go func() {
		_, err := s.CheckIn(ctx, "e", "", "", 0)
		waited <- err
	}()
	select {
	case err := <-waited:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("who waited no longer: %v", err)
		}
	case <-time.After(2 * time.Minute):
		t.Error("a check-in that was given up still waits")
	}
	close(end)
	if err := <-done; err != nil {
		t.Error(err)
	}
}
