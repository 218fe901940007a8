package onaccess

// What TestFilesystems -update writes around its table.

const docHead = `# File systems under real-time protection

This table is made by a test, on the kernel that runs it:
` + "`go test ./agent/onaccess -run TestFilesystems -update`" + ` (root).

| Type | Bad file: open refused | Bad file: execution refused | Clean file scanned once | Kernel ignore mark | Write noticed | Write through a mapping noticed |
|---|---|---|---|---|---|---|
`

const docTail = `
Also watched, but not tried by this test: ecryptfs, erofs, exfat, f2fs, fuse, fuseblk, iso9660, jfs, nfs, nfs4, ntfs3,
reiserfs, udf, vfat.

## How the types differ

| Class | Types | Verdict cache | Kernel ignore marks |
|---|---|---|---|
| disk | btrfs, ext2-4, f2fs, jfs, reiserfs, xfs, udf, iso9660, squashfs, erofs, ntfs3 | yes | yes |
| disk with coarse times | vfat, exfat | for files that did not change for 2.5 s before their scan | yes |
| memory | tmpfs, ramfs | yes; each use looks for writers, because stores through a mapping change no time stamp | yes |
| stacked | overlay, ecryptfs | yes | no: the content can change below |
| remote | fuse, fuseblk, nfs, nfs4, cifs, smb | no: the server decides what a file contains | no |

- **Left out unless policy says otherwise** (` + "`unmonitoredFilesystems`" + `): cifs, fuse, nfs, nfs4, smb.
- **Always left out**: FUSE mounts without ` + "`allow_other`" + ` (nobody but their owner may read them, and the
  kernel would refuse every access that it cannot show us), tmpfs mounted as a device folder, and the kernel's own
  file systems (proc, sysfs, devtmpfs, cgroup, ...).
- Remote file systems have a fanotify group of their own, so a dead server delays no access to a local file. When a
  server refuses us a file (NFS with ` + "`root_squash`" + `), the whole group is only observed from then on, and the log
  says so.
- With file-system marks (kernel 4.20) one mark covers bind mounts, btrfs subvolumes and other mount namespaces. Mounts
  that exist only in another namespace (containers) are found within a second. Older kernels get one mark per mount.
- memfds are on a mount inside the kernel that cannot be marked; their execution is seen by the sensors, not here.

## Ignore marks and mappings

A clean file gets an ignore mark that any write, truncation, hole, clone or other modification clears in the kernel. A
store through a shared writable mapping is no event at all, so a marked file that somebody changes only in that way is
noticed when he unmaps it. By default only files that nobody but root can open for writing are marked. Executions are
never ignored, and the kernel refuses to execute a file that has writers.
`
