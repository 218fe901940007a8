package audit

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// maxRecord is the longest text of one record that is read. The kernel's
// MAX_AUDIT_MESSAGE_LENGTH is 8970 bytes; auditd's enrichment adds to it.
const maxRecord = 16 << 10

// Type is the type of a record (linux/audit.h, libaudit.h).
type Type uint16

// The types that are told apart here.
const (
	typeUser          Type = 1100 // the first and the last of user messages
	typeUserAuth      Type = 1100
	typeUserAcct      Type = 1101
	typeUserMgmt      Type = 1102
	typeCredAcq       Type = 1103
	typeCredDisp      Type = 1104
	typeUserStart     Type = 1105
	typeUserEnd       Type = 1106
	typeUserChauthtok Type = 1108
	typeUserErr       Type = 1109
	typeUserLogin     Type = 1112
	typeUserLogout    Type = 1113
	typeAddUser       Type = 1114
	typeDelUser       Type = 1115
	typeAddGroup      Type = 1116
	typeDelGroup      Type = 1117
	typeUserCmd       Type = 1123
	typeGrpMgmt       Type = 1132
	typeUserLast      Type = 1199
	typeDaemonLast    Type = 1299
	typeSyscall       Type = 1300
	typePath          Type = 1302
	typeConfigChange  Type = 1305
	typeSockaddr      Type = 1306
	typeCwd           Type = 1307
	typeExecve        Type = 1309
	typeObjPid        Type = 1318
	typeEOE           Type = 1320
	typeProctitle     Type = 1327
	typeReplace       Type = 1329
	typeKernModule    Type = 1330
	typeUser2First    Type = 2100
	typeUser2Last     Type = 2999
)

// typeNames are the names that auditd writes into its log.
var typeNames = map[string]Type{
	"USER_AUTH": typeUserAuth, "USER_ACCT": typeUserAcct, "USER_MGMT": typeUserMgmt, "CRED_ACQ": typeCredAcq,
	"CRED_DISP": typeCredDisp, "USER_START": typeUserStart, "USER_END": typeUserEnd, "USER_AVC": 1107,
	"USER_CHAUTHTOK": typeUserChauthtok, "USER_ERR": typeUserErr, "CRED_REFR": 1110, "USYS_CONFIG": 1111,
	"USER_LOGIN": typeUserLogin, "USER_LOGOUT": typeUserLogout, "ADD_USER": typeAddUser, "DEL_USER": typeDelUser,
	"ADD_GROUP": typeAddGroup, "DEL_GROUP": typeDelGroup, "USER_CMD": typeUserCmd, "SYSTEM_BOOT": 1127,
	"SERVICE_START": 1130, "SERVICE_STOP": 1131, "GRP_MGMT": typeGrpMgmt, "LOGIN": 1006,
	"SYSCALL": typeSyscall, "PATH": typePath, "IPC": 1303, "SOCKETCALL": 1304, "CONFIG_CHANGE": typeConfigChange,
	"SOCKADDR": typeSockaddr, "CWD": typeCwd, "EXECVE": typeExecve, "OBJ_PID": typeObjPid, "EOE": typeEOE,
	"BPRM_FCAPS": 1321, "CAPSET": 1322, "MMAP": 1323, "NETFILTER_CFG": 1325, "SECCOMP": 1326, "PROCTITLE": typeProctitle,
	"KERN_MODULE": typeKernModule, "BPF": 1334, "URINGOP": 1336, "AVC": 1400, "ANOM_PROMISCUOUS": 1700, "ANOM_ABEND": 1701,
	"TIME_INJOFFSET": 1332, "TIME_ADJNTPVAL": 1333,
}

// Record is one record.
type Record struct {
	Type   Type
	Time   time.Time // when its event happened, to the millisecond
	Serial uint32    // of its event; wraps
	// Text are the fields, without what auditd's enrichment adds.
	Text string
}

var errRecord = errors.New("no audit record")

