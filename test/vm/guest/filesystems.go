package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Places of the matrix.
const (
	mountFolder = "/mnt"     // every type has its mount point here
	imageFolder = "/srv/fs"  // disks in files, lower layers
	hidden      = "/srv/out" // excluded: what servers serve, so that only the client's side is tried
)

// filesystem is a type that is tried.
type filesystem struct {
	// name is the type as the mount table has it.
	name string
	// prepare makes it, once; source has the files for types that are made with
	// their content.
	prepare func(g *guest, f *filesystem, source string) error
	// mount mounts it.
	mount func(g *guest, f *filesystem) error
	// readOnly: made with its content, cannot be written.
	readOnly bool
	// stays: the content is gone with the mount, so it stays mounted.
	stays bool
	// remote: nothing is kept about its files, by design.
	remote bool
	// stacked: its files have no ignore marks, by design.
	stacked bool
}

func (f *filesystem) point() string            { return filepath.Join(mountFolder, f.name) }
func (f *filesystem) path(name string) string  { return filepath.Join(f.point(), name) }
func (f *filesystem) image() string            { return filepath.Join(imageFolder, f.name) }
func (f *filesystem) layer(name string) string { return filepath.Join(imageFolder, f.name+"."+name) }

// disk is a type on a disk; image/build has made it, empty.
func disk(name string) *filesystem {
	return &filesystem{name: name, prepare: nothing, mount: mountLoop}
}

func nothing(*guest, *filesystem, string) error { return nil }

// packed is a read-only type that a program makes of a folder.
func packed(name string, command func(source, image string) []string) *filesystem {
	return &filesystem{
		name: name, readOnly: true,
		prepare: func(g *guest, f *filesystem, source string) error {
			c := command(source, f.image())
			return g.must(c[0], c[1:]...)
		},
		mount: mountLoop,
	}
}

func mountLoop(_ *guest, f *filesystem) error { return mountImage(f) }

// mount is mount(2): the program of that name takes an emulated processor longer
// than everything else that is done with a file system.
func mount(f *filesystem, options string) error {
	if err := unix.Mount("none", f.point(), f.name, 0, options); err != nil {
		return fmt.Errorf("mount %s: %w", f.point(), err)
	}
	return nil
}

// memory is a type without a disk.
func memory(name string) *filesystem {
	return &filesystem{
		name: name, stays: true,
		prepare: nothing,
		mount: func(_ *guest, f *filesystem) error {
			return mount(f, "")
		},
	}
}

// served is a type whose files come from a folder below hidden.
func served(name string, start func(g *guest, f *filesystem) error, mount func(g *guest, f *filesystem) error) *filesystem {
	return &filesystem{
		name: name, remote: true,
		prepare: func(g *guest, f *filesystem, source string) error {
			if err := os.MkdirAll(f.served(), 0o755); err != nil {
				return err
			}
			return errors.Join(copyFiles(source, f.served()), start(g, f))
		},
		mount: mount,
	}
}

func (f *filesystem) served() string { return filepath.Join(hidden, f.name) }

// matrix lists the types.
func matrix() []*filesystem {
	ntfs := disk("fuseblk")
	ntfs.remote = true
	ntfs.mount = func(g *guest, f *filesystem) error {
		return g.must("mount", "-t", "ntfs-3g", "-o", "loop", f.image(), f.point())
	}
	return []*filesystem{
		disk("btrfs"),
		{name: "ecryptfs", stacked: true, prepare: makeEcryptfs, mount: mountEcryptfs},
		packed("erofs", func(source, image string) []string { return []string{"mkfs.erofs", image, source} }),
		disk("exfat"),
		disk("ext2"), disk("ext3"), disk("ext4"),
		disk("f2fs"),
		served("fuse", func(*guest, *filesystem) error { return nil }, mountFuse),
		ntfs,
		packed("iso9660", func(source, image string) []string {
			return []string{"genisoimage", "-quiet", "-R", "-o", image, source}
		}),
		disk("jfs"),
		served("nfs", exportNFS, func(g *guest, f *filesystem) error {
			return g.must("mount", "-t", "nfs", "-o", "vers=3,nolock,soft", "127.0.0.1:"+f.served(), f.point())
		}),
		served("nfs4", exportNFS, func(g *guest, f *filesystem) error {
			return g.must("mount", "-t", "nfs4", "-o", "soft", "127.0.0.1:"+f.served(), f.point())
		}),
		{name: "overlay", stacked: true, prepare: makeOverlay, mount: mountOverlay},
		memory("ramfs"),
		disk("reiserfs"),
		packed("squashfs", func(source, image string) []string {
			return []string{"mksquashfs", source, image, "-quiet", "-no-progress"}
		}),
		memory("tmpfs"),
		disk("udf"),
		disk("vfat"),
		disk("xfs"),
	}
}

