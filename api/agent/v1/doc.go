// Package agentv1 is the protocol between agents and the portal, version 1;
// agent.proto is its specification and docs/protocol.md its description. The
// code is generated.
package agentv1

//go:generate sh ../../generate.sh