// ParseRecord reads the text of a record as the kernel sends it:
// "audit(1615114232.375:15558): field=value ...".
func ParseRecord(t Type, text string) (Record, error) {
	r := Record{Type: t}
	if len(text) > maxRecord {
		return r, fmt.Errorf("%w: %d bytes, the limit is %d", errRecord, len(text), maxRecord)
	}
	rest, ok := strings.CutPrefix(strings.TrimRight(text, "\x00\n\r "), "audit(")
	if !ok {
		return r, fmt.Errorf("%w: it does not begin with audit(", errRecord)
	}
	stamp, rest, ok := strings.Cut(rest, "):")
	if !ok || len(stamp) > 64 {
		return r, fmt.Errorf("%w: its time has no end", errRecord)
	}
	when, serial, ok := strings.Cut(stamp, ":")
	if !ok {
		return r, fmt.Errorf("%w: no serial number in %q", errRecord, stamp)
	}
	n, err := strconv.ParseUint(serial, 10, 32)
	if err != nil {
		return r, fmt.Errorf("%w: serial number %q", errRecord, serial)
	}
	r.Serial = uint32(n)
	sec, milli, _ := strings.Cut(when, ".")
	s, err := strconv.ParseInt(sec, 10, 64)
	if err != nil || s < 0 || s > 1<<40 {
		return r, fmt.Errorf("%w: time %q", errRecord, when)
	}
	var ms int64
	if milli != "" {
		if ms, err = strconv.ParseInt(milli, 10, 32); err != nil || ms < 0 || ms > 999 {
			return r, fmt.Errorf("%w: time %q", errRecord, when)
		}
	}
	r.Time = time.Unix(s, ms*int64(time.Millisecond)).UTC()
	r.Text = strings.TrimLeft(rest, " ")
	if i := strings.IndexByte(r.Text, 0x1d); i >= 0 { // auditd's enrichment, log_format=ENRICHED
		r.Text = r.Text[:i]
	}
	return r, nil
}

// ParseLine reads a line of auditd's log: "type=SYSCALL msg=audit(...): ...",
// with or without "node=name" before it.
func ParseLine(line string) (Record, error) {
	line = strings.TrimSpace(line)
	if rest, ok := strings.CutPrefix(line, "node="); ok {
		_, line, _ = strings.Cut(rest, " ")
	}
	rest, ok := strings.CutPrefix(line, "type=")
	if !ok {
		return Record{}, fmt.Errorf("%w: it does not begin with type=", errRecord)
	}
	name, rest, _ := strings.Cut(rest, " ")
	text, ok := strings.CutPrefix(rest, "msg=")
	if !ok {
		return Record{}, fmt.Errorf("%w: no msg= after the type", errRecord)
	}
	t, known := typeNames[name]
	if n, isNumber := strings.CutPrefix(name, "UNKNOWN["); isNumber {
		v, err := strconv.ParseUint(strings.TrimSuffix(n, "]"), 10, 16)
		if err != nil {
			return Record{}, fmt.Errorf("%w: type %q", errRecord, name)
		}
		t, known = Type(v), true
	}
	if !known {
		return Record{}, fmt.Errorf("%w: type %q is not known", errRecord, name)
	}
	return ParseRecord(t, text)
}

// each gives the fields of text in order. What a program sent (msg='...') is
// given field by field. Quotes are removed; raw says that there were none, so
// that the value may be the hexadecimal form.
func each(text string, field func(key, value string, raw bool)) {
	for len(text) > 0 {
		text = strings.TrimLeft(text, " ,\n")
		eq := strings.IndexByte(text, '=')
		if sp := strings.IndexByte(text, ' '); sp >= 0 && (eq < 0 || sp < eq) {
			text = text[sp+1:] // a word that is no field
			continue
		}
		if eq < 0 {
			return
		}
		key := text[:eq]
		text = text[eq+1:]
		switch {
		case strings.HasPrefix(text, `"`):
			end := strings.IndexByte(text[1:], '"')
			if end < 0 {
				field(key, text[1:], false)
				return
			}
			field(key, text[1:1+end], false)
			text = text[end+2:]
		case strings.HasPrefix(text, "'") && key == "msg":
			end := strings.LastIndexByte(text, '\'')
			if end == 0 {
				end = len(text)
			}
			text = text[1:end] // the fields of the program; nothing of use follows
		default:
			end := strings.IndexByte(text, ' ')
			if end < 0 {
				end = len(text)
			}
			field(key, text[:end], true)
			text = text[end:]
		}
	}
}

// text gives a string as it was before the kernel encoded it: in hexadecimal
// when it has blanks, quotes or bytes beyond ASCII (audit_log_untrustedstring).
// Its bytes need not be UTF-8.
func decode(value string, raw bool) string {
	if !raw {
		return value
	}
	if value == "(null)" || value == "(none)" || value == "?" {
		return ""
	}
	if len(value)%2 != 0 || len(value) == 0 {
		return value
	}
	b, err := hex.DecodeString(value)
	if err != nil {
		return value
	}
	return string(b)
}

// valid makes text fit for an event.
func valid(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }
