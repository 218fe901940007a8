// Package fleetsim simulates a fleet: many agents in one process that enroll at
// a portal, keep their command streams open, check in and deliver events, over
// the real protocol and with the agent's own uplink (package agent/uplink), so
// that back-off, certificates and repetition are those of real hosts. What they
// deliver is made from templates of what servers do; see workload.go.
//
// It is for sizing a portal and for trying it with more devices than one has.
// Do not point it at a portal with real devices: the simulated ones cannot be
// told apart except by their tag, "simulated".
package fleetsim
