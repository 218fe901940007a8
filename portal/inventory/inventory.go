// Package inventory knows the devices: what they are, when they were last
// heard of, and how well that is.
package inventory

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	agentv1 "github.com/bulwarkhq/bulwark/api/agent/v1"
	"github.com/bulwarkhq/bulwark/portal/query"
)

// ErrNotFound is returned for a device that is not there.
var ErrNotFound = errors.New("there is no such device")

// Device is one protected machine.
type Device struct {
	ID             string // 40 hex digits
	HostName       string
	MachineGUID    string
	OSPlatform     string
	OSDistribution string
	OSVersion      string
	OSPrettyName   string
	Kernel         string
	Architecture   string
	AgentVersion   string
	Model          string
	Vendor         string
	VirtualMachine bool
	HardwareID     string
	IPAddresses    []string
	LoggedOnUsers  []string
	// DeviceTags are set on the device, Tags in the portal.
	DeviceTags []string
	Tags       []string

	FirstSeen time.Time // enrolment
	LastSeen  time.Time // last call of any kind
	LastEvent time.Time // last batch with events; zero before the first
	// LastExternalIP is the address that the last call came from.
	LastExternalIP string
	// Health is what the agent reported at HealthTime: the JSON of
	// `bulwark health --output json`; nil before the first report.
	Health        json.RawMessage
	HealthTime    time.Time
	PolicyVersion string
	// Group is the name of its device group as of its last check-in; empty for none.
	Group string

	// HealthStatus is derived when the device is read: one of the constants.
	HealthStatus string
	// OnboardingStatus is Onboarded or Offboarded.
	OnboardingStatus string
	// RiskScore is the highest severity of its open alerts, None without any.
	RiskScore string
	// OpenAlerts counts its alerts that are not resolved.
	OpenAlerts int
}

// The values of Device.HealthStatus.
const (
	Active               = "Active"
	Inactive             = "Inactive"
	Impaired             = "ImpairedCommunication"
	NoSensorData         = "NoSensorData"
	NoSensorDataImpaired = "NoSensorDataImpairedCommunication"
)

// Thresholds say when a device counts as what.
type Thresholds struct {
	// ImpairedAfter without any call a device counts as ImpairedCommunication,
	// InactiveAfter as Inactive (the reference product: 7 days).
	ImpairedAfter time.Duration
	InactiveAfter time.Duration
	// NoDataAfter without an event a device that calls counts as NoSensorData.
	NoDataAfter time.Duration
}

// DefaultThresholds are those of the reference product where it has them.
func DefaultThresholds() Thresholds {
	return Thresholds{ImpairedAfter: time.Hour, InactiveAfter: 7 * 24 * time.Hour, NoDataAfter: 24 * time.Hour}
}

// Cuts are the thresholds applied to a moment: a device with LastSeen before
// Impaired is impaired, and so on.
type Cuts struct{ Impaired, Inactive, NoData time.Time }

// At applies the thresholds to a moment.
func (t Thresholds) At(now time.Time) Cuts {
	return Cuts{Impaired: now.Add(-t.ImpairedAfter), Inactive: now.Add(-t.InactiveAfter), NoData: now.Add(-t.NoDataAfter)}
}

// Fields are what devices can be filtered and ordered by, by their REST names.
func Fields() query.Schema {
	return query.Schema{
		"id": query.String, "computerDnsName": query.String, "firstSeen": query.Time, "lastSeen": query.Time,
		"osPlatform": query.String, "osDistribution": query.String, "osVersion": query.String, "version": query.String,
		"osArchitecture": query.String, "agentVersion": query.String, "lastIpAddress": query.String,
		"lastExternalIpAddress": query.String, "healthStatus": query.String, "onboardingStatus": query.String,
		"riskScore": query.String, "exposureLevel": query.String, "deviceValue": query.String,
		"aadDeviceId": query.String, "rbacGroupId": query.Int, "rbacGroupName": query.String, "machineTags": query.Collection,
		"openAlerts": query.Int,
	}
}

// Store keeps devices. Implementations are safe for concurrent use.
type Store interface {
	// PutDevice replaces what an enrolled device says of itself. FirstSeen,
	// Tags, LastEvent and, where the new value is nil, Health are kept.
	PutDevice(ctx context.Context, d Device) error
	// DeviceSeen notes a call, with events or without.
	DeviceSeen(ctx context.Context, id, address string, at time.Time, events bool) error
	// Device returns ErrNotFound when it is not there.
	Device(ctx context.Context, id string, cuts Cuts) (Device, error)
	// Devices returns the page and, when asked, the number of all that match.
	Devices(ctx context.Context, q query.Query, cuts Cuts) ([]Device, int, error)
	// DeviceIDs returns the ids of all devices that match.
	DeviceIDs(ctx context.Context, filter query.Expr, cuts Cuts) ([]string, error)
	// DeviceCounts returns how many devices have each health status.
	DeviceCounts(ctx context.Context, cuts Cuts) (map[string]int, error)
	// SetDeviceTags replaces the portal's tags of a device.
	SetDeviceTags(ctx context.Context, id string, tags []string) error
}

// Service is the inventory.
type Service struct {
	store      Store
	thresholds Thresholds
	now        func() time.Time
}

// New makes an inventory over a store; now is time.Now outside of tests.
func New(store Store, thresholds Thresholds, now func() time.Time) *Service {
	return &Service{store: store, thresholds: thresholds, now: now}
}

