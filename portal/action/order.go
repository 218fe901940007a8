package action

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/bulwarkhq/bulwark/api/response"
	"github.com/bulwarkhq/bulwark/event"
	"github.com/bulwarkhq/bulwark/portal/access"
)

// ScanParameters are those of RunAntiVirusScan.
type ScanParameters struct{ ScanType string }

// Request is an order as somebody gives it.
type Request struct {
	Device string
	Type   string // of package response
	// Parameters of the type; nil where it has none.
	Parameters any
	Comment    string
	// Source says what gave the order: "Portal", "API", or the detection rule.
	By, Address string
}

// kind is what the portal knows of a type of action.
type kind struct {
	need access.Permission
	// exclusive are the types of which a device may have only one at a time with
	// this one.
	exclusive []string
	lifetime  time.Duration
	check     func(any) error
}

func invalid(target, format string, args ...any) error {
	return &Invalid{target, fmt.Sprintf(format, args...)}
}

func none(p any) error {
	if p != nil {
		return invalid("Parameters", "this action has no parameters")
	}
	return nil
}

// kindOf returns what is known of a type.
func kindOf(name string) (kind, bool) {
	switch name {
	case response.RunAntiVirusScan:
		return kind{access.MachineScan, []string{name}, Lifetime, checkScan}, true
	case response.UpdateDefinitions:
		return kind{access.MachineScan, []string{name}, Lifetime, none}, true
	case response.Isolate:
		return kind{access.MachineIsolate, []string{response.Isolate, response.Unisolate}, Lifetime, checkIsolate}, true
	case response.Unisolate:
		return kind{access.MachineIsolate, []string{response.Isolate, response.Unisolate}, Lifetime, none}, true
	case response.StopProcess:
		// A process number means little after a while.
		return kind{access.MachineQuarantine, nil, time.Hour, checkProcess}, true
	case response.QuarantineFile, response.StopAndQuarantineFile:
		return kind{access.MachineQuarantine, nil, Lifetime, checkFile}, true
	case response.RestoreFile, response.RemoveQuarantinedFile:
		return kind{access.MachineQuarantine, nil, Lifetime, checkRestore}, true
	case response.CollectInvestigationPackage:
		return kind{access.MachineCollect, []string{name}, Lifetime, none}, true
	case response.LiveResponse:
		return kind{access.MachineLive, []string{name}, Lifetime, checkLive}, true
	case response.Offboard:
		return kind{access.MachineOffboard, []string{name}, Lifetime, none}, true
	}
	return kind{}, false
}

// Types returns the types of actions.
func Types() []string {
	return []string{
		response.RunAntiVirusScan, response.UpdateDefinitions, response.Isolate, response.Unisolate, response.StopProcess, response.QuarantineFile,
		response.StopAndQuarantineFile, response.RestoreFile, response.RemoveQuarantinedFile, response.CollectInvestigationPackage, response.LiveResponse, response.Offboard,
	}
}

// Permission returns the permission that ordering and cancelling an action of a
// type needs.
func Permission(name string) access.Permission {
	k, ok := kindOf(name)
	if !ok {
		return access.MachineOffboard // what nobody knows is for administrators
	}
	return k.need
}

func checkScan(p any) error {
	s, ok := p.(ScanParameters)
	if !ok || s.ScanType != "Quick" && s.ScanType != "Full" {
		return invalid("ScanType", "ScanType is Quick or Full, not %.32q", s.ScanType)
	}
	return nil
}

func checkIsolate(p any) error {
	i, ok := p.(response.IsolateParameters)
	if !ok {
		return invalid("Parameters", "the parameters of an isolation are wanted")
	}
	if _, err := response.ParsePeers(i.Allow); err != nil {
		return invalid("Allow", "%v", err)
	}
	return nil
}

const maxPath = 4096

func checkPath(path string) error {
	if len(path) > maxPath || !strings.HasPrefix(path, "/") || strings.ContainsRune(path, 0) || slices.Contains(strings.Split(path, "/"), "..") {
		return invalid("Path", "%.200q is not an absolute path without ..", path)
	}
	return nil
}

func checkProcess(p any) error {
	v, ok := p.(response.ProcessParameters)
	switch {
	case !ok || v.ProcessID <= 1:
		return invalid("ProcessId", "the number of a process is wanted, above 1")
	case v.SHA256 != "" && !event.IsHex(v.SHA256, 64):
		return invalid("Sha256", "a SHA-256 is 64 hex digits in lower case")
	}
	if v.Started != "" {
		if _, err := time.Parse(time.RFC3339Nano, v.Started); err != nil {
			return invalid("Started", "%.64q is no time", v.Started)
		}
	}
	return nil
}

