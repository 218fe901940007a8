#!/bin/sh
# Builds the object that the agent embeds: build.sh <output>. The programs use
# no registers of a machine and read the kernel through CO-RE, so one
# little-endian object serves amd64 and arm64. The compilation folder is given so that
# paths in the object do not depend on where the repository is.
set -eu
cd "$(dirname "$0")"
out=${1:?output file}
${CLANG:-clang-14} -O2 -g -Wall -Werror -target bpfel -mcpu=v2 -idirafter /usr/include \
	-fno-ident -fdebug-compilation-dir . -c sensor.bpf.c -o "$out"
${LLVM_STRIP:-llvm-strip-14} -g "$out"
