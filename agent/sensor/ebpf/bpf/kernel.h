/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Only the kernel types and members that the programs read. CO-RE relocates
 * every access to the running kernel's layout, so offsets here mean nothing. */
#ifndef BULWARK_KERNEL_H
#define BULWARK_KERNEL_H

typedef unsigned char __u8;
typedef unsigned short __u16;
typedef unsigned int __u32;
typedef unsigned long long __u64;
typedef signed char __s8;
typedef short __s16;
typedef int __s32;
typedef long long __s64;
typedef __u16 __be16;
typedef __u32 __be32;
typedef __u32 __wsum;
typedef __u8 u8;
typedef __u16 u16;
typedef __u32 u32;
typedef __u64 u64;
typedef __s32 s32;
typedef __s64 s64;

enum bpf_map_type {
	BPF_MAP_TYPE_HASH = 1,
	BPF_MAP_TYPE_ARRAY = 2,
	BPF_MAP_TYPE_PERF_EVENT_ARRAY = 4,
	BPF_MAP_TYPE_PERCPU_ARRAY = 6,
	BPF_MAP_TYPE_LRU_HASH = 9,
	BPF_MAP_TYPE_RINGBUF = 27,
};
#define BPF_ANY 0
#define BPF_NOEXIST 1
#define BPF_RB_NO_WAKEUP 1
#define BPF_RB_FORCE_WAKEUP 2
#define BPF_RB_AVAIL_DATA 0
#define BPF_RB_RING_SIZE 1
#define BPF_F_CURRENT_CPU 0xffffffffULL

struct bpf_raw_tracepoint_args {
	__u64 args[0];
};

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

typedef struct { int counter; } atomic_t;
typedef struct { u32 val; } kuid_t;
typedef struct { u32 val; } kgid_t;

struct qstr { u32 len; const unsigned char *name; };
struct super_block { u32 s_dev; unsigned long s_magic; };
struct timespec64 { s64 tv_sec; s64 tv_nsec; };
struct inode {
	s64 i_ctime_sec;
	u32 i_ctime_nsec;
	unsigned short i_mode;
	struct super_block *i_sb;
	unsigned long i_ino;
	unsigned int i_nlink;
	u32 i_rdev;
	long long i_size;
	void *i_private;
};
/* Before 6.11, and before 6.6. */
struct inode___6_6 { struct timespec64 __i_ctime; };
struct inode___old { struct timespec64 i_ctime; };
struct dentry {
	struct dentry *d_parent;
	struct qstr d_name;
	struct inode *d_inode;
};
struct vfsmount { struct dentry *mnt_root; };
struct mount {
	struct mount *mnt_parent;
	struct dentry *mnt_mountpoint;
	struct vfsmount mnt;
};
struct path { struct vfsmount *mnt; struct dentry *dentry; };
struct file {
	struct path f_path;
	struct inode *f_inode;
	unsigned int f_mode, f_flags;
	void *private_data;
};
struct fdtable { unsigned int max_fds; struct file **fd; };
struct files_struct { struct fdtable *fdt; };
struct upid { int nr; };
struct pid { struct upid numbers[1]; };
struct module { char name[56]; };
struct fs_struct { struct path pwd; };
struct mm_struct { unsigned long arg_start, arg_end; struct file *exe_file; };
typedef struct { u64 val; } kernel_cap_t;
struct cred { kuid_t uid, euid, suid; kgid_t gid; kernel_cap_t cap_effective, cap_permitted; struct user_namespace *user_ns; };
struct tty_struct { char name[64]; };
struct signal_struct { atomic_t live; struct tty_struct *tty; struct pid *pids[4]; };
struct ns_common { unsigned int inum; };
struct pid_namespace { struct ns_common ns; };
struct mnt_namespace { struct ns_common ns; };
struct user_namespace { struct ns_common ns; };
struct uts_namespace { struct ns_common ns; };
struct ipc_namespace { struct ns_common ns; };
struct cgroup_namespace { struct ns_common ns; };
struct net { struct ns_common ns; };
struct nsproxy {
	struct uts_namespace *uts_ns;
	struct ipc_namespace *ipc_ns;
	struct mnt_namespace *mnt_ns;
	struct pid_namespace *pid_ns_for_children;
	struct net *net_ns;
	struct cgroup_namespace *cgroup_ns;
};
struct kernfs_node {
	struct kernfs_node *parent;
	const char *name;
	u64 id;
};
/* The member was renamed in 6.15. */
struct kernfs_node___rcu { struct kernfs_node *__parent; };
struct cgroup { struct kernfs_node *kn; int level; };
struct cgroup_subsys_state { struct cgroup *cgroup; };
struct css_set { struct cgroup_subsys_state *subsys[16]; struct cgroup *dfl_cgrp; };
struct thread_info { u32 status; };
struct task_struct {
	struct thread_info thread_info;
	struct files_struct *files;
	int pid, tgid;
	int exit_code;
	char comm[16];
	struct task_struct *real_parent, *group_leader;
	u64 start_boottime;
	const struct cred *cred;
	struct mm_struct *mm;
	struct fs_struct *fs;
	struct nsproxy *nsproxy;
	struct signal_struct *signal;
	struct css_set *cgroups;
	kuid_t loginuid;
	unsigned int sessionid;
};
/* Its name before 5.5. */
struct task_struct___old { u64 real_start_time; };
struct linux_binprm { const char *filename, *interp; };

typedef struct { struct net *net; } possible_net_t;
struct in6_addr { union { u8 u6_addr8[16]; } in6_u; };
struct sock_common {
	__be32 skc_daddr;
	__be32 skc_rcv_saddr;
	__be16 skc_dport;
	__u16 skc_num;
	unsigned short skc_family;
	possible_net_t skc_net;
	struct in6_addr skc_v6_daddr;
	struct in6_addr skc_v6_rcv_saddr;
};
struct sock {
	struct sock_common __sk_common;
	u16 sk_protocol;
};

struct socket { struct sock *sk; };

/* Registers at the end of a system call. */
struct pt_regs___x86 { unsigned long bp, bx, r9, r8, cx, dx, si, di, orig_ax, r10; };
struct pt_regs___arm64 { u64 regs[31]; u64 pstate; u64 orig_x0; s32 syscallno; };

enum cgroup_subsys_id { memory_cgrp_id = 4, pids_cgrp_id = 11 };

#pragma clang attribute pop

/* Its members are the kernel's interface, not its layout. */
struct __sk_buff { u32 len; };
#endif
