// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* Process and network events from raw tracepoints. Nothing here changes what
 * the kernel does: the programs read and report. The layout of struct record
 * is decoded by ../record.go. */
#include "kernel.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define ARGS_MAX 16384
#define NAME_MAX_LEN 256
#define PATH_PARTS 48
#define PATH_BYTES 4096
#define PATHS_MAX 14336
#define CGROUP_PARTS 8
#define AF_INET 2
#define AF_INET6 10
#define IPPROTO_TCP 6
#define TCP_ESTABLISHED 1
#define TCP_SYN_SENT 2
#define TCP_SYN_RECV 3
#define TCP_CLOSE 7
#define TCP_LISTEN 10

enum kind {
	K_EXEC = 1, K_FORK, K_EXIT, K_CONN, K_FILE, K_IMAGE, K_NET, K_DNS, K_MODULE, K_BPF, K_ACCESS, K_TAMPER,
	K_MEMFD, K_DEVICE, K_MOUNT, K_PRIV, K_MAX
};
enum flag {
	F_ARGS_UNREADABLE = 1, /* the argument pages were not in memory */
	F_ARGS_CUT = 2,
	F_PATH_CUT = 4,
	F_UNLINKED = 8, /* the executable has no name any more */
	F_INTERPRETED = 16, /* the file given to exec names an interpreter */
};

/* All members naturally aligned: no padding, same layout on every machine. */
struct record {
	u32 kind;
	u32 flags;
	u64 time; /* CLOCK_MONOTONIC, ns */
	u64 start; /* of the process, CLOCK_BOOTTIME, ns */
	u64 parent_start;
	u32 pid, ppid, uid, gid, euid, loginuid, sessionid;
	u32 exit_code;
	u64 ino, size;
	u32 dev, mode;
	u32 mnt_ns, pid_ns;
	u32 args_total; /* bytes the process has, of which args_len follow */
	u32 args_len;
	u16 filename_len, exe_len, cwd_len, cgroup_len;
	char comm[16];
	char tty[16];
	u64 cap_eff, cap_prm;
	u32 net_ns, user_ns, uts_ns, ipc_ns, cgroup_ns;
	u32 session; /* pid of the session leader */
	u64 ctime; /* of the executable, ns; 0 where it is not known */
};

struct conn {
	u32 kind;
	u32 flags;
	u64 time;
	u64 start;
	u32 pid;
	u16 old_state, new_state;
	u16 family, protocol;
	u16 lport, rport; /* host byte order */
	u8 laddr[16];
	u8 raddr[16];
};

struct scratch {
	struct record r;
	u8 data[PATHS_MAX + ARGS_MAX];
	/* Where the walks stand. It lies in memory rather than in registers so that
	 * the verifier sees every turn of a loop alike and stays fast. */
	u64 dentry, mnt, root;
	u32 off, begin;
};

struct owner { u64 start; u32 pid; u32 pad; };
struct listener { u32 netns; u32 port; };

struct { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 1 << 22); } events SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY); __uint(max_entries, 1); __type(key, u32); __type(value, struct scratch); } scratches SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY); __uint(max_entries, K_MAX); __type(key, u32); __type(value, u64); } made SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY); __uint(max_entries, K_MAX); __type(key, u32); __type(value, u64); } lost SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_LRU_HASH); __uint(max_entries, 16384); __type(key, u64); __type(value, struct owner); } connecting SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_LRU_HASH); __uint(max_entries, 4096); __type(key, struct listener); __type(value, struct owner); } listeners SEC(".maps");

/* Set by the loader: 0 where the kernel has no ring buffer (before 5.8). The
 * verifier drops the branch that is not taken. */
const volatile u32 use_ring = 1;

static __always_inline void count(void *map, u32 kind)
{
	u64 *n = bpf_map_lookup_elem(map, &kind);
	if (n)
		__sync_fetch_and_add(n, 1);
}

#define WAKE_EVERY 10000000ULL /* ns */
u64 woken; /* when the reader was woken last, CLOCK_MONOTONIC, ns */

