// Stealers of passwords, keys and tokens.
// See docs/content.md for how these rules are written and tested.

rule credential_mimipenguin {
    meta:
        id = "9271e829-5529-51b7-bffa-493940a99d70"
        threat = "HackTool:Linux/MimiPenguin"
        type = "pua"
        technique = "T1003.007"
        description = "A tool that looks for passwords in the memory of login programs."
        reference = "https://github.com/huntergregal/mimipenguin"
        author = "Bulwark"
    strings:
        $a = "_\x70ammodutil_getpwnam_root_1"
        $b = "\x67kr_system_authtok"
        $c = "_\x70ammodutil_getspnam_"
        $d = "^.+\x6cibgcrypt\\.so.+$"
        $keyring = "\x67nome-keyring-daemon"
        $lightdm = "\x6cightdm"
        $mimi = "\x6dimipenguin" nocase
        $maps = "/\x6daps"
    condition:
        for all i in (0..15) : (uint8(i) > 8) and
        filesize < 200KB and
        2 of ($a, $b, $c, $d, $mimi) and
        any of ($keyring, $lightdm) and
        $maps
}

rule credential_shadow_upload_script {
    meta:
        id = "429a8fef-f9fb-5f53-9f63-b694396397a2"
        threat = "Trojan:Shell/ShadowStealer.A"
        type = "malware"
        technique = "T1003.008"
        description = "A script that sends the password file away."
        reference = "https://attack.mitre.org/techniques/T1003/008/"
        author = "Bulwark"
    strings:
        $curl = /curl\s[^\n]{0,120}(-F|-d|--data|--data-binary|-T|--upload-file|--form)[^\n]{0,60}\/etc\/shadow/
        $wget = /wget\s[^\n]{0,80}--post-(file|data)[^\n]{0,40}\/etc\/shadow/
        $nc = /\/etc\/shadow[^\n]{0,60}(\|\s*(nc|ncat|netcat|openssl\s+s_client)\s|>\s*\/dev\/tcp\/)/
        $encode = /base64[^\n]{0,20}\/etc\/shadow[^\n]{0,60}\|\s*(curl|nc)\s/
    condition:
        uint16be(0) == 0x2321 and
        filesize < 200KB and
        any of them
}

rule credential_cloud_key_harvester {
    meta:
        id = "b8ca4cfd-0f7a-5239-b119-c0a254a8beef"
        threat = "Trojan:Shell/CloudStealer.A"
        type = "malware"
        technique = "T1552.001"
        description = "A script that collects keys of cloud and container tools and uploads them."
        reference = "https://attack.mitre.org/techniques/T1552/001/"
        author = "Bulwark"
    strings:
        $a = ".\x61ws/credentials"
        $b = ".\x64ocker/config.json"
        $c = ".\x67it-credentials"
        $d = /\.config\/gcloud|application_default_credentials|credentials\.db/
        $e = ".\x6bube/config"
        $f = ".\x733cfg"
        $g = ".\x70asswd-s3fs"
        $h = "/\x72oot/.ssh/id_rsa"
        $i = ".\x61zure/"
        $send = /(curl\s[^\n]{0,80}(-F|--form|--data-binary|-T|--upload-file|-X\s?POST)\s|wget\s[^\n]{0,60}--post-file|\|\s*(nc|ncat)\s)/
    condition:
        uint16be(0) == 0x2321 and
        filesize < 300KB and
        4 of ($a, $b, $c, $d, $e, $f, $g, $h, $i) and
        $send
}

rule credential_instance_metadata_theft {
    meta:
        id = "3a9eadbb-c488-5ce0-8c26-ade45d4bac51"
        threat = "Trojan:Shell/MetadataStealer.A"
        type = "malware"
        technique = "T1552.001"
        description = "A script that takes the role's keys from the cloud's metadata service and sends them away."
        reference = "https://attack.mitre.org/techniques/T1552/001/"
        author = "Bulwark"
    strings:
        $aws = "169.254.169.254/\x6catest/meta-data/iam/security-credentials"
        $ecs = "169.254.170.2$\x41WS_CONTAINER_CREDENTIALS_RELATIVE_URI"
        $gcp = "\x63omputeMetadata/v1/instance/service-accounts"
        $send = /(curl\s[^\n]{0,80}(-F\s|--form\s|--data-binary\s|-T\s|--upload-file\s)|wget\s[^\n]{0,60}--post-file|\|\s*(nc|ncat)\s)/
        $hide = /(history\s+-c|HISTFILE|\/(tmp|var\/tmp|dev\/shm)\/\.|rm\s+-f\s+\/(tmp|var\/tmp))/
    condition:
        uint16be(0) == 0x2321 and
        filesize < 200KB and
        any of ($aws, $ecs, $gcp) and
        $send and
        $hide
}

