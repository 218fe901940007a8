-- +goose Up
ALTER TABLE users ADD COLUMN groups TEXT COLLATE "C" NOT NULL DEFAULT '[]';
ALTER TABLE api_tokens ADD COLUMN groups TEXT COLLATE "C" NOT NULL DEFAULT '[]';

-- +goose Down
ALTER TABLE api_tokens DROP COLUMN groups;
ALTER TABLE users DROP COLUMN groups;
