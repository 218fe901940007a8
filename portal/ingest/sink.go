package ingest

import (
	"context"
	"errors"
	"time"

	agentv1 "github.com/bulwarkhq/bulwark/api/agent/v1"
	"github.com/bulwarkhq/bulwark/event"
)

// Batch is one delivery of an agent, decoded.
type Batch struct {
	// DeviceID is the verified identity of the sender (40 hex digits).
	DeviceID string
	// SpoolID and Sequence identify the batch among those of the device.
	// Sequences of one spool grow but may have gaps: a part of the spool that
	// was damaged on disk is gone for good.
	SpoolID  string
	Sequence uint64
	// Events in about the order of their ReportID (events of different worth
	// are queued apart on the device). The slice is reused after
	// StoreBatch returned: it MUST NOT be kept; the strings in it MAY be (but
	// each keeps the whole batch's text alive: clone what is kept for long).
	Events []event.Event
	Alerts []event.Alert
	// Lost counts what the agent dropped since the previous batch, by class
	// name ("process", "file", "alert", ...).
	Lost map[string]uint64
	// Received is the portal's time of arrival.
	Received time.Time
}

// ErrBusy is returned (wrapped) by StoreBatch when the store cannot take more
// now; the agent is told to slow down and sends the batch again.
var ErrBusy = errors.New("the event store is busy")

// Sink takes what agents deliver. The portal's stores implement it.
//
// Contract. All methods MUST be safe for concurrent use and MUST honour ctx.
// Delivery is at least once: the same batch arrives again when an answer was
// lost, when the portal was stopped between storing and answering, and, rarely,
// while the first delivery is still being stored (the agent's patience ended).
// Run the suite in portal/ingest/ingesttest against every implementation.
type Sink interface {
	// StoreBatch stores a batch durably.
	//
	// When it returns nil, every event and alert of the batch MUST be stored
	// and MUST survive a crash of the portal. When it returns an error, any
	// part may be stored; the batch comes again. However often and however
	// concurrently a batch comes:
	//   - an event (device id, ReportID) MUST NOT be visible twice,
	//   - an alert (Alert.ID) MUST NOT be visible twice; what people did with it
	//     since (status, assignment, comments) MUST stay,
	//   - Lost MUST NOT be counted twice.
	// It MUST treat a batch whose sequence is not above the highest stored
	// sequence of (DeviceID, SpoolID) as stored already and return nil without
	// storing: an agent sends strictly in order, so that is a repetition.
	// A new SpoolID of a known device starts a new numbering. An alert id that
	// another device delivered before MUST NOT be changed by this one: it is
	// skipped.
	//
	// An implementation over two stores MAY write alerts first (idempotent by
	// id) and events with the sequence mark in one transaction afterwards.
	// It SHOULD return an error that wraps ErrBusy rather than wait longer than
	// a few seconds.
	StoreBatch(ctx context.Context, b *Batch) error

	// CheckIn records that a device is alive, with its inventory and health,
	// and says what it should have. It MUST replace the previous inventory and
	// health. It is called some 10,000 times a minute on a large portal, so it
	// SHOULD be one small write.
	CheckIn(ctx context.Context, c *CheckIn) (CheckInReply, error)

	// SelfTestArrivals returns the alerts of this device with this TestID in
	// the order of arrival; an unknown test is an empty list, no error. With
	// remove it MUST delete them (and only them), and a later repetition of
	// their batch MUST NOT bring them back.
	SelfTestArrivals(ctx context.Context, deviceID, testID string, remove bool) ([]Arrival, error)
}

// CheckIn is one report of a device about itself.
type CheckIn struct {
	DeviceID string
	Received time.Time
	// Address is the IP address that the portal saw (hunting column PublicIP);
	// behind a proxy or NAT that of the proxy.
	Address string
	Info    *agentv1.DeviceInfo
	// Health is the JSON of `bulwark health --output json`: an object of at
	// most 256 KiB, checked to be valid JSON.
	Health []byte
	// PolicyVersion is the version of the policy that the device applies.
	PolicyVersion string
	// IndicatorsVersion is the version of the portal's list of indicators that
	// is in force on the device, empty for none; IndicatorsCount is how many
	// indicators are, with those of the host's own list.
	IndicatorsVersion string
	IndicatorsCount   int
}

