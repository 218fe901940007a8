// Tools of attackers: enumeration, exploits, tunnels, command and control.
// See docs/content.md for how these rules are written and tested.

rule tool_linpeas {
    meta:
        id = "661241da-6b57-5499-b1d7-577f853a8883"
        threat = "HackTool:Shell/LinPEAS"
        type = "pua"
        technique = "T1082"
        description = "The LinPEAS script, which looks for ways to become root."
        reference = "https://github.com/peass-ng/PEASS-ng"
        author = "Bulwark"
    strings:
        $a = "\x6cinpeas" nocase
        $b = "\x50EASS" fullword
        $c = "/\x65tc/passwd"
        $d = "\x49nteresting Files"
        $e = "\x73idB"
        $f = "\x68acktricks" nocase
        $g = "\x63heckProcs"
        $h = "\x53UID - Check easy privesc"
    condition:
        for all i in (0..15) : (uint8(i) > 8) and
        filesize < 3MB and
        $c and
        4 of them
}

rule tool_privilege_enumeration {
    meta:
        id = "8a9017b9-8327-5ab6-8473-5a65a661635c"
        threat = "HackTool:Shell/PrivEnum"
        type = "pua"
        technique = "T1083"
        description = "A script that gathers what helps to become root: setuid files, capabilities, writable paths, keys."
        reference = "https://attack.mitre.org/techniques/T1083/"
        author = "Bulwark"
    strings:
        $suid = /find\s+\/[^\n]{0,60}-perm\s+-?\/?(u=s|4000|-4000|6000)/
        $caps = /getcap\s+-r\s/
        $writable = /find\s+\/[^\n]{0,80}(-writable|-perm\s+-?(o\+w|0?002|222|o=w))/
        $keys = /(id_rsa|\.ssh)/
        $sudo = /sudo\s+(-ln|-l|-nl|-n\s+-l)\b/
        $shadow = "/\x65tc/shadow"
        $cron = /(\/etc\/cron|crontab\s+-l)/
        $docker = "\x64ocker.sock"
        $kernel = /uname\s+-a/
        $nfs = "\x6eo_root_squash"
    condition:
        uint16be(0) == 0x2321 and
        filesize < 500KB and
        $suid and
        7 of them
}

rule tool_exploit_suggester {
    meta:
        id = "04285bf6-10bf-5c3d-93ca-2500eb80600e"
        threat = "HackTool:Shell/ExploitSuggester"
        type = "pua"
        technique = "T1068"
        description = "A script that names kernel exploits for the running version."
        reference = "https://attack.mitre.org/techniques/T1068/"
        author = "Bulwark"
    strings:
        $a = /linux-exploit-suggester/ nocase
        $b = "\x64irtycow" nocase
        $c = "\x64irty_cow" nocase
        $d = "\x43VE-2016-5195"
        $e = "\x43VE-2021-4034"
        $f = "\x43VE-2022-0847"
        $g = "\x43VE-2017-16995"
        $h = "\x65xploit-db"
        $uname = /uname\s+-[ar]/
    condition:
        uint16be(0) == 0x2321 and
        filesize < 1MB and
        $uname and
        4 of ($a, $b, $c, $d, $e, $f, $g, $h)
}

rule tool_pkexec_exploit {
    meta:
        id = "bca77913-df20-58bc-be5f-2f040af11be6"
        threat = "Exploit:Linux/CVE-2021-4034"
        type = "malware"
        technique = "T1068"
        description = "An exploit of pkexec through the character set converter's path."
        reference = "https://nvd.nist.gov/vuln/detail/CVE-2021-4034"
        author = "Bulwark"
    strings:
        $gconv = "\x47CONV_PATH=."
        $charset = /CHARSET=[A-Za-z0-9_]/
        $pkexec = "/\x75sr/bin/pkexec"
        $module = "\x67conv-modules"
        $shell = "/\x62in/sh"
        $shell2 = "/\x62in/bash"
        $setuid = "\x73etuid"
    condition:
        filesize < 4MB and
        (uint32(0) == 0x464c457f or for all i in (0..15) : (uint8(i) > 8)) and
        $gconv and
        $charset and
        $pkexec and
        $module and
        any of ($shell*, $setuid) and
        $gconv in (0..2MB)
}

