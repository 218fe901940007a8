package control

import "net/http"

// Code says what kind of error an Error is.
type Code string

// The codes.
const (
	InvalidArgument  Code = "invalid_argument"  // the request is wrong; the same request will fail again
	NotFound         Code = "not_found"         // no such threat, scan, setting, ...
	PermissionDenied Code = "permission_denied" // the caller is neither root nor in the group
	Managed          Code = "managed"           // the setting is governed by the administrator's policy
	Conflict         Code = "conflict"          // not in this state, e.g. a scan is running already
	TooLarge         Code = "too_large"         // the request exceeds a bound
	Busy             Code = "busy"              // too many clients
	Unavailable      Code = "unavailable"       // the part that should answer does not run now
	Internal         Code = "internal"          // a fault of the agent or the host (disk full, ...)
)

// Status is the HTTP status of the code.
func (c Code) Status() int {
	switch c {
	case InvalidArgument:
		return http.StatusBadRequest
	case NotFound:
		return http.StatusNotFound
	case PermissionDenied, Managed:
		return http.StatusForbidden
	case Conflict:
		return http.StatusConflict
	case TooLarge:
		return http.StatusRequestEntityTooLarge
	case Busy:
		return http.StatusTooManyRequests
	case Unavailable:
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}

// Error is an error as the API answers it. Implementations of the daemon's
// services return one where they want a code other than Internal.
type Error struct {
	Code Code `json:"code"`
	// Message says what is wrong, naming the thing it concerns.
	Message string `json:"message"`
	// Hint says what to do; may be empty.
	Hint string `json:"hint,omitempty"`
}

// Error implements error.
func (e *Error) Error() string {
	if e.Hint != "" {
		return e.Message + " (" + e.Hint + ")"
	}
	return e.Message
}

// Is reports whether target is an *Error with the same code, so that
// errors.Is(err, &control.Error{Code: control.NotFound}) works.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Code == e.Code && t.Message == ""
}

// ErrorBody is the body of a failed request.
type ErrorBody struct {
	Error *Error `json:"error"`
}
