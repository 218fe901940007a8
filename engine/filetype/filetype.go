// Package filetype names the format of a file by its contents. It drives the
// unpackers and the target types of signatures, so it prefers what a program
// would take the file for over what a standard says.
package filetype

import (
	"bytes"
	"encoding/binary"
	"unicode/utf8"
)

// HeadSize is how many bytes of a file's beginning Detect wants: so many that the
// first volume descriptor of a disc image is among them.
const HeadSize = 34 << 10

// textSize is how many of them decide whether a file is text.
const textSize = 4096

// The names of formats that others refer to.
const (
	Empty    = "empty"
	Data     = "data"
	Text     = "text"
	Script   = "script"
	HTML     = "html"
	ELF      = "elf"
	PE       = "pe"
	MachO    = "macho"
	Zip      = "zip"
	Gzip     = "gzip"
	Bzip2    = "bzip2"
	XZ       = "xz"
	LZMA     = "lzma"
	Zstd     = "zstd"
	LZ4      = "lz4"
	Tar      = "tar"
	SevenZ   = "7z"
	RAR      = "rar"
	CAB      = "cab"
	AR       = "ar"
	CPIO     = "cpio"
	RPM      = "rpm"
	OLE2     = "ole2"
	PDF      = "pdf"
	RTF      = "rtf"
	Mail     = "mail"
	XML      = "xml"
	ARJ      = "arj"
	LHA      = "lha"
	Lzip     = "lzip"
	SZDD     = "szdd"
	CHM      = "chm"
	SIS      = "sis"
	ISO9660  = "iso9660"
	UDF      = "udf"
	Squashfs = "squashfs"
	WIM      = "wim"
	DMG      = "dmg" // Apple's disk images: told by their end
	TNEF     = "tnef"
	BinHex   = "binhex"
	Compress = "compress"
	FAT      = "fat"
	Ext      = "ext"
	// Partitions is a disk image with a table of partitions.
	Partitions = "partitions"
)

type magic struct {
	at   int
	text string
	name string
}

// The first entry that fits decides.
var table = []magic{
	{0, "\x7fELF", ELF},
	{0, "PK\x03\x04", Zip},
	{0, "PK\x05\x06", Zip},
	{0, "PK\x07\x08PK\x03\x04", Zip},
	{0, "\x1f\x8b", Gzip},
	{0, "\x1f\x9d", Compress},
	{0, "BZh", Bzip2},
	{0, "\xfd7zXZ\x00", XZ},
	{0, "\x28\xb5\x2f\xfd", Zstd},
	{0, "\x04\x22\x4d\x18", LZ4},
	{0, "7z\xbc\xaf\x27\x1c", SevenZ},
	{0, "Rar!\x1a\x07", RAR},
	{0, "MSCF\x00\x00\x00\x00", CAB},
	{0, "ISc(", "installshield"},
	{0, "!<arch>\n", AR},
	{0, "070701", CPIO},
	{0, "070702", CPIO},
	{0, "070707", CPIO},
	{0, "\xc7\x71", CPIO},
	{0, "\x71\xc7", CPIO},
	{0, "\xed\xab\xee\xdb", RPM},
	{0, "\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", OLE2},
	{0, "{\\rt", RTF},
	{0, "\xfe\xed\xfa\xce", MachO},
	{0, "\xfe\xed\xfa\xcf", MachO},
	{0, "\xce\xfa\xed\xfe", MachO},
	{0, "\xcf\xfa\xed\xfe", MachO},
	{0, "\x89PNG\r\n\x1a\n", "png"},
	{0, "\xff\xd8\xff", "jpeg"},
	{0, "GIF87a", "gif"},
	{0, "GIF89a", "gif"},
	{0, "II*\x00", "tiff"},
	{0, "MM\x00*", "tiff"},
	{0, "FWS", "swf"},
	{0, "CWS", "swf"},
	{0, "ZWS", "swf"},
	{0, "MSWIM\x00\x00\x00", WIM},
	{0, "hsqs", Squashfs},
	{0, "sqsh", Squashfs},
	{0, "ITSF", CHM},
	{0, "SZDD\x88\xf0\x27\x33", SZDD},
	{0, "SZ \x88\xf0\x27\x33\xd1", SZDD},
	{0, "\x60\xea", ARJ},
	{0, "\x78\x9f\x3e\x22", TNEF},
	{2, "-lh", LHA},
	{2, "-lz", LHA},
	{2, "-pm", LHA},
	{0, "LZIP\x01", Lzip},
	{0, "SQLite format 3\x00", "sqlite"},
	{0, "\x00asm", "wasm"},
	{0, "OggS", "ogg"},
	{0, "ID3", "mp3"},
	{0, "fLaC", "flac"},
	{4, "ftyp", "mp4"},
	{257, "ustar", Tar},
	{32769, "CD001", ISO9660},
	{32769, "BEA01", UDF},
	{32769, "NSR02", UDF},
	{32769, "NSR03", UDF},
	{8, "\x19\x04\x00\x10", SIS},
	{0, "(This file must be converted with BinHex", BinHex},
}

