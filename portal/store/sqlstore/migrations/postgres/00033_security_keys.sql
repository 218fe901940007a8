-- +goose Up
-- Security keys of users. data is the public key and what else is known of it, in
-- JSON; counter is the key's counter of signatures after its last use.
CREATE TABLE security_keys (
    id      BYTEA PRIMARY KEY,
    user_id TEXT COLLATE "C" NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    name    TEXT COLLATE "C" NOT NULL,
    data    BYTEA NOT NULL,
    counter BIGINT NOT NULL,
    created BIGINT NOT NULL,
    used    BIGINT NOT NULL DEFAULT 0
);
CREATE INDEX security_keys_user ON security_keys (user_id);

-- +goose Down
DROP TABLE security_keys;
