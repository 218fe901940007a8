// Package ingest is the portal's end of the agent protocol: it authenticates
// enrolled agents by their client certificates, decodes what they deliver
// within fixed limits, and hands it to a Sink. See docs/protocol.md.
package ingest
