// Package install tries what an administrator does to get the product onto a
// host and off again, by every package manager and configuration management
// tool that Debian has: with the real programs, against repositories that a
// real portal serves over HTTPS. The hosts are copies of this machine that
// exist in a mount namespace only (package manager's changes go to a tmpfs);
// reboots and systemd are the business of test/vm.
//
// It is behind the build tag install; make test-install runs it.
package install
