-- +goose Up
CREATE TABLE saved_queries (
    id          INTEGER PRIMARY KEY,
    owner       TEXT NOT NULL,
    name        TEXT NOT NULL,
    description TEXT NOT NULL,
    query       TEXT NOT NULL,
    shared      INTEGER NOT NULL,
    updated     INTEGER NOT NULL,
    UNIQUE (owner, name)
) STRICT;

-- +goose Down
DROP TABLE saved_queries;
