// Botnets and their attack programs.
// See docs/content.md for how these rules are written and tested.

rule botnet_mirai_attack_table {
    meta:
        id = "3bd31a6d-6343-56b7-a854-f3c99ab08167"
        threat = "Trojan:Linux/Mirai.A"
        type = "malware"
        technique = "T1498.001"
        description = "Names of Mirai's flood payloads together with the watchdog devices that it switches off."
        reference = "https://github.com/jgamblin/Mirai-Source-Code"
        author = "Bulwark"
    strings:
        $query = "\x54Source Engine Query"
        $captcha = "/\x63dn-cgi/l/chk_captcha"
        $busybox = "/\x62in/busybox MIRAI"
        $watchdog = "/\x64ev/watchdog"
        $misc = "/\x64ev/misc/watchdog"
        $tcp = "/\x70roc/net/tcp"
    condition:
        uint32(0) == 0x464c457f and
        filesize < 4MB and
        any of ($query, $captcha, $busybox) and
        $watchdog and
        $misc and
        $tcp
}

rule botnet_mirai_hidden_table {
    meta:
        id = "20d8fabb-ee22-5905-9de9-612a573142f6"
        threat = "Trojan:Linux/Mirai.B"
        type = "malware"
        technique = "T1027.013"
        description = "The string table of Mirai variants, hidden by XOR with one byte."
        reference = "https://github.com/jgamblin/Mirai-Source-Code"
        author = "Bulwark"
    strings:
        $watchdog = "/\x64ev/watchdog" xor(1-255)
        $misc = "/\x64ev/misc/watchdog" xor(1-255)
        $busybox = "/\x62in/busybox" xor(1-255)
        $applet = ": \x61pplet not found" xor(1-255)
    condition:
        uint32(0) == 0x464c457f and
        filesize < 4MB and
        3 of them
}

rule botnet_mirai_credentials {
    meta:
        id = "ac56095d-c19a-5e5e-9636-8c50cc23575d"
        threat = "Trojan:Linux/Mirai.C"
        type = "malware"
        technique = "T1110.001"
        description = "Factory passwords of cameras and recorders under Mirai's usual key 0x22."
        reference = "https://github.com/jgamblin/Mirai-Source-Code"
        author = "Bulwark"
    strings:
        // root, admin, xc3511, vizxv, juantech, xmhdipc, anko, klv123
        $root = { 50 4d 4d 56 }
        $admin = { 43 46 4f 4b 4c }
        $xc3511 = { 5a 41 11 17 13 13 }
        $vizxv = { 54 4b 58 5a 54 }
        $juantech = { 48 57 43 4c 56 47 41 4a }
        $xmhdipc = { 5a 4f 4a 46 4b 52 41 }
        $klv123 = { 49 4e 54 13 10 11 }
    condition:
        uint32(0) == 0x464c457f and
        filesize < 4MB and
        $root and
        $admin and
        3 of ($xc3511, $vizxv, $juantech, $xmhdipc, $klv123)
}

rule botnet_gafgyt_commands {
    meta:
        id = "3797750a-a2e8-53f2-9897-2a9f303c1753"
        threat = "Trojan:Linux/Gafgyt.A"
        type = "malware"
        technique = "T1498.001"
        description = "Commands and replies of the Gafgyt family."
        reference = "https://attack.mitre.org/techniques/T1498/001/"
        author = "Bulwark"
    strings:
        $a = "\x4cOLNOGTFO"
        $b = "\x4bILLATTK"
        $c = "\x47ETLOCALIP"
        $d = "\x53CANNER ON"
        $e = "\x4aUNK Flooding"
        $f = "\x55DP Flooding"
        $g = "\x48OLD Flooding"
        $h = "\x52EPORT %s:%s:"
        $i = "\x50ONG!"
    condition:
        uint32(0) == 0x464c457f and
        filesize < 4MB and
        4 of them
}

rule botnet_flood_modes {
    meta:
        id = "73f10b51-ea71-5769-a61d-df25c76bef1f"
        threat = "Trojan:Linux/Flooder.A"
        type = "malware"
        technique = "T1498.001"
        description = "A program that names several kinds of floods and finds its own address."
        reference = "https://attack.mitre.org/techniques/T1498/001/"
        author = "Bulwark"
    strings:
        $a = "\x75dpflood" nocase
        $b = "\x73ynflood" nocase
        $c = "\x61ckflood" nocase
        $d = "\x74cpflood" nocase
        $e = "\x68ttpflood" nocase
        $f = "\x76seflood" nocase
        $g = "\x64nsflood" nocase
        $h = "\x67reflood" nocase
        $route = "/\x70roc/net/route"
        $self = "/\x70roc/self/exe"
        $cmdline = "/\x70roc/%d/cmdline"
    condition:
        uint32(0) == 0x464c457f and
        filesize < 8MB and
        4 of ($a, $b, $c, $d, $e, $f, $g, $h) and
        any of ($route, $self, $cmdline)
}

