package audit

// call is a system call that events are made of.
type call uint8

const (
	callNone call = iota
	callExec
	callExit
	callConnect
	callAccept
	callBind
	callListen
	callOpen
	callCreate // of a file without opening it
	callUnlink
	callRename
	callMode
	callOwner
	callTruncate
	callPtrace
	callReadMemory
	callWriteMemory
	callModule
	callModuleGone
	callMemfd
	callBPF
	callMount
	callUnmount
	callUID
	callNamespace
)

// Architectures as the field arch has them (linux/audit.h, AUDIT_ARCH_*).
const (
	archX86_64  = "c000003e"
	archI386    = "40000003"
	archAArch64 = "c00000b7"
)

// calls are the numbers of the system calls by architecture (asm/unistd.h).
var calls = map[string]map[int64]call{
	archX86_64: {
		59: callExec, 322: callExec, 231: callExit, 42: callConnect, 43: callAccept, 288: callAccept, 49: callBind, 50: callListen,
		2: callOpen, 257: callOpen, 85: callOpen, 86: callCreate, 265: callCreate, 88: callCreate, 266: callCreate, 133: callCreate, 259: callCreate,
		87: callUnlink, 263: callUnlink, 82: callRename, 264: callRename, 316: callRename, 90: callMode, 268: callMode,
		92: callOwner, 94: callOwner, 260: callOwner, 76: callTruncate, 101: callPtrace, 310: callReadMemory, 311: callWriteMemory,
		175: callModule, 313: callModule, 176: callModuleGone, 319: callMemfd, 321: callBPF, 165: callMount, 166: callUnmount,
		105: callUID, 113: callUID, 117: callUID, 272: callNamespace, 308: callNamespace,
	},
	archI386: {11: callExec, 358: callExec},
	archAArch64: {
		221: callExec, 281: callExec, 94: callExit, 203: callConnect, 202: callAccept, 242: callAccept, 200: callBind, 201: callListen,
		56: callOpen, 37: callCreate, 36: callCreate, 33: callCreate, 35: callUnlink, 38: callRename, 276: callRename, 53: callMode,
		54: callOwner, 45: callTruncate, 117: callPtrace, 270: callReadMemory, 271: callWriteMemory, 105: callModule, 273: callModule,
		106: callModuleGone, 279: callMemfd, 280: callBPF, 40: callMount, 39: callUnmount,
		146: callUID, 145: callUID, 147: callUID, 97: callNamespace, 268: callNamespace,
	},
}
