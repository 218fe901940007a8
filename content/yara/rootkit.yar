// Rootkits: preloaded libraries, kernel modules, BPF programs.
// See docs/content.md for how these rules are written and tested.

rule rootkit_preload_process_hider {
    meta:
        id = "a6cc9d2a-1ab2-567b-bf79-5c5a95708fc8"
        threat = "Trojan:Linux/PreloadHider.A"
        type = "malware"
        technique = "T1574.006"
        description = "A preloaded library that replaces readdir to hide processes."
        reference = "https://attack.mitre.org/techniques/T1574/006/"
        author = "Bulwark"
    strings:
        $a = "\x72eaddir64"
        $b = "\x72eaddir" fullword
        $c = "\x64lsym"
        $fd = "/\x70roc/self/fd/%d"
        $stat = "/\x70roc/%s/stat"
        $dirfd = "\x64irfd"
    condition:
        uint32(0) == 0x464c457f and
        (uint16(16) == 3 or uint16be(16) == 3) and
        filesize < 1MB and
        all of them
}

rule rootkit_preload_hook_set {
    meta:
        id = "3e75bdaa-ce6a-54b9-ae93-23e59a324f5e"
        threat = "Trojan:Linux/PreloadRootkit.A"
        type = "malware"
        technique = "T1014"
        description = "A library that replaces many file and login functions and names the preload file."
        reference = "https://attack.mitre.org/techniques/T1014/"
        author = "Bulwark"
    strings:
        $file = "\x6cd.so.preload"
        $dlsym = "\x64lsym"
        $a = "\x72eaddir64" fullword
        $b = "__\x6cxstat64" fullword
        $c = "__\x78stat64" fullword
        $d = "\x66open64" fullword
        $e = "\x75nlinkat" fullword
        $f = "\x61ccept" fullword
        $g = "\x70am_authenticate" fullword
        $h = "\x66dopendir" fullword
        $i = "\x65xecve" fullword
        $j = "\x6fpen64" fullword
        $k = "\x72mdir" fullword
    condition:
        uint32(0) == 0x464c457f and
        (uint16(16) == 3 or uint16be(16) == 3) and
        filesize < 1MB and
        $file and
        $dlsym and
        5 of ($a, $b, $c, $d, $e, $f, $g, $h, $i, $j, $k)
}

rule rootkit_preload_backdoor_login {
    meta:
        id = "30f3be16-ce0b-5a12-b9c9-4c060a85f6c7"
        threat = "Backdoor:Linux/PreloadRootkit.B"
        type = "malware"
        technique = "T1556.003"
        description = "A preloaded library with a hidden login: it hooks accept or PAM and opens a terminal."
        reference = "https://attack.mitre.org/techniques/T1556/003/"
        author = "Bulwark"
    strings:
        $next = "\x64lsym"
        $accept = "\x61ccept" fullword
        $pam = "\x70am_authenticate" fullword
        $pty = "\x6fpenpty" fullword
        $pty2 = "\x66orkpty" fullword
        $shell = "/\x62in/sh"
        $shell2 = "/\x62in/bash"
        $readdir = "\x72eaddir" fullword
        $history = "\x48ISTFILE="
    condition:
        uint32(0) == 0x464c457f and
        (uint16(16) == 3 or uint16be(16) == 3) and
        filesize < 1MB and
        $next and
        $readdir and
        any of ($accept, $pam) and
        any of ($pty*) and
        any of ($shell*) and
        $history
}

