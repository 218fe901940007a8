package sqlstore

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/bulwarkhq/bulwark/portal/inventory"
	"github.com/bulwarkhq/bulwark/portal/query"
)

// Inventory returns the store of package inventory.
func (s *Store) Inventory() inventory.Store { return inventoryStore{s} }

type inventoryStore struct{ *Store }

// The columns that an agent reports, in the order of inventoryValues.
const (
	inventoryColumns = `host_name, os_platform, os_distribution, os_version, os_pretty_name, kernel, architecture, agent_version,
		model, vendor, virtual_machine, ip_addresses, logged_on_users, device_tags`
	inventoryUpdate = `host_name = ?, os_platform = ?, os_distribution = ?, os_version = ?, os_pretty_name = ?, kernel = ?,
		architecture = ?, agent_version = ?, model = ?, vendor = ?, virtual_machine = ?, ip_addresses = ?, logged_on_users = ?, device_tags = ?`
)

func inventoryValues(d inventory.Device) []any {
	return []any{
		d.HostName, d.OSPlatform, d.OSDistribution, d.OSVersion, d.OSPrettyName, d.Kernel, d.Architecture, d.AgentVersion,
		d.Model, d.Vendor, d.VirtualMachine, list(d.IPAddresses), list(d.LoggedOnUsers), list(d.DeviceTags),
	}
}

func marks(n int) string { return strings.Repeat(", ?", n) }

func (s inventoryStore) PutDevice(ctx context.Context, d inventory.Device) error {
	args := append(inventoryValues(d), micros(d.LastSeen), d.LastExternalIP, d.PolicyVersion)
	q := `UPDATE devices SET ` + inventoryUpdate + `, last_seen = ?, external_ip = ?, policy_version = ?`
	if d.Health != nil {
		q += `, health = ?, health_time = ?`
		args = append(args, string(d.Health), micros(d.HealthTime))
	}
	n, err := s.exec(ctx, q+` WHERE id = ?`, append(args, d.ID)...)
	if err == nil && n == 0 {
		err = fmt.Errorf("device %s: %w", d.ID, inventory.ErrNotFound)
	}
	return err
}

func (s inventoryStore) DeviceSeen(ctx context.Context, id, address string, at time.Time, events bool) error {
	q, args := `UPDATE devices SET last_seen = `+s.greatest+`(last_seen, ?)`, []any{micros(at)}
	if events {
		q += `, last_event = ` + s.greatest + `(last_event, ?)`
		args = append(args, micros(at))
	}
	if address != "" {
		q += `, external_ip = ?`
		args = append(args, address)
	}
	n, err := s.exec(ctx, q+` WHERE id = ?`, append(args, id)...)
	if err == nil && n == 0 {
		err = fmt.Errorf("device %s: %w", id, inventory.ErrNotFound)
	}
	return err
}

// healthStatus derives the status; it takes the arguments of healthArgs. A
// device counts as silent only NoDataAfter after it enrolled.
func (d *dialect) healthStatus() string {
	event := d.greatest + `(d.last_event, d.enrolled)`
	return `CASE
	WHEN d.last_seen < ? THEN 'Inactive'
	WHEN ` + event + ` < ? AND d.last_seen < ? THEN 'NoSensorDataImpairedCommunication'
	WHEN d.last_seen < ? THEN 'ImpairedCommunication'
	WHEN ` + event + ` < ? THEN 'NoSensorData'
	ELSE 'Active' END`
}

func healthArgs(c inventory.Cuts) []any {
	return []any{micros(c.Inactive), micros(c.NoData), micros(c.Impaired), micros(c.Impaired), micros(c.NoData)}
}

