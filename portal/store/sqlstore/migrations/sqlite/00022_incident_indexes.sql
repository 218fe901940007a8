-- +goose Up
-- A plain index: one with a condition is not used for "incident_id = ?".
DROP INDEX alerts_incident;
CREATE INDEX alerts_incident ON alerts (incident_id, time, device_id, severity_rank);
CREATE INDEX incidents_redirect ON incidents (redirect) WHERE redirect <> 0;
-- For the number and the size of all, at each change.
CREATE INDEX indicators_size ON indicators (size);

-- +goose Down
DROP INDEX indicators_size;
DROP INDEX incidents_redirect;
DROP INDEX alerts_incident;
CREATE INDEX alerts_incident ON alerts (incident_id, time) WHERE incident_id <> 0;