/* The flag for a record in the ring: whether it wakes the reader. Waking it for
 * each record costs more than all the rest, so the first does and what comes
 * soon after it waits for the reader's next look. Forks and ends always wait,
 * unless they fill the ring. The kernel's own way, to wake a reader that has read
 * everything, does not do: after a fork it never has. */
static __always_inline u64 wakeup(u32 kind)
{
	u64 now;
	if ((kind == K_FORK || kind == K_EXIT) &&
	    bpf_ringbuf_query(&events, BPF_RB_AVAIL_DATA) < bpf_ringbuf_query(&events, BPF_RB_RING_SIZE) / 4)
		return BPF_RB_NO_WAKEUP;
	now = bpf_ktime_get_ns();
	if (now - woken < WAKE_EVERY)
		return BPF_RB_NO_WAKEUP;
	woken = now;
	return BPF_RB_FORCE_WAKEUP;
}

static __always_inline void emit(void *ctx, u32 kind, void *data, u64 len)
{
	long err;
	count(&made, kind);
	if (use_ring)
		err = bpf_ringbuf_output(&events, data, len, wakeup(kind));
	else
		err = bpf_perf_event_output(ctx, &events, BPF_F_CURRENT_CPU, data, len);
	if (err)
		count(&lost, kind);
}

static __always_inline u64 start_of(struct task_struct *t)
{
	if (bpf_core_field_exists(t->start_boottime))
		return BPF_CORE_READ(t, start_boottime);
	struct task_struct___old *o = (void *)t;
	return BPF_CORE_READ(o, real_start_time);
}

static __always_inline u64 ctime_of(struct inode *inode)
{
	/* Since 6.13 a bit says that somebody has asked for the time. */
	if (bpf_core_field_exists(inode->i_ctime_sec))
		return BPF_CORE_READ(inode, i_ctime_sec) * 1000000000ULL + (BPF_CORE_READ(inode, i_ctime_nsec) & 0x7fffffff);
	struct inode___6_6 *n = (void *)inode;
	if (bpf_core_field_exists(n->__i_ctime))
		return BPF_CORE_READ(n, __i_ctime.tv_sec) * 1000000000ULL + BPF_CORE_READ(n, __i_ctime.tv_nsec);
	struct inode___old *o = (void *)inode;
	if (bpf_core_field_exists(o->i_ctime))
		return BPF_CORE_READ(o, i_ctime.tv_sec) * 1000000000ULL + BPF_CORE_READ(o, i_ctime.tv_nsec);
	return 0;
}

static __always_inline void identity(struct record *r, struct task_struct *t)
{
	struct task_struct *leader = BPF_CORE_READ(t, group_leader);
	struct task_struct *parent = BPF_CORE_READ(leader, real_parent);
	struct task_struct *pleader = BPF_CORE_READ(parent, group_leader);
	const struct cred *cred = BPF_CORE_READ(t, cred);

	r->time = bpf_ktime_get_ns();
	r->pid = BPF_CORE_READ(t, tgid);
	r->start = start_of(leader);
	r->ppid = BPF_CORE_READ(parent, tgid);
	r->parent_start = start_of(pleader);
	r->uid = BPF_CORE_READ(cred, uid.val);
	r->gid = BPF_CORE_READ(cred, gid.val);
	r->euid = BPF_CORE_READ(cred, euid.val);
	r->loginuid = -1;
	r->sessionid = -1;
	if (bpf_core_field_exists(t->loginuid))
		r->loginuid = BPF_CORE_READ(t, loginuid.val);
	if (bpf_core_field_exists(t->sessionid))
		r->sessionid = BPF_CORE_READ(t, sessionid);
	BPF_CORE_READ_STR_INTO(&r->comm, t, comm);
}

/* append copies one NUL-terminated kernel string to the end of the data. */
static __always_inline void append(struct scratch *s, const void *name)
{
	volatile u32 *end = &s->off;
	u32 off = *end;
	long n;
	if (off > PATHS_MAX - NAME_MAX_LEN)
		return;
	n = bpf_probe_read_kernel_str(&s->data[off], NAME_MAX_LEN, name);
	if (n > 0)
		*end = off + n;
}

/* step writes the last component of the path that is left and goes to its
 * parent; returns 1 when the root was reached. */