// CheckInReply says what a device should have.
type CheckInReply struct {
	// Policy is the managed configuration to apply when it differs from the
	// version that the device reported; nil otherwise.
	Policy        []byte
	PolicyVersion string
	// IndicatorsVersion is the version of the list of indicators that the device
	// should have; empty for no list.
	IndicatorsVersion string
}

// Arrival is one self-test alert that reached the store.
type Arrival struct {
	AlertID string
	Source  string
	// Time is Batch.Received of the batch that brought it first.
	Time time.Time
}

// Command is a response action for a device.
type Command struct {
	ID         string
	Type       string // a MachineAction type of the REST API, e.g. RunAntiVirusScan
	Parameters []byte // JSON object
	Expires    time.Time
}

// Completion is what a device reports about a command.
type Completion struct {
	ID      string
	Status  string // InProgress, Succeeded, Failed, TimeOut, Cancelled
	Message string
	Result  []byte // JSON object or empty
}

// Commands is the queue of response actions.
//
// Contract. Methods MUST be safe for concurrent use. A command is delivered at
// least once: it is in Pending until the device reported any status for it or
// it expired.
type Commands interface {
	// Pending returns the commands that wait for the device, oldest first.
	Pending(ctx context.Context, deviceID string) ([]Command, error)
	// Watch returns a channel that receives (without blocking the sender: a
	// buffer of one suffices) when Pending of the device may have grown, and a
	// function that ends the watch. A portal that cannot know (commands made by
	// another node) MAY never send: the stream polls every few seconds too.
	Watch(deviceID string) (changed <-chan struct{}, stop func())
	// Complete records a status. It MUST refuse a command of another device
	// with ErrUnknownCommand and MUST accept a repetition.
	Complete(ctx context.Context, deviceID string, c Completion) error
}

// Files takes what devices send for a command, and gives them what a command
// brings. Errors that wrap ErrUnknownCommand or ErrTooLarge are the device's
// fault, others the portal's.
type Files interface {
	// ReceivePart stores a part and returns where the next one begins.
	ReceivePart(ctx context.Context, deviceID, command string, p FilePart) (next uint64, err error)
	// FetchPart returns at most 1 MiB of a file, and the size of all of it.
	FetchPart(ctx context.Context, deviceID, command, sha256 string, offset uint64) (data []byte, size uint64, err error)
}

// FilePart is a part of a file.
type FilePart struct {
	Name   string
	Offset uint64
	Data   []byte
	Last   bool
	SHA256 string // of the whole file, with Last
}

// Samples takes the suspicious files that devices send about their alerts.
// Errors that wrap ErrUnknownAlert, ErrTooLarge or ErrLater are the device's
// matter, others the portal's.
type Samples interface {
	// ReceiveSample stores a part; it MUST refuse a file that the alert is not
	// about. It returns where the next part begins and whether all is there.
	ReceiveSample(ctx context.Context, deviceID, alertID string, p SamplePart) (next uint64, stored bool, err error)
}

// SamplePart is a part of a suspicious file.
type SamplePart struct {
	SHA256 string // of the whole file, lower case
	Size   uint64 // of the whole file
	Offset uint64
	Data   []byte
}

// ErrUnknownAlert and ErrLater are returned (wrapped) by Samples.ReceiveSample.
var (
	ErrUnknownAlert = errors.New("no such alert of this device")
	ErrLater        = errors.New("too many for now")
)

// ErrTooLarge is returned (wrapped) by Files.ReceivePart.
var ErrTooLarge = errors.New("the file is larger than what the portal takes")

// ErrUnknownCommand is returned (wrapped) by Commands.Complete.
var ErrUnknownCommand = errors.New("no such command for this device")
