// Web shells.
// See docs/content.md for how these rules are written and tested.

rule web_shell_php_eval_request {
    meta:
        id = "e6ce04a2-aa89-5016-82a5-2c260219ee9b"
        threat = "Backdoor:PHP/WebShell.Eval"
        type = "malware"
        technique = "T1505.003"
        description = "A PHP page that runs what the request holds."
        reference = "https://attack.mitre.org/techniques/T1505/003/"
        author = "Bulwark"
    strings:
        $php = "<?\x70hp" nocase
        $short = "<?="
        $call = /\b(eval|assert|system|passthru|shell_exec|exec|popen|proc_open|pcntl_exec)\s*\(\s*@?\s*(\$_(GET|POST|REQUEST|COOKIE)|\$_SERVER\s*\[\s*["']HTTP_|base64_decode\s*\(\s*\$_(GET|POST|REQUEST|COOKIE)|stripslashes\s*\(\s*\$_(GET|POST|REQUEST))/ nocase
        $tick = /`\s*\$_(GET|POST|REQUEST|COOKIE)\s*\[/
    condition:
        filesize < 500KB and
        uint32(0) != 0x464c457f and
        ($php in (0..4096) or $short in (0..4096)) and
        any of ($call, $tick)
}

rule web_shell_php_packed_eval {
    meta:
        id = "98a75275-ff96-5812-9e1a-daf86e9096d4"
        threat = "Backdoor:PHP/WebShell.Packed"
        type = "malware"
        technique = "T1027.010"
        description = "A PHP page whose code is unpacked from a string and run."
        reference = "https://attack.mitre.org/techniques/T1027/010/"
        author = "Bulwark"
    strings:
        $php = "<?\x70hp" nocase
        $short = "<?="
        $a = /(eval|assert)\s*\(\s*@?(gzinflate|gzuncompress|str_rot13|base64_decode|strrev|convert_uudecode)\s*\(\s*@?(gzinflate|gzuncompress|str_rot13|base64_decode|strrev|convert_uudecode)\s*\(/ nocase
        $b = /(eval|assert)\s*\(\s*base64_decode\s*\(\s*["'][A-Za-z0-9+\/]{60}/ nocase
    condition:
        filesize < 2MB and
        uint32(0) != 0x464c457f and
        ($php in (0..4096) or $short in (0..4096)) and
        any of ($a, $b)
}

rule web_shell_php_variable_function {
    meta:
        id = "18d10c1c-07bb-52b1-a8f0-6ca1c5e4aecf"
        threat = "Backdoor:PHP/WebShell.Variable"
        type = "malware"
        technique = "T1505.003"
        description = "A PHP page that calls a function named in the request."
        reference = "https://attack.mitre.org/techniques/T1505/003/"
        author = "Bulwark"
    strings:
        $php = "<?\x70hp" nocase
        $short = "<?="
        $a = /@?\$_(GET|POST|REQUEST|COOKIE)\s*\[\s*["']?\w{1,20}["']?\s*\]\s*\(\s*\$_(GET|POST|REQUEST|COOKIE)/
        $b = /(array_map|call_user_func|call_user_func_array|usort|array_filter|register_shutdown_function)\s*\(\s*\$_(GET|POST|REQUEST|COOKIE)/
        $c = /create_function\s*\(\s*["'][^"'\n]{0,20}["']\s*,\s*\$_(GET|POST|REQUEST|COOKIE)/
        $d = /preg_replace\s*\(\s*["']\/[^"'\n]{1,20}\/[a-z]{0,3}e[a-z]{0,3}["']\s*,\s*\$_(GET|POST|REQUEST|COOKIE)/
    condition:
        filesize < 500KB and
        uint32(0) != 0x464c457f and
        ($php in (0..4096) or $short in (0..4096)) and
        any of ($a, $b, $c, $d)
}

rule web_shell_php_file_manager {
    meta:
        id = "aed2773a-88a3-5f58-a4ba-53e807e0421c"
        threat = "Backdoor:PHP/WebShell.Manager"
        type = "malware"
        technique = "T1505.003"
        description = "A PHP page to run commands, change files and reach databases."
        reference = "https://attack.mitre.org/techniques/T1505/003/"
        author = "Bulwark"
    strings:
        $php = "<?\x70hp" nocase
        $short = "<?="
        $safe = "\x73afe_mode" nocase
        $uname = "\x70hp_uname("
        $a = /(Bind|Back|Reverse)\s?(port|connect|shell)/ nocase
        $b = /(Command|cmd)\s?(execute|execution|shell)/ nocase
        $c = /(edit|chmod|rename|delete)\s?file/ nocase
        $d = /(bruteforce|mass\s?deface|symlink\s?(all|bypass))/ nocase
        $e = "\x64isable_functions"
        $run = /(shell_exec|passthru|proc_open|popen|system)\s*\(\s*\$/
    condition:
        filesize < 1MB and
        uint32(0) != 0x464c457f and
        ($php in (0..4096) or $short in (0..4096)) and
        $uname and
        $run and
        any of ($safe, $e) and
        2 of ($a, $b, $c, $d)
}

rule web_shell_php_in_image {
    meta:
        id = "a948787e-342f-578a-a85c-b88e976a257f"
        threat = "Backdoor:PHP/WebShell.Image"
        type = "malware"
        technique = "T1036.008"
        description = "PHP code that runs commands inside a picture."
        reference = "https://attack.mitre.org/techniques/T1036/008/"
        author = "Bulwark"
    strings:
        $php = "<?\x70hp" nocase
        $short = "<?="
        $run = /(eval|assert|system|passthru|shell_exec|exec)\s*\(\s*@?(\$|base64_decode|gzinflate)/ nocase
    condition:
        filesize < 8MB and
        (uint32be(0) == 0x47494638 or uint32be(0) == 0x89504e47 or uint16be(0) == 0xffd8) and
        any of ($php, $short) and
        $run
}

rule web_shell_jsp_runtime_exec {
    meta:
        id = "ae2fc3f0-1fdd-54fe-8462-c3bcaf52d51f"
        threat = "Backdoor:JSP/WebShell.Exec"
        type = "malware"
        technique = "T1505.003"
        description = "A JSP page that runs a command from the request."
        reference = "https://attack.mitre.org/techniques/T1505/003/"
        author = "Bulwark"
    strings:
        $jsp = "<%"
        $a = /Runtime\.getRuntime\(\)\s*\.exec\(\s*(new\s+String\[\]\s*\{[^}\n]{0,80})?request\.getParameter\(/
        $exec = /Runtime\.getRuntime\(\)\s*\.exec\(/
        $builder = /new\s+(java\.lang\.)?ProcessBuilder\(/
        $param = /=\s*request\.getParameter\(\s*"(cmd|c|command|exec|pwd|shell)"\s*\)/
    condition:
        for all i in (0..15) : (uint8(i) > 8) and
        filesize < 300KB and
        $jsp and
        ($a or $param and any of ($exec, $builder))
}

rule web_shell_jsp_class_loader {
    meta:
        id = "25fcdaa3-c735-5b02-8f6d-2f72df7bf7b9"
        threat = "Backdoor:JSP/WebShell.Loader"
        type = "malware"
        technique = "T1505.003"
        description = "A JSP page that defines a class from an encrypted request."
        reference = "https://attack.mitre.org/techniques/T1505/003/"
        author = "Bulwark"
    strings:
        $jsp = "<%"
        $define = "\x64efineClass("
        $cipher = /Cipher\.getInstance\(\s*"AES/
        $base64 = /(BASE64Decoder|Base64\.getDecoder|Base64")/
        $request = /request\.(getReader|getParameter|getInputStream)\(/
    condition:
        for all i in (0..15) : (uint8(i) > 8) and
        filesize < 100KB and
        $jsp and
        $define and
        $request and
        any of ($cipher, $base64)
}

rule web_shell_python_request_exec {
    meta:
        id = "cc252d01-b689-5def-a172-a84c1f2853fe"
        threat = "Backdoor:Python/WebShell.A"
        type = "malware"
        technique = "T1505.003"
        description = "A Python web application that runs a parameter in a shell."
        reference = "https://attack.mitre.org/techniques/T1505/003/"
        author = "Bulwark"
    strings:
        $flask = /(os\.popen|os\.system|subprocess\.(Popen|check_output|getoutput|run))\(\s*(request\.(args|form|values|cookies|headers)|form\.getvalue|params?\[)/
        $var = /(cmd|command)\s*=\s*(request\.(args|form|values)|form\.getvalue|self\.get_argument)/
        $run = /(os\.popen|os\.system|subprocess\.(Popen|check_output|getoutput|run))\(\s*(cmd|command)\b/
    condition:
        for all i in (0..15) : (uint8(i) > 8) and
        filesize < 64KB and
        ($flask or $var and $run)
}

rule web_shell_perl_cgi_exec {
    meta:
        id = "3eb195b5-2eb8-51e4-a394-6df35468ccf6"
        threat = "Backdoor:Perl/WebShell.A"
        type = "malware"
        technique = "T1505.003"
        description = "A Perl CGI program that runs a parameter in a shell."
        reference = "https://attack.mitre.org/techniques/T1505/003/"
        author = "Bulwark"
    strings:
        $cgi = "\x43ontent-type: text/html" nocase
        $query = "\x51UERY_STRING"
        $param = /(param\(\s*["'](cmd|c|command|exec)["']\s*\))/
        $run = /(system|exec|qx|open\(\s*\w{1,8}\s*,)\s*[({`"]?\s*["']?\s*\$(cmd|command|in\{|RunCommand|form)/ nocase
        $direct = /(system|exec)\s*\(?\s*(\$\w{1,8}->)?param\(/
        $tick = /`\s*\$(cmd|command|RunCommand)\b/ nocase
    condition:
        uint16be(0) == 0x2321 and
        filesize < 200KB and
        $cgi and
        any of ($query, $param) and
        any of ($run, $direct, $tick)
}

rule web_shell_htaccess_handler {
    meta:
        id = "747b560f-7979-591b-b897-5cb79d3d42c7"
        threat = "Backdoor:PHP/WebShell.Htaccess"
        type = "malware"
        technique = "T1505.003"
        description = "An .htaccess file that runs pictures or itself as PHP."
        reference = "https://attack.mitre.org/techniques/T1505/003/"
        author = "Bulwark"
    strings:
        $a = /AddType\s+application\/x-httpd-php\s+[^\n]{0,20}\.(jpe?g|png|gif|ico|txt|css)/ nocase
        $b = /AddHandler\s+[^\n]{0,24}php[^\n]{0,10}\s\.(jpe?g|png|gif|ico|txt|css)/ nocase
        $c = /<Files(Match)?\s+["']?[^\n]{0,20}\.(jpe?g|png|gif|ico|htaccess)[^\n]{0,8}>\s{1,8}SetHandler\s+[^\n]{0,10}(application\/x-httpd-php|php-script)/ nocase
        $d = /php_value\s+auto_(prepend|append)_file\s+[^\n]{0,60}(\.htaccess|\.jpe?g|\.png|\.gif|php:\/\/input|data:)/ nocase
    condition:
        for all i in (0..15) : (uint8(i) > 8) and
        filesize < 32KB and
        any of them
}
