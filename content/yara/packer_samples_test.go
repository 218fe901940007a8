package yara

// packerSamples are the files of packer.yar.
func packerSamples() []sample {
	return []sample{
		{
			rule: "packer_upx_marks_removed",
			positive: elfProgram(`P¦ROT_EXEC|PROT_WRITE failed.
`),
			negative: elfProgram(`P¦ROT_EXEC|PROT_WRITE failed.
`, "UPX!", "UPX!"),
		},
		{
			rule:     "packer_tiny_rwx_elf64",
			positive: tinyELF(64, 7),
			negative: tinyELF(64, 5),
		},
		{
			rule:     "packer_tiny_rwx_elf32",
			positive: tinyELF(32, 7),
			negative: tinyELF(32, 5),
		},
		{
			rule:     "packer_compiled_shell_script",
			positive: elfProgram("E: n¦either argv[0] nor $_ works.", "=%l¦u %d", "%l¦u %d%c"),
			negative: elfProgram("h¦as expired!", "=%l¦u %d", "%l¦u %d%c"),
		},
		{
			rule: "packer_elf_in_script",
			positive: text(`#!/b¦in/sh
echo f¦0VMRgIBAQAAAAAAAAAA | b¦ase64 -d > /t¦mp/.u
c¦hmod +x /t¦mp/.u
/t¦mp/.u &
`),
			negative: text(`#!/b¦in/sh
echo aGVsbG8K | b¦ase64 -d > /t¦mp/hello
c¦hmod 644 /t¦mp/hello
`),
		},
		{
			rule: "packer_memfd_loader_script",
			positive: text(`#!/usr/bin/perl
my $f = s¦yscall(319, $name, 1);
print $FH p¦ack q/H*/, "7f45";
e¦xec {"/p¦roc/$$/fd/$f"} "kworker", "-x";
`),
			negative: text(`#!/usr/bin/env python3
import os
fd = o¦s.memfd_create("cache")
os.write(fd, b"data")
`),
		},
	}
}
