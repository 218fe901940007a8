package main

import "github.com/bulwarkhq/bulwark/bench/events"

// query is one that a hunter writes, and what a person who knows the tables
// would write in SQL.
type query struct{ name, kql, sql string }

var queries = []query{
	{
		"count", `DeviceProcessEvents | count`,
		`SELECT count(*) FROM DeviceProcessEvents`,
	},
	{
		"last day", `DeviceProcessEvents | where Timestamp > datetime(2026-11-27 12:00:00) | count`,
		`SELECT count(*) FROM DeviceProcessEvents WHERE Timestamp > '2026-11-27 12:00:00'`,
	},
	{
		"by program", `DeviceProcessEvents | where FileName == "curl" | project Timestamp, DeviceName, ProcessCommandLine | take 100`,
		`SELECT Timestamp, DeviceName, ProcessCommandLine FROM DeviceProcessEvents WHERE FileName = 'curl' LIMIT 100`,
	},
	{
		"hash", `DeviceFileEvents | where SHA256 == "` + events.Hash + `" | project Timestamp, DeviceName, FolderPath`,
		`SELECT Timestamp, DeviceName, FolderPath FROM DeviceFileEvents WHERE SHA256 = '` + events.Hash + `'`,
	},
	{
		"has", `DeviceProcessEvents | where ProcessCommandLine has "77123" | count`,
		`SELECT count(*) FROM DeviceProcessEvents WHERE regexp_matches(ProcessCommandLine, '(?i)(^|[^a-z0-9])77123($|[^a-z0-9])')`,
	},
	{
		"contains", `DeviceProcessEvents | where ProcessCommandLine contains "data/771" | count`,
		`SELECT count(*) FROM DeviceProcessEvents WHERE ProcessCommandLine ILIKE '%data/771%'`,
	},
	{
		"regex", `DeviceProcessEvents | where ProcessCommandLine matches regex @"job 9\d\d .*77\d+$" | count`,
		`SELECT count(*) FROM DeviceProcessEvents WHERE regexp_matches(ProcessCommandLine, 'job 9\d\d .*77\d+$')`,
	},
	{
		"in~", `DeviceProcessEvents | where FileName in~ ("CURL", "wget", "nc") | summarize count() by DeviceName`,
		`SELECT DeviceName, count(*) FROM DeviceProcessEvents WHERE lower(FileName) IN ('curl', 'wget', 'nc') GROUP BY 1`,
	},
	{
		"summarize", `DeviceProcessEvents | summarize n = count(), devices = dcount(DeviceName) by FileName | sort by n`,
		`SELECT FileName, count(*) AS n, count(DISTINCT DeviceName) FROM DeviceProcessEvents GROUP BY 1 ORDER BY n DESC`,
	},
	{
		"per hour", `DeviceNetworkEvents | summarize count() by bin(Timestamp, 1h) | sort by Timestamp asc`,
		`SELECT time_bucket(INTERVAL 1 HOUR, Timestamp) AS h, count(*) FROM DeviceNetworkEvents GROUP BY 1 ORDER BY 1`,
	},
	{
		"top", `DeviceNetworkEvents | summarize n = count() by RemoteIP | top 10 by n`,
		`SELECT RemoteIP, count(*) AS n FROM DeviceNetworkEvents GROUP BY 1 ORDER BY n DESC LIMIT 10`,
	},
	{
		"newest", `DeviceProcessEvents | top 100 by Timestamp desc | project Timestamp, DeviceName, FileName, ProcessCommandLine`,
		`SELECT Timestamp, DeviceName, FileName, ProcessCommandLine FROM DeviceProcessEvents ORDER BY Timestamp DESC LIMIT 100`,
	},
	{
		"rare", `DeviceProcessEvents | summarize n = count() by SHA256 | where n == 1 | count`,
		`SELECT count(*) FROM (SELECT SHA256, count(*) AS n FROM DeviceProcessEvents GROUP BY 1) WHERE n = 1`,
	},
	{
		"failed logons", `DeviceLogonEvents | where ActionType == "LogonFailed" | summarize n = count(), accounts = make_set(AccountName) by RemoteIP | where n > 3`,
		`SELECT RemoteIP, count(*) AS n, list(DISTINCT AccountName) FROM DeviceLogonEvents WHERE ActionType = 'LogonFailed' GROUP BY 1 HAVING count(*) > 3`,
	},
	{
		"join", `DeviceFileEvents | where SHA256 startswith "000" | join kind=inner (DeviceProcessEvents | where FileName == "tar" | distinct DeviceName, SHA256) on DeviceName, SHA256 | count`,
		`SELECT count(*) FROM DeviceFileEvents f JOIN (SELECT DISTINCT DeviceName, SHA256 FROM DeviceProcessEvents WHERE FileName = 'tar') p USING (DeviceName, SHA256) WHERE f.SHA256 LIKE '000%'`,
	},
	{
		"anti-join", `DeviceNetworkEvents | distinct DeviceName, InitiatingProcessSHA256 | join kind=leftanti (DeviceProcessEvents | distinct SHA256) on $left.InitiatingProcessSHA256 == $right.SHA256 | count`,
		`SELECT count(*) FROM (SELECT DISTINCT DeviceName, InitiatingProcessSHA256 AS h FROM DeviceNetworkEvents) n WHERE NOT EXISTS (SELECT 1 FROM DeviceProcessEvents p WHERE p.SHA256 = n.h)`,
	},
	{
		"union", `union DeviceProcessEvents, DeviceFileEvents, DeviceNetworkEvents | where DeviceName == "host-017" | summarize count() by ActionType`,
		`SELECT ActionType, count(*) FROM (SELECT DeviceName, ActionType FROM DeviceProcessEvents UNION ALL SELECT DeviceName, ActionType FROM DeviceFileEvents UNION ALL SELECT DeviceName, ActionType FROM DeviceNetworkEvents) WHERE DeviceName = 'host-017' GROUP BY 1`,
	},
	{
		"arg_max", `DeviceProcessEvents | summarize arg_max(Timestamp, ProcessCommandLine) by DeviceName`,
		`SELECT DeviceName, max(Timestamp), arg_max(ProcessCommandLine, Timestamp) FROM DeviceProcessEvents GROUP BY 1`,
	},
	{
		"extract", `DeviceProcessEvents | extend job = toint(extract(@"--job (\d+)", 1, ProcessCommandLine)) | summarize max(job), avg(job) by FileName`,
		`SELECT FileName, max(job), avg(job) FROM (SELECT FileName, TRY_CAST(regexp_extract(ProcessCommandLine, '--job (\d+)', 1) AS INTEGER) AS job FROM DeviceProcessEvents) GROUP BY 1`,
	},
	{
		"percentiles", `DeviceFileEvents | summarize percentiles(FileSize, 50, 95, 99), sum(FileSize) by DeviceName`,
		`SELECT DeviceName, quantile_disc(FileSize, [0.5, 0.95, 0.99]), sum(FileSize) FROM DeviceFileEvents GROUP BY 1`,
	},
}
