package control

import (
	"context"
	"time"
)

// Values of Isolation.Status.
const (
	NotIsolated     = "not_isolated"
	Isolated        = "isolated"
	IsolationFailed = "failed" // ordered, but the rules are not in place
)

// Isolation says whether the host is cut off the network.
type Isolation struct {
	Status string `json:"isolation_status"`
	// Order is the id of the portal's action.
	Order string    `json:"order,omitempty"`
	Since time.Time `json:"since,omitzero"`
	// Allowed are the addresses that stay reachable besides the portal, Portal the
	// latter's.
	Allowed []string `json:"allowed"`
	Portal  []string `json:"portal"`
	// Problem says why the rules are not in place.
	Problem string `json:"problem,omitempty"`
	// Restored counts how often somebody else had removed the rules.
	Restored int64 `json:"restored"`
}

// ReleaseToken is what the portal signed to release the host.
type ReleaseToken struct {
	Token string `json:"token"`
}

// Isolation asks whether the host is isolated.
func (c *Client) Isolation(ctx context.Context) (Isolation, error) {
	return call[Isolation](ctx, c, "GET", "/v1/isolation", nil)
}

// ReleaseIsolation ends the isolation with a token of the portal.
func (c *Client) ReleaseIsolation(ctx context.Context, t ReleaseToken) (Done, error) {
	return call[Done](ctx, c, "POST", "/v1/isolation/release", t)
}