rule rootkit_preload_source {
    meta:
        id = "9e06003d-9275-5d8c-8512-b2cbcc213bf9"
        threat = "HackTool:Linux/PreloadHider.Source"
        type = "pua"
        technique = "T1574.006"
        description = "Source of a library that hides directory entries."
        reference = "https://attack.mitre.org/techniques/T1574/006/"
        author = "Bulwark"
    strings:
        $next = /dlsym\(\s*RTLD_NEXT\s*,\s*"(readdir|getdents|readdir64)"/
        $skip = /(strcmp|strstr|strncmp)\([^\n]{1,80}(HIDE|hide|HIDDEN|hidden|MAGIC|process_to_filter|PREFIX)/
        $define = /#define\s+(HIDE|HIDDEN|MAGIC)[A-Z_]*\s+"/
    condition:
        for all i in (0..15) : (uint8(i) > 8) and
        filesize < 300KB and
        $next and
        any of ($skip, $define)
}

rule rootkit_preload_install_script {
    meta:
        id = "ff00f6ff-90de-5883-a93d-d995fd271d09"
        threat = "Trojan:Linux/PreloadInstaller.A"
        type = "malware"
        technique = "T1574.006"
        description = "A script that puts a library from a writable place into the system-wide preload file."
        reference = "https://attack.mitre.org/techniques/T1574/006/"
        author = "Bulwark"
    strings:
        $write = /(echo|printf)\s[^\n]{1,120}>{1,2}\s*\/etc\/ld\.so\.preload/
        $tmp = /\/(tmp|var\/tmp|dev\/shm)\/[^\s]{1,60}\.so/
        $compile = /gcc\s[^\n]{0,120}-shared/
        $fetch = /(curl|wget)\s[^\n]{0,160}\.so/
        $lock = /chattr\s+\+[ia]{1,2}\s+\/etc\/ld\.so\.preload/
    condition:
        uint16be(0) == 0x2321 and
        filesize < 200KB and
        $write and
        any of ($tmp, $compile, $fetch, $lock)
}

rule rootkit_module_syscall_table {
    meta:
        id = "470d80bb-3793-50bd-8575-9563192c7377"
        threat = "Trojan:Linux/ModuleRootkit.A"
        type = "malware"
        technique = "T1014"
        description = "A kernel module that looks up the system call table and lists files in its place."
        reference = "https://attack.mitre.org/techniques/T1014/"
        author = "Bulwark"
    strings:
        $vermagic = "\x76ermagic="
        $table = "\x73ys_call_table"
        $lookup = "\x6ballsyms_lookup_name"
        $a = "\x67etdents64"
        $b = "\x73ys_kill"
        $c = "\x74cp4_seq_show"
        $d = "\x63ommit_creds"
    condition:
        uint32(0) == 0x464c457f and
        uint16(16) == 1 and
        filesize < 2MB and
        $vermagic and
        $table and
        $lookup and
        any of ($a, $b, $c, $d)
}

rule rootkit_module_ftrace_hook {
    meta:
        id = "4803df04-c27d-5e8c-aaa5-ffdc6c6d1ee6"
        threat = "Trojan:Linux/ModuleRootkit.B"
        type = "malware"
        technique = "T1014"
        description = "A kernel module that redirects system calls through ftrace."
        reference = "https://attack.mitre.org/techniques/T1014/"
        author = "Bulwark"
    strings:
        $vermagic = "\x76ermagic="
        $filter = "\x66trace_set_filter_ip"
        $register = "\x72egister_ftrace_function"
        $a = "\x73ys_getdents64"
        $b = "\x73ys_kill"
        $c = "\x74cp4_seq_show"
        $d = "\x73ys_openat"
        $e = "\x73ys_execve"
    condition:
        uint32(0) == 0x464c457f and
        uint16(16) == 1 and
        filesize < 2MB and
        $vermagic and
        $filter and
        $register and
        any of ($a, $b, $c, $d, $e)
}

rule rootkit_module_kprobe_root {
    meta:
        id = "63a54e24-1b43-5239-8e8a-863750f01543"
        threat = "Trojan:Linux/ModuleRootkit.C"
        type = "malware"
        technique = "T1547.006"
        description = "A kernel module that finds hidden symbols by a probe, gives out root and hides itself."
        reference = "https://attack.mitre.org/techniques/T1547/006/"
        author = "Bulwark"
    strings:
        $vermagic = "\x76ermagic="
        $probe = "\x72egister_kprobe"
        $lookup = "\x6ballsyms_lookup_name"
        $prepare = "\x70repare_creds"
        $commit = "\x63ommit_creds"
        $hide = "\x6bobject_del"
        $dents = "\x67etdents"
    condition:
        uint32(0) == 0x464c457f and
        uint16(16) == 1 and
        filesize < 2MB and
        $vermagic and
        $probe and
        $lookup and
        $prepare and
        $commit and
        any of ($hide, $dents)
}

rule rootkit_module_known_names {
    meta:
        id = "fe84bec9-d1c9-5673-81c7-4b440fdfcd7e"
        threat = "Trojan:Linux/ModuleRootkit.D"
        type = "malware"
        technique = "T1014"
        description = "Symbol names of published kernel rootkits."
        reference = "https://github.com/m0nad/Diamorphine"
        author = "Bulwark"
    strings:
        $vermagic = "\x76ermagic="
        $a = "\x68acked_getdents"
        $b = "\x68acked_kill"
        $c = "\x6frig_getdents64"
        $d = "\x69s_invisible"
        $e = "\x6dodule_hide"
        $f = "\x67ive_root"
        $g = "\x6bhook_"
        $h = "\x68ide_module"
        $i = "\x64iamorphine"
        $j = "\x68ook_getdents64"
        $k = "\x73et_root"
    condition:
        uint32(0) == 0x464c457f and
        uint16(16) == 1 and
        filesize < 2MB and
        $vermagic and
        3 of ($a, $b, $c, $d, $e, $f, $g, $h, $i, $j, $k)
}

rule rootkit_module_source {
    meta:
        id = "3b9ff6d8-c15c-5365-9ac7-31f877c75171"
        threat = "HackTool:Linux/ModuleRootkit.Source"
        type = "pua"
        technique = "T1014"
        description = "Source of a kernel module that hides itself or patches the system call table."
        reference = "https://attack.mitre.org/techniques/T1014/"
        author = "Bulwark"
    strings:
        $module = "\x4dODULE_LICENSE("
        $hide = /list_del(_init)?\(\s*&\s*(THIS_MODULE->|__this_module\.)list\s*\)/
        $table = "\x73ys_call_table"
        $write = "\x77rite_cr0"
        $hook = /(getdents(64)?|sys_kill|tcp4_seq_show)/
    condition:
        for all i in (0..15) : (uint8(i) > 8) and
        filesize < 300KB and
        $module and
        $hook and
        ($hide or $table and $write)
}

rule rootkit_bpf_file_hider {
    meta:
        id = "b31b95e8-2f35-5806-bc0a-5f9d7f8b14ff"
        threat = "Trojan:Linux/BpfRootkit.A"
        type = "malware"
        technique = "T1014"
        description = "A program that loads BPF probes to change what getdents returns."
        reference = "https://attack.mitre.org/techniques/T1014/"
        author = "Bulwark"
    strings:
        $enter = "\x74p/syscalls/sys_enter_getdents64"
        $exit = "\x74p/syscalls/sys_exit_getdents64"
        $enter2 = "\x74racepoint/syscalls/sys_enter_getdents64"
        $exit2 = "\x74racepoint/syscalls/sys_exit_getdents64"
        $pid = "\x70id_to_hide"
        $hidden = "\x68idden"
        $patch = "\x68andle_getdents_patch"
    condition:
        uint32(0) == 0x464c457f and
        filesize < 30MB and
        ($enter and $exit or $enter2 and $exit2) and
        any of ($pid, $hidden, $patch)
}
