// Package fuseserver is a file system in user space that shows a folder at
// another place, for tests.
package fuseserver

import (
	"fmt"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// cached is how long the kernel may believe what the server said about names
// and attributes.
const cached = 100 * time.Millisecond

// Serve shows folder at point, for all users, until point is unmounted.
func Serve(folder, point string) error {
	root, err := fs.NewLoopbackRoot(folder)
	if err != nil {
		return fmt.Errorf("serve %s: %w", folder, err)
	}
	timeout := cached
	server, err := fs.Mount(point, root, &fs.Options{
		EntryTimeout: &timeout, AttrTimeout: &timeout,
		MountOptions: fuse.MountOptions{AllowOther: true, DirectMount: true, FsName: "loopback", Name: "test"},
	})
	if err != nil {
		return fmt.Errorf("mount %s: %w", point, err)
	}
	server.Wait()
	return nil
}