const (
	openAlerts = `(SELECT count(*) FROM alerts a WHERE a.device_id = d.id AND a.status <> 'Resolved')`
	riskRank   = `(SELECT coalesce(max(a.severity_rank), 0) FROM alerts a WHERE a.device_id = d.id AND a.status <> 'Resolved')`
	riskScore  = `CASE ` + riskRank + ` WHEN 4 THEN 'High' WHEN 3 THEN 'Medium' WHEN 2 THEN 'Low' WHEN 1 THEN 'Informational' ELSE 'None' END`
	groupName  = `coalesce((SELECT g.name FROM assignments s JOIN device_groups g ON g.id = s.group_id WHERE s.device_id = d.id), '')`
	onboarding = `CASE d.revoked WHEN 0 THEN 'Onboarded' ELSE 'Offboarded' END`
	deviceList = `d.id, d.machine_guid, d.hardware_id, d.host_name, d.os_platform, d.os_distribution, d.os_version, d.os_pretty_name,
		d.kernel, d.architecture, d.agent_version, d.model, d.vendor, d.virtual_machine, d.ip_addresses, d.logged_on_users,
		d.device_tags, d.tags, d.enrolled, d.last_seen, d.last_event, d.external_ip, d.health, d.health_time, d.policy_version, ` +
		groupName + `, ` + onboarding + `, ` + openAlerts + `, ` + riskScore + `, ` // and healthStatus
)

func deviceColumns(dialect *dialect, cuts inventory.Cuts) map[string]column {
	return map[string]column{
		"id": {sql: "d.id"}, "computerDnsName": {sql: "d.host_name", order: dialect.nocase("d.host_name")}, "firstSeen": {sql: "d.enrolled"},
		"lastSeen": {sql: "d.last_seen"}, "osPlatform": {sql: "d.os_platform"}, "osDistribution": {sql: "d.os_distribution"},
		"osVersion": {sql: "d.os_version"}, "version": {sql: "d.os_version"}, "osArchitecture": {sql: "d.architecture"},
		"agentVersion": {sql: "d.agent_version"}, "lastIpAddress": {sql: "coalesce(" + dialect.first("d.ip_addresses") + ", '')"},
		"lastExternalIpAddress": {sql: "d.external_ip"}, "healthStatus": {sql: dialect.healthStatus(), args: healthArgs(cuts)},
		"onboardingStatus": {sql: onboarding}, "riskScore": {sql: riskScore, order: riskRank}, "exposureLevel": {sql: "'None'", order: "(0 + 0)"},
		"deviceValue": {sql: "'Normal'", order: "(0 + 0)"}, "aadDeviceId": {sql: "''", order: "(0 + 0)"}, "rbacGroupId": {sql: "(0 + 0)"}, "rbacGroupName": {sql: groupName},
		"machineTags": {sql: "d.tags,d.device_tags"}, "openAlerts": {sql: openAlerts},
	}
}

func scanDevice(r scanner) (inventory.Device, error) {
	var d inventory.Device
	var ips, users, deviceTags, tags, health string
	var first, seen, event, healthTime int64
	err := r.Scan(&d.ID, &d.MachineGUID, &d.HardwareID, &d.HostName, &d.OSPlatform, &d.OSDistribution, &d.OSVersion, &d.OSPrettyName,
		&d.Kernel, &d.Architecture, &d.AgentVersion, &d.Model, &d.Vendor, &d.VirtualMachine, &ips, &users,
		&deviceTags, &tags, &first, &seen, &event, &d.LastExternalIP, &health, &healthTime, &d.PolicyVersion,
		&d.Group, &d.OnboardingStatus, &d.OpenAlerts, &d.RiskScore, &d.HealthStatus)
	if errors.Is(err, sql.ErrNoRows) {
		return d, inventory.ErrNotFound
	}
	if err != nil {
		return d, err
	}
	d.FirstSeen, d.LastSeen, d.LastEvent, d.HealthTime = fromMicros(first), fromMicros(seen), fromMicros(event), fromMicros(healthTime)
	if health != "" {
		d.Health = json.RawMessage(health)
	}
	if d.IPAddresses, err = fromList(ips); err != nil {
		return d, err
	}
	if d.LoggedOnUsers, err = fromList(users); err != nil {
		return d, err
	}
	if d.DeviceTags, err = fromList(deviceTags); err != nil {
		return d, err
	}
	d.Tags, err = fromList(tags)
	return d, err
}

