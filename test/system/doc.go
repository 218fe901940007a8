// Package system tests the whole product: the built programs, started as a
// user starts them, with a real portal, real kernel interfaces and real files.
// The tests have the build tag "system" and run last in `make test`, because
// they want the host for themselves:
//
//	make build && go test -tags system ./test/system/...
//
// Each test starts a portal and an agent of its own below a temporary folder.
// The agent watches one tmpfs, mounted for the test, and nothing else of the
// host. Every process has a deadman: whatever happens to the test, nothing that
// answers permission requests outlives it.
package system
