// Backdoors: login modules, shellcode, persistence that opens a shell.
// See docs/content.md for how these rules are written and tested.

rule backdoor_pam_password_log {
    meta:
        id = "363ae9cf-19b3-5947-831e-dd34caa3d58d"
        threat = "Backdoor:Linux/PamStealer.A"
        type = "malware"
        technique = "T1556.003"
        description = "A PAM module that writes user names and passwords to a file."
        reference = "https://attack.mitre.org/techniques/T1556/003/"
        author = "Bulwark"
    strings:
        $pam = "\x70am_sm_authenticate"
        $token = "\x70am_get_authtok"
        $item = "\x70am_get_item"
        $format = /(user|username|login|u)\s?[=:]\s?%s[^\x00]{0,24}(pass|password|passwd|p)\s?[=:]\s?%s/ nocase
    condition:
        uint32(0) == 0x464c457f and
        (uint16(16) == 3 or uint16be(16) == 3) and
        filesize < 2MB and
        $pam and
        any of ($token, $item) and
        $format
}

rule backdoor_pam_exec_token_script {
    meta:
        id = "c79c8a0c-da8c-567c-90a1-fcf98b07905c"
        threat = "Backdoor:Linux/PamExec.A"
        type = "malware"
        technique = "T1556.003"
        description = "A PAM service that hands passwords to a program in a writable folder."
        reference = "https://attack.mitre.org/techniques/T1556/003/"
        author = "Bulwark"
    strings:
        $exec = /pam_exec\.so\s[^\n]{0,80}expose_authtok[^\n]{0,80}\/(tmp|var\/tmp|dev\/shm)\//
        $exec2 = /pam_exec\.so\s[^\n]{0,80}expose_authtok[^\n]{0,80}\/\.[a-z]/
    condition:
        for all i in (0..15) : (uint8(i) > 8) and
        filesize < 64KB and
        any of them
}

rule backdoor_sshd_password_log {
    meta:
        id = "2380d936-1ea5-5258-af71-1de86517b4bc"
        threat = "Backdoor:Linux/SshdStealer.A"
        type = "malware"
        technique = "T1554"
        description = "An OpenSSH program that was changed to write down passwords."
        reference = "https://attack.mitre.org/techniques/T1554/"
        author = "Bulwark"
    strings:
        $openssh = "\x4fpenSSH_"
        $interactive = "\x6beyboard-interactive"
        $format = /(user|username|login|host)\s?[=:]\s?%s[^\x00]{0,24}(pass|password|passwd)\s?[=:]\s?%s/ nocase
        $format2 = /%s:%s@%s(:%d)?\n/
        $magic = /backdoor(_|-| )?(pass|active|password)/ nocase
    condition:
        uint32(0) == 0x464c457f and
        filesize < 8MB and
        $openssh and
        $interactive and
        any of ($format, $format2, $magic)
}

rule backdoor_sshd_renamed_login {
    meta:
        id = "d9d9f1ba-34b6-57c9-903b-53c88fa91936"
        threat = "Backdoor:Linux/SshdLink.A"
        type = "malware"
        technique = "T1556.003"
        description = "A link to sshd under the name of a PAM service that asks for no password."
        reference = "https://attack.mitre.org/techniques/T1556/003/"
        author = "Bulwark"
    strings:
        $link = /ln\s+-sf?\s+\/usr\/sbin\/sshd\s+\/[^\n;&]{1,60}\/(su|chsh|chfn|runuser)\b/
        $start = /\/(su|chsh|chfn|runuser)\s+-oPort=[0-9]/
    condition:
        for all i in (0..15) : (uint8(i) > 8) and
        filesize < 200KB and
        $link and
        $start
}

rule backdoor_process_injector {
    meta:
        id = "e6695a58-944a-50bc-a016-a6c7981855ab"
        threat = "HackTool:Linux/Injector.A"
        type = "pua"
        technique = "T1055.008"
        description = "A small program that loads a library into another process by ptrace."
        reference = "https://attack.mitre.org/techniques/T1055/008/"
        author = "Bulwark"
    strings:
        $ptrace = "\x70trace" fullword
        $maps = "/\x70roc/%d/maps"
        $dlopen = "__\x6cibc_dlopen_mode"
        $inject = /inject(ing|ed)?\b/ nocase
        $attach = /(attach|pid)/ nocase
    condition:
        uint32(0) == 0x464c457f and
        filesize < 1MB and
        $ptrace and
        $maps and
        $dlopen and
        $inject and
        $attach
}

