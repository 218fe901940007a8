-- +goose Up
-- The device groups that a user or an API token is limited to; '[]' for all
-- devices.
ALTER TABLE users ADD COLUMN groups TEXT NOT NULL DEFAULT '[]';
ALTER TABLE api_tokens ADD COLUMN groups TEXT NOT NULL DEFAULT '[]';

-- +goose Down
ALTER TABLE api_tokens DROP COLUMN groups;
ALTER TABLE users DROP COLUMN groups;
