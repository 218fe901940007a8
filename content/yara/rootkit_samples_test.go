package yara

// rootkitSamples are the files of rootkit.yar.
func rootkitSamples() []sample {
	return []sample{
		{
			rule:     "rootkit_preload_process_hider",
			positive: elfLibrary("r¦eaddir", "r¦eaddir64", "d¦lsym", "d¦irfd", "/p¦roc/self/fd/%d", "/p¦roc/%s/stat"),
			negative: elfLibrary("r¦eaddir", "r¦eaddir64", "d¦lsym", "d¦irfd"),
		},
		{
			rule:     "rootkit_preload_hook_set",
			positive: elfLibrary("/etc/l¦d.so.preload", "d¦lsym", "r¦eaddir64", "__l¦xstat64", "f¦o¦pen64", "u¦nlinkat", "a¦ccept"),
			negative: elfLibrary("d¦lsym", "r¦eaddir64", "__l¦xstat64", "f¦o¦pen64", "u¦nlinkat", "a¦ccept"),
		},
		{
			rule:     "rootkit_preload_backdoor_login",
			positive: elfLibrary("d¦lsym", "a¦ccept", "o¦penpty", "/b¦in/sh", "r¦eaddir", "H¦ISTFILE=/dev/null"),
			negative: elfLibrary("d¦lsym", "a¦ccept", "o¦penpty", "/b¦in/sh", "r¦eaddir"),
		},
		{
			rule: "rootkit_preload_source",
			positive: text(`#d¦efine HIDDEN_PREFIX "zz_"
#include <dirent.h>
struct dirent *r¦eaddir(DIR *d) { orig = d¦lsym(RTLD_NEXT, "r¦eaddir"); return orig(d); }
`),
			negative: text(`#include <dirent.h>
struct dirent *r¦eaddir(DIR *d) { orig = d¦lsym(RTLD_NEXT, "r¦eaddir"); count++; return orig(d); }
`),
		},
		{
			rule: "rootkit_preload_install_script",
			positive: text(`#!/b¦in/sh
g¦cc -Wall -fPIC -shared -o /usr/local/lib/p.so p.c -ldl
echo /usr/local/lib/p.so >> /etc/l¦d.so.preload
`),
			negative: text(`#!/b¦in/sh
echo /usr/lib/libsnoopy.so >> /etc/l¦d.so.preload
`),
		},
		{
			rule:     "rootkit_module_syscall_table",
			positive: elfModule("v¦ermagic=6.1.0 SMP", "s¦ys_call_table", "k¦allsyms_lookup_name", "g¦etdents64"),
			negative: elfModule("v¦ermagic=6.1.0 SMP", "k¦allsyms_lookup_name", "c¦ommit_creds"),
		},
		{
			rule:     "rootkit_module_ftrace_hook",
			positive: elfModule("v¦ermagic=6.1.0 SMP", "f¦trace_set_filter_ip", "r¦egister_ftrace_function", "__x64_sys_g¦etdents64"),
			negative: elfModule("v¦ermagic=6.1.0 SMP", "f¦trace_set_filter_ip", "r¦egister_ftrace_function", "schedule"),
		},
		{
			rule:     "rootkit_module_kprobe_root",
			positive: elfModule("v¦ermagic=5.10", "r¦egister_kprobe", "k¦allsyms_lookup_name", "p¦repare_creds", "c¦ommit_creds", "k¦object_del"),
			negative: elfModule("v¦ermagic=5.10", "r¦egister_kprobe", "p¦repare_creds", "c¦ommit_creds"),
		},
		{
			rule:     "rootkit_module_known_names",
			positive: elfModule("v¦ermagic=5.10", "hacked_g¦etdents64", "i¦s_invisible", "g¦ive_root"),
			negative: elfModule("v¦ermagic=5.10", "i¦s_invisible"),
		},
		{
			rule: "rootkit_module_source",
			positive: text(`#include <linux/module.h>
static void hide(void) { l¦ist_del(&THIS_MODULE->list); }
static asmlinkage long hook(const struct pt_regs *r) { return orig_g¦etdents64(r); }
M¦ODULE_LICENSE("GPL");
`),
			negative: text(`#include <linux/module.h>
static void gone(void) { list_del(&entry->list); }
M¦ODULE_LICENSE("GPL");
/* g¦etdents */
`),
		},
		{
			rule:     "rootkit_bpf_file_hider",
			positive: elfProgram("tp/syscalls/sys_enter_g¦etdents64", "tp/syscalls/sys_exit_g¦etdents64", "p¦id_to_hide"),
			negative: elfProgram("tp/syscalls/sys_enter_g¦etdents64", "tp/syscalls/sys_exit_g¦etdents64"),
		},
	}
}
