package ebpf

import "github.com/bulwarkhq/bulwark/event"

// Kinds of records (enum kind of bpf/sensor.bpf.c).
const (
	kindExec = iota + 1
	kindFork
	kindExit
	kindConn
	kindFile
	kindImage
	kindNet
	kindDNS
	kindModule
	kindBPF
	kindAccess
	kindTamper
	kindMemfd
	kindDevice
	kindMount
	kindPriv
	kindMax
)

// categoryOf is the category that a kind of record is counted in.
func categoryOf(kind uint32) event.Category {
	if kind < kindExec || kind >= kindMax {
		return event.CategoryProcess
	}
	return [kindMax]event.Category{
		kindExec: event.CategoryProcess, kindFork: event.CategoryProcess, kindExit: event.CategoryProcess,
		kindConn: event.CategoryNetwork, kindNet: event.CategoryNetwork, kindDNS: event.CategoryDNS,
		kindFile: event.CategoryFile, kindImage: event.CategoryImageLoad, kindModule: event.CategoryModule,
		kindBPF: event.CategoryBPF, kindAccess: event.CategoryProcessAccess, kindTamper: event.CategoryTampering,
		kindMemfd: event.CategoryMemoryFile, kindDevice: event.CategoryDeviceRead, kindMount: event.CategoryMount,
		kindPriv: event.CategoryPrivilege,
	}[kind]
}

// Operations (enum op of bpf/activity.h).
const (
	opOpen = iota + 1
	opWrite
	opWriteFD2
	opMmap
	opUnlink
	opUnlinkat
	opRename
	opRenameat
	opLink
	opLinkat
	opSymlink
	opSymlinkat
	opMknod
	opMknodat
	opChmod
	opFchmod
	opFchmodat
	opChown
	opFchown
	opFchownat
	opSetxattr
	opFsetxattr
	opConnect
	opSendto
	opSendmsg
	opBind
	opSocket
	opPtrace
	opVMRead
	opVMWrite
	opPidfdGetfd
	opMemfd
	opMount
	opUmount
	opMoveMount
	opSetuid
	opCapset
	opUnshare
	opSetns
	opPrctl
	opBPF
	opInitModule
	opFinitModule
	opDeleteModule
	opClone
	opSendmmsg
	opModuleName
)

const (
	opCreated = iota + 64
	opModified
	opDevice
	opProcMem
	opImage
)

// compatBase is added to the numbers of 32-bit calls.
const compatBase = 1024

// wantedBy tells which categories need an operation.
func wantedBy(op uint32) []event.Category {
	switch {
	case op == opOpen:
		return []event.Category{event.CategoryFile, event.CategoryDeviceRead, event.CategoryProcessAccess}
	case op == opMmap:
		return []event.Category{event.CategoryFile, event.CategoryImageLoad}
	case op < opConnect:
		return []event.Category{event.CategoryFile}
	case op <= opSocket, op == opSendmmsg:
		return []event.Category{event.CategoryNetwork}
	case op <= opPidfdGetfd:
		return []event.Category{event.CategoryProcessAccess}
	case op == opMemfd:
		return []event.Category{event.CategoryMemoryFile}
	case op <= opMoveMount:
		return []event.Category{event.CategoryMount}
	case op <= opSetns, op == opClone:
		return []event.Category{event.CategoryPrivilege}
	case op == opPrctl:
		return []event.Category{event.CategoryTampering}
	case op == opBPF:
		return []event.Category{event.CategoryBPF}
	}
	return []event.Category{event.CategoryModule}
}
