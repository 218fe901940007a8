package exefmt

// winsock are the functions of ws2_32.dll and wsock32.dll that programs import
// by number (the .def files of the Windows SDK), as the import hash spells them.
var winsock = map[int]string{
	1: "accept", 2: "bind", 3: "closesocket", 4: "connect", 5: "getpeername", 6: "getsockname", 7: "getsockopt",
	8: "htonl", 9: "htons", 10: "ioctlsocket", 11: "inet_addr", 12: "inet_ntoa", 13: "listen", 14: "ntohl",
	15: "ntohs", 16: "recv", 17: "recvfrom", 18: "select", 19: "send", 20: "sendto", 21: "setsockopt",
	22: "shutdown", 23: "socket", 51: "gethostbyaddr", 52: "gethostbyname", 53: "getprotobyname",
	54: "getprotobynumber", 55: "getservbyname", 56: "getservbyport", 57: "gethostname",
	101: "wsaasyncselect", 111: "wsagetlasterror", 112: "wsasetlasterror", 115: "wsastartup", 116: "wsacleanup",
	151: "__wsafdisset",
}

// oleaut are the functions of oleaut32.dll that are most often imported by
// number.
var oleaut = map[int]string{
	2: "sysallocstring", 3: "sysreallocstring", 4: "sysallocstringlen", 5: "sysreallocstringlen", 6: "sysfreestring",
	7: "sysstringlen", 8: "variantinit", 9: "variantclear", 10: "variantcopy", 11: "variantcopyind",
	12: "variantchangetype", 13: "varianttimetodosdatetime", 14: "dosdatetimetovarianttime", 15: "safearraycreate",
	16: "safearraydestroy", 17: "safearraygetdim", 18: "safearraygetelemsize", 19: "safearraygetubound",
	20: "safearraygetlbound", 21: "safearraylock", 22: "safearrayunlock", 23: "safearrayaccessdata",
	24: "safearrayunaccessdata", 25: "safearraygetelement", 26: "safearrayputelement", 27: "safearraycopy",
}