func (s inventoryStore) Device(ctx context.Context, id string, cuts inventory.Cuts) (inventory.Device, error) {
	mine, args := and(ctx, "d.id")
	return scanDevice(s.read.QueryRowContext(ctx, `SELECT `+deviceList+s.healthStatus()+` FROM devices d WHERE d.id = ?`+mine, append(append(healthArgs(cuts), id), args...)...))
}

func (s inventoryStore) Devices(ctx context.Context, q query.Query, cuts inventory.Cuts) ([]inventory.Device, int, error) {
	p, err := compile(s.dialect, q, inventory.Fields(), deviceColumns(s.dialect, cuts), s.nocase("d.host_name"), "d.id")
	if err != nil {
		return nil, 0, err
	}
	p.limit(ctx, "d.id")
	// The ids first: sorting whole rows would read the health and count the alerts of
	// every device for the sake of a page.
	ids, err := rows(ctx, s.read, func(r scanner) (id string, err error) { err = r.Scan(&id); return id, err }, `SELECT d.id FROM devices d`+p.where+p.tail, slices.Concat(p.whereArgs, p.tailArgs)...)
	if err != nil {
		return nil, 0, err
	}
	at := make(map[string]int, len(ids))
	for i, id := range ids {
		at[id] = i
	}
	out, err := rows(ctx, s.read, scanDevice, `SELECT `+deviceList+s.healthStatus()+` FROM devices d WHERE d.id IN (SELECT value FROM `+s.elements("?")+`)`, append(healthArgs(cuts), list(ids))...)
	if err != nil {
		return nil, 0, err
	}
	slices.SortFunc(out, func(a, b inventory.Device) int { return at[a.ID] - at[b.ID] })
	if !q.Count {
		return out, 0, nil
	}
	var n int
	if err := s.read.QueryRowContext(ctx, `SELECT count(*) FROM devices d`+p.where, p.whereArgs...).Scan(&n); err != nil {
		return nil, 0, fmt.Errorf("counting devices: %w", err)
	}
	return out, n, nil
}

func (s inventoryStore) DeviceIDs(ctx context.Context, filter query.Expr, cuts inventory.Cuts) ([]string, error) {
	p, err := compile(s.dialect, query.Query{Filter: filter}, inventory.Fields(), deviceColumns(s.dialect, cuts), "d.id", "d.id")
	if err != nil {
		return nil, err
	}
	p.limit(ctx, "d.id")
	return rows(ctx, s.read, func(r scanner) (id string, err error) { err = r.Scan(&id); return id, err }, `SELECT d.id FROM devices d`+p.where, p.whereArgs...)
}

func (s inventoryStore) DeviceCounts(ctx context.Context, cuts inventory.Cuts) (map[string]int, error) {
	mine, args := and(ctx, "d.id")
	return s.counts(ctx, `SELECT `+s.healthStatus()+` AS status, count(*) FROM devices d WHERE d.revoked = 0`+mine+` GROUP BY status`, append(healthArgs(cuts), args...)...)
}

func (s inventoryStore) SetDeviceTags(ctx context.Context, id string, tags []string) error {
	mine, args := and(ctx, "id")
	return s.execOne(ctx, inventory.ErrNotFound, `UPDATE devices SET tags = ? WHERE id = ?`+mine, append([]any{list(tags), id}, args...)...)
}

// counts runs a query of names and numbers.
func (s *Store) counts(ctx context.Context, q string, args ...any) (map[string]int, error) {
	type pair struct {
		name string
		n    int
	}
	pairs, err := rows(ctx, s.read, func(r scanner) (p pair, err error) {
		err = r.Scan(&p.name, &p.n)
		return p, err
	}, q, args...)
	if err != nil {
		return nil, err
	}
	out := make(map[string]int, len(pairs))
	for _, p := range pairs {
		out[p.name] = p.n
	}
	return out, nil
}
