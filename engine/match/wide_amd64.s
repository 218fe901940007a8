#include "textflag.h"

// The sieves of sieve_amd64.s for sixteen grams at a time.

// The constants of sieve.go.
DATA wide<>+0(SB)/4, $0x20202020
DATA wide<>+4(SB)/4, $0x9E3779B1
DATA wide<>+8(SB)/4, $0x85EBCA77
DATA wide<>+12(SB)/4, $1
DATA wide<>+16(SB)/4, $0x00100010
GLOBL wide<>(SB), RODATA|NOPTR, $20

DATA count<>+0(SB)/8, $0x0003000200010000
DATA count<>+8(SB)/8, $0x0007000600050004
DATA count<>+16(SB)/8, $0x000B000A00090008
DATA count<>+24(SB)/8, $0x000F000E000D000C
GLOBL count<>(SB), RODATA|NOPTR, $32

// The byte numbers that make sixteen words of three bytes, two bytes apart. Every
// fourth is masked.
DATA spread<>+0(SB)/8, $0x0004030200020100
DATA spread<>+8(SB)/8, $0x0008070600060504
DATA spread<>+16(SB)/8, $0x000C0B0A000A0908
DATA spread<>+24(SB)/8, $0x00100F0E000E0D0C
DATA spread<>+32(SB)/8, $0x0014131200121110
DATA spread<>+40(SB)/8, $0x0018171600161514
DATA spread<>+48(SB)/8, $0x001C1B1A001A1918
DATA spread<>+56(SB)/8, $0x00201F1E001E1D1C
GLOBL spread<>(SB), RODATA|NOPTR, $64

// FOLD makes upper and lower case the same: v | v>>1 & 0x20...
#define FOLD(v, t) \
	VPSRLD $1, v, t; \
	VPTERNLOGD $0xF8, Z14, t, v

// LIST takes the hashes in Z0 to the filter at DI and adds the numbers in Y10 of
// those that it lets pass to the list at R8, which has R9. Rotating uses the lower
// five bits of a count.
#define LIST \
	VPSRLD $15, Z0, Z1; \
	VPXORD Z1, Z0, Z0; \
	VPANDD Z15, Z0, Z1; \
	VPSRLD $27, Z0, Z2; \
	VPSRLD $22, Z0, Z5; \
	KXNORW K1, K1, K1; \
	VPXORD Z4, Z4, Z4; \
	VPGATHERDD (DI)(Z1*4), K1, Z4; \
	VPRORVD Z2, Z4, Z6; \
	VPRORVD Z5, Z4, Z4; \
	VPANDD Z6, Z4, Z4; \
	VPTESTMD Z8, Z4, K2; \
	KMOVW K2, AX; \
	POPCNTL AX, DX; \
	VPCOMPRESSW Y10, K2, Y5; \
	VMOVDQU Y5, (R8)(R9*2); \
	ADDQ DX, R9; \
	VPADDW Y11, Y10, Y10

// ARGUMENTS loads what both sieves are given, and their constants.
#define ARGUMENTS \
	MOVQ data+0(FP), SI; \
	MOVQ groups+8(FP), CX; \
	MOVQ first+16(FP), DI; \
	MOVL mask+24(FP), AX; \
	MOVL salt+28(FP), BX; \
	MOVQ list+32(FP), R8; \
	XORQ R9, R9; \
	VPBROADCASTD AX, Z15; \
	VPBROADCASTD BX, Z9; \
	VPBROADCASTD wide<>+0(SB), Z14; \
	VPBROADCASTD wide<>+4(SB), Z13; \
	VPBROADCASTD wide<>+8(SB), Z12; \
	VPBROADCASTD wide<>+12(SB), Z8; \
	VPBROADCASTD wide<>+16(SB), Y11; \
	VMOVDQU count<>(SB), Y10

// func sieveLongWide(data unsafe.Pointer, groups int, first unsafe.Pointer, mask, salt uint32, list unsafe.Pointer) int
TEXT ·sieveLongWide(SB), NOSPLIT, $0-48
	ARGUMENTS
	TESTQ CX, CX
	JE longdone
longloop:
	VMOVDQU32 (SI), Z0
	VMOVDQU32 1(SI), Z1
	FOLD(Z0, Z2)
	FOLD(Z1, Z5)
	VPMULLD Z13, Z0, Z0
	VPMULLD Z12, Z1, Z1
	VPADDD Z9, Z1, Z1
	VPADDD Z1, Z0, Z0
	LIST
	ADDQ $64, SI
	DECQ CX
	JNE longloop
longdone:
	VZEROUPPER
	MOVQ R9, ret+40(FP)
	RET

// func sieveShortWide(data unsafe.Pointer, groups int, first unsafe.Pointer, mask, salt uint32, list unsafe.Pointer) int
TEXT ·sieveShortWide(SB), NOSPLIT, $0-48
	ARGUMENTS
	VMOVDQU32 spread<>(SB), Z7
	MOVQ $0x7777777777777777, AX
	KMOVQ AX, K3
	TESTQ CX, CX
	JE shortdone
shortloop:
	VMOVDQU32 (SI), Z0
	VPERMB.Z Z0, Z7, K3, Z0
	FOLD(Z0, Z2)
	VPMULLD Z13, Z0, Z0
	VPADDD Z9, Z0, Z0
	LIST
	ADDQ $32, SI
	DECQ CX
	JNE shortloop
shortdone:
	VZEROUPPER
	MOVQ R9, ret+40(FP)
	RET
