package enroll

import (
	"context"
	"errors"
	"time"

	agentv1 "github.com/bulwarkhq/bulwark/api/agent/v1"
)

// ErrNotFound is returned (wrapped or not) by a Store for an id, hash or serial
// that it does not hold.
var ErrNotFound = errors.New("not found")

// ErrExists is returned by a Store when something with the same id is there
// already.
var ErrExists = errors.New("exists already")

// Token is an enrollment token as the portal keeps it. The secret itself is
// shown once, in the onboarding package, and is not stored.
type Token struct {
	// ID is 16 hex digits, random; it names the token to people.
	ID string
	// Name is what the administrator called it; may be empty.
	Name string
	// Hash is the SHA-256 of the secret. The secret has 256 random bits, so a
	// slow hash would add nothing.
	Hash [32]byte
	// CreatedBy is the account that made it.
	CreatedBy string
	Created   time.Time
	Expires   time.Time
	// Revoked is when it was revoked; zero when it was not.
	Revoked time.Time
	// MaxUses limits how many enrollments it allows; 0 is unlimited.
	MaxUses int64
	// Uses counts the enrollments that were made with it.
	Uses int64
	// Tags are put on every device that enrolls with it.
	Tags []Tag
}

// Tag is a device tag.
type Tag struct{ Key, Value string }

// Device is one enrolled device.
type Device struct {
	// ID is 40 hex digits, chosen by the portal at the first enrollment.
	ID string
	// HardwareID is DeviceInfo.hardware_id of the latest enrollment. Several
	// devices may have the same one: a host that was installed anew, or hosts
	// whose firmware and machine-id were cloned.
	HardwareID string
	// MachineGUID is DeviceInfo.machine_guid of the latest enrollment.
	MachineGUID string
	// ReplacesID is the id of an earlier device that this one is a clone or a
	// new installation of, as far as can be told; empty otherwise. It is for
	// people: nothing is merged because of it.
	ReplacesID string
	// TokenID is the token that it enrolled with.
	TokenID string
	// Enrolled is the time of the first enrollment under this id.
	Enrolled time.Time
	// Revoked is when the device was offboarded or refused by an administrator;
	// zero for one in good standing.
	Revoked time.Time
	// Info is the inventory at the latest enrollment (CheckIn brings newer).
	Info *agentv1.DeviceInfo
}

// Certificate is one client certificate that the portal issued.
type Certificate struct {
	// Serial is the serial number in lower-case hex without leading zeros.
	Serial    string
	DeviceID  string
	NotBefore time.Time
	NotAfter  time.Time
	// Revoked is when it was revoked; zero when it was not.
	Revoked time.Time
}

// Enrollment is what one successful Enroll call changes; a Store applies all of
// it or nothing.
type Enrollment struct {
	// Device is the device after the call. When a device with its ID is there,
	// HardwareID, MachineGUID, Info and TokenID (when not empty) replace those
	// that are stored; Enrolled, ReplacesID and Revoked of the stored device
	// stay. Otherwise the device is created as given.
	Device Device
	// Certificate is the new certificate of the device.
	Certificate Certificate
	// TokenID is the token whose use is to be counted; empty for a renewal over
	// an authenticated channel, which uses none.
	TokenID string
}

// Store keeps enrollment tokens, devices and their certificates.
//
// Contract. All methods MUST be safe for concurrent use, MUST honour ctx, and
// MUST have made their change durable when they return nil. Times MUST keep at
// least millisecond precision and MUST come back in UTC; a zero time MUST come
// back zero. A Store MAY be shared by several portals. Run the suite in
// portal/enroll/enrolltest against every implementation.
type Store interface {
	// CreateToken adds a token. It MUST fail with ErrExists when the ID or the
	// Hash is taken.
	CreateToken(ctx context.Context, t Token) error
	// TokenByHash returns the token with this hash, also when it is expired,
	// revoked or used up (the caller says which to the agent), or ErrNotFound.
	TokenByHash(ctx context.Context, hash [32]byte) (Token, error)
	// Tokens lists all tokens, newest first.
	Tokens(ctx context.Context) ([]Token, error)
	// RevokeToken marks a token as revoked at the time given. It MUST keep the
	// first time when it is revoked already. ErrNotFound for an unknown id.
	RevokeToken(ctx context.Context, id string, at time.Time) error
	// DeleteExpiredTokens removes the tokens that expired before the time given
	// and says how many. Devices that used them MUST stay as they are.
	DeleteExpiredTokens(ctx context.Context, before time.Time) (int, error)

	// Enroll applies an Enrollment in one transaction. When TokenID is set it
	// MUST count one use of that token and MUST fail with ErrTokenUsedUp,
	// changing nothing, when MaxUses is reached (two devices that race for the
	// last use: one wins), and with ErrNotFound when the token is gone. It MUST
	// fail with ErrExists when the certificate's serial is there already.
	Enroll(ctx context.Context, e Enrollment) error
	// Device returns a device by id, or ErrNotFound.
	Device(ctx context.Context, id string) (Device, error)
	// DevicesByHardwareID returns the devices with this hardware id, the one
	// that enrolled last first; none is no error.
	DevicesByHardwareID(ctx context.Context, hardwareID string) ([]Device, error)
	// Certificate returns a certificate by serial with its device, or
	// ErrNotFound. It is asked for every connection's first request (results
	// are cached for some seconds by the caller), so it MUST be an indexed
	// look-up.
	Certificate(ctx context.Context, serial string) (Certificate, Device, error)
	// RevokeCertificate marks one certificate as revoked, RevokeDevice a device
	// and all its certificates. Both MUST keep an earlier time of revocation,
	// and MUST return ErrNotFound for what is unknown.
	RevokeCertificate(ctx context.Context, serial string, at time.Time) error
	RevokeDevice(ctx context.Context, id string, at time.Time) error
}

// ErrTokenUsedUp is returned by Store.Enroll when the token has no use left.
var ErrTokenUsedUp = errors.New("enrollment token is used up")
