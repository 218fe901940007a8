// Reverse shells in the languages that are at hand on a server.
// See docs/content.md for how these rules are written and tested.

rule reverse_shell_bash_dev_tcp {
    meta:
        id = "5958c092-f671-525d-aacd-47c3eb3b33fc"
        threat = "Backdoor:Shell/Reverse.Bash"
        type = "malware"
        technique = "T1059.004"
        description = "A shell whose input and output are a network connection made by bash."
        reference = "https://attack.mitre.org/techniques/T1059/004/"
        author = "Bulwark"
    strings:
        $a = /(ba|z)?sh\s+-i\s*(>|>&|&>|<)\s*&?\s*\/dev\/(tcp|udp)\/[0-9a-zA-Z$]/
        $b = /exec\s+[0-9]{1,3}<>\s*\/dev\/(tcp|udp)\/[0-9a-zA-Z$][^\n]{1,100}(\n|;)[^\n]{0,100}(while\s+read|cat\s+<&|sh\s+<&|bash\s+<&|-i\s+<&)/
        $c = /0<&[0-9]{1,3}\s*[-;][^\n]{0,40}exec\s+[0-9]{1,3}<>\/dev\/tcp\//
    condition:
        filesize < 64KB and
        ((uint16be(0) == 0x2321 and any of ($a, $b, $c)) or $a in (0..64) or $b in (0..64) or $c in (0..64))
}

