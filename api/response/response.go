// Package response is what the portal and the agents say to each other about
// response actions: the types of the commands of the agent protocol (package
// agentv1), their parameters and results, and the token with which a host that
// is isolated can be released without the portal.
package response

import (
	"fmt"
	"net/netip"
	"strings"
)

// Types of commands. Those that the reference product has carry its names
// (MachineAction.type).
const (
	RunAntiVirusScan            = "RunAntiVirusScan"
	Isolate                     = "Isolate"
	Unisolate                   = "Unisolate"
	StopAndQuarantineFile       = "StopAndQuarantineFile"
	StopProcess                 = "StopProcess"
	QuarantineFile              = "QuarantineFile"
	RestoreFile                 = "RestoreFile"
	RemoveQuarantinedFile       = "RemoveQuarantinedFile"
	UpdateDefinitions           = "UpdateDefinitions"
	CollectInvestigationPackage = "CollectInvestigationPackage"
	LiveResponse                = "LiveResponse"
	Offboard                    = "Offboard"
)

// IsolateParameters are those of Isolate.
type IsolateParameters struct {
	// Order identifies the isolation; a release token names it.
	Order string
	// Allow are the addresses that stay reachable besides the portal: an
	// address or a network, each with an optional port ("10.1.2.3",
	// "10.1.0.0/16:22", "[2001:db8::/32]:443").
	Allow []string `json:",omitempty"`
	// ReleaseKey is the Ed25519 public key that release tokens of this
	// isolation are checked with.
	ReleaseKey []byte
}

// ProcessParameters are those of StopProcess.
type ProcessParameters struct {
	ProcessID int32
	// SHA256 of the program and Started, the time of the process's creation as
	// the portal knows it (RFC 3339), must fit if they are given: a number is
	// used again.
	SHA256  string `json:",omitempty"`
	Started string `json:",omitempty"`
}

// FileParameters are those of StopAndQuarantineFile and QuarantineFile: the file
// at Path, or what is known of the content by its hash. With both, the content
// at Path must be that of the hash.
type FileParameters struct {
	Path   string `json:",omitempty"`
	SHA1   string `json:"Sha1,omitempty"`
	SHA256 string `json:"Sha256,omitempty"`
}

// RestoreParameters are those of RestoreFile and RemoveQuarantinedFile: an item
// of the device's quarantine by its id, or all items of the content's hash.
type RestoreParameters struct {
	ItemID string `json:",omitempty"`
	SHA256 string `json:"Sha256,omitempty"`
}

// PackageResult is the result of a command that left a file at the portal.
type PackageResult struct {
	FileName string
	Size     int64
	SHA256   string
}

// MaxAllow bounds the list of addresses that an isolated host may reach.
const MaxAllow = 64

// Peer is an entry of IsolateParameters.Allow.
type Peer struct {
	Network netip.Prefix
	Port    uint16 // 0 for every port
}

// ParsePeer reads an entry of an allow list.
func ParsePeer(text string) (Peer, error) {
	bad := func(why string) (Peer, error) {
		return Peer{}, fmt.Errorf("%.64q is no address to keep reachable: %s (examples: 10.1.2.3, 10.1.0.0/16:22, [2001:db8::1]:443)", text, why)
	}
	host, port := text, ""
	switch {
	case strings.HasPrefix(text, "["):
		end := strings.IndexByte(text, ']')
		if end < 0 {
			return bad("the bracket is not closed")
		}
		host, port = text[1:end], text[end+1:]
		if port != "" && port[0] != ':' {
			return bad("want a colon after the bracket")
		}
		port = strings.TrimPrefix(port, ":")
	case strings.Count(text, ":") == 1:
		host, port, _ = strings.Cut(text, ":")
		if port == "" {
			return bad("the port is missing")
		}
	}
	var p Peer
	if strings.Contains(host, "/") {
		prefix, err := netip.ParsePrefix(host)
		if err != nil {
			return bad("not a network")
		}
		p.Network = prefix.Masked()
		if p.Network.Bits() < 8 {
			return bad("a network of more than a /8 is no isolation")
		}
	} else {
		a, err := netip.ParseAddr(host)
		if err != nil || a.Zone() != "" {
			return bad("not an IP address")
		}
		a = a.Unmap()
		p.Network = netip.PrefixFrom(a, a.BitLen())
	}
	if port != "" {
		var n uint32
		if _, err := fmt.Sscanf(port, "%d", &n); err != nil || n == 0 || n > 65535 || fmt.Sprint(n) != port {
			return bad("not a port")
		}
		p.Port = uint16(n)
	}
	return p, nil
}

// ParsePeers reads an allow list within its limit.
func ParsePeers(list []string) ([]Peer, error) {
	if len(list) > MaxAllow {
		return nil, fmt.Errorf("%d addresses to keep reachable, the limit is %d", len(list), MaxAllow)
	}
	out := make([]Peer, 0, len(list))
	for _, text := range list {
		p, err := ParsePeer(text)
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	return out, nil
}