func checkFile(p any) error {
	v, ok := p.(response.FileParameters)
	switch {
	case !ok || v.Path == "" && v.SHA1 == "" && v.SHA256 == "":
		return invalid("Sha1", "a hash or a path is wanted")
	case v.SHA1 != "" && !event.IsHex(v.SHA1, 40):
		return invalid("Sha1", "a SHA-1 is 40 hex digits")
	case v.SHA256 != "" && !event.IsHex(v.SHA256, 64):
		return invalid("Sha256", "a SHA-256 is 64 hex digits")
	case v.Path != "":
		return checkPath(v.Path)
	}
	return nil
}

func checkRestore(p any) error {
	v, ok := p.(response.RestoreParameters)
	switch {
	case !ok || v.ItemID == "" && v.SHA256 == "":
		return invalid("ItemId", "the id of the quarantined file or its SHA-256 is wanted")
	case len(v.ItemID) > 64 || strings.Trim(v.ItemID, "0123456789abcdefABCDEF-") != "":
		return invalid("ItemId", "%.64q is no id of a quarantined file", v.ItemID)
	case v.SHA256 != "" && !event.IsHex(v.SHA256, 64):
		return invalid("Sha256", "a SHA-256 is 64 hex digits")
	}
	return nil
}

// Scan orders an antivirus scan of the type Quick or Full.
func (s *Service) Scan(ctx context.Context, device, scanType, comment, by, address string) (Action, error) {
	return s.Order(ctx, Request{Device: device, Type: response.RunAntiVirusScan, Parameters: ScanParameters{scanType}, Comment: comment, By: by, Address: address})
}

// Order gives an order. Whether r.By may is asked before (Permission).
func (s *Service) Order(ctx context.Context, r Request) (Action, error) {
	k, ok := kindOf(r.Type)
	if !ok {
		return Action{}, invalid("Type", "there is no action %.64q", r.Type)
	}
	comment, err := checkComment(r.Comment)
	if err != nil {
		return Action{}, err
	}
	if err := k.check(r.Parameters); err != nil {
		return Action{}, err
	}
	d, err := s.devices.Get(ctx, r.Device)
	if err != nil {
		return Action{}, err
	}
	if d.OnboardingStatus != "Onboarded" {
		return Action{}, ErrOffboarded
	}
	var number [16]byte
	rand.Read(number[:]) // never fails
	id := hex.EncodeToString(number[:])
	var secret []byte
	if p, ok := r.Parameters.(response.IsolateParameters); ok {
		public, private, err := ed25519.GenerateKey(nil)
		if err != nil {
			return Action{}, fmt.Errorf("key of the isolation: %w", err)
		}
		p.Order, p.ReleaseKey, secret = id, public, private.Seed()
		r.Parameters = p
	}
	raw := []byte("{}")
	if r.Parameters != nil {
		if raw, err = json.Marshal(r.Parameters); err != nil {
			return Action{}, fmt.Errorf("parameters of the action: %w", err)
		}
	}
	now := s.now().UTC()
	a := Action{
		ID: id, Type: r.Type, DeviceID: d.ID, DeviceName: d.HostName, Requestor: r.By, Comment: comment, Parameters: raw,
		Status: Pending, Created: now, Updated: now, Expires: now.Add(k.lifetime),
	}
	if err := s.store.AddAction(ctx, a, secret, k.exclusive, r.Address); err != nil {
		return Action{}, fmt.Errorf("%s on %s: %w", r.Type, d.ID, err)
	}
	return a, nil
}

// ReleaseToken makes a token that releases the device of an isolation without
// the portal, for at most response.ReleaseLifetime; see package response.
func (s *Service) ReleaseToken(ctx context.Context, id string, lifetime time.Duration, comment, by, address string) (string, time.Time, error) {
	comment, err := checkComment(comment)
	if err != nil {
		return "", time.Time{}, err
	}
	if lifetime < time.Minute || lifetime > response.ReleaseLifetime {
		return "", time.Time{}, invalid("Hours", "a release token is good for up to %d hours", int(response.ReleaseLifetime.Hours()))
	}
	a, err := s.Get(ctx, id)
	if err != nil {
		return "", time.Time{}, err
	}
	if a.Type != response.Isolate {
		return "", time.Time{}, ErrNotIsolation
	}
	expires := s.now().UTC().Add(lifetime).Truncate(time.Second)
	seed, err := s.store.ActionSecret(ctx, id, Note{Time: s.now().UTC(), Actor: by, Address: address, Action: "action.release-token", Detail: fmt.Sprintf("good until %s: %s", expires.Format(time.RFC3339), comment)})
	if err != nil {
		return "", time.Time{}, err
	}
	if len(seed) != ed25519.SeedSize {
		return "", time.Time{}, errors.New("the key of the isolation is missing")
	}
	token, err := response.SignRelease(ed25519.NewKeyFromSeed(seed), a.DeviceID, a.ID, expires)
	return token, expires, err
}

func checkLive(p any) error {
	v, ok := p.(response.LiveParameters)
	if !ok {
		return invalid("Commands", "commands are wanted")
	}
	if err := response.CheckLive(v); err != nil {
		return invalid("Commands", "%v", err)
	}
	return nil
}
