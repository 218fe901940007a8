-- +goose Up
-- Portals that wrote events to servers that several share. place is the database
-- in which they entered themselves: a copy of it knows nothing of who lives.
CREATE TABLE event_writers (
    writer  TEXT NOT NULL PRIMARY KEY,
    place   TEXT NOT NULL,
    entered INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
-- What was decided about groups of batches whose writers did not end them.
CREATE TABLE event_verdicts (
    batch_group TEXT NOT NULL PRIMARY KEY,
    counts      INTEGER NOT NULL,
    judged      INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- +goose Down
DROP TABLE event_verdicts;
DROP TABLE event_writers;