rule credential_ssh_key_worm_script {
    meta:
        id = "689ab3ad-6bb0-5b77-9c86-6487063cba7a"
        threat = "Worm:Shell/SshSpread.A"
        type = "malware"
        technique = "T1021.004"
        description = "A script that goes from host to host with the keys and host names it finds."
        reference = "https://attack.mitre.org/techniques/T1021/004/"
        author = "Bulwark"
    strings:
        $keys = /find\s[^\n]{0,80}(id_rsa|\.pem|IdentityFile)/
        $keys2 = "\x49dentityFile"
        $hosts = "\x6bnown_hosts"
        $history = ".\x62ash_history"
        $ssh = /ssh\s[^\n]{0,160}StrictHostKeyChecking=no[^\n]{0,200}(curl|wget|bash|sh\s)/
        $loop = /for\s+\w{1,12}\s+in\s/
    condition:
        uint16be(0) == 0x2321 and
        filesize < 200KB and
        any of ($keys*) and
        $hosts and
        $history and
        $ssh and
        $loop
}

rule credential_trace_password_sniffer {
    meta:
        id = "b2fd2bfc-a5d8-5d21-a617-96e5a05bb9ef"
        threat = "HackTool:Shell/TraceSniffer"
        type = "pua"
        technique = "T1056"
        description = "A script that follows sshd, su or sudo with strace and writes down what is typed."
        reference = "https://attack.mitre.org/techniques/T1056/"
        author = "Bulwark"
    strings:
        $trace = /strace\s[^\n]{0,120}(-e\s*(trace=)?\s*["']?(read|write)|-s\s*[0-9]{2,5})[^\n]{0,120}/
        $target = /(pgrep|pidof|ps\s)[^\n]{0,60}(sshd|su\b|sudo|passwd)/
        $alias = /alias\s+(ssh|su|sudo)=['"][^\n]{0,20}strace\s/
        $out = /-o\s*[^\s]{0,20}\/(tmp|var\/tmp|dev\/shm|\.)/
    condition:
        for all i in (0..15) : (uint8(i) > 8) and
        filesize < 64KB and
        ($alias and $out or (uint16be(0) == 0x2321 and $trace and $target and $out))
}

rule credential_keyboard_logger {
    meta:
        id = "78ec476c-8a78-5fc0-8b46-2e627edbf75d"
        threat = "Spyware:Linux/KeyLogger.A"
        type = "malware"
        technique = "T1056.001"
        description = "A program that reads keyboards and names their keys."
        reference = "https://attack.mitre.org/techniques/T1056/001/"
        author = "Bulwark"
    strings:
        $event = "/\x64ev/input/event"
        $devices = "/\x70roc/bus/input/devices"
        $by = "/\x64ev/input/by-path"
        $a = /[\[<](L?SHIFT|LSHIFT|Left Shift)[\]>]/ nocase
        $b = /[\[<](BACKSPACE|BKSP|BackSpace)[\]>]/ nocase
        $c = /[\[<](CAPS ?LOCK|CAPSLOCK)[\]>]/ nocase
        $log = /(keylog|\.log\b|keystroke)/ nocase
    condition:
        uint32(0) == 0x464c457f and
        filesize < 4MB and
        any of ($event, $devices, $by) and
        $a and
        $b and
        $c and
        $log
}

rule credential_service_account_theft {
    meta:
        id = "97aada63-d512-5725-a798-ab93745cacc7"
        threat = "Trojan:Shell/KubeStealer.A"
        type = "malware"
        technique = "T1528"
        description = "A script that takes a pod's service account token and starts privileged pods with it."
        reference = "https://attack.mitre.org/techniques/T1528/"
        author = "Bulwark"
    strings:
        $token = "/\x76ar/run/secrets/kubernetes.io/serviceaccount/token"
        $api = "/\x61pi/v1/namespaces"
        $secrets = /\/api\/v1\/(namespaces\/[^\s\/]{1,60}\/)?secrets/
        $privileged = /"?privileged"?:\s*true/
        $host = /"?(hostPID|hostNetwork)"?:\s*true/
        $path = /"?path"?:\s*"?\/"?\s/
        $send = /(curl\s[^\n]{0,100}(-F\s|--data-binary\s@|-T\s)|\|\s*(nc|ncat)\s)/
    condition:
        uint16be(0) == 0x2321 and
        filesize < 200KB and
        $token and
        any of ($api, $secrets) and
        ($privileged and ($host or $path) or $secrets and $send)
}
