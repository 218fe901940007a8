package control

import "context"

// Rules are the behaviour rules that the daemon has loaded.
type Rules struct {
	Rules []Rule `json:"rules"`
}

// Rule is one behaviour rule.
type Rule struct {
	ID         string   `json:"id"`
	Title      string   `json:"title"`
	Severity   string   `json:"severity"`
	Techniques []string `json:"techniques"`
	// Stream is the kind of events that the rule sees: a category of Sigma, or
	// "service:" and the name of a log; empty for correlations of other rules.
	Stream string `json:"stream"`
	File   string `json:"file"`
	// Builtin rules are part of the product.
	Builtin bool `json:"builtin"`
	// State is "active", "inactive" (Reason says why), "paused" (it took too much
	// time), or as the policy says "off" or "record_only" (no alerts).
	State  string `json:"state"`
	Reason string `json:"reason,omitempty"`
	// Evaluated counts the events that the rule was tried on after the common
	// search for its literals; Matched those that it found; Skipped those that
	// were left out while it was paused.
	Evaluated int64 `json:"evaluated"`
	Matched   int64 `json:"matched"`
	Skipped   int64 `json:"skipped"`
	// MeanNanoseconds is what one evaluation takes, measured at one of 64.
	MeanNanoseconds int64 `json:"mean_nanoseconds"`
}

// Rules asks for the behaviour rules.
func (c *Client) Rules(ctx context.Context) (Rules, error) {
	return call[Rules](ctx, c, "GET", "/v1/rules", nil)
}