func makeEcryptfs(_ *guest, f *filesystem, _ string) error {
	return os.MkdirAll(f.layer("lower"), 0o700)
}

func mountEcryptfs(g *guest, f *filesystem) error {
	return g.must("mount", "-t", "ecryptfs", "-o",
		"key=passphrase:passphrase_passwd=matrix,ecryptfs_cipher=aes,ecryptfs_key_bytes=16,"+
			"ecryptfs_passthrough=n,ecryptfs_enable_filename_crypto=n,no_sig_cache", f.layer("lower"), f.point())
}

// makeOverlay has the files in the lower layer, except those that the test moves
// or writes to.
func makeOverlay(_ *guest, f *filesystem, source string) error {
	for _, layer := range []string{"lower", "upper", "work"} {
		if err := os.MkdirAll(f.layer(layer), 0o755); err != nil {
			return err
		}
	}
	for _, name := range []string{fileEvil, fileProgram, fileClean, fileScript} {
		if err := copyFile(filepath.Join(source, name), filepath.Join(f.layer("lower"), name)); err != nil {
			return err
		}
	}
	return nil
}

func mountOverlay(_ *guest, f *filesystem) error {
	return mount(f, "lowerdir="+f.layer("lower")+",upperdir="+f.layer("upper")+",workdir="+f.layer("work"))
}

// startNFS starts the server: what nfs-server.service and the services that it
// wants do, without those that nobody needs here (status monitor, id mapping).
func (g *guest) startNFS() error {
	for _, c := range [][]string{
		{"modprobe", "nfsd"},
		{"mount", "-t", "nfsd", "nfsd", "/proc/fs/nfsd"},
		// For so long after its start nobody may open files by version 4; 10 is
		// the least.
		{"sh", "-c", "echo 10 >/proc/fs/nfsd/nfsv4gracetime; echo 10 >/proc/fs/nfsd/nfsv4leasetime"},
		{"rpcbind"},
		{"rpc.mountd"},
		{"rpc.nfsd", "2"},
	} {
		if err := g.must(c[0], c[1:]...); err != nil {
			return fmt.Errorf("NFS server: %w", err)
		}
	}
	return nil
}

func exportNFS(g *guest, f *filesystem) error {
	return g.must("exportfs", "-o", "rw,no_root_squash,no_subtree_check,insecure", "127.0.0.1:"+f.served()) //nolint:misspell // the name of the program
}

// mountFuse starts a server of ours as a process of its own.
func mountFuse(g *guest, f *filesystem) error {
	server := exec.CommandContext(g.ctx, "/proc/self/exe", "fuse", f.served(), f.point())
	server.Stdout, server.Stderr = os.Stdout, os.Stderr
	if err := server.Start(); err != nil {
		return err
	}
	go func() { _ = server.Wait() }()
	return until("the FUSE server has mounted", func() error {
		m, err := mountOf(f.point())
		if err == nil && m.point != f.point() {
			err = errors.New("not mounted")
		}
		return err
	})
}

// unmount may have to wait for scans that still have files open.
func unmount(point string) error {
	return until("unmounted "+point, func() error { return unix.Unmount(point, 0) })
}

// copyFile copies a file with its mode.
func copyFile(from, to string) error {
	info, err := os.Stat(from)
	if err != nil {
		return err
	}
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if err := os.WriteFile(to, b, info.Mode().Perm()); err != nil {
		return err
	}
	// Past the umask. Types without modes may refuse.
	if err := os.Chmod(to, info.Mode().Perm()); err != nil && !errors.Is(err, os.ErrPermission) {
		return err
	}
	return nil
}

// copyFiles copies a folder of files; what is there already stays.
func copyFiles(from, to string) error {
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, e := range entries {
		target := filepath.Join(to, e.Name())
		if _, err := os.Stat(target); err == nil {
			continue
		}
		if err := copyFile(filepath.Join(from, e.Name()), target); err != nil {
			return fmt.Errorf("copy %s: %w", e.Name(), err)
		}
	}
	return nil
}

// kernelHas reports whether the kernel has a type, built in or as a module.
func (g *guest) kernelHas(name string) (bool, error) {
	module := map[string]string{"nfs4": "nfsv4", "nfs": "nfsv3", "fuseblk": "fuse"}[name]
	if module == "" {
		module = name
	}
	for _, load := range []bool{false, true} {
		if load {
			_, _ = g.command("modprobe", module) // a failure shows in the list
		}
		b, err := os.ReadFile("/proc/filesystems")
		if err != nil {
			return false, err
		}
		for line := range strings.Lines(string(b)) {
			if f := strings.Fields(line); len(f) > 0 && f[len(f)-1] == name {
				return true, nil
			}
		}
	}
	return false, nil
}
