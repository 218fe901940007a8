package yara

// webShellSamples are the files of web_shell.yar.
func webShellSamples() []sample {
	return []sample{
		{
			rule: "web_shell_php_eval_request",
			positive: text(`<?p¦hp if (isset($_POST['k'])) { @e¦val($_POST['k']); } ?>
`),
			negative: text(`<?p¦hp if (isset($_POST['k'])) { echo htmlspecialchars($_POST['k']); system('uptime'); } ?>
`),
		},
		{
			rule: "web_shell_php_packed_eval",
			positive: text(`<?p¦hp e¦val(gzinflate(base64_decode("AAAA"))); ?>
`),
			negative: text(`<?p¦hp $x = gzinflate(base64_decode("AAAA")); echo $x; ?>
`),
		},
		{
			rule: "web_shell_php_variable_function",
			positive: text(`<?p¦hp @$_G¦ET['f']($_POST['a']); ?>
`),
			negative: text(`<?p¦hp call_user_func($handlers[$name], 1); echo $_GET['f']; ?>
`),
		},
		{
			rule: "web_shell_php_file_manager",
			positive: text(`<?p¦hp echo p¦hp_uname(); echo ini_get("d¦isable_functions"); ?>
B¦ack connect <form>C¦ommand execute</form> E¦dit file
<?p¦hp echo s¦hell_e¦xec($c); ?>
`),
			negative: text(`<?p¦hp echo p¦hp_uname(); echo ini_get("d¦isable_functions"); // e¦dit file ?>
`),
		},
		{
			rule:     "web_shell_php_in_image",
			positive: text(unhex("47494638396101000100800000"), "<?p¦hp s¦ystem($c); ?>"),
			negative: text(unhex("47494638396101000100800000"), "<?xpacket system ?>"),
		},
		{
			rule: "web_shell_jsp_runtime_exec",
			positive: text(`<%@ page import="java.io.*" %>
<% String c = r¦equest.getParameter("cmd"); Process p = R¦untime.getRuntime().e¦xec(c); %>
`),
			negative: text(`<%@ page import="java.io.*" %>
<% String c = r¦equest.getParameter("page"); Process p = R¦untime.getRuntime().e¦xec("uptime"); %>
`),
		},
		{
			rule: "web_shell_jsp_class_loader",
			positive: text(`<%!class U extends ClassLoader{U(ClassLoader c){super(c);}public Class g(byte[] b){return super.d¦efineClass(b,0,b.length);}}%>
<% Cipher c=C¦ipher.getInstance("AES"); byte[] d=c.doFinal(java.util.B¦ase64.getDecoder().decode(r¦equest.getReader().readLine())); %>
`),
			negative: text(`<%@ page import="javax.crypto.*" %>
<% Cipher c=C¦ipher.getInstance("AES"); String d=r¦equest.getReader().readLine(); %>
`),
		},
		{
			rule: "web_shell_python_request_exec",
			positive: text(`from flask import Flask, request
import os
@app.route("/")
def r(): return o¦s.popen(request.args.get("c")).read()
`),
			negative: text(`from flask import Flask, request
import os
@app.route("/")
def r(): return o¦s.popen("uptime").read() + request.args.get("c")
`),
		},
		{
			rule:     "web_shell_perl_cgi_exec",
			positive: text("#!/usr/bin/perl\nprint \"C¦ontent-type: text/html\\n\\n\";\nmy $cmd = p¦aram(\"cmd\");\nprint `$c¦md 2>&1`;\n"),
			negative: text("#!/usr/bin/perl\nprint \"C¦ontent-type: text/html\\n\\n\";\nmy $page = param(\"page\");\nprint `uptime`;\n"),
		},
		{
			rule: "web_shell_htaccess_handler",
			positive: text(`Options -Indexes
A¦ddType application/x-httpd-php .jpg
`),
			negative: text(`Options -Indexes
AddType application/x-httpd-php .php
AddType image/jpeg .jpg
`),
		},
	}
}
