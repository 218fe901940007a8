// Package action is what people let devices do: response actions, from the
// order to the device's report. The agent protocol hands them out (package
// ingest); here they are ordered, listed and cancelled.
package action

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/bulwarkhq/bulwark/portal/inventory"
	"github.com/bulwarkhq/bulwark/portal/query"
)

// Status of an action.
const (
	Pending    = "Pending"
	InProgress = "InProgress"
	Succeeded  = "Succeeded"
	Failed     = "Failed"
	TimeOut    = "TimeOut"
	Cancelled  = "Cancelled"
)

// Statuses returns the values of Action.Status.
func Statuses() []string { return []string{Pending, InProgress, Succeeded, Failed, TimeOut, Cancelled} }

// Lifetime is how long an order waits for a device that is away.
const Lifetime = 3 * 24 * time.Hour

// MaxWork is how long after its expiry an order that was begun is waited for.
const MaxWork = 24 * time.Hour

// maxComment bounds what people write, in bytes.
const maxComment = 4000

// Errors.
var (
	ErrNotFound = errors.New("there is no such action")
	// ErrRunning means that the device has an action of this type already.
	ErrRunning = errors.New("an action of this type is already in progress on the device")
	// ErrStarted means that an action cannot be cancelled any more.
	ErrStarted = errors.New("the action cannot be cancelled: the device has begun with it, or it has ended")
	// ErrNoFile means that an action has left no file, or that it is deleted.
	ErrNoFile = errors.New("the action has no file, or it is no longer kept")
	// ErrNotIsolation means that there is nothing to release.
	ErrNotIsolation = errors.New("the action is no isolation of a device")
	// ErrOffboarded means that the device takes no orders.
	ErrOffboarded = errors.New("the device is offboarded: it takes no actions")
)

// Invalid is an order that cannot be given; Target names the member.
type Invalid struct{ Target, Message string }

func (e *Invalid) Error() string { return e.Message }

// Action is an order to a device and what became of it.
type Action struct {
	ID         string // 32 hex digits
	Type       string
	DeviceID   string
	DeviceName string
	Requestor  string
	Comment    string
	// Parameters is a JSON object, as the device gets it.
	Parameters json.RawMessage
	// Status; an order that nobody took until it expired is TimeOut.
	Status  string
	Message string // what the device says
	// Result is a JSON object of the device's, or empty.
	Result json.RawMessage
	// File is what the action left at the portal; without name for none.
	File    File
	Created time.Time
	Updated time.Time
	Expires time.Time

	Cancelled   time.Time // zero when it was not
	CancelledBy string
	CancelNote  string
}

// File is what a device sent for an action.
type File struct {
	Name   string // as the device calls it
	Size   int64
	SHA256 string
}

// Fields are what actions can be filtered and ordered by.
func Fields() query.Schema {
	return query.Schema{
		"id": query.String, "status": query.String, "machineId": query.String, "type": query.String, "requestor": query.String,
		"creationDateTimeUtc": query.Time, "lastUpdateDateTimeUtc": query.Time, "computerDnsName": query.String,
		"parameters": query.String, // as JSON
	}
}

// Store keeps actions. Implementations are safe for concurrent use.
type Store interface {
	// AddAction stores an order with its audit entry, unless the device has one of
	// the types in exclusive that has not ended (ErrRunning). The secret is what
	// only the portal may know of it.
	AddAction(ctx context.Context, a Action, secret []byte, exclusive []string, address string) error
	// ActionSecret returns the secret of an action, or ErrNotFound, and writes the
	// audit entry of its use.
	ActionSecret(ctx context.Context, id string, entry Note) ([]byte, error)
	// AddLibraryFile adds a file to the library, or replaces it, with its audit
	// entry; DeleteLibraryFile fails with ErrNoLibraryFile for an unknown one.
	AddLibraryFile(ctx context.Context, f LibraryFile, address string) error
	DeleteLibraryFile(ctx context.Context, name string, entry Note) error
	LibraryFiles(ctx context.Context) ([]LibraryFile, error)
	// SetActionFile notes what the device sent.
	SetActionFile(ctx context.Context, id string, f File) error
	// Action returns one, or ErrNotFound.
	Action(ctx context.Context, id string) (Action, error)
	// Actions returns the page and, when asked, the number of all that match.
	Actions(ctx context.Context, q query.Query) ([]Action, int, error)
	// CancelAction cancels an order that waits, with its audit entry; ErrStarted
	// when it does not wait any more.
	CancelAction(ctx context.Context, id, by, note, address string, at time.Time) error
}

// Note is an audit entry about an action.
type Note struct {
	Time                           time.Time
	Actor, Address, Action, Detail string
}

// Service orders actions.
type Service struct {
	store   Store
	devices *inventory.Service
	now     func() time.Time
}

// NewService makes the service over a store.
func NewService(store Store, devices *inventory.Service, now func() time.Time) *Service {
	return &Service{store, devices, now}
}

func checkComment(comment string) (string, error) {
	comment = strings.TrimSpace(comment)
	switch {
	case comment == "":
		return "", &Invalid{"Comment", "a comment is needed: why is this done?"}
	case len(comment) > maxComment:
		return "", &Invalid{"Comment", fmt.Sprintf("a comment is at most %d bytes, this one has %d", maxComment, len(comment))}
	case !utf8.ValidString(comment):
		return "", &Invalid{"Comment", "the comment is not valid UTF-8"}
	}
	return comment, nil
}

// Get returns an action, or ErrNotFound.
func (s *Service) Get(ctx context.Context, id string) (Action, error) {
	if len(id) != 32 {
		return Action{}, ErrNotFound
	}
	a, err := s.store.Action(ctx, id)
	return s.current(a), err
}

// List returns a page of actions and, when asked, how many match in all.
func (s *Service) List(ctx context.Context, q query.Query) ([]Action, int, error) {
	if err := Fields().Check(q); err != nil {
		return nil, 0, err
	}
	list, n, err := s.store.Actions(ctx, q)
	for i := range list {
		list[i] = s.current(list[i])
	}
	return list, n, err
}

// current is the action as it is now: an order that nobody took in time is over.
func (s *Service) current(a Action) Action {
	switch {
	case a.Status == Pending && s.now().After(a.Expires):
		a.Status, a.Updated, a.Message = TimeOut, a.Expires, "the device did not take the order in time"
	case a.Status == InProgress && s.now().After(a.Expires.Add(MaxWork)):
		a.Status, a.Message = TimeOut, "the device has begun and not reported the end"
	}
	return a
}

// Cancel cancels an order that still waits.
func (s *Service) Cancel(ctx context.Context, id, comment, by, address string) (Action, error) {
	comment, err := checkComment(comment)
	if err != nil {
		return Action{}, err
	}
	a, err := s.Get(ctx, id)
	if err != nil {
		return Action{}, err
	}
	if a.Status != Pending {
		return Action{}, ErrStarted
	}
	if err := s.store.CancelAction(ctx, id, by, comment, address, s.now().UTC()); err != nil {
		return Action{}, err
	}
	return s.Get(ctx, id)
}
