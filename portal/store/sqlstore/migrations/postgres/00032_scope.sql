-- +goose Up
ALTER TABLE users ADD COLUMN groups TEXT COLLATE "C" NOT NULL DEFAULT '[]';
ALTER TABLE api_tokens ADD COLUMN groups TEXT COLLATE "C" NOT NULL DEFAULT '[]';

CREATE TABLE security_keys (
    id         TEXT COLLATE "C" PRIMARY KEY,
    user_id    TEXT COLLATE "C" NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    name       TEXT COLLATE "C" NOT NULL,
    credential TEXT COLLATE "C" NOT NULL, -- JSON: public key, flags, counter
    created    BIGINT NOT NULL,
    used       BIGINT NOT NULL DEFAULT 0
);
CREATE INDEX security_keys_user ON security_keys (user_id);

-- +goose Down
DROP TABLE security_keys;
ALTER TABLE api_tokens DROP COLUMN groups;
ALTER TABLE users DROP COLUMN groups;
