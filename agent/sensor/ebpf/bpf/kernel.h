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

enum bpf_map_type {
	BPF_MAP_TYPE_HASH = 1,
	BPF_MAP_TYPE_ARRAY = 2,
	BPF_MAP_TYPE_PERF_EVENT_ARRAY = 4,
	BPF_MAP_TYPE_PERCPU_ARRAY = 6,
	BPF_MAP_TYPE_LRU_HASH = 9,
	BPF_MAP_TYPE_RINGBUF = 27,
};
#define BPF_ANY 0
#define BPF_RB_NO_WAKEUP 1
#define BPF_F_CURRENT_CPU 0xffffffffULL

struct bpf_raw_tracepoint_args {
	__u64 args[0];
};

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

typedef struct { int counter; } atomic_t;
typedef struct { u32 val; } kuid_t;
typedef struct { u32 val; } kgid_t;

struct qstr { u32 len; const unsigned char *name; };
struct super_block { u32 s_dev; };
struct inode {
	unsigned short i_mode;
	struct super_block *i_sb;
	unsigned long i_ino;
	unsigned int i_nlink;
	long long i_size;
};
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
struct file { struct path f_path; struct inode *f_inode; };
struct fs_struct { struct path pwd; };
struct mm_struct { unsigned long arg_start, arg_end; struct file *exe_file; };
struct cred { kuid_t uid, euid; kgid_t gid; };
struct tty_struct { char name[64]; };
struct signal_struct { atomic_t live; struct tty_struct *tty; };
struct ns_common { unsigned int inum; };
struct pid_namespace { struct ns_common ns; };
struct mnt_namespace { struct ns_common ns; };
struct nsproxy { struct mnt_namespace *mnt_ns; struct pid_namespace *pid_ns_for_children; };
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
struct task_struct {
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
struct linux_binprm { const char *filename; };

struct net { struct ns_common ns; };
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

enum cgroup_subsys_id { memory_cgrp_id = 4, pids_cgrp_id = 11 };

#pragma clang attribute pop
#endif
