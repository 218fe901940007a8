// Coin miners, their settings and the scripts that install them.
// See docs/content.md for how these rules are written and tested.

rule miner_xmrig_binary {
    meta:
        id = "00dd7658-9e95-5ed3-ad0a-dc21e7d1152b"
        threat = "PUA:Linux/XMRig"
        type = "pua"
        technique = "T1496.001"
        description = "The XMRig coin miner or a derivative."
        reference = "https://github.com/xmrig/xmrig"
        author = "Bulwark"
    strings:
        $a = "\x78mrig" nocase
        $b = "\x64onate-level"
        $c = "\x72andomx"
        $d = "\x63ryptonight"
        $e = "\x73tratum+tcp://"
        $f = "\x73tratum+ssl://"
        $g = "\x6eicehash"
        // Options that nothing else quotes.
        $h = "\x72ig-id"
        $i = "\x64onate-over-proxy"
        $j = "\x63pu-max-threads-hint"
        $k = "\x68ealth-print-time"
        $l = "\x70ause-on-battery"
        $m = "\x72andomx-no-rdmsr"
    condition:
        uint32(0) == 0x464c457f and
        filesize < 40MB and
        3 of ($a, $b, $c, $d, $e, $f, $g) and
        2 of ($h, $i, $j, $k, $l, $m)
}

rule miner_xmrig_config {
    meta:
        id = "607c3d57-41de-58a8-a33e-eb7faf8c0036"
        threat = "PUA:Linux/XMRig.Config"
        type = "pua"
        technique = "T1496.001"
        description = "Configuration of the XMRig coin miner."
        reference = "https://github.com/xmrig/xmrig"
        author = "Bulwark"
    strings:
        $a = "\"\x72andomx\""
        $b = "\"\x64onate-level\""
        $c = "\"\x70ools\""
        $d = "\"\x72ig-id\""
        $e = "\"\x6eicehash\""
        $f = "\"\x68uge-pages\""
        $g = "\"\x6beepalive\""
        $h = "\"\x63n/0\""
    condition:
        for all i in (0..15) : (uint8(i) > 8) and
        filesize < 100KB and
        uint8(0) == 0x7b and
        $c and
        4 of them
}

rule miner_stratum_client {
    meta:
        id = "17ab6e5a-c119-551e-ba22-8483bce651ef"
        threat = "PUA:Linux/CoinMiner.Stratum"
        type = "pua"
        technique = "T1496.001"
        description = "A program that speaks the stratum mining protocol."
        reference = "https://attack.mitre.org/techniques/T1496/001/"
        author = "Bulwark"
    strings:
        $a = "\x6dining.subscribe"
        $b = "\x6dining.authorize"
        $c = "\x6dining.notify"
        $d = "\x6dining.set_difficulty"
        $url = "\x73tratum+tcp"
        $submit = "\x6dining.submit"
    condition:
        uint32(0) == 0x464c457f and
        filesize < 60MB and
        4 of ($a, $b, $c, $d, $submit) and
        $url
}

rule miner_kills_competitors {
    meta:
        id = "5f33e737-c494-5f2d-93f7-fe09e459453a"
        threat = "Trojan:Linux/CoinMiner.Killer"
        type = "malware"
        technique = "T1489"
        description = "A script that ends the miners of others before it starts its own."
        reference = "https://attack.mitre.org/techniques/T1489/"
        author = "Bulwark"
    strings:
        $kill = /(pkill|killall|grep)[^\n]{1,60}(xmrig|kinsing|kdevtmpfsi|minerd|ddgs|watchbog|sysrv|cryptonight|xmr-stak|minergate|kthreaddi|sysupdate|networkservice|monerohash|dbused|solrd)/
    condition:
        uint16be(0) == 0x2321 and
        filesize < 200KB and
        #kill >= 4
}

