// Package vm tests the product in a virtual machine with a systemd and a kernel
// of its own (Debian 12's, 6.1): file systems that the kernel of the building
// machine need not have, the package under systemd, and the kernel interfaces
// of an older kernel. The tests have the build tag "vm":
//
//	make test-vm
//
// The machine is QEMU without hardware virtualisation (TCG), so it runs
// everywhere. Its disk is made by image/build with mmdebstrap once and kept in
// the user's cache folder; a second disk carries what is to be tested and the
// program guest, which systemd starts in the machine. A portal on this host serves
// the repository from which the machine installs the package, as docs/install says. It reports over a serial
// port (package report). Nothing the machine does survives it.
package vm
