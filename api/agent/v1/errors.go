package agentv1

import (
	"errors"
	"fmt"
	"time"

	"connectrpc.com/connect"
)

// Reasons of ErrorDetail.
const (
	ReasonTokenUnknown       = "token_unknown"
	ReasonTokenExpired       = "token_expired"
	ReasonTokenRevoked       = "token_revoked"
	ReasonTokenUsedUp        = "token_used_up"
	ReasonRateLimited        = "rate_limited"
	ReasonBadRequest         = "bad_request"
	ReasonNoCertificate      = "no_certificate"
	ReasonCertificateUnknown = "certificate_unknown"
	ReasonCertificateExpired = "certificate_expired"
	ReasonCertificateRevoked = "certificate_revoked"
	ReasonDeviceRevoked      = "device_revoked"
	ReasonReenroll           = "reenroll"
	ReasonBusy               = "busy"
	ReasonBatchUnreadable    = "batch_unreadable"
	ReasonBatchTooLarge      = "batch_too_large"
	ReasonInternal           = "internal"
)

// NewError returns an error with the reason attached. retryAfter is 0 when the
// agent is to decide itself.
func NewError(code connect.Code, reason string, retryAfter time.Duration, format string, args ...any) *connect.Error {
	e := connect.NewError(code, fmt.Errorf(format, args...))
	// A message of two scalar fields always has an encoding.
	if d, err := connect.NewErrorDetail(&ErrorDetail{Reason: reason, RetryAfterMs: retryAfter.Milliseconds()}); err == nil {
		e.AddDetail(d)
	}
	return e
}

// ReasonOf returns the reason and the advice when to come again of an error of
// the portal; the reason is empty when err carries none (it may come from
// something between agent and portal).
func ReasonOf(err error) (reason string, retryAfter time.Duration) {
	var e *connect.Error
	if !errors.As(err, &e) {
		return "", 0
	}
	for _, d := range e.Details() {
		v, err := d.Value()
		if err != nil {
			continue
		}
		if x, ok := v.(*ErrorDetail); ok {
			// The advice is bounded: a portal cannot silence an agent for days.
			return x.Reason, min(max(time.Duration(x.RetryAfterMs)*time.Millisecond, 0), time.Hour)
		}
	}
	return "", 0
}
