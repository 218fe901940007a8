-- +goose Up
-- What Informational alerts that are in no incident have in common with those
-- that may open one. Plain columns: key, as of incident_keys; time, of the alert;
-- seen, when it was stored.
CREATE TABLE incident_waiting (
    key      TEXT NOT NULL,
    time     INTEGER NOT NULL,
    alert_id TEXT NOT NULL REFERENCES alerts (id) ON DELETE CASCADE,
    seen     INTEGER NOT NULL,
    PRIMARY KEY (key, time, alert_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX incident_waiting_alert ON incident_waiting (alert_id);
CREATE INDEX incident_waiting_seen ON incident_waiting (seen);

-- +goose Down
DROP TABLE incident_waiting;
