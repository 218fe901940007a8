-- +goose Up
CREATE TABLE incidents (
    id             INTEGER PRIMARY KEY AUTOINCREMENT,
    redirect       INTEGER NOT NULL DEFAULT 0,
    title          TEXT NOT NULL DEFAULT '',
    severity       TEXT NOT NULL DEFAULT 'Informational',
    severity_rank  INTEGER NOT NULL DEFAULT 1, -- 4 High to 1 Informational
    status         TEXT NOT NULL,
    assigned_to    TEXT NOT NULL DEFAULT '',
    classification TEXT NOT NULL DEFAULT '',
    determination  TEXT NOT NULL DEFAULT '',
    tags           TEXT NOT NULL DEFAULT '[]',
    created        INTEGER NOT NULL,
    updated        INTEGER NOT NULL,
    resolved       INTEGER NOT NULL DEFAULT 0,
    first          INTEGER NOT NULL DEFAULT 0, -- of its alerts
    last           INTEGER NOT NULL DEFAULT 0,
    alerts         INTEGER NOT NULL DEFAULT 0,
    devices        INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX incidents_last ON incidents (last);
CREATE INDEX incidents_open ON incidents (severity_rank) WHERE status IN ('Active', 'InProgress');

-- What alerts have in common with the incidents that they may join.
CREATE TABLE incident_keys (
    key         TEXT NOT NULL, -- kind and value
    incident_id INTEGER NOT NULL REFERENCES incidents (id) ON DELETE CASCADE,
    first       INTEGER NOT NULL, -- times of alerts
    last        INTEGER NOT NULL,
    seen        INTEGER NOT NULL, -- when the last was stored
    PRIMARY KEY (key, incident_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX incident_keys_incident ON incident_keys (incident_id);
CREATE INDEX incident_keys_seen ON incident_keys (seen);

CREATE TABLE incident_notes (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    incident_id INTEGER NOT NULL REFERENCES incidents (id) ON DELETE CASCADE,
    comment     INTEGER NOT NULL,
    author      TEXT NOT NULL,
    time        INTEGER NOT NULL,
    text        TEXT NOT NULL
) STRICT;
CREATE INDEX incident_notes_incident ON incident_notes (incident_id);

ALTER TABLE alerts ADD COLUMN incident_id INTEGER NOT NULL DEFAULT 0;
CREATE INDEX alerts_incident ON alerts (incident_id, time) WHERE incident_id <> 0;

-- +goose Down
DROP INDEX alerts_incident;
ALTER TABLE alerts DROP COLUMN incident_id;
DROP TABLE incident_notes;
DROP TABLE incident_keys;
DROP TABLE incidents;
