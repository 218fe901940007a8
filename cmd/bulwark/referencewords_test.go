package main

import (
	"bytes"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// Success lines of the reference product.
const (
	propertyUpdated = `^Configuration property updated(\. It takes effect .*)?$`
	noExclusions    = `^No exclusions$`
)

// words are what the answer to each command of the table says in text, as
// expressions over lines: the reference's success lines, headings and fields.
var words = map[string]string{
	"version":                `^Product version: \S+\n(.*\n)*Engine version: `,
	"help":                   `^Usage:\n(.*\n)*  threat `,
	"health":                 `^healthy +: true\n`,
	"health --field healthy": `\Atrue\n\z`,
	"health --details help":  `^Components: `,
	"config real-time-protection --value enabled":                                         propertyUpdated,
	"config passive-mode --value enabled":                                                 propertyUpdated,
	"config cloud --value enabled":                                                        propertyUpdated,
	"config cloud-diagnostic --value enabled":                                             propertyUpdated,
	"config cloud-automatic-sample-submission --value enabled":                            propertyUpdated,
	"config automatic-definitions-update --value enabled":                                 propertyUpdated,
	"config real-time-protection-statistics --value enabled":                              propertyUpdated,
	"config behavior-monitoring --value enabled":                                          propertyUpdated,
	"config maximum-on-demand-scan-threads --value 4":                                     propertyUpdated,
	"config scan-after-definition-update --value enabled":                                 propertyUpdated,
	"config scan-archives --value enabled":                                                propertyUpdated,
	"config enable-file-hash-computation --value enabled":                                 propertyUpdated,
	"config log-rotation-parameters max-current-size --size 10":                           propertyUpdated,
	"config log-rotation-parameters max-rotated-size --size 100":                          propertyUpdated,
	"config proxy set --value http://proxy:3128":                                          propertyUpdated,
	"config proxy unset":                                                                  propertyUpdated,
	"config network-protection enforcement-level --value audit":                           propertyUpdated,
	"config ebpf-supplementary-event-provider --value enabled":                            propertyUpdated,
	"config scheduled-scan settings feature --value enabled":                              propertyUpdated,
	"config scheduled-scan quick-scan time-of-day --value 885":                            propertyUpdated,
	"config scheduled-scan quick-scan hourly-interval --value 1":                          propertyUpdated,
	"config scheduled-scan weekly-scan --day-of-week 3 --time-of-day 60 --scan-type full": propertyUpdated,
	"scan quick":              `^Scan has finished\n\t\d+ file\(s\) scanned\n\t\d+ threat\(s\) detected\n`,
	"scan full":               `^Scan has finished\n\t\d+ file\(s\) scanned\n\t\d+ threat\(s\) detected\n`,
	"scan custom --path /tmp": `^Scan has finished\n\t\d+ file\(s\) scanned\n\t\d+ threat\(s\) detected\n`,
	"scan custom --path /tmp --ignore-exclusions": `^Scan has finished\n\t\d+ file\(s\) scanned\n\t\d+ threat\(s\) detected\n`,
	"scan cancel":         `(?i)cancelled`,
	"scan list":           `^Type: \w+\nStart time: .*\nEnd time: .*\nState: (Succeeded|Failed|Cancelled)\nFiles scanned: .*\n(.*\n)*Threats detected: `,
	"definitions update":  `^Definitions are up to date$`,
	"definitions restore": `^Definitions version: `,
	"definitions path set --path /srv/definitions": propertyUpdated,
	"threat list":                                   `^Id: .*\nName: .*\nType: .*\nDetection time: .*\nStatus: .*\n`,
	"threat get --id 3f2a":                          `^Id: 3f2a\nName: .*\n(.*\n)*Status: (.*\n)*SHA-256: `,
	"threat quarantine list":                        `^Id: .*\nName: .*\n(.*\n)*Path: `,
	"threat quarantine add --id 3f2a":               `(?i)quarantined`,
	"threat quarantine remove --id q1":              `(?i)removed`,
	"threat quarantine remove-all":                  `^\d+ quarantined file\(s\) removed$`,
	"threat quarantine restore --id q1 --path /tmp": `^Restored: `,
	"threat quarantine restore threat-id --id q1 --destination-path /tmp":                 `^Restored: `,
	"threat quarantine restore threat-path --path /tmp/eicar.com --destination-path /tmp": `^Restored: `,
	"threat allowed list":            `^No allowed threats\.$`,
	"threat allowed add --name X":    `^Threat allowed$`,
	"threat allowed remove --name X": `^Threat no longer allowed$`,
	"threat policy set --type potentially_unwanted_application --action block": propertyUpdated,
	"threat policy list": `^potentially_unwanted_application +: (off|audit|block)\narchive_bomb +: (off|audit|block)$`,
	"exclusion list":     noExclusions,
	"exclusion extension add --name .log --scope epp":             `^Extension exclusion configured successfully$`,
	"exclusion extension remove --name .log --scope epp":          `^Extension exclusion removed successfully$`,
	"exclusion file add --path /tmp/x --scope epp":                `^File exclusion configured successfully$`,
	"exclusion file remove --path /tmp/x --scope epp":             `^File exclusion removed successfully$`,
	"exclusion folder add --path /tmp --scope global":             `^Folder exclusion configured successfully$`,
	"exclusion folder remove --path /tmp --scope global":          `^Folder exclusion removed successfully$`,
	"exclusion process add --path /usr/bin/tar --scope global":    `^Process exclusion configured successfully$`,
	"exclusion process remove --path /usr/bin/tar --scope global": `^Process exclusion removed successfully$`,
	"exclusion process add --name cat":                            `^Process exclusion configured successfully$`,
	"exclusion process remove --name cat":                         `^Process exclusion removed successfully$`,
	"network-protection reset":                                    `^Network protection reset: \d+ local setting\(s\) removed$`,
	"network-protection exclusion add --path /usr/bin/ssh":        propertyUpdated,
	"network-protection exclusion list":                           `^Excluded process\nPath: "/usr/bin/ssh"$`,
	"network-protection exclusion remove --path /usr/bin/ssh":     propertyUpdated,
	"network-protection feature-control set-mode --value audit":   propertyUpdated,
	"diagnostic create --path /tmp":                               `^Diagnostic file created: /`,
	"diagnostic real-time-protection-statistics --sort --top 4":   `^Process id: \d+\nName: .*\nPath: .*\nTotal files scanned: \d+\nScan time \(ns\): \d+\nStatus: (Active|Inactive)$`,
	"diagnostic hot-event-sources files":                          `^Total Events: \d+ Time: \d+s\. Throughput: [\d.]+ events/sec\.\n +count  path$`,
	"diagnostic hot-event-sources executables":                    `^Total Events: \d+ Time: \d+s\. Throughput: [\d.]+ events/sec\.\n +count  path$`,
	"diagnostic ebpf-statistics":                                  `^Top file paths:\n(.*\n)*^Top initiator paths:\n(.*\n)*^Top syscall ids:\n`,
	"connectivity test":                                           `^Testing connection with .* \.\.\. \[OK\]`,
	"log level set --level debug":                                 `^Log level configured successfully$`,
	"log level persist --level info":                              `^Log level configured successfully$`,
	"edr early-preview enabled":                                   propertyUpdated,
	"edr early-preview disabled":                                  propertyUpdated,
	"edr group-ids --group-id g":                                  propertyUpdated,
	"edr tag set --name GROUP --value blue":                       propertyUpdated,
	"edr tag remove --name GROUP":                                 propertyUpdated,
	"edr exclusion list processes":                                noExclusions,
	"edr exclusion list paths":                                    noExclusions,
	"edr exclusion list extensions":                               noExclusions,
	"edr exclusion list all":                                      noExclusions,
}

// refusals are values beyond the ranges that the reference product's pages give,
// with what is said about them.
var refusals = map[string]string{
	"config cloud --value on":                                                             `want enabled or disabled`,
	"config maximum-on-demand-scan-threads --value 0":                                     `from 1 to 64`,
	"config maximum-on-demand-scan-threads --value 65":                                    `from 1 to 64`,
	"config proxy set --value proxy:3128":                                                 `want http://host:port/`,
	"config network-protection enforcement-level --value x":                               `"x" is not one of "disabled", "audit", "block"`,
	"config scheduled-scan quick-scan time-of-day --value 1441":                           `from 0 to 1440`,
	"config scheduled-scan quick-scan hourly-interval --value 25":                         `from 0 to 24`,
	"config scheduled-scan weekly-scan --day-of-week 9 --time-of-day 60 --scan-type full": `1 \(Sunday\) to 7, 8 for every day, 0 for none`,
	"config scheduled-scan weekly-scan --day-of-week 1 --time-of-day 60 --scan-type all":  `want quick or full`,
	"scan custom --path /nonexistent":                                                     `no such file`,
	"threat get --id none":                                                                `^there is no threat none\n`,
	"threat allowed remove --name none":                                                   `the threat "none" is not on the allow list`,
	"threat policy set --type worm --action block":                                        `potentially_unwanted_application.*archive_bomb`,
	"threat policy set --type archive_bomb --action delete":                               `"delete" is not one of "audit", "block", "off"`,
	"exclusion extension add --name .log --scope global":                                  `cannot be excluded globally`,
	"exclusion file add --path /nonexistent --scope global":                               `needs a path that exists`,
	"exclusion process add --name cat --scope global":                                     `needs the full path`,
	"exclusion folder add --path /tmp --scope all":                                        `epp.*global`,
	"exclusion folder remove --path /nonexistent":                                         `there is no folder exclusion`,
	"diagnostic real-time-protection-statistics --top 4":                                  `--top needs --sort`,
	"log level set --level loud":                                                          `error, warning, info, debug, verbose`,
	"edr tag set --name COLOUR --value blue":                                              `"COLOUR" is not one of "GROUP"`,
	"edr exclusion list threads":                                                          `unknown command`,
	"health --field colour":                                                               `there is no field`,
	"health --details colour":                                                             `there are no details`,
}

// referenceHealth are the reference product's fields of health, in its order.
const referenceHealth = `healthy health_issues licensed engine_version engine_load_status app_version org_id log_level machine_guid release_ring
product_expiration cloud_enabled cloud_automatic_sample_submission_consent cloud_diagnostic_enabled passive_mode_enabled antivirus_enforcement_level
real_time_protection_enabled real_time_protection_available real_time_protection_subsystem supplementary_events_subsystem behavior_monitoring
tamper_protection automatic_definition_update_enabled definitions_updated definitions_updated_minutes_ago definitions_version definitions_status
edr_early_preview_enabled edr_device_tags edr_group_ids edr_client_version edr_configuration_version edr_machine_id conflicting_applications
network_protection_status network_protection_enforcement_level troubleshooting_mode managed_by`

// TestReferenceRefusals: what is out of range is refused, and changes nothing.
func TestReferenceRefusals(t *testing.T) {
	d := runDaemon(t, true)
	root := strings.TrimSuffix(d.dirs.Run, "/run/bulwark")
	for _, command := range slices.Sorted(maps.Keys(refusals)) {
		var stdout, stderr bytes.Buffer
		status := run(t.Context(), referenceName, append([]string{"--root", root}, strings.Fields(command)...), &stdout, &stderr)
		if status != statusError || !regexp.MustCompile(refusals[command]).MatchString(stderr.String()) || stdout.Len() != 0 {
			t.Errorf("mdatp %s: status %d\n%s%s\nwant %s", command, status, &stdout, &stderr, refusals[command])
		}
	}
	var stdout, stderr bytes.Buffer
	if run(t.Context(), referenceName, []string{"--root", root, "exclusion", "list"}, &stdout, &stderr); stdout.String() != "No exclusions\n" {
		t.Errorf("after the refusals: %s%s", &stdout, &stderr)
	}
}

// TestReferenceHealth: the fields in the reference's order, the colon in its
// column.
func TestReferenceHealth(t *testing.T) {
	d := runDaemon(t, true)
	var stdout, stderr bytes.Buffer
	run(t.Context(), referenceName, []string{"--root", strings.TrimSuffix(d.dirs.Run, "/run/bulwark"), "health"}, &stdout, &stderr)
	var fields []string
	for line := range strings.Lines(stdout.String()) {
		name, _, ok := strings.Cut(line, " : ")
		if fields = append(fields, strings.TrimSpace(name)); !ok || len(name) != 43 {
			t.Errorf("the colon is not in column 45: %q", line)
		}
	}
	if want := strings.Fields(referenceHealth); !slices.Equal(fields, want) {
		t.Errorf("fields of health\n%q\nwant\n%q\n%s", fields, want, &stderr)
	}
}
