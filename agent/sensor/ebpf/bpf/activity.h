/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What processes do to files, sockets, each other and the kernel, from the end
 * of their system calls: then the kernel has decided, descriptors can be
 * followed to the files that were really meant, and user memory that the call
 * read is present. One program looks up the number of the call in a table
 * that the loader fills, so every other call costs that look-up only. Names
 * that were removed exist only in user memory; a thread that changes them in
 * time deceives this, as it does every sensor that reads system calls.
 * Included by sensor.bpf.c. */

#define USER_STRING 4096
#define DATA_MAX (PATHS_MAX + ARGS_MAX)
#define COMPAT_BASE 1024 /* numbers of 32-bit calls follow those of 64-bit ones */
#define OPS_MAX 2048

#define S_IFMT 0170000
#define S_IFSOCK 0140000
#define S_IFREG 0100000
#define S_IFBLK 0060000
#define S_IFCHR 0020000
#define O_TRUNC 01000
#define FMODE_WRITE 2
#define FMODE_CREATED 0x100000
#define PROT_WRITE 2
#define PROT_EXEC 4
#define MAP_SHARED 1
#define MAP_ANONYMOUS 0x20
#define AT_FDCWD -100
#define AT_REMOVEDIR 0x200
#define PROC_SUPER_MAGIC 0x9fa0
#define PIDFS_MAGIC 0x50494446
#define TS_COMPAT 2
#define IPPROTO_UDP 17
#define SEC_NS 1000000000ULL

/* The operations: what the table of system calls holds. Decoded by
 * ../activity.go, which fills the table. */
enum op {
	OP_NONE, OP_OPEN, OP_WRITE, OP_WRITE_FD2, OP_MMAP, OP_UNLINK, OP_UNLINKAT, OP_RENAME, OP_RENAMEAT,
	OP_LINK, OP_LINKAT, OP_SYMLINK, OP_SYMLINKAT, OP_MKNOD, OP_MKNODAT, OP_CHMOD, OP_FCHMOD, OP_FCHMODAT,
	OP_CHOWN, OP_FCHOWN, OP_FCHOWNAT, OP_SETXATTR, OP_FSETXATTR, OP_CONNECT, OP_SENDTO, OP_SENDMSG, OP_BIND,
	OP_SOCKET, OP_PTRACE, OP_VM_READ, OP_VM_WRITE, OP_PIDFD_GETFD, OP_MEMFD, OP_MOUNT, OP_UMOUNT,
	OP_MOVE_MOUNT, OP_SETUID, OP_CAPSET, OP_UNSHARE, OP_SETNS, OP_PRCTL, OP_BPF, OP_INIT_MODULE,
	OP_FINIT_MODULE, OP_DELETE_MODULE, OP_CLONE, OP_SENDMMSG, OP_MODULE_NAME,
	/* What an open or a write turned out to be. */
	OP_CREATED = 64, OP_MODIFIED, OP_DEVICE, OP_PROC_MEM, OP_IMAGE,
};

struct act {
	u32 kind;
	u32 flags;
	u64 time;
	u64 start;
	u32 pid, op;
	s64 ret;
	u64 arg[3];
	u64 ino, size;
	u32 dev, rdev, mode, pid_ns;
	u16 path_len, a_len, b_len, adir_len, bdir_len, pad;
	u32 tid;
	char comm[16];
	u32 uid, euid, gid, target; /* target: pid in the initial namespace, of a pidfd */
	u64 cap_eff, cap_prm;
	u64 spare[4];
};

struct seen_key { u64 a, b; u32 id, tag; };
struct bucket { u64 window; u32 n, pad; };
struct opened { u64 ino; u32 dev, pad; };

struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, OPS_MAX); __type(key, u32); __type(value, u32); } ops SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY); __uint(max_entries, 1); __type(key, u32); __type(value, struct scratch); } desks SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY); __uint(max_entries, K_MAX); __type(key, u32); __type(value, u64); } skipped SEC(".maps");
/* Files open for writing that were not written to yet, by struct file. */
struct { __uint(type, BPF_MAP_TYPE_LRU_HASH); __uint(max_entries, 16384); __type(key, u64); __type(value, struct opened); } unwritten SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_LRU_HASH); __uint(max_entries, 32768); __type(key, struct seen_key); __type(value, u64); } seen SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_LRU_HASH); __uint(max_entries, 8192); __type(key, u32); __type(value, struct bucket); } buckets SEC(".maps");

/* Set by the loader. self_tgid's own files are left out: writing down an event
 * would make the next one. */
const volatile u32 self_tgid = 0;
const volatile u32 file_rate = 500; /* file events per process and second */

