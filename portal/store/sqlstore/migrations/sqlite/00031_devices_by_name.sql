-- +goose Up
-- The order in which devices are listed.
CREATE INDEX devices_by_name ON devices (host_name COLLATE NOCASE, id);

-- +goose Down
DROP INDEX devices_by_name;