rule backdoor_bind_shellcode_x64 {
    meta:
        id = "9806b291-4801-58e6-aede-94c8e6b74bee"
        threat = "Backdoor:Linux/BindShell.A"
        type = "malware"
        technique = "T1059.004"
        description = "System calls of a 64-bit bind shell: socket, bind, listen, accept."
        reference = "https://attack.mitre.org/techniques/T1059/004/"
        author = "Bulwark"
    strings:
        $socket = { 6a 29 58 99 6a 02 5f 6a 01 5e 0f 05 }
        $bind = { 6a 31 58 0f 05 }
        $listen = { 6a 32 58 0f 05 }
        $accept = { 6a 2b 58 0f 05 }
        $execve = { 6a 3b 58 [0-32] 0f 05 }
    condition:
        uint32(0) == 0x464c457f and
        filesize < 1MB and
        $socket and
        $bind and
        $listen and
        $accept and
        $execve
}

rule backdoor_connect_stager_x64 {
    meta:
        id = "a3ad5676-9430-5311-9d9e-cb9c28f0c60c"
        threat = "Backdoor:Linux/Stager.A"
        type = "malware"
        technique = "T1105"
        description = "System calls of a 64-bit stager or connecting shell in a small program."
        reference = "https://attack.mitre.org/techniques/T1105/"
        author = "Bulwark"
    strings:
        $socket = { 6a 29 58 [0-4] 6a 02 5f [0-4] 6a 01 5e 0f 05 }
        $connect = { 6a 2a 58 0f 05 }
        $mmap = { 6a 09 58 99 b6 10 48 89 d6 }
        $dup = { 6a 03 5e 48 ff ce 6a 21 58 0f 05 }
    condition:
        uint32(0) == 0x464c457f and
        filesize < 64KB and
        $socket and
        $connect and
        any of ($mmap, $dup)
}

rule backdoor_connect_stager_x86 {
    meta:
        id = "d4c47583-7e53-562f-81c4-940145de5275"
        threat = "Backdoor:Linux/Stager.B"
        type = "malware"
        technique = "T1105"
        description = "System calls of a 32-bit stager or connecting shell in a small program."
        reference = "https://attack.mitre.org/techniques/T1105/"
        author = "Bulwark"
    strings:
        $socket = { 31 db f7 e3 53 43 53 6a 02 [0-2] b0 66 89 e1 cd 80 }
        $socket2 = { 31 db f7 e3 53 43 53 6a 02 89 e1 b0 66 cd 80 }
        $connect = { 6a 66 58 [0-12] 89 e1 [0-6] cd 80 }
        $dup = { b0 3f cd 80 49 79 f9 }
        $mprotect = { b2 07 b9 00 10 00 00 89 e3 c1 eb 0c c1 e3 0c b0 7d cd 80 }
    condition:
        uint32(0) == 0x464c457f and
        filesize < 64KB and
        any of ($socket*) and
        any of ($connect, $dup, $mprotect)
}

rule backdoor_packet_trigger {
    meta:
        id = "a75d5537-4927-5c00-80df-772e11fa890d"
        threat = "Backdoor:Linux/BpfDoor.A"
        type = "malware"
        technique = "T1205.002"
        description = "Names and settings of a backdoor that waits for a magic packet."
        reference = "https://attack.mitre.org/techniques/T1205/002/"
        author = "Bulwark"
    strings:
        $pid = "/\x76ar/run/haldrund.pid"
        $shm = "/\x64ev/shm/kdmtmpflush"
        $hald = "\x68ald-addon-acpi: listening on acpi kernel interface"
        $udevd = "/\x73bin/udevd -d"
        $mysql = "\x4dYSQL_HISTFILE=/dev/null"
        $hist = "\x48ISTFILE=/dev/null"
        $iptables = "/\x73bin/iptables -t nat -D PREROUTING -p tcp -s %s --dport %d"
        $iptables2 = "/\x73bin/iptables -t nat -A PREROUTING -p tcp -s %s"
    condition:
        uint32(0) == 0x464c457f and
        filesize < 2MB and
        3 of them
}

