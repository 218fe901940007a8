/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* DNS messages of UDP and TCP port 53, by control group v2: queries as they
 * leave, with the process that sends them, and answers as they arrive, with the
 * process that asked on the same socket. Included by sensor.bpf.c. */

#define DNS_PORT 53
#define DNS_MAX 1232
#define EGRESS 1

struct dns {
	u32 kind;
	u32 flags; /* EGRESS */
	u64 time;
	u64 start;
	u32 pid;
	u16 len, total;
	u16 family, protocol;
	u16 lport, rport;
	u8 laddr[16];
	u8 raddr[16];
	u32 pad_off; /* perf buffer: bytes before the message */
	u32 pad;
};

struct dns_room { struct dns d; u8 data[DNS_MAX]; };

struct { __uint(type, BPF_MAP_TYPE_LRU_HASH); __uint(max_entries, 8192); __type(key, u64); __type(value, struct owner); } asking SEC(".maps");

static __always_inline int dns(struct __sk_buff *skb, u32 egress)
{
	u8 ip[40] = {}, l4[20] = {};
	struct dns d = { .kind = K_DNS, .flags = egress };
	u32 off, len;
	u16 sport, dport;
	u64 cookie;
	struct owner *o, now = {};

	if (bpf_skb_load_bytes(skb, 0, ip, 20))
		return 1;
	if (ip[0] >> 4 == 4) {
		off = (ip[0] & 15) * 4;
		d.family = AF_INET;
		d.protocol = ip[9];
		if ((ip[6] & 0x1f) || ip[7]) /* a later fragment */
			return 1;
	} else {
		if (bpf_skb_load_bytes(skb, 0, ip, 40))
			return 1;
		off = 40;
		d.family = AF_INET6;
		d.protocol = ip[6];
	}
	if (d.protocol != IPPROTO_UDP && d.protocol != IPPROTO_TCP)
		return 1;
	if (bpf_skb_load_bytes(skb, off, l4, 8))
		return 1;
	sport = l4[0] << 8 | l4[1];
	dport = l4[2] << 8 | l4[3];
	if ((egress ? dport : sport) != DNS_PORT)
		return 1;
	d.lport = egress ? sport : dport;
	d.rport = DNS_PORT;
	if (d.family == AF_INET) {
		__builtin_memcpy(d.laddr, egress ? ip + 12 : ip + 16, 4);
		__builtin_memcpy(d.raddr, egress ? ip + 16 : ip + 12, 4);
	} else {
		__builtin_memcpy(d.laddr, egress ? ip + 8 : ip + 24, 16);
		__builtin_memcpy(d.raddr, egress ? ip + 24 : ip + 8, 16);
	}
	cookie = bpf_get_socket_cookie(skb);
	if (egress) {
		struct task_struct *t = (void *)bpf_get_current_task();
		now.pid = BPF_CORE_READ(t, tgid);
		now.start = start_of(BPF_CORE_READ(t, group_leader));
		/* A segment of TCP may leave in an interrupt; its first one, the SYN,
		 * leaves in connect. */
		bpf_map_update_elem(&asking, &cookie, &now, d.protocol == IPPROTO_TCP ? BPF_NOEXIST : BPF_ANY);
	}
	o = bpf_map_lookup_elem(&asking, &cookie);
	if (o) {
		d.pid = o->pid;
		d.start = o->start;
	}
	if (d.protocol == IPPROTO_TCP) {
		if (bpf_skb_load_bytes(skb, off, l4, 20))
			return 1;
		off += (l4[12] >> 4) * 4;
	} else {
		off += 8;
	}
	if (skb->len <= off + 12)
		return 1;
	len = skb->len - off;
	d.total = len;
	if (len > DNS_MAX)
		len = DNS_MAX;
	d.len = len;
	d.time = bpf_ktime_get_ns();
	count(&made, K_DNS);
	if (use_ring) {
		struct dns_room *room = bpf_ringbuf_reserve(&events, sizeof(*room), 0);
		if (!room) {
			count(&lost, K_DNS);
			return 1;
		}
		room->d = d;
		u64 n = len;
		asm volatile("%0 &= 2047" : "+r"(n));
		if (n == 0 || n > DNS_MAX || bpf_skb_load_bytes(skb, off, room->data, n))
			room->d.len = 0;
		bpf_ringbuf_submit(room, wakeup(K_DNS));
		return 1;
	}
	/* The perf buffer appends the packet from its beginning by itself. */
	d.pad_off = off;
	len += off;
	if (bpf_perf_event_output(skb, &events, BPF_F_CURRENT_CPU | (u64)len << 32, &d, sizeof(d)))
		count(&lost, K_DNS);
	return 1;
}

SEC("cgroup_skb/egress")
int bulwark_dns_out(struct __sk_buff *skb) { return dns(skb, EGRESS); }

SEC("cgroup_skb/ingress")
int bulwark_dns_in(struct __sk_buff *skb) { return dns(skb, 0); }
