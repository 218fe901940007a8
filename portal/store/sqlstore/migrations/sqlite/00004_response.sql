-- +goose Up
-- What only the portal may know of an order (the seed of a release key), and the
-- file that a device sent for it.
ALTER TABLE commands ADD COLUMN secret BLOB NOT NULL DEFAULT x'';
ALTER TABLE commands ADD COLUMN file_name TEXT NOT NULL DEFAULT '';
ALTER TABLE commands ADD COLUMN file_size INTEGER NOT NULL DEFAULT 0;
ALTER TABLE commands ADD COLUMN file_sha256 TEXT NOT NULL DEFAULT '';

-- Files that live response may bring to devices; the content is beside the
-- database, under its hash.
CREATE TABLE library (
    name        TEXT PRIMARY KEY,
    sha256      TEXT NOT NULL,
    size        INTEGER NOT NULL,
    description TEXT NOT NULL,
    created     INTEGER NOT NULL,
    created_by  TEXT NOT NULL
) STRICT;

-- +goose Down
DROP TABLE library;
ALTER TABLE commands DROP COLUMN file_sha256;
ALTER TABLE commands DROP COLUMN file_size;
ALTER TABLE commands DROP COLUMN file_name;
ALTER TABLE commands DROP COLUMN secret;
