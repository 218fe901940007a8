// Package enroll gives devices their identity: it keeps enrollment tokens,
// makes onboarding packages, answers the EnrollmentService of the agent
// protocol, and knows which client certificates are good. See
// docs/protocol.md.
package enroll
