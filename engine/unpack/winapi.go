package unpack

import (
	"encoding/binary"
	"strings"
)

// call does a function of the system: what unpacking needs. Anything else ends
// the emulation.
func (e *windows) call(n uint32) error {
	if n == apiHandled {
		return e.handled()
	}
	if n < apiFirst || int(n) >= len(e.names) {
		return errDone
	}
	c := &e.c
	arg := func(i uint32) uint32 { return c.read(c.regs[esp]+4*i, 4) }
	args, result := uint32(0), uint32(0)
	switch name := e.names[n]; name {
	case "LoadLibraryA", "LoadLibraryW", "GetModuleHandleA", "GetModuleHandleW":
		args, result = 1, apiAt
		if arg(1) == 0 {
			result = e.base
		}
	case "LoadLibraryExA":
		args, result = 3, apiAt
	case "GetProcAddress":
		args = 2
		f := "#"
		if arg(2) > 0xffff {
			f = e.text(arg(2))
		}
		result = e.function(f)
	case "VirtualAlloc":
		args, result = 4, e.allocate(arg(1), arg(2))
	case "VirtualAllocEx":
		args, result = 5, e.allocate(arg(2), arg(3))
	case "GlobalAlloc", "LocalAlloc":
		args, result = 2, e.allocate(0, arg(2))
	case "HeapAlloc", "RtlAllocateHeap":
		args, result = 3, e.allocate(0, arg(3))
	case "GetProcessHeap", "GetCurrentProcess", "GetCurrentThread":
		result = 1
	case "HeapCreate":
		args, result = 3, 1
	case "VirtualFree", "HeapFree":
		args, result = 3, 1
	case "VirtualProtect":
		args, result = 4, 1
		c.write(arg(4), 4, 4)
	case "GlobalFree", "LocalFree", "FreeLibrary", "GlobalLock", "GlobalUnlock", "SetUnhandledExceptionFilter", "CloseHandle":
		args, result = 1, 1
		if name == "GlobalLock" {
			result = arg(1)
		}
	case "GetTickCount", "GetCurrentProcessId", "GetCurrentThreadId", "GetLastError":
		result = 0x1000
	case "IsDebuggerPresent":
	case "GetVersion":
		result = 0x0a280105 // Windows XP
	case "GetCommandLineA":
		result = tebAt + 0x1800
	case "GetModuleFileNameA":
		const name = "C:\\A.EXE"
		args, result = 3, uint32(len(name))
		for i := range len(name) + 1 {
			c.write(arg(2)+uint32(i), uint32((name + "\x00")[i]), 1)
		}
	// The one file there is is the program's own.
	case "CreateFileA":
		args, result = 7, ownFile
		if strings.HasPrefix(e.text(arg(1)), `\\`) { // a device, of a debugger
			result = 0xffffffff
		}
	case "GetFileSize":
		args, result = 2, uint32(min(e.o.Size, 1<<31))
	case "CreateFileMappingA":
		args, result = 6, ownFile
	case "MapViewOfFile":
		args = 5
		if result = e.allocate(0, uint32(min(e.o.Size, maxHeap))); result != 0 {
			_, _ = e.o.Data.ReadAt(c.mem(result, int(min(e.o.Size, maxHeap))), 0)
		}
	case "SetFilePointer":
		args = 4
		e.at = arg(2)
		result = e.at
	case "ReadFile":
		args, result = 5, 1
		if b := c.mem(arg(2), int(min(arg(3), maxHeap))); b != nil {
			n, _ := e.o.Data.ReadAt(b, int64(e.at))
			e.at += uint32(n)
			if arg(4) != 0 {
				c.write(arg(4), uint32(n), 4)
			}
		}
	case "UnmapViewOfFile":
		args, result = 1, 1
	case "Sleep", "SetLastError":
		args = 1
	case "MessageBoxA": // of packers that were not paid for
		args, result = 4, 1
	default:
		return errDone
	}
	if c.fault != 0 {
		return errDone
	}
	to := c.pop(4)
	c.regs[esp] += 4 * args
	c.regs[eax] = result
	c.regs[ecx], c.regs[edx] = 0, 0
	c.eip = to
	if c.fault != 0 || strings.HasPrefix(e.names[n], "#") {
		return errDone
	}
	return nil
}

// allocate gives memory: inside the image when that was asked for, else new.
func (e *windows) allocate(at, size uint32) uint32 {
	if at != 0 {
		if off := at - e.base; uint64(off)+uint64(size) <= uint64(len(e.c.regions[0].data)) {
			return at
		}
		return 0
	}
	size = (size + 0xfff) &^ 0xfff
	if size == 0 || size > maxHeap-e.heap {
		return 0
	}
	at = heapAt + e.heap
	e.heap += size
	h := &e.c.regions[4]
	h.data = append(h.data, make([]byte, size)...)
	return at
}

