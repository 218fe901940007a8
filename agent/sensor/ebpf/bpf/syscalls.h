/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Sockets, processes and the kernel, and the program at the end of every
 * system call. Included by sensor.bpf.c after activity.h. */

#define SOCK_RAW 3
#define AF_PACKET 17
#define PTRACE_POKETEXT 4
#define PR_SET_NAME 15
#define PR_SET_MM 35
#define BPF_PROG_LOAD 5
#define PSR_MODE32 0x10
#define CLONE_NEW_ANY 0x7e020080ULL

struct call {
	u64 arg[6];
	s64 ret;
};

static __noinline struct sock *sock_of(long fd)
{
	struct file *f = file_of(fd);
	struct socket *sock;
	if (!f || (BPF_CORE_READ(f, f_inode, i_mode) & S_IFMT) != S_IFSOCK)
		return NULL;
	sock = BPF_CORE_READ(f, private_data);
	return BPF_CORE_READ(sock, sk);
}

static __always_inline u16 protocol_of(struct sock *sk)
{
	if (bpf_core_field_exists(sk->sk_protocol) && bpf_core_field_size(sk->sk_protocol) == 2)
		return BPF_CORE_READ(sk, sk_protocol);
	return 0; /* a bit field before 5.6: not told */
}

/* me fills in who connects. */
static __always_inline void me(struct conn *c)
{
	struct task_struct *t = (void *)bpf_get_current_task();
	c->time = bpf_ktime_get_ns();
	c->pid = bpf_get_current_pid_tgid() >> 32;
	c->start = start_of(BPF_CORE_READ(t, group_leader));
}

static __always_inline void local_end(struct conn *c, struct sock *sk)
{
	c->family = BPF_CORE_READ(sk, __sk_common.skc_family);
	c->lport = BPF_CORE_READ(sk, __sk_common.skc_num);
	if (c->family == AF_INET) {
		u32 a = BPF_CORE_READ(sk, __sk_common.skc_rcv_saddr);
		__builtin_memcpy(c->laddr, &a, 4);
	} else if (c->family == AF_INET6) {
		BPF_CORE_READ_INTO(&c->laddr, sk, __sk_common.skc_v6_rcv_saddr.in6_u.u6_addr8);
	}
}

/* remote_end reads a sockaddr of user memory; 0 when it is no Internet address. */
static __always_inline int remote_end(struct conn *c, u64 ptr)
{
	u16 head[2] = {};
	if (!ptr || bpf_probe_read_user(head, sizeof(head), (void *)ptr))
		return 0;
	c->rport = __builtin_bswap16(head[1]);
	if (head[0] == AF_INET)
		bpf_probe_read_user(c->raddr, 4, (void *)(ptr + 4));
	else if (head[0] == AF_INET6)
		bpf_probe_read_user(c->raddr, 16, (void *)(ptr + 8));
	else
		return 0;
	return c->family == head[0] || c->family == AF_INET6;
}

/* The actions that ../record.go knows beside the states of TCP. */
enum { UDP_SENT = 100, UDP_BOUND = 101, TCP_REFUSED = 102, RAW_SOCKET = 103 };

static __noinline int on_datagram(void *ctx, long fd, u64 addr, s64 ret)
{
	struct sock *sk = sock_of(fd);
	struct conn c = { .kind = K_NET, .new_state = UDP_SENT };
	if (!sk)
		return 0;
	c.protocol = protocol_of(sk);
	local_end(&c, sk);
	if (c.family != AF_INET && c.family != AF_INET6)
		return 0;
	if (!remote_end(&c, addr) || !c.rport)
		return 0;
	me(&c);
	if (c.protocol == IPPROTO_TCP) {
		/* Refused before the state of the socket changed: no route, not allowed,
		 * no such address. */
		if (ret != -101 && ret != -1 && ret != -13 && ret != -99 && ret != -22)
			return 0;
		c.new_state = TCP_REFUSED;
		c.old_state = -ret;
		emit(ctx, K_NET, &c, sizeof(c));
		return 0;
	}
	if (c.protocol != IPPROTO_UDP || ret < 0)
		return 0;
	u64 *r = (void *)c.raddr;
	if (repeated(K_NET, UDP_SENT | (u32)c.rport << 16, c.pid, r[0], r[1], 60 * SEC_NS))
		return 0;
	emit(ctx, K_NET, &c, sizeof(c));
	return 0;
}

