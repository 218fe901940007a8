package yara

// ransomwareSamples are the files of ransomware.yar.
func ransomwareSamples() []sample {
	return []sample{
		{
			rule:     "ransomware_encryptor_elf",
			positive: elfProgram("All your f¦iles have been e¦ncrypted!", "http://x.o¦nion", "T¦or Browser", "r¦eaddir"),
			negative: elfProgram("f¦iles have been e¦ncrypted", "r¦eaddir", "o¦pendir"),
		},
		{
			rule:     "ransomware_esxi_encryptor",
			positive: elfProgram("e¦sxcli v¦m process kill --type=force --world-id=%s", "/v¦mfs/volumes", ".v¦mdk", ".v¦mem", ".v¦swp"),
			negative: elfProgram("/v¦mfs/volumes", ".v¦mdk", ".v¦mem", ".v¦swp"),
		},
		{
			rule: "ransomware_esxi_script",
			positive: text(`#!/b¦in/sh
f¦or i in $(e¦sxcli vm process list | grep World | awk '{print $3}'); do e¦sxcli v¦m process kill --type=force --world-id=$i; done
f¦or f in $(find /v¦mfs/volumes -name "*.v¦mdk"); do n¦ohup ./e¦ncrypt $f; done
cp note /e¦tc/motd
`),
			negative: text(`#!/b¦in/sh
f¦or i in $(vim-cmd vmsvc/getallvms); do v¦im-cmd vmsvc/power.off $i; done
ls /v¦mfs/volumes/*.v¦mdk
`),
		},
		{
			rule: "ransomware_openssl_loop_script",
			positive: text(`#!/b¦in/bash
f¦or f in $(f¦ind /home -type f); do o¦penssl enc -aes-256-cbc -in "$f" -out "$f.locked" -pass file:k; r¦m -f "$f"; done
echo "Y¦our files: send b¦itcoin" > /root/R¦EADME_RECOVER.txt
`),
			negative: text(`#!/b¦in/bash
f¦or f in $(f¦ind /home -type f); do o¦penssl enc -aes-256-cbc -in "$f" -out "/backup$f.enc" -pass file:k; done
r¦m -f /t¦mp/k
`),
		},
		{
			rule: "ransomware_note",
			positive: text(`!!! ATTENTION !!!
All of your f¦iles have been e¦ncrypted.
D¦o not rename them. Install T¦or Browser and pay in b¦itcoin to get the d¦ecryption key.
`),
			negative: text(`Security training, page 3: criminals write that your f¦iles have been e¦ncrypted
and ask for money. Call the help desk.
`),
		},
		{
			rule: "ransomware_database_wiper_note",
			positive: text(`#!/usr/bin/env python3
cur.execute("D¦ROP DATABASE " + name)
cur.execute("CREATE TABLE R¦EADME_TO_RECOVER (t text)")
note = "All y¦our data is backed up. T¦o recover your data pay 0.01 B¦TC"
`),
			negative: text(`#!/usr/bin/env python3
cur.execute("D¦ROP DATABASE test_" + name)
print("R¦EADME: restore from the backup")
`),
		},
		{
			rule: "ransomware_disk_wiper_script",
			positive: text(`#!/b¦in/sh
f¦or d in $(l¦sblk -dno name); do d¦d if=/dev/urandom of=/dev/$d bs=1M & done
r¦m -rf --no-preserve-root /
e¦cho b > /proc/sysrq-trigger
`),
			negative: text(`#!/b¦in/sh
# prepare one disk
d¦d if=/dev/zero of=/dev/sdb bs=1M count=1
mkfs.ext4 /dev/sdb
`),
		},
	}
}