// library makes the image of the one library that a program finds, whatever name
// it asks for: a header and a table of functions, for code that looks for them by
// itself.
func (e *windows) library() []byte {
	le := binary.LittleEndian
	b := make([]byte, apiSize)
	for i := apiCode; i < len(b); i++ {
		b[i] = 0x90
	}
	const (
		pe      = 0x80
		exports = 0x1000
		table   = 0x1100 // addresses, names, ordinals, texts
	)
	copy(b, "MZ")
	le.PutUint32(b[0x3c:], pe)
	copy(b[pe:], "PE\x00\x00")
	le.PutUint16(b[pe+4:], 0x14c)
	le.PutUint16(b[pe+20:], 0xe0)
	opt := b[pe+24:]
	le.PutUint16(opt, 0x10b)
	le.PutUint32(opt[28:], apiAt)
	le.PutUint32(opt[32:], 0x1000)
	le.PutUint32(opt[56:], apiSize)
	le.PutUint32(opt[60:], 0x1000)
	le.PutUint32(opt[92:], 16)
	le.PutUint32(opt[96:], exports)
	le.PutUint32(opt[100:], apiCode-exports)
	n := uint32(len(apiNames))
	dir := b[exports:]
	for off, v := range map[int]uint32{12: table - 16, 16: 1, 20: n, 24: n, 28: table, 32: table + 4*n, 36: table + 8*n} {
		le.PutUint32(dir[off:], v)
	}
	copy(b[table-16:], "KERNEL32.dll")
	text := uint32(table + 10*n)
	for i, name := range apiNames {
		i := uint32(i)
		le.PutUint32(b[table+4*i:], e.function(name)-apiAt)
		le.PutUint32(b[table+4*n+4*i:], text)
		le.PutUint16(b[table+8*n+2*i:], uint16(i))
		copy(b[text:], name)
		text += uint32(len(name)) + 1
	}
	return b
}

// apiNames are the functions in the library's table, sorted as there.
var apiNames = [...]string{
	"CloseHandle", "CompareStringA", "CopyFileA", "CreateDirectoryA", "CreateEventA", "CreateFileA",
	"CreateFileMappingA", "CreateMutexA", "CreateProcessA", "CreateThread", "CreateToolhelp32Snapshot",
	"DebugActiveProcess", "DebugBreak", "DeleteCriticalSection", "DeleteFileA", "DuplicateHandle",
	"EnterCriticalSection", "ExitProcess", "ExitThread", "FindClose", "FindFirstFileA", "FindNextFileA",
	"FindResourceA", "FlushFileBuffers", "FlushInstructionCache", "FormatMessageA", "FreeLibrary", "FreeResource",
	"GetACP", "GetCommandLineA", "GetComputerNameA", "GetCurrentDirectoryA", "GetCurrentProcess", "GetCurrentProcessId",
	"GetCurrentThread", "GetCurrentThreadId", "GetDriveTypeA", "GetEnvironmentVariableA", "GetExitCodeProcess",
	"GetExitCodeThread", "GetFileAttributesA", "GetFileSize", "GetFileTime", "GetFileType", "GetFullPathNameA",
	"GetLastError", "GetLocalTime", "GetModuleFileNameA", "GetModuleHandleA", "GetModuleHandleW", "GetProcAddress",
	"GetProcessHeap", "GetStartupInfoA", "GetStdHandle", "GetSystemDirectoryA", "GetSystemInfo", "GetSystemTime",
	"GetTempFileNameA", "GetTempPathA", "GetThreadContext", "GetTickCount", "GetVersion", "GetVersionExA",
	"GetWindowsDirectoryA", "GlobalAlloc", "GlobalFree", "GlobalLock", "GlobalUnlock", "HeapAlloc", "HeapCreate",
	"HeapDestroy", "HeapFree", "HeapReAlloc", "InitializeCriticalSection", "InterlockedDecrement",
	"InterlockedExchange", "InterlockedIncrement", "IsBadReadPtr", "IsDebuggerPresent", "LeaveCriticalSection",
	"LoadLibraryA", "LoadLibraryExA", "LoadLibraryW", "LoadResource", "LocalAlloc", "LocalFree", "LockResource",
	"MapViewOfFile", "MoveFileA", "MultiByteToWideChar", "OpenMutexA", "OpenProcess", "OutputDebugStringA",
	"Process32First", "Process32Next", "QueryPerformanceCounter", "RaiseException", "ReadFile", "ReadProcessMemory",
	"ReleaseMutex", "ResumeThread", "RtlUnwind", "SetCurrentDirectoryA", "SetEndOfFile", "SetEvent",
	"SetFileAttributesA", "SetFilePointer", "SetFileTime", "SetLastError", "SetThreadContext", "SetThreadPriority",
	"SetUnhandledExceptionFilter", "SizeofResource", "Sleep", "SuspendThread", "TerminateProcess", "TerminateThread",
	"TlsAlloc", "TlsGetValue", "TlsSetValue", "UnhandledExceptionFilter", "UnmapViewOfFile", "VirtualAlloc",
	"VirtualAllocEx", "VirtualFree", "VirtualProtect", "VirtualProtectEx", "VirtualQuery", "WaitForSingleObject",
	"WideCharToMultiByte", "WinExec", "WriteFile", "WriteProcessMemory", "lstrcatA", "lstrcmpA", "lstrcpyA", "lstrlenA",
}