static __noinline int on_bind(void *ctx, long fd)
{
	struct sock *sk = sock_of(fd);
	struct conn c = { .kind = K_NET, .new_state = UDP_BOUND };
	if (!sk || protocol_of(sk) != IPPROTO_UDP)
		return 0;
	c.protocol = IPPROTO_UDP;
	local_end(&c, sk);
	if (!c.lport || (c.family != AF_INET && c.family != AF_INET6))
		return 0;
	me(&c);
	emit(ctx, K_NET, &c, sizeof(c));
	return 0;
}

static __noinline int on_socket(void *ctx, u32 family, u32 type, u32 protocol)
{
	struct conn c = { .kind = K_NET, .new_state = RAW_SOCKET };
	if (family != AF_PACKET && !((type & 15) == SOCK_RAW && (family == AF_INET || family == AF_INET6)))
		return 0;
	c.family = family;
	c.protocol = family == AF_PACKET ? __builtin_bswap16(protocol) : protocol;
	me(&c);
	if (repeated(K_NET, RAW_SOCKET, c.pid, family, protocol, 60 * SEC_NS))
		return 0;
	emit(ctx, K_NET, &c, sizeof(c));
	return 0;
}

/* on_args reports a call that its numbers describe. */
static __noinline int on_args(void *ctx, u32 what, struct call *c, u64 ttl)
{
	struct scratch *s;
	struct act *a;
	u32 tgid = bpf_get_current_pid_tgid() >> 32;
	if (!c)
		return 0;
	if (ttl && repeated(what >> 16, what & 0xffff, tgid, c->arg[0], c->arg[1], ttl))
		return 0;
	s = begin(what >> 16, what & 0xffff, c->ret);
	if (!s)
		return 0;
	a = (void *)s;
	a->arg[0] = c->arg[0];
	a->arg[1] = c->arg[1];
	a->arg[2] = c->arg[2];
	return finish(ctx, s);
}

static __noinline int on_pidfd(void *ctx, struct call *c)
{
	struct file *f;
	struct pid *pid;
	struct scratch *s;
	struct act *a;
	u32 nr = 0;
	if (!c)
		return 0;
	f = file_of(c->arg[0]);
	if (!f)
		return 0;
	/* A pidfd became a file of its own file system in 6.9. */
	if (BPF_CORE_READ(f, f_inode, i_sb, s_magic) == PIDFS_MAGIC)
		pid = BPF_CORE_READ(f, f_inode, i_private);
	else
		pid = BPF_CORE_READ(f, private_data);
	bpf_probe_read_kernel(&nr, sizeof(nr), (void *)pid + bpf_core_field_offset(struct pid, numbers));
	s = begin(K_ACCESS, OP_PIDFD_GETFD, c->ret);
	if (!s)
		return 0;
	a = (void *)s;
	a->target = nr;
	a->arg[0] = nr;
	a->arg[1] = c->arg[1];
	return finish(ctx, s);
}

/* on_ptrace: what changes a process or begins to trace it; the many reads of a
 * tracer once a minute. */
static __noinline int on_ptrace(void *ctx, struct call *c)
{
	u64 req;
	if (!c)
		return 0;
	req = c->arg[0];
	/* PEEKTEXT, PEEKDATA, PEEKUSER; the rest of a tracer's work: go on, detach,
	 * look at registers and signals. */
	if (req == 1 || req == 2 || req == 3) {
		c->arg[0] = 2;
	} else if (req == 5 || req == 6) {
		c->arg[0] = PTRACE_POKETEXT;
	} else if (req != 0 && req != PTRACE_POKETEXT && req != 13 && req != 15 && req != 16 && req != 0x4205 && req != 0x4206) {
		return 0;
	}
	return on_args(ctx, KIND(K_ACCESS, OP_PTRACE), c, 60 * SEC_NS);
}

static __noinline int on_prctl(void *ctx, struct call *c)
{
	struct scratch *s;
	struct act *a;
	u64 id = bpf_get_current_pid_tgid();
	if (!c || c->ret)
		return 0;
	if (c->arg[0] == PR_SET_MM)
		return on_args(ctx, KIND(K_TAMPER, OP_PRCTL), c, 60 * SEC_NS);
	/* The names of threads are their own affair. */
	if (c->arg[0] != PR_SET_NAME || (u32)id != id >> 32)
		return 0;
	if (repeated(K_TAMPER, OP_PRCTL, id >> 32, PR_SET_NAME, 0, 10 * SEC_NS))
		return 0;
	s = begin(K_TAMPER, OP_PRCTL, 0);
	if (!s)
		return 0;
	a = (void *)s;
	a->arg[0] = PR_SET_NAME;
	return finish(ctx, s);
}

