#include "textflag.h"

// func findPairVector(first, second unsafe.Pointer, blocks int, pair uint32) int
TEXT ·findPairVector(SB), NOSPLIT, $0-40
	MOVQ first+0(FP), SI
	MOVQ second+8(FP), DI
	MOVQ blocks+16(FP), CX
	MOVL pair+24(FP), AX
	VMOVD AX, X0
	VPSRLD $8, X0, X1
	VPSRLD $16, X0, X2
	VPSRLD $24, X0, X3
	VPBROADCASTB X0, Y0
	VPBROADCASTB X1, Y1
	VPBROADCASTB X2, Y2
	VPBROADCASTB X3, Y3
	XORQ AX, AX
	SHLQ $5, CX
findloop:
	VPAND (SI)(AX*1), Y1, Y4
	VPAND (DI)(AX*1), Y3, Y5
	VPCMPEQB Y0, Y4, Y4
	VPCMPEQB Y2, Y5, Y5
	VPAND Y4, Y5, Y4
	VPMOVMSKB Y4, DX
	TESTL DX, DX
	JNE findhit
	ADDQ $32, AX
	CMPQ AX, CX
	JNE findloop
	VZEROUPPER
	MOVQ AX, ret+32(FP)
	RET
findhit:
	BSFL DX, DX
	ADDQ DX, AX
	VZEROUPPER
	MOVQ AX, ret+32(FP)
	RET