/* repeated says that the same was reported within ttl ns. */
static __noinline int seen_before(u32 kind, struct seen_key *k, u64 ttl)
{
	u64 now = bpf_ktime_get_ns(), *last;
	struct seen_key key;
	if (!k)
		return 0;
	key = *k;
	last = bpf_map_lookup_elem(&seen, &key);
	if (last && now - *last < ttl) {
		count(&skipped, kind);
		return 1;
	}
	bpf_map_update_elem(&seen, &key, &now, BPF_ANY);
	return 0;
}

static __always_inline int repeated(u32 kind, u32 tag, u32 id, u64 a, u64 b, u64 ttl)
{
	struct seen_key k = { .a = a, .b = b, .id = id, .tag = tag };
	return seen_before(kind, &k, ttl);
}

/* too_many bounds the file events of one process. */
static __noinline int too_many(u32 tgid)
{
	struct bucket fresh = {}, *b = bpf_map_lookup_elem(&buckets, &tgid);
	u64 window = bpf_ktime_get_ns() / SEC_NS;
	if (!b) {
		fresh.window = window;
		fresh.n = 1;
		bpf_map_update_elem(&buckets, &tgid, &fresh, BPF_ANY);
		return 0;
	}
	if (b->window != window) {
		b->window = window;
		b->n = 0;
	}
	if (b->n++ < file_rate)
		return 0;
	count(&skipped, K_FILE);
	return 1;
}

static __always_inline struct file *file_of(long fd)
{
	struct task_struct *t = (void *)bpf_get_current_task();
	struct fdtable *fdt;
	struct file **table, *f = NULL;
	if (fd < 0)
		return NULL;
	fdt = BPF_CORE_READ(t, files, fdt);
	/* The call succeeded: fd is a descriptor, unless another thread closed it; then
	 * this reads some other pointer, or none. */
	table = BPF_CORE_READ(fdt, fd);
	bpf_probe_read_kernel(&f, sizeof(f), &table[fd]);
	return f;
}

_Static_assert(sizeof(struct act) == sizeof(struct record), "both are the head of struct scratch");

/* begin fills in who does it. */
static __noinline struct scratch *begin(u32 kind, u32 op, s64 ret)
{
	u32 zero = 0;
	struct scratch *s = bpf_map_lookup_elem(&desks, &zero);
	struct task_struct *t = (void *)bpf_get_current_task();
	const struct cred *cred;
	struct act *a;
	u64 id = bpf_get_current_pid_tgid();
	if (!s)
		return NULL;
	a = (void *)s;
	__builtin_memset(a, 0, sizeof(*a));
	a->kind = kind;
	a->op = op;
	a->ret = ret;
	a->time = bpf_ktime_get_ns();
	a->start = start_of(BPF_CORE_READ(t, group_leader));
	a->pid = id >> 32;
	a->tid = id;
	a->pid_ns = BPF_CORE_READ(t, nsproxy, pid_ns_for_children, ns.inum);
	cred = BPF_CORE_READ(t, cred);
	a->uid = BPF_CORE_READ(cred, uid.val);
	a->euid = BPF_CORE_READ(cred, euid.val);
	a->gid = BPF_CORE_READ(cred, gid.val);
	bpf_get_current_comm(&a->comm, sizeof(a->comm));
	s->off = 0;
	return s;
}

static __noinline int finish(void *ctx, struct scratch *s)
{
	u64 len;
	if (!s)
		return 0;
	len = sizeof(struct act) + s->off;
	if (len > sizeof(struct scratch) - 64)
		return 0;
	emit(ctx, ((struct act *)s)->kind, s, len);
	return 0;
}

/* about notes the file's inode and path. */
static __noinline int about(struct scratch *s, struct file *f)
{
	struct act *a = (void *)s;
	struct inode *inode;
	u32 off;
	if (!s)
		return 0;
	inode = BPF_CORE_READ(f, f_inode);
	a->ino = BPF_CORE_READ(inode, i_ino);
	a->size = BPF_CORE_READ(inode, i_size);
	a->dev = BPF_CORE_READ(inode, i_sb, s_dev);
	a->rdev = BPF_CORE_READ(inode, i_rdev);
	a->mode = BPF_CORE_READ(inode, i_mode);
	if (BPF_CORE_READ(inode, i_nlink) == 0)
		a->flags |= F_UNLINKED;
	off = s->off;
	walk(s, BPF_CORE_READ(f, f_path.dentry), BPF_CORE_READ(f, f_path.mnt));
	a->path_len = s->off - off;
	return 0;
}