static __always_inline int step(struct scratch *s)
{
	volatile struct scratch *v = s;
	struct dentry *dentry = (void *)v->dentry, *parent;
	struct mount *m = (void *)v->mnt;
	const unsigned char *name;

	if ((u64)dentry == v->root) {
		struct mount *up = BPF_CORE_READ(m, mnt_parent);
		if (up == m || !up) {
			u8 first = 0;
			name = BPF_CORE_READ(dentry, d_name.name);
			bpf_probe_read_kernel(&first, 1, name);
			/* "/" is the root; anything else is a file of a kernel-internal
			 * file system, such as memfd:name. */
			if (first != '/')
				append(s, name);
			return 1;
		}
		v->dentry = (u64)BPF_CORE_READ(m, mnt_mountpoint);
		v->mnt = (u64)up;
		v->root = (u64)BPF_CORE_READ(up, mnt.mnt_root);
		return 0;
	}
	if (v->off - v->begin > PATH_BYTES - NAME_MAX_LEN)
		return 0;
	parent = BPF_CORE_READ(dentry, d_parent);
	append(s, BPF_CORE_READ(dentry, d_name.name));
	v->dentry = (u64)parent;
	return parent == dentry || !parent;
}

/* walk writes the components of a path from the last to the first, each ended
 * by a NUL; the reader turns them round. */
static __noinline int walk(struct scratch *s, struct dentry *dentry, struct vfsmount *vfs)
{
	if (!s)
		return 0;
	s->dentry = (u64)dentry;
	s->mnt = (u64)vfs - bpf_core_field_offset(struct mount, mnt);
	s->root = (u64)BPF_CORE_READ(vfs, mnt_root);
	s->begin = s->off;
	for (int i = 0; i < PATH_PARTS; i++)
		if (step(s))
			return 0;
	s->r.flags |= F_PATH_CUT;
	return 0;
}

static __noinline int walk_cgroup(struct scratch *s, struct kernfs_node *kn)
{
	if (!s)
		return 0;
	volatile struct scratch *v = s;
	v->dentry = (u64)kn;
	for (int i = 0; i < CGROUP_PARTS; i++) {
		struct kernfs_node___rcu *n = (void *)v->dentry;
		struct kernfs_node *parent;
		kn = (void *)v->dentry;
		if (!kn)
			break;
		if (bpf_core_field_exists(n->__parent))
			parent = (void *)BPF_CORE_READ(n, __parent);
		else
			parent = BPF_CORE_READ(kn, parent);
		if (!parent) /* the root has no name */
			break;
		append(s, BPF_CORE_READ(kn, name));
		v->dentry = (u64)parent;
	}
	return 0;
}

