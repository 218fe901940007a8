-- +goose Up
-- Security keys of users. data is the public key and what else is known of it, in
-- JSON; counter is the key's counter of signatures after its last use.
CREATE TABLE security_keys (
    id      BLOB PRIMARY KEY,
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    name    TEXT NOT NULL,
    data    BLOB NOT NULL,
    counter INTEGER NOT NULL,
    created INTEGER NOT NULL,
    used    INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX security_keys_user ON security_keys (user_id);

-- +goose Down
DROP TABLE security_keys;
