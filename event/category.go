package event

// Category is what sensors, losses and health tell apart: finer than Class,
// which is a hunting table. The text is stable: it is in health, in counters
// and in AdditionalFields of EventsLost.
type Category string

// The categories, in the order in which health shows them.
const (
	CategoryProcess       Category = "process"           // created, terminated
	CategoryFile          Category = "file"              // created, modified, renamed, deleted, permissions, owner
	CategoryImageLoad     Category = "image_load"        // shared libraries and other mapped code
	CategoryNetwork       Category = "network"           // connections, listening sockets
	CategoryDNS           Category = "dns"               // queries and their answers
	CategoryModule        Category = "kernel_module"     // modules loaded and unloaded
	CategoryBPF           Category = "bpf"               // programs loaded into the kernel
	CategoryProcessAccess Category = "process_access"    // one process reads, writes or traces another
	CategoryTampering     Category = "process_tampering" // a process changes what it claims to be
	CategoryMemoryFile    Category = "memory_file"       // files without a file system, and their execution
	CategoryDeviceRead    Category = "raw_device_access" // disks and memory below their file system
	CategoryMount         Category = "mount"             // file systems attached and detached
	CategoryPrivilege     Category = "privilege_change"  // user ids, capabilities, namespaces
	CategoryLogon         Category = "logon"             // logon, logoff, failed logon
	CategoryAccount       Category = "account"           // users and groups
	CategoryService       Category = "service"           // service definitions
	CategoryTask          Category = "scheduled_task"    // cron, at, timers
	CategoryScript        Category = "script"            // what interpreters run
	CategoryBehavior      Category = "behavior"          // what rules of the level informational recognise
	CategoryAgent         Category = "agent"             // the agent itself: started, stopped, scans, losses
)

// Categories returns all of them in order.
func Categories() []Category {
	return []Category{
		CategoryProcess, CategoryFile, CategoryImageLoad, CategoryNetwork, CategoryDNS, CategoryModule, CategoryBPF,
		CategoryProcessAccess, CategoryTampering, CategoryMemoryFile, CategoryDeviceRead, CategoryMount,
		CategoryPrivilege, CategoryLogon, CategoryAccount, CategoryService, CategoryTask, CategoryScript, CategoryBehavior, CategoryAgent,
	}
}

// Class is the hunting table that the category's events are in.
func (c Category) Class() Class {
	switch c {
	case CategoryProcess:
		return ClassProcess
	case CategoryFile:
		return ClassFile
	case CategoryImageLoad:
		return ClassImageLoad
	case CategoryNetwork, CategoryDNS:
		return ClassNetwork
	case CategoryLogon:
		return ClassLogon
	case CategoryBehavior:
		return ClassBehavior
	}
	return ClassDevice
}

// Category tells the category of e by its class and action. Actions that are
// not known are the agent's.
func (e *Event) Category() Category {
	switch e.Class {
	case ClassProcess:
		return CategoryProcess
	case ClassFile:
		return CategoryFile
	case ClassImageLoad:
		return CategoryImageLoad
	case ClassLogon:
		return CategoryLogon
	case ClassBehavior:
		return CategoryBehavior
	case ClassNetwork:
		if e.Action == DNSQuery || e.Action == DNSResponse {
			return CategoryDNS
		}
		return CategoryNetwork
	}
	switch e.Action {
	case DriverLoaded, DriverUnloaded, DriverLoadFailed:
		return CategoryModule
	case BPFProgramLoaded:
		return CategoryBPF
	case ProcessTraced, ProcessMemoryRead, ProcessMemoryWritten, ProcessDescriptorTaken:
		return CategoryProcessAccess
	case ProcessTampered:
		return CategoryTampering
	case MemoryFileCreated, MemoryFileExecuted:
		return CategoryMemoryFile
	case RawDeviceAccess:
		return CategoryDeviceRead
	case FileSystemMounted, FileSystemUnmounted:
		return CategoryMount
	case UserIDChanged, CapabilitiesChanged, NamespaceChanged:
		return CategoryPrivilege
	case UserAccountCreated, UserAccountModified, UserAccountDeleted, SecurityGroupCreated, SecurityGroupModified, SecurityGroupDeleted,
		AddedToLocalGroup, RemovedFromGroup:
		return CategoryAccount
	case ServiceInstalled, ServiceModified, ServiceDeleted:
		return CategoryService
	case ScheduledTaskCreated, ScheduledTaskUpdated, ScheduledTaskDeleted:
		return CategoryTask
	case ScriptContent:
		return CategoryScript
	}
	return CategoryAgent
}