SEC("raw_tracepoint/sched_process_exec")
int bulwark_exec(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct *t = (void *)ctx->args[0];
	struct linux_binprm *bprm = (void *)ctx->args[2];
	u32 zero = 0;
	struct scratch *s = bpf_map_lookup_elem(&scratches, &zero);
	if (!s)
		return 0;
	struct record *r = &s->r;
	__builtin_memset(r, 0, sizeof(*r));
	r->kind = K_EXEC;
	identity(r, t);
	r->mnt_ns = BPF_CORE_READ(t, nsproxy, mnt_ns, ns.inum);
	r->pid_ns = BPF_CORE_READ(t, nsproxy, pid_ns_for_children, ns.inum);
	r->net_ns = BPF_CORE_READ(t, nsproxy, net_ns, ns.inum);
	r->uts_ns = BPF_CORE_READ(t, nsproxy, uts_ns, ns.inum);
	r->ipc_ns = BPF_CORE_READ(t, nsproxy, ipc_ns, ns.inum);
	r->cgroup_ns = BPF_CORE_READ(t, nsproxy, cgroup_ns, ns.inum);
	r->user_ns = BPF_CORE_READ(t, cred, user_ns, ns.inum);
	r->cap_eff = BPF_CORE_READ(t, cred, cap_effective.val);
	r->cap_prm = BPF_CORE_READ(t, cred, cap_permitted.val);
	r->session = BPF_CORE_READ(t, signal, pids[3], numbers[0].nr);
	struct tty_struct *tty = BPF_CORE_READ(t, signal, tty);
	if (tty)
		bpf_probe_read_kernel_str(&r->tty, sizeof(r->tty), (void *)tty + bpf_core_field_offset(struct tty_struct, name));

	u32 off;
	s->off = 0;
	long n = bpf_probe_read_kernel_str(&s->data[0], PATH_BYTES, BPF_CORE_READ(bprm, filename));
	if (n > 0 && n <= PATH_BYTES)
		s->off = n;
	r->filename_len = s->off;
	if (BPF_CORE_READ(bprm, interp) != BPF_CORE_READ(bprm, filename))
		r->flags |= F_INTERPRETED;

	struct mm_struct *mm = BPF_CORE_READ(t, mm);
	struct file *exe = BPF_CORE_READ(mm, exe_file);
	if (exe) {
		struct inode *inode = BPF_CORE_READ(exe, f_inode);
		r->ino = BPF_CORE_READ(inode, i_ino);
		r->size = BPF_CORE_READ(inode, i_size);
		r->dev = BPF_CORE_READ(inode, i_sb, s_dev);
		r->mode = BPF_CORE_READ(inode, i_mode);
		r->ctime = ctime_of(inode);
		if (BPF_CORE_READ(inode, i_nlink) == 0)
			r->flags |= F_UNLINKED;
		off = s->off;
		walk(s, BPF_CORE_READ(exe, f_path.dentry), BPF_CORE_READ(exe, f_path.mnt));
		r->exe_len = s->off - off;
	}

	struct fs_struct *fs = BPF_CORE_READ(t, fs);
	off = s->off;
	walk(s, BPF_CORE_READ(fs, pwd.dentry), BPF_CORE_READ(fs, pwd.mnt));
	r->cwd_len = s->off - off;

	struct css_set *set = BPF_CORE_READ(t, cgroups);
	struct cgroup *cg = BPF_CORE_READ(set, dfl_cgrp);
	/* Where cgroup v1 holds the controllers everything is at the root of v2. */
	if (BPF_CORE_READ(cg, level) == 0 && bpf_core_enum_value_exists(enum cgroup_subsys_id, memory_cgrp_id)) {
		struct cgroup_subsys_state *css = NULL;
		u64 id = bpf_core_enum_value(enum cgroup_subsys_id, memory_cgrp_id);
		if (id < 16)
			bpf_probe_read_kernel(&css, sizeof(css), (void *)set + bpf_core_field_offset(struct css_set, subsys) + id * sizeof(void *));
		if (css)
			cg = BPF_CORE_READ(css, cgroup);
	}
	off = s->off;
	walk_cgroup(s, BPF_CORE_READ(cg, kn));
	r->cgroup_len = s->off - off;

	u64 astart = BPF_CORE_READ(mm, arg_start), aend = BPF_CORE_READ(mm, arg_end);
	u64 alen = aend > astart ? aend - astart : 0;
	r->args_total = alen;
	if (alen > ARGS_MAX - 1) {
		alen = ARGS_MAX - 1;
		r->flags |= F_ARGS_CUT;
	}
	off = s->off;
	if (off > PATHS_MAX)
		return 0;
	/* Keep the bound where the verifier sees it. */
	asm volatile("%0 &= 16383" : "+r"(alen));
	if (bpf_probe_read_user(&s->data[off], alen, (void *)astart)) {
		r->flags |= F_ARGS_UNREADABLE;
		alen = 0;
	}
	r->args_len = alen;
	u64 len = sizeof(*r) + off + alen;
	if (len > sizeof(*r) + PATHS_MAX + ARGS_MAX)
		return 0;
	emit(ctx, K_EXEC, s, len);
	return 0;
}

SEC("raw_tracepoint/sched_process_fork")
int bulwark_fork(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct *parent = (void *)ctx->args[0];
	struct task_struct *child = (void *)ctx->args[1];
	struct record r = {};
	if (BPF_CORE_READ(child, pid) != BPF_CORE_READ(child, tgid))
		return 0; /* a thread */
	r.kind = K_FORK;
	identity(&r, child);
	/* Who called fork, also with CLONE_PARENT. */
	r.ppid = BPF_CORE_READ(parent, tgid);
	r.parent_start = start_of(BPF_CORE_READ(parent, group_leader));
	emit(ctx, K_FORK, &r, sizeof(r));
	return 0;
}

