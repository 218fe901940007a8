package yara

// toolSamples are the files of tool.yar.
func toolSamples() []sample {
	return []sample{
		{
			rule: "tool_linpeas",
			positive: text(`#!/b¦in/sh
# L¦inPEAS part of P¦EASS
sidB="/at$%"
echo "S¦UID - Check easy privesc, see H¦ackTricks"; cat /e¦tc/passwd
`),
			negative: text(`#!/b¦in/sh
# I¦nteresting Files: see /e¦tc/passwd
`),
		},
		{
			rule: "tool_privilege_enumeration",
			positive: text(`#!/b¦in/bash
f¦ind / -perm -4000 -type f 2>/dev/null
g¦etcap -r / 2>/dev/null
f¦ind / -writable -type d 2>/dev/null
s¦udo -l; cat /e¦tc/shadow; ls -la /e¦tc/cron*; u¦name -a; cat ~/.s¦sh/i¦d_rsa
`),
			negative: text(`#!/b¦in/bash
# nightly audit
f¦ind / -perm -4000 -type f 2>/dev/null
u¦name -a
`),
		},
		{
			rule: "tool_exploit_suggester",
			positive: text(`#!/b¦in/bash
# L¦inux-Exploit-Suggester
K=$(u¦name -r)
# C¦VE-2016-5195 d¦irtycow https://www.e¦xploit-db.com/exploits/1
# C¦VE-2022-0847
`),
			negative: text(`#!/b¦in/bash
# checks that the kernel has the fix of C¦VE-2022-0847
u¦name -r
`),
		},
		{
			rule:     "tool_pkexec_exploit",
			positive: elfProgram("G¦CONV_PATH=./x", "C¦HARSET=PWN", "/u¦sr/bin/pkexec", "g¦conv-modules", "/b¦in/sh"),
			negative: elfProgram("GCONV_PATH", "/u¦sr/bin/pkexec", "g¦conv-modules", "/b¦in/sh"),
		},
		{
			rule: "tool_dirty_pipe_exploit",
			positive: text(`#include <fcntl.h>
static void p¦repare_pipe(int p[2]) { unsigned s = fcntl(p[1], F_G¦ETPIPE_SZ); }
int main(void) { const char *path = "/e¦tc/passwd"; s¦plice(fd, &off, p[1], 0, 1, 0); }
`),
			negative: text(`#include <fcntl.h>
unsigned s = fcntl(p[1], F_G¦ETPIPE_SZ);
s¦plice(fd, &off, p[1], 0, 1, 0);
`),
		},
		{
			rule:     "tool_chisel_tunnel",
			positive: elfProgram("g¦ithub.com/jpillora/chisel/client", "c¦hisel-v3", "C¦HISEL_AUTH"),
			negative: elfProgram("g¦ithub.com/jpillora/chisel/share"),
		},
		{
			rule:     "tool_frp_tunnel",
			positive: elfProgram("g¦ithub.com/fatedier/frp/cmd/frpc/sub"),
			negative: elfProgram("github.com/fatedier/frp/pkg"),
		},
		{
			rule: "tool_frp_config",
			positive: text(`[c¦ommon]
s¦erver_addr = 192.0.2.11
s¦erver_port = 7000
[ssh]
t¦ype = tcp
r¦emote_port = 6000
`),
			negative: text(`[c¦ommon]
s¦erver_addr = 192.0.2.11
s¦erver_port = 5432
`),
		},
		{
			rule: "tool_ngrok_agent",
			positive: text(`version: "2"
a¦uthtoken: 2aBcDeFgHiJkLmNoPqRsTuVwXyZ_0123456789
t¦unnels:
  ssh:
    p¦roto: tcp
    a¦ddr: 22
`),
			negative: text(`version: "2"
t¦unnels:
  ssh:
    p¦roto: tcp
    a¦ddr: 22
`),
		},
		{
			rule: "tool_gsocket_install",
			positive: text(`#!/usr/bin/env bash
# see gs¦ocket.io
G¦S_ARGS="-s x -liqD" exec -a '[kcached]' g¦s-netcat
`),
			negative: text(`#!/usr/bin/env bash
# waits for d¦efunct processes
ps -ef | grep d¦efunct
`),
		},
		{
			rule:     "tool_sliver_implant",
			positive: elfProgram("sliver/protobuf/s¦liverpb", "B¦eaconRegister", "S¦creenshotReq", "P¦ivotListener", "s¦liverpb.Ping"),
			negative: elfProgram("B¦eaconRegister", "S¦creenshotReq"),
		},
		{
			rule:     "tool_meterpreter_payload",
			positive: elfProgram("m¦ettle", "c¦ore_channel_open", "s¦tdapi_fs_ls", "c¦ore_machine_id"),
			negative: elfProgram("c¦ore_channel_open", "m¦ettle"),
		},
		{
			rule:     "tool_merlin_mythic_agent",
			positive: elfProgram("g¦ithub.com/Ne0nd0g/merlin-agent/v2/os0", "g¦ithub.com/Ne0nd0g/merlin-agent/v2/os1", "g¦ithub.com/Ne0nd0g/merlin-agent/v2/os2", "g¦ithub.com/Ne0nd0g/merlin-agent/v2/os3", "g¦ithub.com/Ne0nd0g/merlin-agent/v2/os4", "g¦ithub.com/Ne0nd0g/merlin-agent/v2/os5", "g¦ithub.com/Ne0nd0g/merlin-agent/v2/os6"),
			negative: elfProgram("g¦ithub.com/Ne0nd0g/merlin-agent"),
		},
		{
			rule:     "tool_cobalt_strike_linux",
			positive: elfProgram("g¦eacon/cmd", "p¦acket.PullCommand", "p¦acket.FirstBlood"),
			negative: elfProgram("g¦eacon/cmd", "main.main"),
		},
		{
			rule:     "tool_intranet_scanner",
			positive: elfProgram("github.com/shadow1ng/f¦scan/Plugins", "P¦lugins.RedisScan", "P¦lugins.SshScan"),
			negative: elfProgram("P¦lugins.SshScan"),
		},
		{
			rule:     "tool_process_watcher",
			positive: elfProgram("github.com/d¦ominicbreuker/p¦spy/internal/psscanner"),
			negative: elfProgram("github.com/prometheus/procfs"),
		},
		{
			rule:     "tool_ssh_bruteforcer",
			positive: elfProgram("S¦SH-2.0-l¦ibssh", "v¦uln.txt", "p¦ass_file", "m¦fu.txt"),
			negative: elfProgram("S¦SH-2.0-l¦ibssh", "p¦ass_file"),
		},
	}
}
