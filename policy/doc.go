// Package policy is the managed configuration: every key with its type, values
// and default (Keys), reading a profile and saying what is wrong with it
// (Parse), which of several sources wins (Resolve), and what follows from it
// (Effective, ExclusionSet).
//
// The keys are those of the reference product, so that an existing profile
// works unchanged; what its documents contradict each other about is decided in
// docs/preferences.md. A profile is a JSON object:
//
//	{"antivirusEngine": {"enforcementLevel": "real_time"}, "cloudService": {...}}
//
// A key is named by its path, "antivirusEngine.enforcementLevel". Whatever is
// wrong in a profile, the rest of it applies.
//
// The package imports nothing else of the project.
package policy