/* user_string appends a string of user memory and returns its length. */
static __noinline u32 user_string(struct scratch *s, u64 ptr)
{
	volatile u32 *end;
	u32 off;
	long n;
	if (!s || !ptr)
		return 0;
	end = &s->off;
	off = *end;
	if (off > DATA_MAX - USER_STRING)
		return 0;
	n = bpf_probe_read_user_str(&s->data[off], USER_STRING, (void *)ptr);
	if (n <= 0)
		return 0;
	*end = off + n;
	return n;
}

/* named notes a path of user memory, and for a relative one the folder. */
static __noinline u32 folder(struct scratch *s, s32 dfd, u64 ptr)
{
	struct task_struct *t = (void *)bpf_get_current_task();
	u32 off;
	u8 first = 0;
	if (!s)
		return 0;
	bpf_probe_read_user(&first, 1, (void *)ptr);
	if (first == '/')
		return 0;
	off = s->off;
	if (dfd == AT_FDCWD) {
		struct fs_struct *fs = BPF_CORE_READ(t, fs);
		walk(s, BPF_CORE_READ(fs, pwd.dentry), BPF_CORE_READ(fs, pwd.mnt));
	} else {
		struct file *f = file_of(dfd);
		if (f)
			walk(s, BPF_CORE_READ(f, f_path.dentry), BPF_CORE_READ(f, f_path.mnt));
	}
	return s->off - off;
}

/* pseudo reports file systems whose files are the kernel's own interfaces. */
static __always_inline int pseudo(u64 magic)
{
	switch (magic) {
	case PROC_SUPER_MAGIC: case 0x62656572: /* sysfs */ case 0x1cd1: /* devpts */
	case 0x74726163: /* tracefs */ case 0x64626720: /* debugfs */ case 0x27e0eb: /* cgroup */
	case 0x63677270: /* cgroup2 */ case 0xcafe4a11: /* bpf */ case 0x50495045: /* pipefs */
	case 0x534f434b: /* sockfs */ case 0x09041934: /* anonymous inodes */ case 0x73636673: /* securityfs */
	case 0x6e736673: /* nsfs */ case PIDFS_MAGIC: case 0xf97cff8c: /* selinuxfs */
		return 1;
	}
	return 0;
}

static __always_inline int file_event(void *ctx, u32 op, struct file *f, u64 arg)
{
	u32 tgid = bpf_get_current_pid_tgid() >> 32;
	struct scratch *s;
	if (tgid == self_tgid || too_many(tgid))
		return 0;
	s = begin(K_FILE, op, 0);
	if (!s)
		return 0;
	((struct act *)s)->arg[0] = arg;
	about(s, f);
	return finish(ctx, s);
}

static __noinline int on_open(void *ctx, s64 fd)
{
	struct file *f = file_of(fd);
	struct inode *inode;
	struct opened o = {};
	struct scratch *s;
	struct super_block *sb;
	u32 fmode, mode, tgid = bpf_get_current_pid_tgid() >> 32;
	u64 key = (u64)f, magic;
	if (!f)
		return 0;
	fmode = BPF_CORE_READ(f, f_mode);
	inode = BPF_CORE_READ(f, f_inode);
	mode = BPF_CORE_READ(inode, i_mode) & S_IFMT;
	sb = BPF_CORE_READ(inode, i_sb);
	if (mode == S_IFREG) {
		magic = BPF_CORE_READ(sb, s_magic);
		if (magic == PROC_SUPER_MAGIC) {
			const unsigned char *name = BPF_CORE_READ(f, f_path.dentry, d_name.name);
			u32 mem = 0;
			bpf_probe_read_kernel(&mem, 4, name);
			if (mem != 0x006d656d) /* "mem" */
				return 0;
			s = begin(K_ACCESS, OP_PROC_MEM, fd);
			if (!s)
				return 0;
			((struct act *)s)->arg[0] = fmode & FMODE_WRITE;
			about(s, f);
			return finish(ctx, s);
		}
		if (!(fmode & (FMODE_WRITE | FMODE_CREATED)) || pseudo(magic))
			return 0;
		if (fmode & FMODE_CREATED)
			return file_event(ctx, OP_CREATED, f, 0);
		o.ino = BPF_CORE_READ(inode, i_ino);
		o.dev = BPF_CORE_READ(sb, s_dev);
		if (BPF_CORE_READ(f, f_flags) & O_TRUNC) {
			if (repeated(K_FILE, OP_MODIFIED, tgid, o.ino, o.dev, 5 * SEC_NS))
				return 0;
			return file_event(ctx, OP_MODIFIED, f, 0);
		}
		bpf_map_update_elem(&unwritten, &key, &o, BPF_ANY);
		return 0;
	}
	if (mode == S_IFBLK || mode == S_IFCHR) {
		u32 rdev = BPF_CORE_READ(inode, i_rdev);
		/* Of character devices the memory and the I/O ports: 1:1, 1:2, 1:4. */
		if (mode == S_IFCHR && rdev != ((1 << 20) | 1) && rdev != ((1 << 20) | 2) && rdev != ((1 << 20) | 4))
			return 0;
		if (repeated(K_DEVICE, OP_DEVICE, tgid, rdev, fmode & 3, 60 * SEC_NS))
			return 0;
		s = begin(K_DEVICE, OP_DEVICE, fd);
		if (!s)
			return 0;
		((struct act *)s)->arg[0] = fmode & 3;
		about(s, f);
		return finish(ctx, s);
	}
	return 0;
}