// Detect names the format of a file that begins with head (the first HeadSize
// bytes, or all of it).
func Detect(head []byte) string {
	if len(head) == 0 {
		return Empty
	}
	if len(head) >= 4 && binary.BigEndian.Uint32(head) == 0xcafebabe {
		// A Java class has its version there, a fat Mach-O the number of parts.
		if len(head) >= 8 && binary.BigEndian.Uint32(head[4:]) < 40 {
			return MachO
		}
		return "java"
	}
	for _, m := range table {
		if len(head) >= m.at+len(m.text) && string(head[m.at:m.at+len(m.text)]) == m.text {
			return m.name
		}
	}
	switch {
	case bytes.HasPrefix(head, []byte("MZ")):
		if len(head) >= 64 {
			at := int64(binary.LittleEndian.Uint32(head[60:]))
			if at+4 <= int64(len(head)) && string(head[at:at+4]) != "PE\x00\x00" {
				return "dos"
			}
		}
		return PE
	case bytes.HasPrefix(head, []byte("BM")) && len(head) >= 18 && head[14] == 40:
		return "bmp"
	case bytes.Contains(head[:min(len(head), 1024)], []byte("%PDF-")):
		return PDF
	case bytes.HasPrefix(head, []byte("#!")):
		return Script
	case isOldTar(head):
		return Tar
	case len(head) > 13 && head[0] == 0x5d && head[1] == 0 && head[2] == 0 && (head[12] < 2 || string(head[5:13]) == "\xff\xff\xff\xff\xff\xff\xff\xff"):
		return LZMA
	}
	if image := diskImage(head); image != "" {
		return image
	}
	return detectText(head)
}

// isOldTar checks the header checksum of a tar without the ustar mark.
func isOldTar(h []byte) bool {
	if len(h) < 512 || h[0] == 0 {
		return false
	}
	want, digits := 0, 0
	for _, c := range h[148:156] {
		if c >= '0' && c <= '7' {
			want = want*8 + int(c-'0')
			digits++
		} else if digits > 0 {
			break
		} else if c != ' ' {
			return false
		}
	}
	sum := 8 * int(' ')
	for i, c := range h[:512] {
		if i < 148 || i >= 156 {
			sum += int(c)
		}
	}
	return digits > 0 && sum == want
}

func detectText(head []byte) string {
	head = head[:min(len(head), textSize)]
	text := bytes.TrimPrefix(head, []byte("\xef\xbb\xbf"))
	if bytes.HasPrefix(text, []byte{0xff, 0xfe}) || bytes.HasPrefix(text, []byte{0xfe, 0xff}) {
		return Text
	}
	// What a page or a mail begins with decides, whatever bytes are behind: a
	// browser passes over them, too.
	var room [1024]byte
	start := lower(room[:], bytes.TrimLeft(text[:min(len(text), len(room))], " \t\r\n"))
	for _, p := range []string{"<!doctype html", "<html", "<head", "<body", "<script", "<iframe"} {
		if bytes.HasPrefix(start, []byte(p)) {
			return HTML
		}
	}
	if isMail(start) {
		return Mail
	}
	odd := 0
	for _, c := range text {
		if c == 0 {
			return Data
		}
		if c < 9 || c > 13 && c < 32 && c != 27 {
			odd++
		}
	}
	if odd*50 > len(text) || !utf8.Valid(text) && highBytes(text)*3 > len(text) {
		return Data
	}
	if bytes.HasPrefix(start, []byte("<?xml")) {
		return XML
	}
	if bytes.HasPrefix(start, []byte("<?php")) {
		return Script
	}
	return Text
}

// lower writes text with its ASCII letters in lower case to room, which is as
// long. Most of what comes here is not Unicode, over which bytes.ToLower takes long.
func lower(room, text []byte) []byte {
	out := room[:len(text)]
	for i, c := range text {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		out[i] = c
	}
	return out
}

// isMail looks for the header of a mail, or the line that begins a mailbox
// before one: every line is a field or continues one, until a blank line, and
// one of the fields is of mail.
func isMail(start []byte) bool {
	start = bytes.TrimPrefix(start, []byte("from "))
	fields, known := 0, false
	for i := 0; len(start) > 0 && i < 40; i++ {
		line := start
		if end := bytes.IndexByte(start, '\n'); end >= 0 {
			line, start = start[:end], start[end+1:]
		} else {
			start = nil // may be cut
		}
		line = bytes.TrimRight(line, "\r")
		if len(line) == 0 {
			break
		}
		if line[0] == ' ' || line[0] == '\t' {
			continue
		}
		name, _, ok := bytes.Cut(line, []byte(":"))
		if !ok {
			if i == 0 || start == nil { // the rest of the mailbox's line
				continue
			}
			return false
		}
		for _, c := range name {
			if c <= ' ' || c >= 0x7f {
				if i == 0 {
					name = nil
					break
				}
				return false
			}
		}
		fields++
		switch string(name) {
		case "from", "to", "received", "return-path", "delivered-to", "mime-version", "message-id", "x-mozilla-status",
			"content-type", "content-transfer-encoding", "subject":
			known = true
		}
	}
	return known && (fields >= 2 || bytes.HasPrefix(start, []byte("content-")))
}

func highBytes(b []byte) int {
	n := 0
	for _, c := range b {
		if c >= 0x80 {
			n++
		}
	}
	return n
}

// IsGraphics reports whether a format is a picture (ClamAV's target type 5).
func IsGraphics(name string) bool {
	switch name {
	case "png", "jpeg", "gif", "tiff", "bmp":
		return true
	}
	return false
}
