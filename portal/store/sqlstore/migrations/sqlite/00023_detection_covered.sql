-- +goose Up
-- Up to when what arrived has been looked at: the start of the last run that did
-- not fail, or when the rule was enabled; microseconds.
ALTER TABLE detections ADD COLUMN covered INTEGER NOT NULL DEFAULT 0;
UPDATE detections SET covered = coalesce((SELECT max(started) FROM detection_runs r WHERE r.detection = detections.id AND (r.failure = '' OR r.partly)), 0);

-- +goose Down
ALTER TABLE detections DROP COLUMN covered;
