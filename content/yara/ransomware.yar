// Ransomware and wipers.
// See docs/content.md for how these rules are written and tested.

rule ransomware_encryptor_elf {
    meta:
        id = "68426edb-9e2a-5575-99c1-291fb9680571"
        threat = "Ransom:Linux/Encryptor.A"
        type = "malware"
        technique = "T1486"
        description = "A program with a ransom note and the addresses where to pay."
        reference = "https://attack.mitre.org/techniques/T1486/"
        author = "Bulwark"
    strings:
        $n1 = "\x66iles have been encrypted" nocase
        $n2 = "\x66iles are encrypted" nocase
        $n3 = "\x66iles were encrypted" nocase
        $n4 = "\x6eetwork has been encrypted" nocase
        $n5 = "\x64ata has been stolen" nocase
        $n6 = "\x64ata are stolen and encrypted" nocase
        $p1 = ".\x6fnion"
        $p2 = "\x54or Browser" nocase
        $p3 = "\x62itcoin" nocase
        $p4 = "\x64ecryption key" nocase
        $p5 = "\x64ecryptor" nocase
        $w1 = "\x72eaddir"
        $w2 = "\x6fpendir"
        $w3 = "\x70ath/filepath"
        $w4 = "\x77alkdir"
    condition:
        uint32(0) == 0x464c457f and
        filesize < 30MB and
        any of ($n*) and
        2 of ($p*) and
        any of ($w*)
}

rule ransomware_esxi_encryptor {
    meta:
        id = "901c898c-e05e-569b-baca-dc915d652701"
        threat = "Ransom:Linux/EsxiEncryptor.A"
        type = "malware"
        technique = "T1486"
        description = "A program that stops virtual machines and handles their disks."
        reference = "https://attack.mitre.org/techniques/T1486/"
        author = "Bulwark"
    strings:
        $list = "\x65sxcli --formatter=csv --format-param=fields" nocase
        $list2 = "\x65sxcli vm process list"
        $kill = "\x65sxcli vm process kill"
        $kill2 = "\x76m process kill --type=force"
        $snapshots = "\x76im-cmd vmsvc/snapshot.removeall"
        $off = "\x76im-cmd vmsvc/power.off"
        $volumes = "/\x76mfs/volumes"
        $a = ".\x76mdk"
        $b = ".\x76mem"
        $c = ".\x76msn"
        $d = ".\x76swp"
        $e = ".\x6evram"
    condition:
        uint32(0) == 0x464c457f and
        filesize < 30MB and
        any of ($kill, $kill2, $snapshots, $off) and
        any of ($list, $list2, $volumes) and
        3 of ($a, $b, $c, $d, $e)
}

rule ransomware_esxi_script {
    meta:
        id = "e85f41d3-f9c1-5df9-80e3-dc7e907a235d"
        threat = "Ransom:Linux/EsxiScript.A"
        type = "malware"
        technique = "T1489"
        description = "A script that stops all virtual machines of an ESXi host and starts encrypting their disks."
        reference = "https://attack.mitre.org/techniques/T1489/"
        author = "Bulwark"
    strings:
        $kill = /(esxcli\s+vm\s+process\s+kill|vim-cmd\s+vmsvc\/(power\.off|snapshot\.removeall))/
        $volumes = "/\x76mfs/volumes"
        $motd = "/\x65tc/motd"
        $welcome = /(esxcli\s+system\s+welcomemsg|\/UI\/|index\.html)/
        $encrypt = /(encrypt|openssl\s+enc|chmod\s+\+x\s+[^\n]{0,40}(crypt|lock))/
        $ext = /\.(vmdk|vmx|vmem|vswp|vmsd)/
    condition:
        (uint16be(0) == 0x2321 or for all i in (0..15) : (uint8(i) > 8)) and
        filesize < 200KB and
        $kill and
        $volumes and
        $ext and
        $encrypt and
        any of ($motd, $welcome)
}

