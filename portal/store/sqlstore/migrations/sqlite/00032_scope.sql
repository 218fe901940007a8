-- +goose Up
-- The device groups that a user or an API token is limited to; '[]' for all
-- devices.
ALTER TABLE users ADD COLUMN groups TEXT NOT NULL DEFAULT '[]';
ALTER TABLE api_tokens ADD COLUMN groups TEXT NOT NULL DEFAULT '[]';

-- Security keys and passkeys (WebAuthn). id is that of the credential, base64url.
CREATE TABLE security_keys (
    id         TEXT PRIMARY KEY,
    user_id    TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    name       TEXT NOT NULL,
    credential TEXT NOT NULL, -- JSON: public key, flags, counter
    created    INTEGER NOT NULL,
    used       INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX security_keys_user ON security_keys (user_id);

-- +goose Down
DROP TABLE security_keys;
ALTER TABLE api_tokens DROP COLUMN groups;
ALTER TABLE users DROP COLUMN groups;
