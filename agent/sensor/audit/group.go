package audit

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Bounds of an event that is put together from records.
const (
	maxPending = 1024            // events that wait for their end
	maxWait    = 2 * time.Second // how long, by the clock of who calls
	maxGroup   = 512             // records of one event
	maxArgs    = 128 << 10       // bytes of arguments
	maxPaths   = 64
)

// Group is one event: a system call with all that belongs to it, or what a
// program reported.
type Group struct {
	Serial uint32
	Time   time.Time
	// Type is of the event's main record: SYSCALL, or the only one.
	Type Type
	// Fields of the main record, decoded.
	Fields map[string]string
	Args   []string // EXECVE
	// ArgsCut says that there were more arguments than are kept.
	ArgsCut   bool
	Cwd       string
	Paths     []Path
	Remote    netip.AddrPort // SOCKADDR of IPv4 and IPv6
	Title     string         // PROCTITLE, with blanks between the arguments
	ObjPID    int            // OBJ_PID
	Module    string         // KERN_MODULE
	Complete  bool           // its end was seen
	records   int
	argBytes  int
	since     time.Time
	hasSocket bool
}

// Path is a PATH record.
type Path struct {
	Item     int
	Name     string
	NameType string // NORMAL, PARENT, CREATE, DELETE
	Inode    uint64
	Mode     uint32
}

// int gives a numeric field.
func (g *Group) int(name string) (int64, bool) {
	v, err := strconv.ParseInt(g.Fields[name], 10, 64)
	return v, err == nil
}

// hex gives a field in hexadecimal (a0 to a3 of a system call).
func (g *Group) hex(name string) uint64 {
	v, err := strconv.ParseUint(g.Fields[name], 16, 64)
	if err != nil {
		return 0
	}
	return v
}

// Coalescer puts the records of an event together. Records of several events
// come mixed, and in rare cases none says where an event ends.
type Coalescer struct {
	pending map[uint32]*Group
	order   []uint32 // of pending, by arrival
	// Dropped counts records that belonged to nothing or were too many.
	Dropped uint64
}

// NewCoalescer makes an empty one.
func NewCoalescer() *Coalescer { return &Coalescer{pending: map[uint32]*Group{}} }

// single says that events of this type are one record.
func (t Type) single() bool {
	return t < typeSyscall || t >= typeUser2First && t <= typeUser2Last || t == typeConfigChange
}

// begins says that a record belongs to a system call.
func (t Type) begins() bool {
	switch t {
	case typeSyscall, typePath, typeSockaddr, typeCwd, typeExecve, typeObjPid, typeProctitle, typeKernModule:
		return true
	}
	return false
}

// Add takes the next record and gives each event that is complete by now.
func (c *Coalescer) Add(r Record, now time.Time, complete func(*Group)) {
	if r.Type.single() {
		g := newGroup(r, now)
		g.main(r)
		g.Complete = true
		complete(g)
		return
	}
	g := c.pending[r.Serial]
	if r.Type == typeEOE {
		if g != nil {
			g.Complete = true
			c.done(g, complete)
		}
		return
	}
	if g == nil {
		if !r.Type.begins() {
			return // SELinux, crashes, ...: not of a system call that is followed
		}
		c.Expire(now, complete)
		for len(c.pending) >= maxPending {
			c.done(c.pending[c.order[0]], complete)
		}
		g = newGroup(r, now)
		c.pending[r.Serial] = g
		c.order = append(c.order, r.Serial)
	}
	if g.records++; g.records > maxGroup {
		c.Dropped++
		return
	}
	g.add(r)
	if r.Type == typeProctitle {
		// Nothing but the end follows (audit_log_exit).
		g.Complete = true
		c.done(g, complete)
	}
}

// Expire gives events that have waited for their end too long.
func (c *Coalescer) Expire(now time.Time, complete func(*Group)) {
	for len(c.order) > 0 {
		g := c.pending[c.order[0]]
		if now.Sub(g.since) < maxWait {
			return
		}
		c.done(g, complete)
	}
}

// Flush gives all that is left.
func (c *Coalescer) Flush(complete func(*Group)) {
	for len(c.order) > 0 {
		c.done(c.pending[c.order[0]], complete)
	}
}

func (c *Coalescer) done(g *Group, complete func(*Group)) {
	delete(c.pending, g.Serial)
	if i := slices.Index(c.order, g.Serial); i >= 0 {
		c.order = slices.Delete(c.order, i, i+1)
	}
	if g.Type != 0 {
		complete(g)
	} else {
		c.Dropped += uint64(g.records) // the main record was lost
	}
}

func newGroup(r Record, now time.Time) *Group {
	return &Group{Serial: r.Serial, Time: r.Time, since: now}
}

