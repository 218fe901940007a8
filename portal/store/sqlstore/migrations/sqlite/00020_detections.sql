-- +goose Up
CREATE TABLE detections (
    id          TEXT PRIMARY KEY,
    version     INTEGER NOT NULL,
    name        TEXT NOT NULL,
    enabled     INTEGER NOT NULL,
    query       TEXT NOT NULL,
    every       INTEGER NOT NULL, -- microseconds
    lookback    INTEGER NOT NULL,
    title       TEXT NOT NULL,
    description TEXT NOT NULL,
    recommended TEXT NOT NULL,
    severity    TEXT NOT NULL,
    category    TEXT NOT NULL,
    techniques  TEXT NOT NULL,
    per_device  INTEGER NOT NULL,
    suppress    INTEGER NOT NULL,
    action      TEXT NOT NULL,
    created     INTEGER NOT NULL,
    created_by  TEXT NOT NULL,
    updated     INTEGER NOT NULL,
    updated_by  TEXT NOT NULL,
    next        INTEGER NOT NULL,
    failures    INTEGER NOT NULL DEFAULT 0,
    alerts      INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE detection_runs (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    detection  TEXT NOT NULL REFERENCES detections (id) ON DELETE CASCADE,
    started    INTEGER NOT NULL,
    took       INTEGER NOT NULL,
    since      INTEGER NOT NULL,
    found      INTEGER NOT NULL,
    new_alerts INTEGER NOT NULL,
    known      INTEGER NOT NULL,
    orders     INTEGER NOT NULL,
    failure    TEXT NOT NULL,
    partly     INTEGER NOT NULL
) STRICT;
CREATE INDEX detection_runs_of ON detection_runs (detection, id);
CREATE INDEX alerts_detector ON alerts (detector_id, time);

-- +goose Down
DROP INDEX alerts_detector;
DROP TABLE detection_runs;
DROP TABLE detections;
