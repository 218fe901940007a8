-- +goose Up
CREATE TABLE device_groups (
    id          TEXT PRIMARY KEY,
    name        TEXT NOT NULL COLLATE NOCASE UNIQUE,
    description TEXT NOT NULL,
    rank        INTEGER NOT NULL,
    rule        TEXT NOT NULL,
    updated     INTEGER NOT NULL,
    updated_by  TEXT NOT NULL
) STRICT;

-- Every state that a policy had; the current one is that of the highest version.
CREATE TABLE policies (
    id          TEXT NOT NULL,
    version     INTEGER NOT NULL,
    name        TEXT NOT NULL,
    description TEXT NOT NULL,
    priority    INTEGER NOT NULL,
    enabled     INTEGER NOT NULL,
    groups      TEXT NOT NULL,
    document    TEXT NOT NULL,
    updated     INTEGER NOT NULL,
    updated_by  TEXT NOT NULL,
    comment     TEXT NOT NULL,
    PRIMARY KEY (id, version)
) STRICT;

CREATE TABLE assignments (
    device_id TEXT PRIMARY KEY REFERENCES devices (id) ON DELETE CASCADE,
    group_id  TEXT NOT NULL,
    wanted    TEXT NOT NULL,
    reported  TEXT NOT NULL,
    changed   INTEGER NOT NULL
) STRICT;
CREATE INDEX assignments_group ON assignments (group_id);

-- +goose Down
DROP TABLE assignments;
DROP TABLE policies;
DROP TABLE device_groups;
