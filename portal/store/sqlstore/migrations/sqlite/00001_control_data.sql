-- Control data of the portal. Times are microseconds since 1970-01-01 UTC, 0
-- for none. Lists are JSON arrays.

-- +goose Up
CREATE TABLE organisation (
    id      TEXT PRIMARY KEY,
    name    TEXT NOT NULL,
    created INTEGER NOT NULL
) STRICT;

CREATE TABLE users (
    id            TEXT PRIMARY KEY,
    name          TEXT NOT NULL COLLATE NOCASE UNIQUE,
    role          TEXT NOT NULL,
    password_hash TEXT NOT NULL,
    must_change   INTEGER NOT NULL,
    disabled      INTEGER NOT NULL DEFAULT 0,
    created       INTEGER NOT NULL,
    changed       INTEGER NOT NULL,
    last_sign_in  INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE sessions (
    hash      BLOB PRIMARY KEY,
    user_id   TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    csrf      TEXT NOT NULL,
    created   INTEGER NOT NULL,
    last_used INTEGER NOT NULL,
    expires   INTEGER NOT NULL,
    address   TEXT NOT NULL,
    agent     TEXT NOT NULL
) STRICT;
CREATE INDEX sessions_user ON sessions (user_id);

CREATE TABLE api_tokens (
    id         TEXT PRIMARY KEY,
    name       TEXT NOT NULL,
    hash       BLOB NOT NULL UNIQUE,
    scopes     TEXT NOT NULL,
    created_by TEXT NOT NULL,
    created    INTEGER NOT NULL,
    expires    INTEGER NOT NULL,
    last_used  INTEGER NOT NULL DEFAULT 0,
    revoked    INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE audit (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    time    INTEGER NOT NULL,
    actor   TEXT NOT NULL,
    address TEXT NOT NULL,
    action  TEXT NOT NULL,
    target  TEXT NOT NULL,
    detail  TEXT NOT NULL,
    hash    TEXT NOT NULL
) STRICT;

CREATE TABLE enrollment_tokens (
    id         TEXT PRIMARY KEY,
    name       TEXT NOT NULL,
    hash       BLOB NOT NULL UNIQUE,
    created_by TEXT NOT NULL,
    created    INTEGER NOT NULL,
    expires    INTEGER NOT NULL,
    revoked    INTEGER NOT NULL DEFAULT 0,
    max_uses   INTEGER NOT NULL,
    uses       INTEGER NOT NULL DEFAULT 0,
    tags       TEXT NOT NULL
) STRICT;

CREATE TABLE devices (
    id              TEXT PRIMARY KEY,
    -- enrollment
    hardware_id     TEXT NOT NULL,
    machine_guid    TEXT NOT NULL,
    replaces_id     TEXT NOT NULL,
    token_id        TEXT NOT NULL,
    enrolled        INTEGER NOT NULL,
    last_enrolled   INTEGER NOT NULL,
    revoked         INTEGER NOT NULL DEFAULT 0,
    enroll_info     BLOB NOT NULL, -- agent protocol DeviceInfo
    -- inventory
    host_name       TEXT NOT NULL,
    os_platform     TEXT NOT NULL,
    os_distribution TEXT NOT NULL,
    os_version      TEXT NOT NULL,
    os_pretty_name  TEXT NOT NULL,
    kernel          TEXT NOT NULL,
    architecture    TEXT NOT NULL,
    agent_version   TEXT NOT NULL,
    model           TEXT NOT NULL,
    vendor          TEXT NOT NULL,
    virtual_machine INTEGER NOT NULL,
    ip_addresses    TEXT NOT NULL,
    logged_on_users TEXT NOT NULL,
    device_tags     TEXT NOT NULL,
    tags            TEXT NOT NULL DEFAULT '[]',
    last_seen       INTEGER NOT NULL,
    last_event      INTEGER NOT NULL DEFAULT 0,
    external_ip     TEXT NOT NULL DEFAULT '',
    health          TEXT NOT NULL DEFAULT '',
    health_time     INTEGER NOT NULL DEFAULT 0,
    policy_version  TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE INDEX devices_hardware ON devices (hardware_id, last_enrolled);
CREATE INDEX devices_last_seen ON devices (last_seen);
CREATE INDEX devices_host_name ON devices (host_name);

CREATE TABLE certificates (
    serial     TEXT PRIMARY KEY,
    device_id  TEXT NOT NULL REFERENCES devices (id) ON DELETE CASCADE,
    not_before INTEGER NOT NULL,
    not_after  INTEGER NOT NULL,
    revoked    INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX certificates_device ON certificates (device_id);

CREATE TABLE alerts (
    id             TEXT PRIMARY KEY,
    device_id      TEXT NOT NULL,
    device_name    TEXT NOT NULL,
    time           INTEGER NOT NULL,
    received       INTEGER NOT NULL,
    updated        INTEGER NOT NULL,
    resolved       INTEGER NOT NULL DEFAULT 0,
    title          TEXT NOT NULL,
    severity       TEXT NOT NULL,
    severity_rank  INTEGER NOT NULL, -- 4 High to 1 Informational
    category       TEXT NOT NULL,
    source         TEXT NOT NULL,
    detector_id    TEXT NOT NULL,
    threat_name    TEXT NOT NULL,
    threat_family  TEXT NOT NULL,
    techniques     TEXT NOT NULL,
    action         TEXT NOT NULL,
    file_name      TEXT NOT NULL,
    file_path      TEXT NOT NULL,
    sha256         TEXT NOT NULL,
    test_id        TEXT NOT NULL,
    detection      TEXT NOT NULL, -- api/schemas/alert.json
    status         TEXT NOT NULL,
    assigned_to    TEXT NOT NULL DEFAULT '',
    classification TEXT NOT NULL DEFAULT '',
    determination  TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE INDEX alerts_time ON alerts (time);
CREATE INDEX alerts_updated ON alerts (updated);
CREATE INDEX alerts_device ON alerts (device_id, time);
CREATE INDEX alerts_open ON alerts (device_id, severity_rank) WHERE status <> 'Resolved';
CREATE INDEX alerts_test ON alerts (device_id, test_id) WHERE test_id <> '';

CREATE TABLE alert_comments (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    alert_id TEXT NOT NULL REFERENCES alerts (id) ON DELETE CASCADE,
    author   TEXT NOT NULL,
    time     INTEGER NOT NULL,
    text     TEXT NOT NULL
) STRICT;
CREATE INDEX alert_comments_alert ON alert_comments (alert_id);

-- Alerts of finished self-tests: a repeated delivery must not bring them back.
CREATE TABLE removed_alerts (
    id      TEXT PRIMARY KEY,
    removed INTEGER NOT NULL
) STRICT;

CREATE TABLE commands (
    id         TEXT PRIMARY KEY,
    device_id  TEXT NOT NULL REFERENCES devices (id) ON DELETE CASCADE,
    type       TEXT NOT NULL,
    parameters TEXT NOT NULL,
    created    INTEGER NOT NULL,
    created_by TEXT NOT NULL,
    expires    INTEGER NOT NULL,
    status     TEXT NOT NULL, -- Pending, then as the device reports
    message    TEXT NOT NULL DEFAULT '',
    result     TEXT NOT NULL DEFAULT '',
    updated    INTEGER NOT NULL
) STRICT;
CREATE INDEX commands_pending ON commands (device_id, created) WHERE status = 'Pending';

-- +goose Down
DROP TABLE commands;
DROP TABLE removed_alerts;
DROP TABLE alert_comments;
DROP TABLE alerts;
DROP TABLE certificates;
DROP TABLE devices;
DROP TABLE enrollment_tokens;
DROP TABLE audit;
DROP TABLE api_tokens;
DROP TABLE sessions;
DROP TABLE users;
DROP TABLE organisation;
