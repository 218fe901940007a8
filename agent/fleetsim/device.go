package fleetsim

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/bulwarkhq/bulwark/agent/identity"
	"github.com/bulwarkhq/bulwark/agent/uplink"
	agentv1 "github.com/bulwarkhq/bulwark/api/agent/v1"
	"github.com/bulwarkhq/bulwark/api/control"
	"github.com/bulwarkhq/bulwark/api/onboarding"
)

// device is one simulated host with its agent.
type device struct {
	name   string
	uplink *uplink.Uplink
	stats  *counters

	kind    kind
	info    agentv1.DeviceInfo
	address string
	started time.Time
	policy  string
}

// systems that the devices have, the more frequent ones more than once.
var systems = []struct{ distribution, version, pretty, kernel string }{
	{"debian", "12", "Debian GNU/Linux 12 (bookworm)", "6.1.0-28-amd64"},
	{"debian", "12", "Debian GNU/Linux 12 (bookworm)", "6.1.0-31-amd64"},
	{"ubuntu", "22.04", "Ubuntu 22.04.5 LTS", "5.15.0-130-generic"},
	{"ubuntu", "24.04", "Ubuntu 24.04.1 LTS", "6.8.0-51-generic"},
	{"rhel", "9.5", "Red Hat Enterprise Linux 9.5 (Plow)", "5.14.0-503.19.1.el9_5.x86_64"},
	{"rhel", "8.10", "Red Hat Enterprise Linux 8.10 (Ootpa)", "4.18.0-553.34.1.el8_10.x86_64"},
	{"sles", "15.6", "SUSE Linux Enterprise Server 15 SP6", "6.4.0-150600.23.33-default"},
	{"amzn", "2023", "Amazon Linux 2023.6.20250107", "6.1.119-129.201.amzn2023.x86_64"},
}

func newDevice(cfg *Config, i int, enc *zstd.Encoder, stats *counters) (*device, error) {
	r := cfg.random(i)
	k := kinds[r.IntN(len(kinds))]
	d := &device{
		name: fmt.Sprintf("sim-%s-%06d.example.org", k.name, i+1), stats: stats, kind: k,
		address: fmt.Sprintf("10.%d.%d.%d", i>>16&0xff, i>>8&0xff, i&0xff),
		started: time.Now().Add(-time.Duration(r.IntN(90*24)) * time.Hour),
	}
	hardware := sha256.Sum256(fmt.Appendf(nil, "simulated hardware %d %d", cfg.Seed, i))
	id, err := identity.Load(cfg.folder(i), hex.EncodeToString(hardware[:]))
	if err != nil {
		return nil, err
	}
	s := systems[r.IntN(len(systems))]
	d.info = agentv1.DeviceInfo{
		HostName: d.name, OsPlatform: "Linux", OsDistribution: s.distribution, OsVersion: s.version, OsPrettyName: s.pretty,
		Kernel: s.kernel, Architecture: "amd64", IpAddresses: []string{d.address}, Vendor: "Bulwark", Model: "Simulation", VirtualMachine: true,
	}
	d.uplink, err = uplink.New(uplink.Options{
		Onboarding: cfg.Onboarding, Identity: id, Spool: newQueue(cfg, d, r, stats), Version: "0.0.0-simulated", Encoder: enc,
		Device: d.device, Tags: d.tags, Health: d.health, Command: d.command,
		PolicyVersion: func() string { return d.policy }, // only the loop of check-ins uses it
		ApplyPolicy:   func(version string, _ []byte) error { d.policy = version; return nil },
		Changed:       stats.changed, Log: cfg.Log.With("agent", d.name), MaxBackoff: cfg.MaxBackoff,
		WatchInterval: time.Hour, // the package does not change
	})
	return d, err
}

func (d *device) device() *agentv1.DeviceInfo {
	return &agentv1.DeviceInfo{
		HostName: d.info.HostName, OsPlatform: d.info.OsPlatform, OsDistribution: d.info.OsDistribution, OsVersion: d.info.OsVersion,
		OsPrettyName: d.info.OsPrettyName, Kernel: d.info.Kernel, Architecture: d.info.Architecture, IpAddresses: d.info.IpAddresses,
		Vendor: d.info.Vendor, Model: d.info.Model, VirtualMachine: true,
	}
}

func (d *device) tags() []onboarding.Tag {
	return []onboarding.Tag{{Key: "simulated", Value: d.kind.name}}
}

// health is what a healthy agent says.
func (d *device) health(context.Context) []byte {
	d.stats.checkIns.Add(1)
	updated := time.Now().Add(-2 * time.Hour).UTC()
	h := control.Health{
		Healthy: true, State: control.StateHealthy, HealthIssues: []string{}, Licensed: true, EngineVersion: "0.0.0", EngineLoadStatus: "Engine loaded",
		AppVersion: "0.0.0-simulated", LogLevel: "info", ReleaseRing: "Production", CloudEnabled: true, CloudSampleConsent: "safe",
		EnforcementLevel: "real_time", RealTimeEnabled: true, RealTimeAvailable: true, RealTimeSubsystem: "fanotify", SupplementarySubsystem: "ebpf",
		BehaviorMonitoring: "enabled", TamperProtection: "audit", AutomaticDefinitions: true, DefinitionsUpdated: updated, DefinitionsUpdatedMinAgo: 120,
		DefinitionsVersion: updated.Format("2006.01.02") + ".1", DefinitionsStatus: "up_to_date", EDREarlyPreview: "disabled", PortalStatus: "connected",
		ConflictingApplications: []string{}, NetworkProtectionStatus: "stopped", NetworkProtectionLevel: "disabled", Issues: []control.Issue{}, Managed: []string{},
	}
	text, err := json.Marshal(h)
	if err != nil {
		return nil // no such value
	}
	return text
}

// command carries out nothing and says so.
func (d *device) command(ctx context.Context, c *agentv1.Command, report uplink.Report) {
	d.stats.commands.Add(1)
	if report(ctx, "InProgress", "simulated", nil) != nil {
		return
	}
	pause := time.NewTimer(time.Duration(200+rand.IntN(1800)) * time.Millisecond) //nolint:gosec // a simulation
	defer pause.Stop()
	select {
	case <-ctx.Done():
		return
	case <-pause.C:
	}
	if err := report(ctx, "Succeeded", "simulated: nothing was done", []byte(`{"simulated":true}`)); err != nil {
		d.stats.fail("command: " + err.Error())
	}
}