rule tool_dirty_pipe_exploit {
    meta:
        id = "c55c552f-68fa-5782-b320-9f00bbcce81f"
        threat = "Exploit:Linux/CVE-2022-0847"
        type = "malware"
        technique = "T1068"
        description = "Source of an exploit that writes into read-only files through a pipe."
        reference = "https://nvd.nist.gov/vuln/detail/CVE-2022-0847"
        author = "Bulwark"
    strings:
        $flag = "\x50IPE_BUF_FLAG_CAN_MERGE"
        $size = "\x46_GETPIPE_SZ"
        $splice = /splice\(\s*\w{1,12}\s*,\s*&/
        $prepare = "\x70repare_pipe"
        $target = /["']\/(etc\/passwd|usr\/bin\/su|usr\/bin\/sudo|bin\/su)["']/
    condition:
        for all i in (0..15) : (uint8(i) > 8) and
        filesize < 100KB and
        $size and
        $splice and
        $target and
        any of ($flag, $prepare) and
        uint16be(0) != 0x2321
}

rule tool_chisel_tunnel {
    meta:
        id = "9e26e00a-a8ce-5dbd-be49-fe8145c0c8ff"
        threat = "HackTool:Linux/Chisel"
        type = "pua"
        technique = "T1572"
        description = "The chisel tunnel, client and server."
        reference = "https://github.com/jpillora/chisel"
        author = "Bulwark"
    strings:
        $path = "\x67ithub.com/jpillora/chisel/"
        $a = "\x63hisel-v3"
        $b = "\x6dain.client"
        $c = "--\x72everse"
        $d = "\x43HISEL_AUTH"
        $e = "\x43HISEL_KEY"
        $f = "\x67enerateClientHelp"
        $help = "\x63hisel server" nocase
    condition:
        uint32(0) == 0x464c457f and
        filesize < 60MB and
        $path and
        2 of ($a, $b, $c, $d, $e, $f, $help)
}

rule tool_frp_tunnel {
    meta:
        id = "c87667ed-cc80-5e56-a7dd-e5954e72ec21"
        threat = "HackTool:Linux/Frp"
        type = "pua"
        technique = "T1090.002"
        description = "The client or server of the frp tunnel."
        reference = "https://github.com/fatedier/frp"
        author = "Bulwark"
    strings:
        $client = "\x67ithub.com/fatedier/frp/cmd/frpc"
        $server = "\x67ithub.com/fatedier/frp/cmd/frps"
        $sub = "\x67ithub.com/fatedier/frp/client"
    condition:
        uint32(0) == 0x464c457f and filesize < 60MB and any of ($client, $server) or (uint32(0) == 0x464c457f and #sub > 20)
}

rule tool_frp_config {
    meta:
        id = "ef2696dd-5a66-543c-8911-7bfe7fd62c79"
        threat = "HackTool:Any/Frp.Config"
        type = "pua"
        technique = "T1090.002"
        description = "A configuration of the frp tunnel that lets others in."
        reference = "https://github.com/fatedier/frp"
        author = "Bulwark"
    strings:
        $ini = "[\x63ommon]"
        $addr = /server_?addr\s*=\s*/ nocase
        $port = /server_?port\s*=\s*[0-9"]/ nocase
        $remote = /remote_?port\s*=\s*[0-9]/ nocase
        $proxies = "[[\x70roxies]]"
        $plugin = /plugin\s*=\s*"?(socks5|http_proxy)/
        $type = /type\s*=\s*"?(tcp|udp|stcp|xtcp)/
    condition:
        for all i in (0..15) : (uint8(i) > 8) and
        filesize < 32KB and
        $addr in (0..2000) and
        $port and
        any of ($ini, $proxies) and
        ($remote or $plugin) and
        ($type or $plugin)
}

rule tool_ngrok_agent {
    meta:
        id = "4c241e78-5c14-53db-bbc7-1318c832da4a"
        threat = "PUA:Any/Ngrok"
        type = "pua"
        technique = "T1572"
        description = "The ngrok tunnel or its configuration."
        reference = "https://ngrok.com/docs/agent/config/"
        author = "Bulwark"
    strings:
        $path = "\x67o.ngrok.com/cmd/ngrok"
        $path2 = "\x6egrok/cmd/ngrok"
        $token = /^\s*authtoken:\s*["']?[0-9A-Za-z_]{20}/
        $token2 = /\n\s*authtoken:\s*["']?[0-9A-Za-z_]{20}/
        $tunnels = /\n(tunnels|endpoints):/
        $proto = /\n\s+(proto|addr):\s/
    condition:
        (uint32(0) == 0x464c457f and filesize < 80MB and any of ($path*)) or (for all i in (0..15) : (uint8(i) > 8) and filesize < 32KB and any of ($token*) and $tunnels and $proto)
}

rule tool_gsocket_install {
    meta:
        id = "1757ba56-49aa-5b6f-881c-ba223d495237"
        threat = "HackTool:Shell/Gsocket"
        type = "pua"
        technique = "T1572"
        description = "The installer of a global socket shell that hides and starts itself again."
        reference = "https://www.gsocket.io/"
        author = "Bulwark"
    strings:
        $a = "\x67s-netcat"
        $b = "\x47S_ARGS"
        $c = "\x47SOCKET_ARGS"
        $d = "\x67socket.io"
        $e = "\x47S_UNDO"
        $f = "\x64efunct"
        $g = "\x67s-dbus"
    condition:
        (uint16be(0) == 0x2321 or uint32(0) == 0x464c457f) and
        filesize < 8MB and
        3 of them
}

rule tool_sliver_implant {
    meta:
        id = "0ed8aff6-0dda-53e5-aeac-f85d6febaf61"
        threat = "Backdoor:Linux/Sliver"
        type = "malware"
        technique = "T1071.001"
        description = "An implant of the Sliver framework."
        reference = "https://github.com/BishopFox/sliver"
        author = "Bulwark"
    strings:
        $a = "\x67ithub.com/bishopfox/sliver/implant"
        $b = "\x73liverpb"
        $c = "\x73liver/protobuf/sliverpb"
        $d = "\x42eaconRegister"
        $e = "\x53creenshotReq"
        $f = "\x50ivotListener"
        $g = "\x49nvokeExecuteAssemblyReq"
    condition:
        uint32(0) == 0x464c457f and
        filesize < 60MB and
        ($a or 4 of ($b, $c, $d, $e, $f, $g))
}

rule tool_meterpreter_payload {
    meta:
        id = "76c7735e-8131-5670-9f26-91b2446146b1"
        threat = "Backdoor:Linux/Meterpreter"
        type = "malware"
        technique = "T1095"
        description = "The Meterpreter payload for Linux."
        reference = "https://github.com/rapid7/mettle"
        author = "Bulwark"
    strings:
        $a = "\x6dettle" fullword
        $b = "\x73tdapi_sys_process_get_processes"
        $c = "\x63ore_channel_open"
        $d = "\x73tdapi_fs_ls"
        $e = "\x73tdapi_net_config_get_interfaces"
        $f = "\x63ore_machine_id"
        $g = "\x63ore_negotiate_tlv_encryption"
        $h = "\x63ore_transport_add"
    condition:
        uint32(0) == 0x464c457f and
        filesize < 20MB and
        4 of them
}

rule tool_merlin_mythic_agent {
    meta:
        id = "1a54563f-cd57-5455-a9bc-4a18021c74fb"
        threat = "Backdoor:Linux/GoAgent"
        type = "malware"
        technique = "T1071.001"
        description = "Agents of the Merlin and Mythic (Poseidon) frameworks."
        reference = "https://github.com/Ne0nd0g/merlin-agent"
        author = "Bulwark"
    strings:
        $a = "\x67ithub.com/Ne0nd0g/merlin-agent"
        $b = "\x67ithub.com/Ne0nd0g/merlin/pkg/agent"
        $c = "\x70oseidon/Payload_Type"
        $d = "\x4dythicAgents/poseidon"
        $e = "\x70kg/utils/P2P"
        $f = "\x50ayload_Type/poseidon"
    condition:
        uint32(0) == 0x464c457f and
        filesize < 60MB and
        (#a + #b > 5 or $c or $d or ($e and $f))
}

rule tool_cobalt_strike_linux {
    meta:
        id = "d706517e-4dcb-5abd-a4e6-20c58bcbd686"
        threat = "Backdoor:Linux/CobaltStrike"
        type = "malware"
        technique = "T1071.001"
        description = "Linux beacons that speak to Cobalt Strike."
        reference = "https://attack.mitre.org/techniques/T1071/001/"
        author = "Bulwark"
    strings:
        $a = "\x67eacon" nocase
        $b = "\x6dain/packet.EncryptedMetaInfo"
        $c = "\x43rossC2" nocase
        $d = "\x63cHost"
        $e = "\x70acket.PullCommand"
        $f = "\x70acket.FirstBlood"
        $g = "\x70acket.PushResult"
    condition:
        uint32(0) == 0x464c457f and
        filesize < 60MB and
        3 of them
}

rule tool_intranet_scanner {
    meta:
        id = "c28fd2c9-5013-57d1-8ace-302f95dfc521"
        threat = "HackTool:Linux/Fscan"
        type = "pua"
        technique = "T1046"
        description = "A scanner that finds services inside a network and tries passwords and exploits."
        reference = "https://github.com/shadow1ng/fscan"
        author = "Bulwark"
    strings:
        $a = "/\x66scan/Plugins"
        $b = "\x73hadow1ng/fscan"
        $c = "\x50lugins.MS17010"
        $d = "\x50lugins.RedisScan"
        $e = "\x50lugins.SshScan"
        $f = "\x57ebScan/pocs"
        $g = "\x50lugins.Brutelist"
    condition:
        uint32(0) == 0x464c457f and
        filesize < 80MB and
        3 of them
}

rule tool_process_watcher {
    meta:
        id = "6a70e61c-c472-5a64-b6a7-3b765bf38ba0"
        threat = "HackTool:Linux/Pspy"
        type = "pua"
        technique = "T1057"
        description = "The pspy tool, which watches commands of other users without rights."
        reference = "https://github.com/DominicBreuker/pspy"
        author = "Bulwark"
    strings:
        $a = "\x70spy/internal/pspy"
        $b = "\x64ominicbreuker/pspy"
        $c = "\x70spy/internal/psscanner"
        $d = "\x70spy/internal/fswatcher"
    condition:
        uint32(0) == 0x464c457f and
        filesize < 20MB and
        2 of them
}

rule tool_ssh_bruteforcer {
    meta:
        id = "cece303a-f33a-5319-ad3b-f36f112447d4"
        threat = "HackTool:Linux/SshBrute"
        type = "pua"
        technique = "T1110.001"
        description = "A program that tries lists of passwords at SSH servers."
        reference = "https://attack.mitre.org/techniques/T1110/001/"
        author = "Bulwark"
    strings:
        $ssh = /(libssh|golang\.org\/x\/crypto\/ssh|SSH-2\.0-)/
        $a = /\[\+\]\s?(Found|Success|Cracked|Login|OK)[^\x00\n]{0,40}%s/ nocase
        $b = "\x76uln.txt"
        $c = "\x70ass_file"
        $d = "\x6dfu.txt"
        $e = "\x62ios.txt"
        $f = /(nas|found|good|valid)\.(lst|log|txt)/
        $g = "/\x62ruteforce" nocase
    condition:
        uint32(0) == 0x464c457f and
        filesize < 20MB and
        $ssh and
        3 of ($a, $b, $c, $d, $e, $f, $g)
}
