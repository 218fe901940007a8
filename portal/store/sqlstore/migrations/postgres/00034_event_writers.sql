-- +goose Up
-- Portals that wrote events to servers that several share. place is the database
-- in which they entered themselves: a copy of it knows nothing of who lives.
CREATE TABLE event_writers (
    writer  TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    place   TEXT COLLATE "C" NOT NULL,
    entered BIGINT NOT NULL
);
-- What was decided about groups of batches whose writers did not end them.
CREATE TABLE event_verdicts (
    batch_group TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    counts      BIGINT NOT NULL,
    judged      BIGINT NOT NULL
);

-- +goose Down
DROP TABLE event_verdicts;
DROP TABLE event_writers;
