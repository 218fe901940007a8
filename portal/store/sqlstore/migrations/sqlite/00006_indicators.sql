-- +goose Up
CREATE TABLE indicators (
    id             INTEGER PRIMARY KEY AUTOINCREMENT,
    type           TEXT NOT NULL,
    value          TEXT NOT NULL,
    action         TEXT NOT NULL,
    title          TEXT NOT NULL,
    description    TEXT NOT NULL,
    severity       TEXT NOT NULL,
    severity_rank  INTEGER NOT NULL, -- 4 High to 1 Informational
    recommended    TEXT NOT NULL,
    application    TEXT NOT NULL,
    educate_url    TEXT NOT NULL,
    generate_alert INTEGER NOT NULL,
    expires        INTEGER NOT NULL,
    groups         TEXT NOT NULL,
    created        INTEGER NOT NULL,
    created_by     TEXT NOT NULL,
    source         TEXT NOT NULL,
    updated        INTEGER NOT NULL,
    updated_by     TEXT NOT NULL,
    size           INTEGER NOT NULL, -- bytes in a list
    UNIQUE (type, value)
) STRICT;
CREATE INDEX indicators_updated ON indicators (updated);
CREATE INDEX indicators_expires ON indicators (expires) WHERE expires <> 0;
CREATE INDEX indicators_scoped ON indicators (groups) WHERE groups <> '[]';

-- Numbers that grow with every change of what they are named after.
CREATE TABLE revisions (
    name  TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT;
INSERT INTO revisions (name, value) VALUES ('indicators', 1);

CREATE TABLE device_indicators (
    device_id TEXT PRIMARY KEY REFERENCES devices (id) ON DELETE CASCADE,
    wanted    TEXT NOT NULL,
    reported  TEXT NOT NULL,
    count     INTEGER NOT NULL,
    changed   INTEGER NOT NULL
) STRICT;

-- +goose Down
DROP TABLE device_indicators;
DROP TABLE revisions;
DROP TABLE indicators;