static __noinline int on_creds(void *ctx, u32 what, struct call *c)
{
	struct task_struct *t = (void *)bpf_get_current_task();
	const struct cred *cred = BPF_CORE_READ(t, cred);
	u64 eff = BPF_CORE_READ(cred, cap_effective.val), prm = BPF_CORE_READ(cred, cap_permitted.val);
	u32 euid = BPF_CORE_READ(cred, euid.val);
	struct scratch *s;
	struct act *a;
	u32 tgid = bpf_get_current_pid_tgid() >> 32;
	if (!c || c->ret)
		return 0;
	if (repeated(K_PRIV, what, tgid, what == OP_CAPSET ? eff : euid, BPF_CORE_READ(cred, uid.val), 60 * SEC_NS))
		return 0;
	s = begin(K_PRIV, what, 0);
	if (!s)
		return 0;
	a = (void *)s;
	a->cap_eff = eff;
	a->cap_prm = prm;
	a->arg[0] = BPF_CORE_READ(cred, suid.val);
	return finish(ctx, s);
}

static __noinline int on_bpf(void *ctx, struct call *c)
{
	struct scratch *s;
	struct act *a;
	if (!c || c->arg[0] != BPF_PROG_LOAD || c->ret < 0)
		return 0;
	s = begin(K_BPF, OP_BPF, c->ret);
	if (!s)
		return 0;
	a = (void *)s;
	bpf_probe_read_user(&a->arg[0], 8, (void *)c->arg[1]); /* prog_type, insn_cnt */
	a->a_len = user_string(s, c->arg[1] + 48); /* prog_name */
	if (a->a_len > 16) {
		a->a_len = 16;
		s->off = 16;
	}
	return finish(ctx, s);
}

static __noinline int on_module(void *ctx, u32 op, struct call *c)
{
	struct scratch *s;
	struct act *a;
	struct file *f;
	if (!c)
		return 0;
	s = begin(K_MODULE, op, c->ret);
	if (!s)
		return 0;
	a = (void *)s;
	if (op == OP_FINIT_MODULE) {
		f = file_of(c->arg[0]);
		if (f)
			about(s, f);
		a->a_len = user_string(s, c->arg[1]);
	} else if (op == OP_INIT_MODULE) {
		a->size = c->arg[1];
		a->a_len = user_string(s, c->arg[2]);
	} else {
		a->a_len = user_string(s, c->arg[0]);
	}
	return finish(ctx, s);
}

/* on_named reports a mount with its file system, or a memory file. */
static __noinline int on_named(void *ctx, u32 what, struct call *c)
{
	struct scratch *s;
	struct act *a;
	if (!c || c->ret < 0)
		return 0;
	s = begin(what >> 16, what & 0xffff, c->ret);
	if (!s)
		return 0;
	a = (void *)s;
	if ((what & 0xffff) == OP_MEMFD) {
		a->arg[0] = c->arg[1];
		a->a_len = user_string(s, c->arg[0]);
		return finish(ctx, s);
	}
	/* source, target, type, flags: the type goes where the second folder would. */
	a->arg[0] = c->arg[3];
	a->a_len = user_string(s, c->arg[0]);
	a->b_len = user_string(s, c->arg[1]);
	a->adir_len = user_string(s, c->arg[2]);
	a->bdir_len = folder(s, AT_FDCWD, c->arg[1]);
	return finish(ctx, s);
}

