#include "textflag.h"

// The constants of sieve.go.
DATA consts<>+0(SB)/4, $0x20202020
DATA consts<>+4(SB)/4, $0x9E3779B1
DATA consts<>+8(SB)/4, $0x85EBCA77
DATA consts<>+12(SB)/4, $0
DATA consts<>+16(SB)/4, $0x00080008
GLOBL consts<>(SB), RODATA|NOPTR, $20

DATA count<>+0(SB)/8, $0x0003000200010000
DATA count<>+8(SB)/8, $0x0007000600050004
GLOBL count<>(SB), RODATA|NOPTR, $16

// The byte numbers that make eight words of three bytes of 16, two bytes apart
// in either half.
DATA spread<>+0(SB)/8, $0x8004030280020100
DATA spread<>+8(SB)/8, $0x8008070680060504
DATA spread<>+16(SB)/8, $0x8004030280020100
DATA spread<>+24(SB)/8, $0x8008070680060504
GLOBL spread<>(SB), RODATA|NOPTR, $32

// GATHER loads the eight words at DI that Y1 numbers into Y4. The gather
// instruction is several times slower on processors whose microcode closes
// "Gather Data Sampling".
#define GATHER \
	VMOVDQU Y1, words-32(SP); \
	MOVL words-32(SP), AX; \
	MOVL words-16(SP), BX; \
	VMOVD (DI)(AX*4), X4; \
	VMOVD (DI)(BX*4), X7; \
	MOVL words-28(SP), AX; \
	MOVL words-12(SP), BX; \
	VPINSRD $1, (DI)(AX*4), X4, X4; \
	VPINSRD $1, (DI)(BX*4), X7, X7; \
	MOVL words-24(SP), AX; \
	MOVL words-8(SP), BX; \
	VPINSRD $2, (DI)(AX*4), X4, X4; \
	VPINSRD $2, (DI)(BX*4), X7, X7; \
	MOVL words-20(SP), AX; \
	MOVL words-4(SP), BX; \
	VPINSRD $3, (DI)(AX*4), X4, X4; \
	VPINSRD $3, (DI)(BX*4), X7, X7; \
	VINSERTI128 $1, X7, Y4, Y4

// LIST takes the hashes in Y0 to the filter at DI and adds the numbers in X10 of
// those that it lets pass to the list at R8, which has R9.
#define LIST \
	VPSRLD $15, Y0, Y1; \
	VPXOR Y1, Y0, Y0; \
	VPAND Y15, Y0, Y1; \
	VPSRLD $27, Y0, Y2; \
	VPSLLD $5, Y0, Y5; \
	VPSRLD $27, Y5, Y5; \
	GATHER; \
	VPSRLVD Y2, Y4, Y6; \
	VPSRLVD Y5, Y4, Y4; \
	VPAND Y6, Y4, Y4; \
	VPSLLD $31, Y4, Y4; \
	VMOVMSKPS Y4, AX; \
	POPCNTL AX, DX; \
	SHLL $4, AX; \
	VPSHUFB (R11)(AX*1), X10, X5; \
	VMOVDQU X5, (R8)(R9*2); \
	ADDQ DX, R9; \
	VPADDW X11, X10, X10

// ARGUMENTS loads what both sieves are given, and their constants.
#define ARGUMENTS \
	MOVQ data+0(FP), SI; \
	MOVQ groups+8(FP), CX; \
	MOVQ first+16(FP), DI; \
	MOVL mask+24(FP), AX; \
	MOVQ pack+32(FP), R11; \
	MOVQ list+40(FP), R8; \
	XORQ R9, R9; \
	VMOVD AX, X15; \
	VPBROADCASTD X15, Y15; \
	MOVL salt+28(FP), AX; \
	VMOVD AX, X9; \
	VPBROADCASTD X9, Y9; \
	VPBROADCASTD consts<>+0(SB), Y14; \
	VPBROADCASTD consts<>+4(SB), Y13; \
	VPBROADCASTD consts<>+8(SB), Y12; \
	VPBROADCASTD consts<>+16(SB), X11; \
	VMOVDQU count<>(SB), X10

// func sieveLongVector(data unsafe.Pointer, groups int, first unsafe.Pointer, mask, salt uint32, pack *[256][16]byte, list unsafe.Pointer) int
TEXT ·sieveLongVector(SB), NOSPLIT, $32-56
	ARGUMENTS
	TESTQ CX, CX
	JE longdone
longloop:
	VMOVDQU (SI), Y0
	VMOVDQU 1(SI), Y1
	VPSRLD $1, Y0, Y2
	VPSRLD $1, Y1, Y5
	VPAND Y14, Y2, Y2
	VPAND Y14, Y5, Y5
	VPOR Y2, Y0, Y0
	VPOR Y5, Y1, Y1
	VPMULLD Y13, Y0, Y0
	VPMULLD Y12, Y1, Y1
	VPADDD Y9, Y1, Y1
	VPADDD Y1, Y0, Y0
	LIST
	ADDQ $32, SI
	DECQ CX
	JNE longloop
longdone:
	VZEROUPPER
	MOVQ R9, ret+48(FP)
	RET

// func sieveShortVector(data unsafe.Pointer, groups int, first unsafe.Pointer, mask, salt uint32, pack *[256][16]byte, list unsafe.Pointer) int
TEXT ·sieveShortVector(SB), NOSPLIT, $32-56
	ARGUMENTS
	VMOVDQU spread<>(SB), Y8
	TESTQ CX, CX
	JE shortdone
shortloop:
	VMOVDQU (SI), X0
	VINSERTI128 $1, 8(SI), Y0, Y0
	VPSHUFB Y8, Y0, Y0
	VPSRLD $1, Y0, Y2
	VPAND Y14, Y2, Y2
	VPOR Y2, Y0, Y0
	VPMULLD Y13, Y0, Y0
	VPADDD Y9, Y0, Y0
	LIST
	ADDQ $16, SI
	DECQ CX
	JNE shortloop
shortdone:
	VZEROUPPER
	MOVQ R9, ret+48(FP)
	RET