// Describe returns the device that an agent's inventory describes. It is data
// of a foreign machine and is cut to sane lengths.
func Describe(id string, info *agentv1.DeviceInfo) Device {
	c := func(s string) string { return Clean(s, 256) }
	d := Device{
		ID: id, HostName: Clean(info.GetHostName(), 255), MachineGUID: c(info.GetMachineGuid()),
		OSPlatform: c(info.GetOsPlatform()), OSDistribution: c(info.GetOsDistribution()), OSVersion: c(info.GetOsVersion()),
		OSPrettyName: c(info.GetOsPrettyName()), Kernel: c(info.GetKernel()), Architecture: c(info.GetArchitecture()),
		AgentVersion: c(info.GetAgentVersion()), Model: c(info.GetModel()), Vendor: c(info.GetVendor()),
		VirtualMachine: info.GetVirtualMachine(), HardwareID: c(info.GetHardwareId()),
		IPAddresses: cleanAll(info.GetIpAddresses(), 64, 64), LoggedOnUsers: cleanAll(info.GetLoggedOnUsers(), 64, 256),
	}
	for _, t := range info.GetTags() {
		tag := t.GetValue()
		if t.GetKey() != "" && t.GetKey() != "GROUP" {
			tag = t.GetKey() + ":" + tag
		}
		d.DeviceTags = append(d.DeviceTags, tag)
	}
	d.DeviceTags = cleanAll(d.DeviceTags, 64, MaxTagLength)
	return d
}

// Put records what a device, made by Describe, says of itself.
func (s *Service) Put(ctx context.Context, d Device) error {
	if d.ID == "" {
		return errors.New("inventory: a device without id")
	}
	if len(d.Health) > 1<<20 || (d.Health != nil && !json.Valid(d.Health)) {
		return fmt.Errorf("inventory: device %s: the health report is not JSON of at most 1 MiB", d.ID)
	}
	now := s.now()
	d.FirstSeen, d.LastSeen = now, now
	if d.Health != nil {
		d.HealthTime = now
	}
	return s.store.PutDevice(ctx, d)
}

// Seen notes a call of a device.
func (s *Service) Seen(ctx context.Context, id, address string, events bool) error {
	return s.store.DeviceSeen(ctx, id, address, s.now(), events)
}

// Get returns a device, or ErrNotFound.
func (s *Service) Get(ctx context.Context, id string) (Device, error) {
	return s.store.Device(ctx, strings.ToLower(id), s.thresholds.At(s.now()))
}

// List returns a page of devices and, when asked, how many match in all.
func (s *Service) List(ctx context.Context, q query.Query) ([]Device, int, error) {
	if err := Fields().Check(q); err != nil {
		return nil, 0, err
	}
	return s.store.Devices(ctx, q, s.thresholds.At(s.now()))
}

// IDs returns the ids of all devices that match (nil for all).
func (s *Service) IDs(ctx context.Context, filter query.Expr) ([]string, error) {
	if err := Fields().Check(query.Query{Filter: filter}); err != nil {
		return nil, err
	}
	return s.store.DeviceIDs(ctx, filter, s.thresholds.At(s.now()))
}

// Counts returns how many devices have each health status.
func (s *Service) Counts(ctx context.Context) (map[string]int, error) {
	return s.store.DeviceCounts(ctx, s.thresholds.At(s.now()))
}

// MaxTags is how many tags the portal keeps for a device, of MaxTagLength
// bytes each.
const (
	MaxTags      = 50
	MaxTagLength = 200
)

// Tag adds or removes a portal tag and returns the device.
func (s *Service) Tag(ctx context.Context, id, tag string, add bool) (Device, error) {
	tag = strings.TrimSpace(tag)
	if tag == "" || len(tag) > MaxTagLength || tag != Clean(tag, MaxTagLength) {
		return Device{}, fmt.Errorf("a tag is 1 to %d bytes of printable text", MaxTagLength)
	}
	d, err := s.Get(ctx, id)
	if err != nil {
		return Device{}, err
	}
	tags := make([]string, 0, len(d.Tags)+1)
	for _, t := range d.Tags {
		if t != tag {
			tags = append(tags, t)
		}
	}
	if add {
		tags = append(tags, tag)
	}
	if len(tags) > MaxTags {
		return Device{}, fmt.Errorf("a device has at most %d tags", MaxTags)
	}
	if err := s.store.SetDeviceTags(ctx, d.ID, tags); err != nil {
		return Device{}, err
	}
	d.Tags = tags
	return d, nil
}

// Clean makes foreign text fit to keep: valid UTF-8, no control or
// direction-changing characters (they forge what an analyst reads), at most
// limit bytes.
func Clean(s string, limit int) string {
	if len(s) > 4*limit {
		s = s[:4*limit]
	}
	s = strings.Map(func(r rune) rune {
		switch {
		case r == utf8.RuneError, unicode.IsControl(r), unicode.Is(unicode.Bidi_Control, r), r == '\u2028', r == '\u2029':
			return '\uFFFD'
		}
		return r
	}, s)
	for len(s) > limit {
		_, size := utf8.DecodeLastRuneInString(s)
		s = s[:len(s)-size]
	}
	return s
}

func cleanAll(in []string, count, limit int) []string {
	if len(in) > count {
		in = in[:count]
	}
	out := make([]string, 0, len(in))
	for _, s := range in {
		if s = Clean(s, limit); s != "" {
			out = append(out, s)
		}
	}
	return out
}