SEC("raw_tracepoint/sched_process_exit")
int bulwark_exit(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct *t = (void *)ctx->args[0];
	struct record r = {};
	if (BPF_CORE_READ(t, signal, live.counter) != 0)
		return 0; /* other threads of the process go on */
	r.kind = K_EXIT;
	identity(&r, t);
	r.exit_code = BPF_CORE_READ(t, exit_code);
	emit(ctx, K_EXIT, &r, sizeof(r));
	return 0;
}

SEC("raw_tracepoint/inet_sock_set_state")
int bulwark_sock(struct bpf_raw_tracepoint_args *ctx)
{
	struct sock *sk = (void *)ctx->args[0];
	int old = ctx->args[1], new = ctx->args[2];
	u64 key = (u64)sk;
	struct owner *o, me = {};
	struct conn c = {};
	struct listener l = {};

	/* sk_protocol was a bit field before 5.6; then only TCP uses these states
	 * in practice. */
	c.protocol = IPPROTO_TCP;
	if (bpf_core_field_exists(sk->sk_protocol) && bpf_core_field_size(sk->sk_protocol) == 2)
		c.protocol = BPF_CORE_READ(sk, sk_protocol);
	if (c.protocol != IPPROTO_TCP)
		return 0;
	c.kind = K_CONN;
	c.old_state = old;
	c.new_state = new;
	c.family = BPF_CORE_READ(sk, __sk_common.skc_family);
	c.lport = BPF_CORE_READ(sk, __sk_common.skc_num);
	c.rport = __builtin_bswap16(BPF_CORE_READ(sk, __sk_common.skc_dport));
	if (c.family == AF_INET) {
		u32 a = BPF_CORE_READ(sk, __sk_common.skc_rcv_saddr);
		__builtin_memcpy(c.laddr, &a, 4);
		a = BPF_CORE_READ(sk, __sk_common.skc_daddr);
		__builtin_memcpy(c.raddr, &a, 4);
	} else if (c.family == AF_INET6) {
		BPF_CORE_READ_INTO(&c.laddr, sk, __sk_common.skc_v6_rcv_saddr.in6_u.u6_addr8);
		BPF_CORE_READ_INTO(&c.raddr, sk, __sk_common.skc_v6_daddr.in6_u.u6_addr8);
	} else {
		return 0;
	}
	l.netns = BPF_CORE_READ(sk, __sk_common.skc_net.net, ns.inum);
	l.port = c.lport;
	c.time = bpf_ktime_get_ns();

	if ((old == TCP_CLOSE && new == TCP_SYN_SENT) || new == TCP_LISTEN) {
		/* In the context of the process that called connect or listen. */
		struct task_struct *t = (void *)bpf_get_current_task();
		me.pid = bpf_get_current_pid_tgid() >> 32;
		me.start = start_of(BPF_CORE_READ(t, group_leader));
		if (new == TCP_LISTEN)
			bpf_map_update_elem(&listeners, &l, &me, BPF_ANY);
		else
			bpf_map_update_elem(&connecting, &key, &me, BPF_ANY);
	} else if (old == TCP_SYN_SENT && (new == TCP_ESTABLISHED || new == TCP_CLOSE)) {
		o = bpf_map_lookup_elem(&connecting, &key);
		if (o) {
			me = *o;
			bpf_map_delete_elem(&connecting, &key);
		}
	} else if (old == TCP_SYN_RECV && new == TCP_ESTABLISHED) {
		o = bpf_map_lookup_elem(&listeners, &l);
		if (o)
			me = *o;
	} else if (old == TCP_LISTEN && new == TCP_CLOSE) {
		/* Not for SYN_RECV: that is a new connection, cloned from the listener. */
		bpf_map_delete_elem(&listeners, &l);
		return 0;
	} else {
		return 0;
	}
	c.pid = me.pid;
	c.start = me.start;
	emit(ctx, K_CONN, &c, sizeof(c));
	return 0;
}

#include "activity.h"
#include "syscalls.h"
#include "dns.h"