rule miner_pool_launcher_script {
    meta:
        id = "0a0884d0-46ec-50d0-8f25-087184acf36d"
        threat = "Trojan:Linux/CoinMiner.Script"
        type = "malware"
        technique = "T1496.001"
        description = "A script that fetches a miner and starts it against a pool in the background."
        reference = "https://attack.mitre.org/techniques/T1496/001/"
        author = "Bulwark"
    strings:
        $pool = /stratum\+(tcp|ssl|tls):\/\//
        $fetch = /(curl|wget)\s[^\n]{0,80}https?:\/\//
        $exec = "\x63hmod +x"
        $exec2 = "\x63hmod 777"
        $background = "\x6eohup "
        $silent = ">/\x64ev/null 2>&1"
        $tmp = /\/(tmp|dev\/shm|var\/tmp)\/\./
    condition:
        uint16be(0) == 0x2321 and
        filesize < 100KB and
        $pool and
        $fetch and
        any of ($exec*) and
        any of ($background, $silent, $tmp)
}

rule miner_msr_boost_script {
    meta:
        id = "2a1dee91-265d-5346-a18a-f9ee3e1aebb8"
        threat = "Trojan:Linux/CoinMiner.Boost"
        type = "malware"
        technique = "T1496.001"
        description = "A script that tunes processor registers and huge pages for mining."
        reference = "https://attack.mitre.org/techniques/T1496/001/"
        author = "Bulwark"
    strings:
        $module = "\x6dodprobe msr"
        $write = "\x77rmsr -a 0x1a4"
        $write2 = "\x77rmsr -a 0xc001102"
        $pages = "\x76m.nr_hugepages"
        $miner = "\x78mrig"
        $pool = "\x73tratum+"
        $fetch = /(curl|wget)\s[^\n]{0,120}\|\s*(ba)?sh/
    condition:
        uint16be(0) == 0x2321 and
        filesize < 100KB and
        $module and
        any of ($write*) and
        $pages and
        any of ($miner, $pool, $fetch)
}

rule miner_docker_api_worm {
    meta:
        id = "47503bca-022b-5c30-8c4c-bf65234216e8"
        threat = "Trojan:Linux/CoinMiner.DockerWorm"
        type = "malware"
        technique = "T1610"
        description = "A script that looks for open Docker interfaces and starts containers there."
        reference = "https://attack.mitre.org/techniques/T1610/"
        author = "Bulwark"
    strings:
        $scan = /(masscan|zgrab|pnscan|zmap)\s/
        $port = "2375"
        $docker = /docker\s+-H\s+(tcp:\/\/)?\$/
        $run = /run\s[^\n]{0,120}-v\s+\/:\//
        $privileged = "--\x70rivileged"
    condition:
        uint16be(0) == 0x2321 and
        filesize < 200KB and
        $scan and
        $port and
        $docker and
        ($run or $privileged)
}

rule miner_kinsing {
    meta:
        id = "dc8903f1-ac35-5f37-99da-5ed553bcb923"
        threat = "Trojan:Linux/Kinsing.A"
        type = "malware"
        technique = "T1496.001"
        description = "Function names of the Kinsing malware."
        reference = "https://attack.mitre.org/techniques/T1496/001/"
        author = "Bulwark"
    strings:
        $a = "\x6bdevtmpfsi"
        $b = "\x6dain.minerRunningCheck"
        $c = "\x6dain.backconnect"
        $d = "\x6dain.redisBrute"
        $e = "\x6dain.masscan"
        $f = "\x6dain.downloadAndExecute"
        $g = "\x6dain.getMinerPid"
        $h = "\x6dain.syncCmd"
    condition:
        uint32(0) == 0x464c457f and
        filesize < 40MB and
        3 of them
}

rule miner_mount_hides_process {
    meta:
        id = "28db1ad8-723f-5727-a80f-ae9da0065c39"
        threat = "Trojan:Linux/ProcHider.Mount"
        type = "malware"
        technique = "T1564.013"
        description = "A script that hides a process by mounting a folder over its entry in /proc."
        reference = "https://attack.mitre.org/techniques/T1564/013/"
        author = "Bulwark"
    strings:
        $mount = /mount\s[^\n]{0,40}(--bind|-o\s*bind)\s+[^\n]{1,80}\/proc\/(\$\{?(!|[A-Za-z])|[0-9]{2,6})/
        $exec = "\x63hmod +x"
        $background = "\x6eohup "
        $pool = "\x73tratum+"
        $tmp = /\/(tmp|dev\/shm|var\/tmp)\//
    condition:
        uint16be(0) == 0x2321 and
        filesize < 200KB and
        $mount and
        any of ($exec, $background, $pool, $tmp)
}