static __noinline int files(void *ctx, u32 op, struct call *c)
{
	u64 ptr = 0;
	if (!c)
		return 0;
	switch (op) {
	case OP_OPEN: return c->ret < 0 ? 0 : on_open(ctx, c->ret);
	case OP_WRITE: return c->ret < 0 ? 0 : on_write(ctx, c->arg[0]);
	case OP_WRITE_FD2: return c->ret <= 0 ? 0 : on_write(ctx, c->arg[2]);
	case OP_MMAP: return c->ret < 0 && c->ret > -4096 ? 0 : on_mmap(ctx, c->arg[2], c->arg[3], (s32)c->arg[4]);
	}
	if (c->ret)
		return 0;
	switch (op) {
	case OP_UNLINK: return on_path(ctx, KIND(K_FILE, OP_UNLINK), AT_FDCWD, c->arg[0], 0);
	case OP_UNLINKAT: return c->arg[2] & AT_REMOVEDIR ? 0 : on_path(ctx, KIND(K_FILE, OP_UNLINK), c->arg[0], c->arg[1], 0);
	case OP_RENAME: return on_paths(ctx, KIND(K_FILE, OP_RENAME), DFDS(HERE, HERE), c->arg[0], c->arg[1]);
	case OP_RENAMEAT: return on_paths(ctx, KIND(K_FILE, OP_RENAME), DFDS(c->arg[0], c->arg[2]), c->arg[1], c->arg[3]);
	case OP_LINK: return on_paths(ctx, KIND(K_FILE, OP_LINK), DFDS(HERE, HERE), c->arg[0], c->arg[1]);
	case OP_LINKAT: return on_paths(ctx, KIND(K_FILE, OP_LINK), DFDS(c->arg[0], c->arg[2]), c->arg[1], c->arg[3]);
	case OP_SYMLINK: return on_paths(ctx, KIND(K_FILE, OP_SYMLINK), DFDS(HERE, HERE), c->arg[0], c->arg[1]);
	case OP_SYMLINKAT: return on_paths(ctx, KIND(K_FILE, OP_SYMLINK), DFDS(HERE, c->arg[1]), c->arg[0], c->arg[2]);
	case OP_MKNOD: return on_path(ctx, KIND(K_FILE, OP_MKNOD), AT_FDCWD, c->arg[0], c->arg[1]);
	case OP_MKNODAT: return on_path(ctx, KIND(K_FILE, OP_MKNOD), c->arg[0], c->arg[1], c->arg[2]);
	case OP_CHMOD: return on_path(ctx, KIND(K_FILE, OP_CHMOD), AT_FDCWD, c->arg[0], c->arg[1]);
	case OP_FCHMODAT: return on_path(ctx, KIND(K_FILE, OP_CHMOD), c->arg[0], c->arg[1], c->arg[2]);
	case OP_CHOWN: return on_path(ctx, KIND(K_FILE, OP_CHOWN), AT_FDCWD, c->arg[0], c->arg[1] << 32 | (u32)c->arg[2]);
	case OP_FCHOWNAT: return on_path(ctx, KIND(K_FILE, OP_CHOWN), c->arg[0], c->arg[1], c->arg[2] << 32 | (u32)c->arg[3]);
	case OP_SETXATTR: ptr = c->arg[1]; break;
	case OP_FSETXATTR: ptr = c->arg[1]; break;
	}
	if (op == OP_FCHMOD || op == OP_FCHOWN || op == OP_FSETXATTR) {
		struct file *f = file_of(c->arg[0]);
		if (!f || pseudo(BPF_CORE_READ(f, f_inode, i_sb, s_magic)))
			return 0;
		if (op == OP_FCHMOD)
			return file_event(ctx, OP_CHMOD, f, c->arg[1]);
		if (op == OP_FCHOWN)
			return file_event(ctx, OP_CHOWN, f, c->arg[1] << 32 | (u32)c->arg[2]);
	}
	if (ptr) {
		u64 name[2] = {};
		bpf_probe_read_user(name, sizeof(name), (void *)ptr);
		if (name[0] != 0x7974697275636573ULL || name[1] != 0x6c6962617061632eULL) /* "security.capabil" */
			return 0;
		if (op == OP_SETXATTR)
			return on_path(ctx, KIND(K_FILE, OP_SETXATTR), AT_FDCWD, c->arg[0], 0);
		struct file *f = file_of(c->arg[0]);
		return f ? file_event(ctx, OP_SETXATTR, f, 0) : 0;
	}
	return 0;
}