rule ransomware_openssl_loop_script {
    meta:
        id = "871752cf-dd8e-5515-8ab9-adbb361e3359"
        threat = "Ransom:Shell/OpenSSL.A"
        type = "malware"
        technique = "T1486"
        description = "A script that encrypts many files with openssl or gpg, deletes the originals and leaves a note."
        reference = "https://attack.mitre.org/techniques/T1486/"
        author = "Bulwark"
    strings:
        $find = /find\s+[\/$~"][^\n]{0,120}-type\s+f/
        $loop = /for\s+\w{1,12}\s+in\s/
        $enc = /openssl\s+(enc|aes-256-cbc|rsautl|pkeyutl)\b/
        $gpg = /gpg\s[^\n\/]{0,80}(--symmetric|-c\s|--batch)/
        $erase = /(shred|rm\s+-[rf]{1,2}|srm)\s/
        $note = /(bitcoin|\bBTC\b|ransom|decrypt your|your files|\.onion)/ nocase
        $echo = /(>{1,2}\s*[^\n]{0,60}(README|RECOVER|DECRYPT|RESTORE|HOW_TO)|\/etc\/motd)/
    condition:
        uint16be(0) == 0x2321 and
        filesize < 200KB and
        any of ($find, $loop) and
        any of ($enc, $gpg) and
        $erase and
        $note and
        $echo
}

rule ransomware_note {
    meta:
        id = "0407ffdc-772f-577a-88da-abc16e30028d"
        threat = "Ransom:Any/Note"
        type = "malware"
        technique = "T1486"
        description = "The note that ransomware leaves behind."
        reference = "https://attack.mitre.org/techniques/T1486/"
        author = "Bulwark"
    strings:
        $a = /(all )?(of )?your (important )?(files|data|documents|network|systems|servers)[^\n]{0,60}(have|has|are|were|was) (been )?(encrypted|locked|stolen)/ nocase
        $onion = /[a-z2-7]{16,56}\.onion/
        $tor = "\x74or browser" nocase
        $b = /(do not|don't|never) (try to )?(rename|modify|recover|decrypt|delete)/ nocase
        $c = /(decryption (key|tool|software)|decryptor|decrypt your)/ nocase
        $d = /(bitcoin|monero|\bBTC\b|\bXMR\b)/ nocase
        $e = /(publish|leak|sell|auction)[^\n]{0,60}(data|files|information)/ nocase
    condition:
        for all i in (0..15) : (uint8(i) > 8) and
        filesize < 32KB and
        $a in (0..4000) and
        ($onion or $tor) and
        2 of ($b, $c, $d, $e)
}

rule ransomware_database_wiper_note {
    meta:
        id = "51d8745c-1420-5275-af94-56b41216d3af"
        threat = "Ransom:Any/DatabaseNote"
        type = "malware"
        technique = "T1485"
        description = "A script that empties databases and leaves a demand for money in them."
        reference = "https://attack.mitre.org/techniques/T1485/"
        author = "Bulwark"
    strings:
        $drop = /(DROP\s+(DATABASE|TABLE)|dropDatabase|drop_database|FLUSHALL|indices\.delete)/ nocase
        $table = /(WARNING|README|READ_ME|READ__ME|RECOVER_YOUR_DATA|PLEASE_READ)[A-Z_]{0,20}/
        $note = /(your (data|database)[^\n]{0,40}(backed up|is backed)|to recover your (lost )?(data|database))/ nocase
        $pay = /(bitcoin|\bBTC\b)/ nocase
    condition:
        for all i in (0..15) : (uint8(i) > 8) and
        filesize < 100KB and
        all of them and
        uint16be(0) == 0x2321
}

rule ransomware_disk_wiper_script {
    meta:
        id = "adeaedb8-3a90-541d-85a6-ceef68246c53"
        threat = "Trojan:Shell/Wiper.A"
        type = "malware"
        technique = "T1561.001"
        description = "A script that overwrites disks and removes the system."
        reference = "https://attack.mitre.org/techniques/T1561/001/"
        author = "Bulwark"
    strings:
        $dd = /dd\s+if=\/dev\/(zero|u?random)\s+of=\/dev\/(sd|hd|vd|xvd|nvme|mapper|mmcblk|\$)/
        $shred = /shred\s[^\n]{0,40}\/dev\/(sd|hd|vd|nvme|\$)/
        $rm = /rm\s+-(rf|fr)\s+(--no-preserve-root\s+\/|\/\*|\/\s+--no-preserve-root)/
        $sysrq = /echo\s+[bo]\s*>\s*\/proc\/sysrq-trigger/
        $lsblk = /(lsblk|fdisk\s+-l)/
        $loop = /for\s+\w{1,12}\s+in\s/
    condition:
        uint16be(0) == 0x2321 and
        filesize < 200KB and
        ((any of ($dd, $shred) and any of ($rm, $sysrq)) or ($rm and $sysrq)) and
        any of ($lsblk, $loop, $rm)
}