rule backdoor_unit_runs_shell_payload {
    meta:
        id = "ba765a3b-d4fd-5625-8ced-38257608b239"
        threat = "Backdoor:Linux/UnitPersistence.A"
        type = "malware"
        technique = "T1543.002"
        description = "A systemd unit that starts a shell over the network or a hidden file."
        reference = "https://attack.mitre.org/techniques/T1543/002/"
        author = "Bulwark"
    strings:
        $service = "[\x53ervice]"
        $net = /ExecStart\s*=[^\n]{0,200}\/dev\/(tcp|udp)\/[0-9a-z]/
        $pipe = /ExecStart\s*=[^\n]{0,80}(curl|wget)\s[^\n|]{1,160}\|\s*(ba|da|z)?sh/
        $hidden = /ExecStart\s*=\s*\/(tmp|var\/tmp|dev\/shm)\/\.[a-zA-Z]/
    condition:
        for all i in (0..15) : (uint8(i) > 8) and
        filesize < 32KB and
        $service and
        any of ($net, $pipe, $hidden)
}

rule backdoor_cron_pipes_download {
    meta:
        id = "f8ebbbbf-30b8-5681-9f42-2a0013705bf6"
        threat = "Backdoor:Linux/CronPersistence.A"
        type = "malware"
        technique = "T1053.003"
        description = "A crontab that fetches a script and runs it."
        reference = "https://attack.mitre.org/techniques/T1053/003/"
        author = "Bulwark"
    strings:
        $job = /\*\s+\*\s+\*\s+\*\s+[^\n]{0,60}(curl|wget)\s[^\n|]{4,160}\|\s*(ba|da)?sh\b/
        $net = /\*\s+\*\s+\*\s+\*\s+[^\n]{0,80}\/dev\/tcp\/[0-9a-z]/
    condition:
        for all i in (0..15) : (uint8(i) > 8) and
        filesize < 64KB and
        not uint16be(0) == 0x2321 and
        ($job in (0..2000) or $net in (0..2000))
}

rule backdoor_udev_rule_shell {
    meta:
        id = "0dc8d1c1-92ea-527b-abe5-56530945d1ab"
        threat = "Backdoor:Linux/UdevPersistence.A"
        type = "malware"
        technique = "T1546.017"
        description = "A udev rule that starts a payload in a writable folder or a shell over the network."
        reference = "https://attack.mitre.org/techniques/T1546/017/"
        author = "Bulwark"
    strings:
        $run = /RUN\+?=\s*"[^"\n]{0,80}\/(tmp|var\/tmp|dev\/shm)\//
        $net = /RUN\+?=\s*"[^\n]{0,160}\/dev\/tcp\//
        $match = /(ACTION|SUBSYSTEM|KERNEL)==/
    condition:
        for all i in (0..15) : (uint8(i) > 8) and
        filesize < 64KB and
        $match and
        any of ($run, $net)
}

rule backdoor_setuid_shell_source {
    meta:
        id = "4188b9b3-73b0-52fd-99c7-29cd991cf166"
        threat = "Backdoor:Linux/SetuidShell.A"
        type = "malware"
        technique = "T1548.001"
        description = "A script that leaves a shell with the setuid bit in a writable or hidden place."
        reference = "https://attack.mitre.org/techniques/T1548/001/"
        author = "Bulwark"
    strings:
        $copy = /cp\s+\/(usr\/)?bin\/(ba|da|z)?sh\s+\/(tmp|var\/tmp|dev\/shm|[^\s]{0,40}\/\.)/
        $mode = /chmod\s+(u?\+s|[46]7[57][57]|a\+s|\+xs|u\+xs)\s+\/(tmp|var\/tmp|dev\/shm|[^\s]{0,40}\/\.)/
    condition:
        uint16be(0) == 0x2321 and
        filesize < 200KB and
        $copy and
        $mode
}