static __noinline int others(void *ctx, u32 op, struct call *c)
{
	if (!c)
		return 0;
	switch (op) {
	case OP_CONNECT: return on_datagram(ctx, c->arg[0], c->arg[1], c->ret);
	case OP_SENDTO: return c->ret < 0 || !c->arg[4] ? 0 : on_datagram(ctx, c->arg[0], c->arg[4], c->ret);
	case OP_SENDMSG:
	case OP_SENDMMSG: {
		u64 name = 0;
		bpf_probe_read_user(&name, sizeof(name), (void *)c->arg[1]);
		return c->ret < 0 || !name ? 0 : on_datagram(ctx, c->arg[0], name, c->ret);
	}
	case OP_BIND: return c->ret ? 0 : on_bind(ctx, c->arg[0]);
	case OP_SOCKET: return c->ret < 0 ? 0 : on_socket(ctx, c->arg[0], c->arg[1], c->arg[2]);
	case OP_PTRACE: return on_ptrace(ctx, c);
	case OP_VM_READ:
	case OP_VM_WRITE: {
		c->arg[1] = 0;
		return on_args(ctx, KIND(K_ACCESS, op), c, 60 * SEC_NS);
	}
	case OP_PIDFD_GETFD: return on_pidfd(ctx, c);
	case OP_MEMFD: return on_named(ctx, KIND(K_MEMFD, OP_MEMFD), c);
	case OP_MOUNT: return on_named(ctx, KIND(K_MOUNT, OP_MOUNT), c);
	case OP_UMOUNT: return c->ret ? 0 : on_path(ctx, KIND(K_MOUNT, OP_UMOUNT), AT_FDCWD, c->arg[0], c->arg[1]);
	case OP_MOVE_MOUNT: return c->ret ? 0 : on_paths(ctx, KIND(K_MOUNT, OP_MOVE_MOUNT), DFDS(c->arg[0], c->arg[2]), c->arg[1], c->arg[3]);
	case OP_SETUID: return on_creds(ctx, OP_SETUID, c);
	case OP_CAPSET: return on_creds(ctx, OP_CAPSET, c);
	case OP_UNSHARE: return c->ret || !(c->arg[0] & CLONE_NEW_ANY) ? 0 : on_args(ctx, KIND(K_PRIV, OP_UNSHARE), c, 0);
	case OP_SETNS: return c->ret ? 0 : on_args(ctx, KIND(K_PRIV, OP_SETNS), c, 0);
	case OP_CLONE: return c->ret <= 0 || !(c->arg[0] & CLONE_NEW_ANY) ? 0 : on_args(ctx, KIND(K_PRIV, OP_CLONE), c, 0);
	case OP_PRCTL: return on_prctl(ctx, c);
	case OP_BPF: return on_bpf(ctx, c);
	case OP_INIT_MODULE:
	case OP_FINIT_MODULE:
	case OP_DELETE_MODULE: return on_module(ctx, op, c);
	}
	return 0;
}

/* bulwark_sys_exit runs at the end of every system call. */
SEC("tp_btf/sys_exit")
int bulwark_sys_exit(u64 *ctx)
{
	struct pt_regs___x86 *x = (void *)ctx[0];
	struct pt_regs___arm64 *r = (void *)ctx[0];
	struct call c;
	u32 nr, *op;

	if (bpf_core_field_exists(x->orig_ax)) {
		struct task_struct *t = (void *)bpf_get_current_task();
		nr = x->orig_ax;
		if (bpf_core_field_exists(t->thread_info.status) && (BPF_CORE_READ(t, thread_info.status) & TS_COMPAT))
			nr += COMPAT_BASE;
	} else {
		if (r->pstate & PSR_MODE32)
			return 0; /* a 32-bit program, with numbers of its own */
		nr = r->syscallno;
	}
	op = bpf_map_lookup_elem(&ops, &nr);
	if (!op || !*op)
		return 0;
	c.ret = ctx[1];
	if (!bpf_core_field_exists(x->orig_ax)) {
		c.arg[0] = r->orig_x0;
		c.arg[1] = r->regs[1];
		c.arg[2] = r->regs[2];
		c.arg[3] = r->regs[3];
		c.arg[4] = r->regs[4];
		c.arg[5] = r->regs[5];
	} else if (nr >= COMPAT_BASE) {
		c.arg[0] = (u32)x->bx;
		c.arg[1] = (u32)x->cx;
		c.arg[2] = (u32)x->dx;
		c.arg[3] = (u32)x->si;
		c.arg[4] = (u32)x->di;
		c.arg[5] = (u32)x->bp;
		c.ret = (s32)c.ret;
	} else {
		c.arg[0] = x->di;
		c.arg[1] = x->si;
		c.arg[2] = x->dx;
		c.arg[3] = x->r10;
		c.arg[4] = x->r8;
		c.arg[5] = x->r9;
	}
	if (*op < OP_CONNECT)
		return files(ctx, *op, &c);
	return others(ctx, *op, &c);
}

/* The name of a module that came from memory is known here only. */
SEC("raw_tracepoint/module_load")
int bulwark_module(struct bpf_raw_tracepoint_args *ctx)
{
	struct module *m = (void *)ctx->args[0];
	struct scratch *s = begin(K_MODULE, OP_MODULE_NAME, 0);
	struct act *a = (void *)s;
	if (!s)
		return 0;
	append(s, (void *)m + bpf_core_field_offset(struct module, name));
	a->a_len = s->off;
	return finish(ctx, s);
}
