package respond

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"text/tabwriter"
)

// tcpStates are the kernel's numbers of the states of TCP.
var tcpStates = map[string]string{
	"01": "ESTABLISHED", "02": "SYN_SENT", "03": "SYN_RECV", "04": "FIN_WAIT1", "05": "FIN_WAIT2", "06": "TIME_WAIT",
	"07": "CLOSE", "08": "CLOSE_WAIT", "09": "LAST_ACK", "0A": "LISTEN", "0B": "CLOSING",
}

// maxConnections bounds the table.
const maxConnections = 20_000

// connections writes the active and the listening sockets, with their processes.
func (c Collector) connections(b *bytes.Buffer) error {
	owners := c.socketOwners()
	w := tabwriter.NewWriter(b, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "PROTOCOL\tLOCAL\tREMOTE\tSTATE\tUSER\tPROCESS")
	n := 0
	for _, proto := range []string{"tcp", "tcp6", "udp", "udp6"} {
		f, err := os.Open(filepath.Join(c.Root, "proc/net", proto))
		if err != nil {
			continue // a kernel without IPv6
		}
		lines := bufio.NewScanner(f)
		lines.Scan() // the heading
		for lines.Scan() && n < maxConnections {
			fields := strings.Fields(lines.Text())
			if len(fields) < 10 {
				continue
			}
			n++
			state := tcpStates[fields[3]]
			if strings.HasPrefix(proto, "udp") {
				state = "-"
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", proto, procAddress(fields[1]), procAddress(fields[2]), state, fields[7], owners[fields[9]])
		}
		f.Close() // read-only
	}
	return w.Flush()
}

// procAddress reads an address of /proc/net/tcp: 32-bit words in the byte order
// of the machine, a colon, the port; all hexadecimal.
func procAddress(s string) string {
	host, port, ok := strings.Cut(s, ":")
	raw, err := hex.DecodeString(host)
	n, perr := strconv.ParseUint(port, 16, 16)
	if !ok || err != nil || perr != nil || len(raw) != 4 && len(raw) != 16 {
		return s
	}
	for i := 0; i < len(raw); i += 4 { // little-endian machines only
		raw[i], raw[i+1], raw[i+2], raw[i+3] = raw[i+3], raw[i+2], raw[i+1], raw[i]
	}
	a, _ := netip.AddrFromSlice(raw)
	return netip.AddrPortFrom(a.Unmap(), uint16(n)).String()
}

// socketOwners maps the inodes of sockets to "pid (name)".
func (c Collector) socketOwners() map[string]string {
	out := map[string]string{}
	pids, err := c.pids()
	if err != nil {
		return out
	}
	for _, pid := range pids {
		dir := filepath.Join(c.Root, "proc", strconv.Itoa(pid))
		fds, err := os.ReadDir(dir + "/fd")
		if err != nil {
			continue
		}
		name := ""
		for _, fd := range fds {
			to, err := os.Readlink(filepath.Join(dir, "fd", fd.Name()))
			if err != nil || !strings.HasPrefix(to, "socket:[") {
				continue
			}
			if name == "" {
				comm, err := os.ReadFile(dir + "/comm")
				if err != nil {
					break
				}
				name = fmt.Sprintf("%d (%s)", pid, strings.TrimSpace(string(comm)))
			}
			out[strings.TrimSuffix(strings.TrimPrefix(to, "socket:["), "]")] = name
		}
	}
	return out
}
