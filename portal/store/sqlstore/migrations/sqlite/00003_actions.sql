-- +goose Up
ALTER TABLE commands ADD COLUMN comment TEXT NOT NULL DEFAULT '';
ALTER TABLE commands ADD COLUMN cancelled INTEGER NOT NULL DEFAULT 0;
ALTER TABLE commands ADD COLUMN cancelled_by TEXT NOT NULL DEFAULT '';
ALTER TABLE commands ADD COLUMN cancel_note TEXT NOT NULL DEFAULT '';
CREATE INDEX commands_created ON commands (created);

-- +goose Down
DROP INDEX commands_created;
ALTER TABLE commands DROP COLUMN cancel_note;
ALTER TABLE commands DROP COLUMN cancelled_by;
ALTER TABLE commands DROP COLUMN cancelled;
ALTER TABLE commands DROP COLUMN comment;