// encoded are the fields that the kernel or a program may write in hexadecimal.
func encoded(key string) bool {
	switch key {
	case "exe", "comm", "key", "acct", "cmd", "cwd", "name", "ocomm", "grp", "new_group", "hostname", "terminal", "tty", "unit":
		return true
	}
	return false
}

// main takes the record that says what the event is.
func (g *Group) main(r Record) {
	if g.Type != 0 {
		return
	}
	g.Type = r.Type
	g.Fields = make(map[string]string, 32)
	each(r.Text, func(key, value string, raw bool) {
		if len(g.Fields) >= 64 {
			return
		}
		if _, twice := g.Fields[key]; twice {
			return
		}
		if encoded(key) {
			if raw && (key == "tty" || key == "terminal" || key == "hostname") {
				if value == "?" || value == "(none)" {
					value = ""
				}
			} else {
				value = decode(value, raw)
			}
			value = valid(value)
		} else if raw && (value == "?" || value == "(null)") {
			value = ""
		}
		g.Fields[key] = value
	})
}

func (g *Group) add(r Record) {
	switch r.Type {
	case typeSyscall:
		g.main(r)
	case typeExecve:
		g.execve(r.Text)
	case typeCwd:
		each(r.Text, func(k, v string, raw bool) {
			if k == "cwd" {
				g.Cwd = valid(decode(v, raw))
			}
		})
	case typePath:
		g.path(r.Text)
	case typeSockaddr:
		each(r.Text, func(k, v string, _ bool) {
			if k == "saddr" {
				g.Remote, g.hasSocket = ParseSockaddr(decode(v, true)), true
			}
		})
	case typeProctitle:
		each(r.Text, func(k, v string, raw bool) {
			if k == "proctitle" {
				g.Title = valid(strings.ReplaceAll(strings.TrimRight(decode(v, raw), "\x00"), "\x00", " "))
			}
		})
	case typeObjPid:
		each(r.Text, func(k, v string, _ bool) {
			if k == "opid" {
				g.ObjPID, _ = strconv.Atoi(v)
			}
		})
	case typeKernModule:
		each(r.Text, func(k, v string, raw bool) {
			if k == "name" {
				g.Module = valid(decode(v, raw))
			}
		})
	}
}

func (g *Group) path(text string) {
	if len(g.Paths) >= maxPaths {
		return
	}
	var p Path
	each(text, func(k, v string, raw bool) {
		switch k {
		case "item":
			p.Item, _ = strconv.Atoi(v)
		case "name":
			p.Name = valid(decode(v, raw))
		case "nametype", "objtype":
			p.NameType = v
		case "inode":
			p.Inode, _ = strconv.ParseUint(v, 10, 64)
		case "mode":
			m, _ := strconv.ParseUint(v, 8, 32)
			p.Mode = uint32(m)
		}
	})
	g.Paths = append(g.Paths, p)
}

// execve takes arguments: a0="x", a1=hex, and of long ones a2_len=n a2[0]=hex
// a2[1]=hex ..., over several records.
func (g *Group) execve(text string) {
	each(text, func(k, v string, raw bool) {
		if len(k) < 2 || k[0] != 'a' || strings.HasSuffix(k, "_len") {
			return
		}
		digits, part := k[1:], false
		if i := strings.IndexByte(digits, '['); i > 0 {
			digits, part = digits[:i], true
		}
		n, err := strconv.Atoi(digits)
		if err != nil || n < 0 {
			return // argc
		}
		value := decode(v, raw)
		if raw && v == "(null)" {
			value = v // an argument may be this
		}
		g.argBytes += len(value) + 1
		if g.argBytes > maxArgs || n > len(g.Args) || n == len(g.Args) && part && !strings.HasSuffix(k, "[0]") {
			g.ArgsCut = true
			return
		}
		if n == len(g.Args) {
			g.Args = append(g.Args, value)
		} else if part {
			g.Args[n] += value
		}
	})
}

// ParseSockaddr reads a struct sockaddr as this machine's programs pass it to
// the kernel; the zero value for other families than IPv4 and IPv6. The family
// is in the order of the machine that recorded it, which may be another.
func ParseSockaddr(b string) netip.AddrPort {
	if len(b) < 8 {
		return netip.AddrPort{}
	}
	raw := []byte(b)
	port := binary.BigEndian.Uint16(raw[2:])
	const afInet, afInet6 = 2, 10
	switch binary.LittleEndian.Uint16(raw) {
	case afInet, afInet << 8:
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(raw[4:8])), port)
	case afInet6, afInet6 << 8:
		if len(raw) >= 24 {
			return netip.AddrPortFrom(netip.AddrFrom16([16]byte(raw[8:24])).Unmap(), port)
		}
	}
	return netip.AddrPort{}
}
