// Scripts that download, install and make room for malware.
// See docs/content.md for how these rules are written and tested.

rule dropper_download_cron {
    meta:
        id = "9f20d795-627f-57b5-acf5-871d15f7849b"
        threat = "Trojan:Shell/Downloader.Cron"
        type = "malware"
        technique = "T1053.003"
        description = "A script that downloads and runs code, and puts the same into a crontab."
        reference = "https://attack.mitre.org/techniques/T1053/003/"
        author = "Bulwark"
    strings:
        $pipe = /(curl|wget)\s[^\n|]{4,200}\|\s*(ba|da)?sh\b/
        $cron = /(crontab\s+-|\/etc\/cron|\/var\/spool\/cron)/
        $job = /\*\s+\*\s+\*\s+\*\s/
        $silent = /(>\s*\/dev\/null\s+2>&1|-fsSL|-q\s+-O\s*-)/
    condition:
        uint16be(0) == 0x2321 and
        filesize < 200KB and
        $pipe and
        $cron and
        $job and
        $silent
}

rule dropper_disables_protection {
    meta:
        id = "20c49f72-2622-5102-88c0-376b86f70a25"
        threat = "Trojan:Shell/Disabler.A"
        type = "malware"
        technique = "T1562.001"
        description = "A script that stops or removes several protection products and opens the firewall."
        reference = "https://attack.mitre.org/techniques/T1562/001/"
        author = "Bulwark"
    strings:
        $stop = /(systemctl\s+(stop|disable|mask)|service|\/etc\/init\.d\/|apt-get\s+(remove|purge)|yum\s+(-y\s+)?remove|pkill|killall)\s[^\n]{0,40}(aliyun|aegis|cloudmonitor|falcon-sensor|mdatp|auditd|apparmor|clamav|osqueryd|wazuh|crowdsec|fail2ban|ds_agent|sentinelone|cbdaemon|bcm-agent|YDService|qcloud|bulwark)/
        $selinux = /setenforce\s+0/
        $firewall = /(iptables\s+-F|ufw\s+disable|systemctl\s+(stop|disable)\s+firewalld)/
        $log = /(\/var\/log\/(secure|auth\.log|wtmp|syslog)|history\s+-c)/
        $preload = /(rm|chattr)\s[^\n]{0,20}\/etc\/ld\.so\.preload/
    condition:
        uint16be(0) == 0x2321 and
        filesize < 200KB and
        #stop >= 2 and
        2 of ($selinux, $firewall, $log, $preload)
}

rule dropper_architecture_loop {
    meta:
        id = "b4735d10-e8a1-5f4f-bf69-b647c1e31dda"
        threat = "Trojan:Shell/Downloader.Bins"
        type = "malware"
        technique = "T1105"
        description = "A script that fetches the same program for many processors and tries each."
        reference = "https://attack.mitre.org/techniques/T1105/"
        author = "Bulwark"
    strings:
        $line = /(wget|curl|tftp|ftpget)[^\n]{4,160}(mips|mpsl|mipsel|arm[4-7]?|armv[4-7]l|x86|i[56]86|sh4|ppc|powerpc|m68k|spc|sparc)\b[^\n]{0,160}chmod\s/
        $names = /for\s+\w{1,12}\s+in\s[^\n]{0,80}mips[^\n]{0,80}arm[^\n]{0,80}/
        $fetch = /(wget|curl|tftp)\s[^\n]{0,80}\$/
        $chmod = /chmod\s+(777|\+x)/
    condition:
        for all i in (0..15) : (uint8(i) > 8) and
        filesize < 64KB and
        (#line >= 4 or ($names and $fetch and $chmod and uint16be(0) == 0x2321)) and
        ($line in (0..2000) or $names in (0..2000))
}

rule dropper_hidden_download {
    meta:
        id = "f2e5210c-5700-5ffc-b975-adfdd150444e"
        threat = "Trojan:Shell/Downloader.Hidden"
        type = "malware"
        technique = "T1564.001"
        description = "A script that downloads into a hidden file of a writable folder and starts it."
        reference = "https://attack.mitre.org/techniques/T1564/001/"
        author = "Bulwark"
    strings:
        $fetch = /(curl|wget)\s[^\n]{0,160}(-o|-O|--output|>)\s*["']?\/(tmp|var\/tmp|dev\/shm)\/\.[a-zA-Z0-9_-]{1,40}/
        $mode = /chmod\s+(\+x|a\+x|u\+x|7[0-7]{2})\s+["']?\/(tmp|var\/tmp|dev\/shm)\/\.[a-zA-Z0-9_-]{1,40}/
        $start = /(nohup\s+|setsid\s+|\n|;|&&)\s*\(?\s*["']?\/(tmp|var\/tmp|dev\/shm)\/\.[a-zA-Z0-9_-]{1,40}/
    condition:
        uint16be(0) == 0x2321 and
        filesize < 200KB and
        all of them
}

rule dropper_wipes_traces {
    meta:
        id = "35d05896-658b-5c11-8c76-9001325587a5"
        threat = "Trojan:Shell/Downloader.Wiper"
        type = "malware"
        technique = "T1070.003"
        description = "A script that downloads and runs code, then empties logs and the history."
        reference = "https://attack.mitre.org/techniques/T1070/003/"
        author = "Bulwark"
    strings:
        $pipe = /(curl|wget)\s[^\n|]{4,200}\|\s*(ba|da)?sh\b/
        $exec = /(curl|wget)\s[^\n]{4,200}(;|&&|\n)\s*chmod\s+(\+x|7[0-7]{2})\s/
        $log = /(echo\s*["']?["']?\s*>|cat\s+\/dev\/null\s*>|truncate\s+-s\s*0|rm\s+-rf?|>\s?)\s*\/var\/log\/(wtmp|btmp|lastlog|secure|auth\.log|syslog|messages|cron)/
        $history = /(history\s+-c|unset\s+HISTFILE|HISTFILE=\/dev\/null|>\s*~?\/?(root\/)?\.bash_history)/
    condition:
        uint16be(0) == 0x2321 and
        filesize < 200KB and
        any of ($pipe, $exec) and
        #log >= 2 and
        $history
}

rule dropper_authorized_key_lock {
    meta:
        id = "6728f779-87cc-5550-b190-1601513e5ad0"
        threat = "Trojan:Shell/KeyPlanter.A"
        type = "malware"
        technique = "T1098.004"
        description = "A script that adds its own SSH key and makes the file unchangeable."
        reference = "https://attack.mitre.org/techniques/T1098/004/"
        author = "Bulwark"
    strings:
        $key = /(echo|printf)\s[^\n]{0,20}(ssh-rsa|ssh-ed25519|ecdsa-sha2)[^\n]{20,1200}>{1,2}\s*[^\s]{0,40}authorized_keys/
        $lock = /chattr\s+\+[aiu]{1,3}\s+[^\n]{0,60}authorized_keys/
        $unlock = /chattr\s+-[aiu]{1,3}\s+[^\n]{0,60}authorized_keys/
    condition:
        uint16be(0) == 0x2321 and
        filesize < 200KB and
        $key and
        any of ($lock, $unlock)
}

rule dropper_python_encoded_stage {
    meta:
        id = "5b36dfa4-c375-5061-82db-479e0cb885f9"
        threat = "Trojan:Python/Downloader.A"
        type = "malware"
        technique = "T1059.006"
        description = "A Python program that decodes or fetches a second one and runs it at once."
        reference = "https://attack.mitre.org/techniques/T1059/006/"
        author = "Bulwark"
    strings:
        $a = /exec\(\s*(__import__\(["'](base64|zlib|marshal)["']\)|zlib\.decompress|marshal\.loads|base64\.b64decode)\s*[(.]/
        $b = /exec\(\s*(urllib\.request\.urlopen|urllib2\.urlopen|requests\.get|urlopen)\(\s*["']?[^\n]{1,120}(\.read\(\)|\.text)/
        $c = /exec\(\s*compile\(\s*(base64\.b64decode|zlib\.decompress|urlopen)\(/
        $wait = /(subprocess|os\.fork\(\)|daemon|socket|crontab|LD_PRELOAD|\/tmp\/)/
    condition:
        for all i in (0..15) : (uint8(i) > 8) and
        filesize < 2MB and
        any of ($a, $b, $c) and
        ($wait or filesize < 2000) and
        ($a in (0..4000) or $b in (0..4000) or $c in (0..4000))
}

rule dropper_encoded_shell {
    meta:
        id = "ea2d9afa-bfab-5e7b-ab6a-91a9f23b6ff0"
        threat = "Trojan:Shell/Encoded.A"
        type = "malware"
        technique = "T1140"
        description = "A script that is mostly one encoded command for the shell."
        reference = "https://attack.mitre.org/techniques/T1140/"
        author = "Bulwark"
    strings:
        $a = /echo\s+(-n\s+)?["']?[A-Za-z0-9+\/=]{40,4000}["']?\s*\|\s*base64\s+(-d|--decode|-di)\s*\|\s*(ba|da|z)?sh\b/
        $b = /(ba|da|z)?sh\s+-c\s+["']?\$\(\s*echo\s+["']?[A-Za-z0-9+\/=]{40,4000}["']?\s*\|\s*base64\s+(-d|--decode)/
        $c = /eval\s+["']?\$\(\s*echo\s+["']?[A-Za-z0-9+\/=]{40,4000}["']?\s*\|\s*base64\s+(-d|--decode)/
    condition:
        filesize < 64KB and
        ((uint16be(0) == 0x2321 and any of ($a, $b, $c)) or $a in (0..64) or $b in (0..64) or $c in (0..64))
}
