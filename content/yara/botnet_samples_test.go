package yara

// botnetSamples are the files of botnet.yar.
func botnetSamples() []sample {
	return []sample{
		{
			rule:     "botnet_mirai_attack_table",
			positive: elfProgram("T¦Source Engine Query", "/d¦ev/watchdog", "/d¦ev/misc/watchdog", "/p¦roc/net/tcp"),
			negative: elfProgram("/d¦ev/watchdog", "/d¦ev/misc/watchdog", "/p¦roc/net/tcp", "BusyBox watchdog"),
		},
		{
			rule:     "botnet_mirai_hidden_table",
			positive: elfProgram(xored("/d¦ev/watchdog", 0x54), xored("/d¦ev/misc/watchdog", 0x54), xored("/b¦in/busybox TEST", 0x54)),
			negative: elfProgram("/d¦ev/watchdog", "/d¦ev/misc/watchdog", "/b¦in/busybox", ": a¦pplet not found"),
		},
		{
			rule:     "botnet_mirai_credentials",
			positive: elfProgram(xored("root", 0x22), xored("admin", 0x22), xored("xc3511", 0x22), xored("vizxv", 0x22), xored("juantech", 0x22), xored("xmhdipc", 0x22)),
			negative: elfProgram("root", "admin", xored("admin", 0x22), xored("root", 0x22), xored("vizxv", 0x22)),
		},
		{
			rule:     "botnet_gafgyt_commands",
			positive: elfProgram("L¦OLNOGTFO", "K¦ILLATTK", "G¦ETLOCALIP", "P¦ONG!", "/p¦roc/net/route"),
			negative: elfProgram("P¦ONG!", "S¦CANNER ON", "/p¦roc/net/route"),
		},
		{
			rule:     "botnet_flood_modes",
			positive: elfProgram("u¦dpflood", "S¦YNFLOOD", "a¦ckflood", "h¦ttpflood", "/p¦roc/net/route"),
			negative: elfProgram("s¦ynflood", "u¦dpflood", "/p¦roc/self/exe"),
		},
		{
			rule:     "botnet_kaiten_irc",
			positive: elfProgram("N¦OTICE %s :TSUNAMI <target> <secs>", "N¦OTICE %s :PAN <target> <port> <secs>", "N¦OTICE %s :KILLALL"),
			negative: elfProgram("NOTICE %s :hello", "N¦ICK %s", "USER %s"),
		},
		{
			rule: "botnet_perl_irc_bot",
			positive: text(`#!/usr/bin/perl
my $process = '/usr/sbin/httpd';
$0="$process"."\0"x16;
use I¦O::Socket;
sendraw("N¦ICK nobody"); sendraw("P¦RIVMSG #x :ready");
if ($arg =~ /^p¦ortscan (.*)/) { }
if ($arg =~ /^u¦dpflood (.*)/) { }
`),
			negative: text(`#!/usr/bin/perl
use I¦O::Socket;
print $s "N¦ICK logger\n"; print $s "P¦RIVMSG #dev :build done\n";
`),
		},
		{
			rule: "botnet_python_irc_bot",
			positive: text(`#!/usr/bin/env python3
i¦mport s¦ocket, os
s.send(b"J¦OIN #room\n"); s.send(b"P¦RIVMSG #room :up\n")
out = o¦s.popen(arg).read()
def u¦dp_flood(host): pass
`),
			negative: text(`#!/usr/bin/env python3
i¦mport s¦ocket, os
s.send(b"J¦OIN #room\n"); s.send(b"P¦RIVMSG #room :up\n")
out = o¦s.popen("uptime").read()
`),
		},
		{
			rule:     "botnet_mozi_dht",
			positive: elfProgram("d¦ht.transmissionbt.com:6881", "[ss]", "[/s¦s]", "[hp]", "[/h¦p]"),
			negative: elfProgram("d¦ht.transmissionbt.com", "r¦outer.bittorrent.com", "libtransmission"),
		},
		{
			rule:     "botnet_xorddos",
			positive: elfProgram("B¦B2FA36AAA9541F0", "/v¦ar/run/gcc.p¦id", "/l¦ib/libudev.so.6"),
			negative: elfProgram("/l¦ib/libudev.so.1", "/var/run/gcc"),
		},
	}
}
