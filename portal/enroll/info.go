package enroll

import (
	"errors"
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"

	agentv1 "github.com/bulwarkhq/bulwark/api/agent/v1"
)

// Limits of DeviceInfo; what is longer is cut.
const (
	maxInfoText  = 256
	maxInfoItems = 64
)

// CleanInfo returns a copy of what a device says about itself, cut to sane
// sizes, without unknown fields and control characters. It fails when there is
// nothing.
func CleanInfo(in *agentv1.DeviceInfo) (*agentv1.DeviceInfo, error) {
	if in == nil {
		return nil, errors.New("device: missing")
	}
	d := proto.CloneOf(in)
	d.ProtoReflect().SetUnknown(nil)
	for _, s := range []*string{
		&d.HostName, &d.MachineGuid, &d.OsPlatform, &d.OsDistribution, &d.OsVersion, &d.OsPrettyName, &d.Kernel,
		&d.Architecture, &d.AgentVersion, &d.Model, &d.Vendor, &d.HardwareId,
	} {
		*s = cleanText(*s)
	}
	d.IpAddresses = cleanList(d.IpAddresses)
	d.LoggedOnUsers = cleanList(d.LoggedOnUsers)
	d.Tags = d.Tags[:min(len(d.Tags), maxInfoItems)]
	for i, t := range d.Tags {
		d.Tags[i] = &agentv1.Tag{Key: cleanText(t.GetKey()), Value: cleanText(t.GetValue())}
	}
	return d, nil
}

func cleanList(l []string) []string {
	l = l[:min(len(l), maxInfoItems)]
	for i := range l {
		l[i] = cleanText(l[i])
	}
	return l
}

func cleanText(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return -1
		}
		return r
	}, s)
	if len(s) <= maxInfoText {
		return s
	}
	cut := maxInfoText
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut]
}