/* on_write reports the first change through a file since it was opened. */
static __noinline int on_write(void *ctx, s64 fd)
{
	struct file *f = file_of(fd);
	u64 key = (u64)f;
	u32 tgid = bpf_get_current_pid_tgid() >> 32;
	struct opened *o, was;
	struct inode *inode;
	if (!f)
		return 0;
	o = bpf_map_lookup_elem(&unwritten, &key);
	if (!o)
		return 0;
	was = *o;
	bpf_map_delete_elem(&unwritten, &key);
	inode = BPF_CORE_READ(f, f_inode);
	/* The memory of a closed file may be another's by now. */
	if (BPF_CORE_READ(inode, i_ino) != was.ino || BPF_CORE_READ(inode, i_sb, s_dev) != was.dev)
		return 0;
	if (repeated(K_FILE, OP_MODIFIED, tgid, was.ino, was.dev, 5 * SEC_NS))
		return 0;
	return file_event(ctx, OP_MODIFIED, f, 0);
}

static __noinline int on_mmap(void *ctx, u64 prot, u64 flags, s64 fd)
{
	struct task_struct *t = (void *)bpf_get_current_task();
	struct file *f;
	struct inode *inode, *exe;
	struct scratch *s;
	u64 ino;
	if (flags & MAP_ANONYMOUS)
		return 0;
	if ((prot & PROT_WRITE) && (flags & MAP_SHARED))
		on_write(ctx, fd);
	if (!(prot & PROT_EXEC))
		return 0;
	f = file_of(fd);
	if (!f)
		return 0;
	inode = BPF_CORE_READ(f, f_inode);
	if ((BPF_CORE_READ(inode, i_mode) & S_IFMT) != S_IFREG)
		return 0;
	exe = BPF_CORE_READ(t, mm, exe_file, f_inode);
	ino = BPF_CORE_READ(inode, i_ino);
	/* Once for each program, user and file. */
	if (repeated(K_IMAGE, bpf_get_current_uid_gid(), BPF_CORE_READ(inode, i_sb, s_dev), ino,
		     BPF_CORE_READ(exe, i_ino) ^ (BPF_CORE_READ(inode, i_size) << 32), 600 * SEC_NS))
		return 0;
	s = begin(K_IMAGE, OP_IMAGE, 0);
	if (!s)
		return 0;
	about(s, f);
	return finish(ctx, s);
}

#define KIND(kind, op) ((kind) << 16 | (op))

/* on_path reports a call with one path in user memory. */
static __noinline int on_path(void *ctx, u32 what, s32 dfd, u64 ptr, u64 arg)
{
	struct scratch *s;
	struct act *a;
	u32 tgid = bpf_get_current_pid_tgid() >> 32;
	if (what >> 16 == K_FILE && (tgid == self_tgid || too_many(tgid)))
		return 0;
	s = begin(what >> 16, what & 0xffff, 0);
	if (!s)
		return 0;
	a = (void *)s;
	a->arg[0] = arg;
	a->a_len = user_string(s, ptr);
	a->adir_len = folder(s, dfd, ptr);
	return finish(ctx, s);
}

/* on_paths reports a call with two; dfds holds the descriptors of their folders. */
static __noinline int on_paths(void *ctx, u32 what, u64 dfds, u64 ptr, u64 ptr2)
{
	struct scratch *s;
	struct act *a;
	u32 tgid = bpf_get_current_pid_tgid() >> 32;
	if (what >> 16 == K_FILE && (tgid == self_tgid || too_many(tgid)))
		return 0;
	s = begin(what >> 16, what & 0xffff, 0);
	if (!s)
		return 0;
	a = (void *)s;
	a->a_len = user_string(s, ptr);
	a->b_len = user_string(s, ptr2);
	a->adir_len = folder(s, dfds >> 32, ptr);
	a->bdir_len = folder(s, dfds, ptr2);
	return finish(ctx, s);
}
#define DFDS(a, b) ((u64)(u32)(a) << 32 | (u32)(b))
#define HERE ((u32)AT_FDCWD)
