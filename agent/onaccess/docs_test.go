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

## Exclusions in the kernel

- A mount in an excluded folder (no wildcards, no expiry) gets no mark: its accesses never leave the kernel. Where the
  same file system is also mounted elsewhere and has a file-system mark, the mount gets an ignore mark. Both end with
  the exclusion, at once.
- Other files that are excluded by path get an ignore mark when they are first opened, if only root can write them.
  A file that others can write could be filled in the excluded folder and then moved out of it, so those are asked
  about at every open.
- Exclusions of processes, with wildcards in the folder, or with an expiry are applied by the agent, not by the kernel.

## Kernels that are known to be bad

` + "`" + `content/kernels.json` + "`" + ` lists them with the reason and a reference. On one with the effect ` + "`" + `notify_only` + "`" + ` no access is
held: files are scanned after the fact, and health says so as an issue. An administrator can take the risk with
` + "`" + `features.blockOnKnownBadKernels` + "`" + `.

## Proof

The agent checks that by itself a minute after its start or a change of policy, and every six hours.
` + "`" + `bulwark coverage` + "`" + ` does it now: it writes a harmless probe on every writable mount of every mount namespace, opens it from another
process and says where that was refused and where not, with the reason. The result is part of health
(` + "`" + `coverage_protected_percent` + "`" + `).
`
