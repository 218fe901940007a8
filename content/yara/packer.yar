// Packers and loaders that hide a program.
// See docs/content.md for how these rules are written and tested.

rule packer_upx_marks_removed {
    meta:
        id = "e94cdb89-4900-5563-a2df-1d9eed84c6e2"
        threat = "Trojan:Linux/Packed.UpxModified"
        type = "malware"
        technique = "T1027.002"
        description = "A program packed by UPX whose marks were removed so that it cannot be unpacked."
        reference = "https://upx.github.io/"
        author = "Bulwark"
    strings:
        $stub = "\x50ROT_EXEC|PROT_WRITE failed."
        $info = "$\x49nfo: This file is packed with the UPX executable packer"
        $magic = "\x55PX!"
    condition:
        uint32(0) == 0x464c457f and
        filesize < 30MB and
        any of ($stub, $info) and
        #magic < 2
}

rule packer_tiny_rwx_elf64 {
    meta:
        id = "9cf85322-c236-5a93-9579-1f509228b828"
        threat = "Trojan:Linux/TinyElf.A"
        type = "malware"
        technique = "T1027.002"
        description = "A 64-bit program of one writable and executable segment without sections, as made for shellcode."
        reference = "https://refspecs.linuxfoundation.org/elf/elf.pdf"
        author = "Bulwark"
    condition:
        uint32(0) == 0x464c457f and
        filesize < 8KB and
        uint8(4) == 2 and
        uint8(5) == 1 and
        uint16(56) == 1 and
        uint16(60) == 0 and
        uint32(64) == 1 and
        uint32(68) == 7 and
        uint16(52) == 64 and
        uint32(32) == 64
}

rule packer_tiny_rwx_elf32 {
    meta:
        id = "c8165dc1-177f-555a-86d7-6027f3983fc2"
        threat = "Trojan:Linux/TinyElf.B"
        type = "malware"
        technique = "T1027.002"
        description = "A 32-bit program of one writable and executable segment without sections, as made for shellcode."
        reference = "https://refspecs.linuxfoundation.org/elf/elf.pdf"
        author = "Bulwark"
    condition:
        uint32(0) == 0x464c457f and
        filesize < 8KB and
        uint8(4) == 1 and
        uint8(5) == 1 and
        uint16(44) == 1 and
        uint16(48) == 0 and
        uint32(52) == 1 and
        uint32(76) == 7 and
        uint16(40) == 52 and
        uint32(28) == 52
}

rule packer_compiled_shell_script {
    meta:
        id = "012bfb67-ca89-574d-a558-16128597998e"
        threat = "PUA:Linux/ShcCompiled"
        type = "pua"
        technique = "T1027"
        description = "A shell script turned into a program by shc, with its text encrypted."
        reference = "https://attack.mitre.org/techniques/T1027/"
        author = "Bulwark"
    strings:
        $a = "\x6eeither argv[0] nor $_ works."
        $b = "\x68as expired!"
        $c = "_\x53HC_"
        $d = "=%\x6cu %d"
        $e = "%\x6cu %d%c"
        // The compiler itself carries the source of what it makes.
        $source = "#include <sys/ptrace.h>"
    condition:
        uint32(0) == 0x464c457f and
        filesize < 8MB and
        3 of ($a, $b, $c, $d, $e) and
        ($a or $c) and
        not $source
}

rule packer_elf_in_script {
    meta:
        id = "e2546a7f-516c-57db-b6f3-df67aa94df14"
        threat = "Dropper:Shell/EmbeddedElf"
        type = "malware"
        technique = "T1027.009"
        description = "A script that carries a program in base64 and starts it."
        reference = "https://attack.mitre.org/techniques/T1027/009/"
        author = "Bulwark"
    strings:
        $elf = "\x660VMRgIBA"
        $elf32 = "\x660VMRgEBA"
        $decode = /base64\s+(-d|--decode|-D|-di)\b/
        $exec = /chmod\s+(\+x|[0-7]{3,4}|a\+x|u\+x)\s/
        $tmp = /\/(tmp|var\/tmp|dev\/shm|memfd)/
    condition:
        uint16be(0) == 0x2321 and
        filesize < 30MB and
        any of ($elf*) and
        $decode and
        $exec and
        $tmp
}

rule packer_memfd_loader_script {
    meta:
        id = "bd528fc4-285c-54f6-8201-0e77b642baf8"
        threat = "Dropper:Any/MemfdLoader"
        type = "malware"
        technique = "T1620"
        description = "A script that starts a program from memory without a file."
        reference = "https://attack.mitre.org/techniques/T1620/"
        author = "Bulwark"
    strings:
        $perl = /syscall\(\s*(319|279|356|385)\s*,/
        $python = /(\.syscall\(\s*(319|279|356|385)\s*,|os\.memfd_create\()/
        $path = /\/proc\/(self|\$\$|["'.\s{$a-z(),%]{1,24})\/fd\//
        $exec = /(exec\s*[{(]|os\.exec[lv]p?e?\(|os\.fexecve)/
        $fetch = /(urlopen|urllib|requests\.get|LWP|IO::Socket|pack[ (]|b64decode|decode_base64|curl|wget)/
    condition:
        uint16be(0) == 0x2321 and
        filesize < 30MB and
        any of ($perl, $python) and
        $path and
        $exec and
        $fetch
}
