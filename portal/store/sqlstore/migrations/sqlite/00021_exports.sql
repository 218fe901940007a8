-- +goose Up
CREATE TABLE exports (
    id           TEXT PRIMARY KEY,
    version      INTEGER NOT NULL,
    name         TEXT NOT NULL COLLATE NOCASE UNIQUE,
    kind         TEXT NOT NULL,
    enabled      INTEGER NOT NULL,
    alerts       INTEGER NOT NULL,
    audit        INTEGER NOT NULL,
    min_severity TEXT NOT NULL,
    settings     TEXT NOT NULL, -- JSON
    secrets      BLOB NOT NULL, -- encrypted JSON
    created      INTEGER NOT NULL,
    created_by   TEXT NOT NULL,
    updated      INTEGER NOT NULL,
    updated_by   TEXT NOT NULL,
    alert_cursor INTEGER NOT NULL, -- alert_log.seq
    audit_cursor INTEGER NOT NULL, -- audit.id
    delivered    INTEGER NOT NULL DEFAULT 0,
    refused      INTEGER NOT NULL DEFAULT 0,
    failures     INTEGER NOT NULL DEFAULT 0,
    next         INTEGER NOT NULL DEFAULT 0,
    last_success INTEGER NOT NULL DEFAULT 0,
    last_tried   INTEGER NOT NULL DEFAULT 0,
    last_error   TEXT NOT NULL DEFAULT ''
) STRICT;

-- The order in which alerts were stored. Numbers are never used twice, so that a
-- cursor that stands behind one has seen all up to it. Alerts of self-tests, which
-- are removed again, are not in it.
CREATE TABLE alert_log (
    seq           INTEGER PRIMARY KEY AUTOINCREMENT,
    alert_id      TEXT NOT NULL UNIQUE REFERENCES alerts (id) ON DELETE CASCADE,
    severity_rank INTEGER NOT NULL
) STRICT;

-- +goose StatementBegin
CREATE TRIGGER alerts_logged AFTER INSERT ON alerts WHEN NEW.test_id = '' BEGIN
    INSERT INTO alert_log (alert_id, severity_rank) VALUES (NEW.id, NEW.severity_rank);
END;
-- +goose StatementEnd

-- +goose Down
DROP TRIGGER alerts_logged;
DROP TABLE alert_log;
DROP TABLE exports;