rule reverse_shell_python_dup2 {
    meta:
        id = "659a1ef9-940f-5b01-97ae-d56ab045ccce"
        threat = "Backdoor:Python/Reverse.A"
        type = "malware"
        technique = "T1059.006"
        description = "A Python program that ties a shell to a socket."
        reference = "https://attack.mitre.org/techniques/T1059/006/"
        author = "Bulwark"
    strings:
        // The file begins with #!, import, from or a call of python.
        $dup = /os\.dup2\(\s*\w{1,20}\.fileno\(\)\s*,\s*[012]\s*\)/
        $loop = /\[?os\.dup2\(\s*\w{1,20}\.fileno\(\)\s*,\s*\w{1,8}\s*\)\s*for\s/
        $connect = ".\x63onnect("
        $shell = /(pty\.spawn|subprocess\.call|subprocess\.run|os\.execl|os\.system)\([^\n]{0,20}["']\/bin\/(ba|da|z)?sh/
    condition:
        filesize < 16KB and
        for all i in (0..15) : (uint8(i) > 8) and
        any of ($dup, $loop) and
        $connect and
        $shell and
        (uint16be(0) == 0x2321 or uint32be(0) == 0x696d706f or uint32be(0) == 0x66726f6d or uint32be(0) == 0x70797468)
}

rule reverse_shell_perl_socket {
    meta:
        id = "a39a6d32-3ddd-575f-8816-59dcc4d7227f"
        threat = "Backdoor:Perl/Reverse.A"
        type = "malware"
        technique = "T1059"
        description = "A Perl program that ties a shell to a socket."
        reference = "https://attack.mitre.org/techniques/T1059/"
        author = "Bulwark"
    strings:
        $socket = /(use\s+Socket|IO::Socket::INET)/
        $stdin = /open\(\s*STDIN\s*,\s*["']<?>?>&/
        $stdout = /open\(\s*STDOUT\s*,\s*["']>&/
        $fdopen = /STDIN->fdopen\(/
        $exec = /exec\s*[({]?\s*["']?\/bin\/(ba|da|z)?sh\b/
        $system = /system\(?\s*\$_\s*\)?\s*while/
    condition:
        filesize < 16KB and
        for all i in (0..15) : (uint8(i) > 8) and
        $socket and
        (($stdin and $stdout and $exec) or ($fdopen and ($system or $exec)))
}

rule reverse_shell_ruby_socket {
    meta:
        id = "98d463b5-defb-5a12-903f-dbdc92455b46"
        threat = "Backdoor:Ruby/Reverse.A"
        type = "malware"
        technique = "T1059"
        description = "A Ruby program that ties a shell to a socket."
        reference = "https://attack.mitre.org/techniques/T1059/"
        author = "Bulwark"
    strings:
        $open = /TCPSocket\.(open|new)\(/
        $redirect = /exec\s*\(?\s*(sprintf\()?\s*["']\/bin\/(ba|da|z)?sh[^\n]{0,30}<&/
        $loop = /IO\.popen\(\s*\w{1,10}\s*,\s*["']r["']\s*\)\s*\{?\s*(\|io\||do)/
    condition:
        filesize < 16KB and
        for all i in (0..15) : (uint8(i) > 8) and
        $open and
        any of ($redirect, $loop) and
        $open in (0..1000)
}

rule reverse_shell_php_fsockopen {
    meta:
        id = "0876be60-cdf2-5481-83d0-538b4037c2c2"
        threat = "Backdoor:PHP/Reverse.A"
        type = "malware"
        technique = "T1059.004"
        description = "A PHP program that ties a shell to a socket."
        reference = "https://attack.mitre.org/techniques/T1059/004/"
        author = "Bulwark"
    strings:
        $php = "<?\x70hp" nocase
        $short = "<?="
        $open = "\x66sockopen("
        $proc = /proc_open\(\s*[^\n,]{1,60},/
        $shell = /\/bin\/(ba|da|z)?sh\s+-i/
        $uname = /uname -a; w; id;/
        $exec = /(exec|shell_exec|system|passthru|popen)\(\s*["'`]\/bin\/(ba|da|z)?sh\s+-i\s*<&/
    condition:
        filesize < 64KB and
        uint32(0) != 0x464c457f and
        ($php in (0..4096) or $short in (0..4096)) and
        $open and
        (($proc and $shell) or $exec or $uname)
}

rule reverse_shell_awk_inet {
    meta:
        id = "f2e8e0c6-e3f1-5554-af1e-03b315c50ac9"
        threat = "Backdoor:Shell/Reverse.Awk"
        type = "malware"
        technique = "T1059.004"
        description = "An awk program that runs what it reads from a connection."
        reference = "https://attack.mitre.org/techniques/T1059/004/"
        author = "Bulwark"
    strings:
        $inet = /["']\/inet\/tcp\/0\/[0-9a-zA-Z]/
        $loop = /\|&\s*getline/
        $run = /(while|do)[^\n]{0,60}(\|\s*getline|\|&\s*getline)/
    condition:
        filesize < 64KB and
        ((uint16be(0) == 0x2321 and $inet) or $inet in (0..64)) and
        $loop and
        $run
}

rule reverse_shell_netcat_fifo {
    meta:
        id = "87bc796c-e253-5975-b0ab-c97744316ccc"
        threat = "Backdoor:Shell/Reverse.Netcat"
        type = "malware"
        technique = "T1059.004"
        description = "A shell tied to netcat through a named pipe, or started by netcat."
        reference = "https://attack.mitre.org/techniques/T1059/004/"
        author = "Bulwark"
    strings:
        $fifo = /(mkfifo|mknod)\s+[^\n;]{1,60}(;|&&|\n)[^\n]{0,80}\/bin\/(ba|da|z)?sh\s+-i[^\n]{0,40}\|\s*(nc|ncat|netcat|openssl|telnet)\s/
        $exec = /\b(nc|ncat|netcat)(\.traditional)?\s[^\n]{0,60}-[a-z]{0,4}[ec]\s+["']?\/bin\/(ba|da|z)?sh/
    condition:
        filesize < 64KB and
        ((uint16be(0) == 0x2321 and any of ($fifo, $exec)) or $fifo in (0..64) or $exec in (0..64))
}

rule reverse_shell_socat_exec {
    meta:
        id = "4282713f-dcc4-58f3-8ce7-a20e2ee86272"
        threat = "Backdoor:Shell/Reverse.Socat"
        type = "malware"
        technique = "T1059.004"
        description = "A shell given to a network connection by socat."
        reference = "https://attack.mitre.org/techniques/T1059/004/"
        author = "Bulwark"
    strings:
        $a = /socat\s[^\n]{0,60}(exec|system):\s*['"]?(\/bin\/)?(ba|da|z)?sh\b[^\n]{0,80}(pty|stderr|setsid)/ nocase
        $b = /socat\s[^\n]{0,40}(tcp4?|openssl)(-connect)?:[^\n]{1,60}\s(exec|system):\s*['"]?(\/bin\/)?(ba|da|z)?sh\b/ nocase
    condition:
        filesize < 64KB and
        ((uint16be(0) == 0x2321 and any of ($a, $b)) or $a in (0..64) or $b in (0..64))
}

rule reverse_shell_openssl_client {
    meta:
        id = "b56f019b-16e3-5f91-98f2-063644c674fd"
        threat = "Backdoor:Shell/Reverse.OpenSSL"
        type = "malware"
        technique = "T1573.002"
        description = "A shell whose output goes through an encrypted openssl connection."
        reference = "https://attack.mitre.org/techniques/T1573/002/"
        author = "Bulwark"
    strings:
        $client = /\/bin\/(ba|da|z)?sh\s+-i[^\n]{0,60}\|\s*openssl\s+s_client\s[^\n]{0,40}-connect/
    condition:
        filesize < 64KB and
        ((uint16be(0) == 0x2321 and $client) or $client in (0..64))
}

rule reverse_shell_lua_socket {
    meta:
        id = "9e7622fd-eed2-58a4-b96f-8ffea92b0f95"
        threat = "Backdoor:Lua/Reverse.A"
        type = "malware"
        technique = "T1059.011"
        description = "A Lua program that runs what it reads from a connection."
        reference = "https://attack.mitre.org/techniques/T1059/011/"
        author = "Bulwark"
    strings:
        $socket = /require\(?\s*["']socket["']\s*\)?/
        $connect = /:connect\(\s*["'][0-9a-z]/
        $run = /io\.popen\(\s*\w{1,12}\s*(,\s*["']r["']\s*)?\)/
        $receive = /:receive\(\s*\)/
        $exec = /os\.execute\(\s*["']\/bin\/(ba|da)?sh\s+-i/
    condition:
        filesize < 16KB and
        for all i in (0..15) : (uint8(i) > 8) and
        $socket and
        $connect in (0..2000) and
        (($run and $receive) or $exec)
}

rule reverse_shell_node_net {
    meta:
        id = "b96c6d01-c8f7-5b4f-8eac-7c1111153574"
        threat = "Backdoor:JS/Reverse.A"
        type = "malware"
        technique = "T1059.007"
        description = "A Node.js program that ties a shell to a socket."
        reference = "https://attack.mitre.org/techniques/T1059/007/"
        author = "Bulwark"
    strings:
        $spawn = /spawn\(\s*["'](\/bin\/)?(ba|da|z)?sh["']/
        $net = /require\(\s*["']net["']\s*\)/
        $pipe = /\.pipe\(\s*\w{1,12}\.stdin\s*\)/
        $out = /\.stdout\.pipe\(/
    condition:
        filesize < 16KB and
        for all i in (0..15) : (uint8(i) > 8) and
        all of them and
        $net in (0..1000)
}
