package filetype

// clamTypes are ClamAV's names of file types with ours, where both know one.
var clamTypes = []struct{ clam, ours string }{
	{"CL_TYPE_MSEXE", PE},
	{"CL_TYPE_ELF", ELF},
	{"CL_TYPE_MACHO", MachO},
	{"CL_TYPE_MACHO_UNIBIN", MachO},
	{"CL_TYPE_ZIP", Zip},
	{"CL_TYPE_GZ", Gzip},
	{"CL_TYPE_BZ", Bzip2},
	{"CL_TYPE_XZ", XZ},
	{"CL_TYPE_7Z", SevenZ},
	{"CL_TYPE_RAR", RAR},
	{"CL_TYPE_ARJ", "arj"},
	{"CL_TYPE_MSCAB", CAB},
	{"CL_TYPE_MSCHM", "chm"},
	{"CL_TYPE_MSSZDD", "szdd"},
	{"CL_TYPE_TNEF", "tnef"},
	{"CL_TYPE_SIS", "sis"},
	{"CL_TYPE_POSIX_TAR", Tar},
	{"CL_TYPE_OLD_TAR", Tar},
	{"CL_TYPE_DMG", DMG},
	{"CL_TYPE_CPIO_NEWC", CPIO},
	{"CL_TYPE_CPIO_OLD", CPIO},
	{"CL_TYPE_CPIO_ODC", CPIO},
	{"CL_TYPE_CPIO_CRC", CPIO},
	{"CL_TYPE_MSOLE2", OLE2},
	{"CL_TYPE_PDF", PDF},
	{"CL_TYPE_RTF", RTF},
	{"CL_TYPE_MAIL", Mail},
	{"CL_TYPE_HTML", HTML},
	{"CL_TYPE_TEXT_ASCII", Text},
	{"CL_TYPE_SCRIPT", Script},
	{"CL_TYPE_BINARY_DATA", Data},
	{"CL_TYPE_PNG", "png"},
	{"CL_TYPE_JPEG", "jpeg"},
	{"CL_TYPE_GIF", "gif"},
	{"CL_TYPE_TIFF", "tiff"},
	{"CL_TYPE_GRAPHICS", "bmp"},
	{"CL_TYPE_SWF", "swf"},
	{"CL_TYPE_JAVA", "java"},
}

// ClamType is ClamAV's name (CL_TYPE_...) of a file type.
func ClamType(name string) string {
	for _, t := range clamTypes {
		if t.ours == name {
			return t.clam
		}
	}
	return "CL_TYPE_BINARY_DATA"
}

// OfClam is the file type of ClamAV's name; "" where there is no such type here.
func OfClam(clam string) string {
	for _, t := range clamTypes {
		if t.clam == clam {
			return t.ours
		}
	}
	return ""
}