rule botnet_kaiten_irc {
    meta:
        id = "7ed9dd75-67a4-5474-8303-dfbbe100d84f"
        threat = "Backdoor:Linux/Kaiten.A"
        type = "malware"
        technique = "T1071"
        description = "Help texts of the Kaiten (Tsunami) IRC bot."
        reference = "https://attack.mitre.org/techniques/T1071/"
        author = "Bulwark"
    strings:
        $a = "\x4eOTICE %s :TSUNAMI <target>"
        $b = "\x4eOTICE %s :PAN <target> <port> <secs>"
        $c = "\x4eOTICE %s :UNKNOWN <target> <secs>"
        $d = "\x4eOTICE %s :GETSPOOFS"
        $e = "\x4eOTICE %s :KILLALL"
        $f = "\x4baiten wa goraku"
        $g = "\x4eICK %s\nUSER %s localhost localhost :%s"
    condition:
        uint32(0) == 0x464c457f and
        filesize < 4MB and
        3 of them
}

rule botnet_perl_irc_bot {
    meta:
        id = "f1d3f239-6440-593c-988d-052f7e694fda"
        threat = "Backdoor:Perl/ShellBot.A"
        type = "malware"
        technique = "T1059"
        description = "A Perl IRC bot that scans or floods on command."
        reference = "https://attack.mitre.org/techniques/T1059/"
        author = "Bulwark"
    strings:
        $socket = "\x49O::Socket"
        $privmsg = "\x50RIVMSG"
        $nick = "\x4eICK "
        $name = /\$0\s*=\s*["'$]/
        $scan = "@\x70ortscan" nocase
        $udp = "@\x75dpflood" nocase
        $tcp = "@\x74cpflood" nocase
        $http = "@\x68ttpflood" nocase
        $bang = /\^!u[^\n]{0,20}(udp|tcp|http)flood/ nocase
        $word = "\x70ortscan" nocase
        $flood = "\x75dpflood" nocase
    condition:
        uint16be(0) == 0x2321 and
        filesize < 500KB and
        $socket and
        $privmsg and
        $nick and
        ($name and ($word or $flood) or any of ($scan, $udp, $tcp, $http, $bang))
}

rule botnet_python_irc_bot {
    meta:
        id = "9ee1865d-b4fe-5611-a05f-3f2f62656df8"
        threat = "Backdoor:Python/IrcBot.A"
        type = "malware"
        technique = "T1071"
        description = "A Python IRC client that runs what it is told in a shell."
        reference = "https://attack.mitre.org/techniques/T1071/"
        author = "Bulwark"
    strings:
        $socket = "\x69mport socket"
        $join = /["']JOIN #?/
        $privmsg = "\x50RIVMSG"
        $run = /(os\.popen|os\.system|subprocess\.(Popen|check_output|getoutput))\(/
        $flood = /(udp|syn|http|tcp|slowloris)_?flood/ nocase
        $miner = "\x78mrig"
    condition:
        uint16be(0) == 0x2321 and
        filesize < 300KB and
        $socket and
        $join and
        $privmsg and
        $run and
        ($flood or $miner)
}

rule botnet_mozi_dht {
    meta:
        id = "f424d88a-b17b-5176-a383-9521ac0b8295"
        threat = "Trojan:Linux/Mozi.A"
        type = "malware"
        technique = "T1095"
        description = "Configuration tags of the Mozi peer-to-peer botnet and its DHT bootstrap."
        reference = "https://attack.mitre.org/techniques/T1095/"
        author = "Bulwark"
    strings:
        $dht = "\x64ht.transmissionbt.com"
        $router = "\x72outer.bittorrent.com"
        $ss = "[/\x73s]"
        $hp = "[/\x68p]"
        $count = "[/\x63ount]"
        $dip = "[/\x64ip]"
        $folder = "/\x75sr/networks"
    condition:
        uint32(0) == 0x464c457f and
        filesize < 4MB and
        any of ($dht, $router) and
        2 of ($ss, $hp, $count, $dip, $folder)
}

rule botnet_xorddos {
    meta:
        id = "14618271-62e5-5112-8bd7-ce4d5746f4ad"
        threat = "Trojan:Linux/XorDdos.A"
        type = "malware"
        technique = "T1053.003"
        description = "Files and key of the XorDDoS botnet."
        reference = "https://attack.mitre.org/techniques/T1053/003/"
        author = "Bulwark"
    strings:
        $key = "\x42B2FA36AAA9541F0"
        $cron = "/\x65tc/cron.hourly/gcc.sh"
        $pid = "/\x76ar/run/gcc.pid"
        $lib = "/\x6cib/libudev.so"
        $cleanup = "\x73ed -i '/\\/etc\\/cron.hourly/d' /etc/crontab"
    condition:
        filesize < 4MB and
        (uint32(0) == 0x464c457f or uint16be(0) == 0x2321) and
        2 of them
}
