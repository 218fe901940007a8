package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/bulwarkhq/bulwark/portal/access"
	"github.com/bulwarkhq/bulwark/portal/account"
)

// Accounts returns the store of package account.
func (s *Store) Accounts() account.Store { return accountStore{s} }

type accountStore struct{ *Store }

// addAudit appends to the chained log.
func addAudit(ctx context.Context, tx *transaction, a account.Audit) error {
	var previous string
	err := tx.QueryRowContext(ctx, `SELECT hash FROM audit ORDER BY id DESC LIMIT 1`).Scan(&previous)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return fmt.Errorf("audit log: %w", err)
	}
	a.Time = a.Time.UTC().Truncate(time.Microsecond)
	for _, text := range []*string{&a.Actor, &a.Address, &a.Action, &a.Target, &a.Detail} {
		*text = storable(*text) // before the hash is made of it
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO audit (time, actor, address, action, target, detail, hash) VALUES (?, ?, ?, ?, ?, ?, ?)`,
		micros(a.Time), a.Actor, a.Address, a.Action, a.Target, a.Detail, account.Chain(previous, a))
	if err != nil {
		return fmt.Errorf("audit log: %w", err)
	}
	return nil
}

// audited runs one statement and writes its audit entry. missing is returned
// when it changed no row (nil: that is no error).
func (s accountStore) audited(ctx context.Context, a account.Audit, missing error, q string, args ...any) error {
	return s.change(ctx, func(tx *transaction) error {
		res, err := tx.ExecContext(ctx, q, args...)
		if taken(err) {
			return account.ErrExists
		}
		if err := one(res, err, missing); err != nil {
			return err
		}
		return addAudit(ctx, tx, a)
	})
}

// hasFactor is whether a user has a second factor: an authenticator that is
// confirmed, or a security key.
const hasFactor = `(EXISTS (SELECT 1 FROM second_factors f WHERE f.user_id = u.id AND f.confirmed <> 0) OR EXISTS (SELECT 1 FROM security_keys k WHERE k.user_id = u.id))`

const userColumns = `u.id, u.name, u.role, u.password_hash, u.must_change, u.disabled, u.created, u.changed, u.last_sign_in, u.issuer, u.subject, u.groups, ` + hasFactor

func scanUser(r scanner, more ...any) (account.User, error) {
	var u account.User
	var role, groups string
	var created, changed, last int64
	err := r.Scan(append([]any{&u.ID, &u.Name, &role, &u.PasswordHash, &u.MustChange, &u.Disabled, &created, &changed, &last, &u.Issuer, &u.Subject, &groups, &u.SecondFactor}, more...)...)
	if errors.Is(err, sql.ErrNoRows) {
		return u, account.ErrNotFound
	}
	if err != nil {
		return u, err
	}
	u.Role = access.Role(role)
	u.Created, u.Changed, u.LastSignIn = fromMicros(created), fromMicros(changed), fromMicros(last)
	u.Groups, err = fromList(groups)
	return u, err
}

func (s accountStore) CreateUser(ctx context.Context, u account.User, a account.Audit) error {
	return s.audited(ctx, a, nil, `INSERT INTO users (id, name, role, password_hash, must_change, disabled, created, changed, last_sign_in, issuer, subject, groups) VALUES (?`+marks(11)+`)`,
		u.ID, u.Name, string(u.Role), u.PasswordHash, u.MustChange, u.Disabled, micros(u.Created), micros(u.Changed), micros(u.LastSignIn), u.Issuer, u.Subject, list(u.Groups))
}

func (s accountStore) User(ctx context.Context, id string) (account.User, error) {
	return scanUser(s.read.QueryRowContext(ctx, `SELECT `+userColumns+` FROM users u WHERE u.id = ?`, id))
}

func (s accountStore) UserByName(ctx context.Context, name string) (account.User, error) {
	return scanUser(s.read.QueryRowContext(ctx, `SELECT `+userColumns+` FROM users u WHERE `+s.nocase("u.name")+` = `+s.nocase("?"), name))
}

func (s accountStore) Users(ctx context.Context) ([]account.User, error) {
	return rows(ctx, s.read, func(r scanner) (account.User, error) { return scanUser(r) }, `SELECT `+userColumns+` FROM users u ORDER BY `+s.nocase("u.name"))
}

func (s accountStore) SetPassword(ctx context.Context, userID, hash string, mustChange bool, at time.Time, a account.Audit) error {
	return s.change(ctx, func(tx *transaction) error {
		res, err := tx.ExecContext(ctx, `UPDATE users SET password_hash = ?, must_change = ?, changed = ? WHERE id = ?`, hash, mustChange, micros(at), userID)
		if err := one(res, err, account.ErrNotFound); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM sessions WHERE user_id = ?`, userID); err != nil {
			return err
		}
		return addAudit(ctx, tx, a)
	})
}

func (s accountStore) Rehash(ctx context.Context, userID, hash string) error {
	return s.execOne(ctx, account.ErrNotFound, `UPDATE users SET password_hash = ? WHERE id = ?`, hash, userID)
}

func (s accountStore) CreateSession(ctx context.Context, v account.Session, a account.Audit) error {
	return s.change(ctx, func(tx *transaction) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO sessions (hash, user_id, csrf, created, last_used, expires, address, agent) VALUES (?`+marks(7)+`)`,
			v.Hash[:], v.UserID, v.CSRF, micros(v.Created), micros(v.LastUsed), micros(v.Expires), v.Address, v.Agent)
		if err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `UPDATE users SET last_sign_in = ? WHERE id = ?`, micros(v.Created), v.UserID); err != nil {
			return err
		}
		return addAudit(ctx, tx, a)
	})
}

func (s accountStore) Session(ctx context.Context, hash [32]byte) (account.Session, account.User, error) {
	v := account.Session{Hash: hash}
	var created, used, expires int64
	u, err := scanUser(s.read.QueryRowContext(ctx, `SELECT `+userColumns+`, s.user_id, s.csrf, s.created, s.last_used, s.expires, s.address, s.agent
		FROM sessions s JOIN users u ON u.id = s.user_id WHERE s.hash = ?`, hash[:]), &v.UserID, &v.CSRF, &created, &used, &expires, &v.Address, &v.Agent)
	v.Created, v.LastUsed, v.Expires = fromMicros(created), fromMicros(used), fromMicros(expires)
	return v, u, err
}

func (s accountStore) TouchSession(ctx context.Context, hash [32]byte, at time.Time) error {
	_, err := s.exec(ctx, `UPDATE sessions SET last_used = `+s.greatest+`(last_used, ?) WHERE hash = ?`, micros(at), hash[:])
	return err
}

func (s accountStore) DeleteSession(ctx context.Context, hash [32]byte, a account.Audit) error {
	return s.audited(ctx, a, account.ErrNotFound, `DELETE FROM sessions WHERE hash = ?`, hash[:])
}

func (s accountStore) DeleteExpiredSessions(ctx context.Context, expired, idle time.Time) (int, error) {
	return s.exec(ctx, `DELETE FROM sessions WHERE expires < ? OR last_used < ?`, micros(expired), micros(idle))
}

const apiTokenColumns = `id, name, hash, scopes, groups, created_by, created, expires, last_used, revoked`

func scanAPIToken(r scanner) (account.Token, error) {
	var t account.Token
	var hash []byte
	var scopes, groups string
	var created, expires, used, revoked int64
	err := r.Scan(&t.ID, &t.Name, &hash, &scopes, &groups, &t.CreatedBy, &created, &expires, &used, &revoked)
	if errors.Is(err, sql.ErrNoRows) {
		return t, account.ErrNotFound
	}
	if err != nil {
		return t, err
	}
	copy(t.Hash[:], hash)
	if t.Groups, err = fromList(groups); err != nil {
		return t, err
	}
	names, err := fromList(scopes)
	for _, n := range names {
		t.Scopes = append(t.Scopes, access.Permission(n))
	}
	t.Created, t.Expires, t.LastUsed, t.Revoked = fromMicros(created), fromMicros(expires), fromMicros(used), fromMicros(revoked)
	return t, err
}

func (s accountStore) CreateToken(ctx context.Context, t account.Token, a account.Audit) error {
	scopes := make([]string, len(t.Scopes))
	for i, sc := range t.Scopes {
		scopes[i] = string(sc)
	}
	return s.audited(ctx, a, nil, `INSERT INTO api_tokens (`+apiTokenColumns+`) VALUES (?`+marks(9)+`)`,
		t.ID, t.Name, t.Hash[:], list(scopes), list(t.Groups), t.CreatedBy, micros(t.Created), micros(t.Expires), micros(t.LastUsed), micros(t.Revoked))
}

func (s accountStore) TokenByHash(ctx context.Context, hash [32]byte) (account.Token, error) {
	return scanAPIToken(s.read.QueryRowContext(ctx, `SELECT `+apiTokenColumns+` FROM api_tokens WHERE hash = ?`, hash[:]))
}

func (s accountStore) Tokens(ctx context.Context) ([]account.Token, error) {
	return rows(ctx, s.read, scanAPIToken, `SELECT `+apiTokenColumns+` FROM api_tokens ORDER BY created DESC, id`)
}

func (s accountStore) RevokeToken(ctx context.Context, id string, at time.Time, a account.Audit) error {
	return s.audited(ctx, a, account.ErrNotFound, `UPDATE api_tokens SET revoked = CASE revoked WHEN 0 THEN ? ELSE revoked END WHERE id = ?`, micros(at), id)
}

func (s accountStore) TouchToken(ctx context.Context, id string, at time.Time) error {
	_, err := s.exec(ctx, `UPDATE api_tokens SET last_used = `+s.greatest+`(last_used, ?) WHERE id = ?`, micros(at), id)
	return err
}

func (s accountStore) AddAudit(ctx context.Context, a account.Audit) error {
	return s.change(ctx, func(tx *transaction) error { return addAudit(ctx, tx, a) })
}

const auditColumns = `id, time, actor, address, action, target, detail, hash`

func scanAudit(r scanner) (account.Audit, error) {
	var a account.Audit
	var at int64
	err := r.Scan(&a.ID, &at, &a.Actor, &a.Address, &a.Action, &a.Target, &a.Detail, &a.Hash)
	a.Time = fromMicros(at)
	return a, err
}

func (s accountStore) AuditEntries(ctx context.Context, before int64, limit int) ([]account.Audit, error) {
	if before <= 0 {
		before = 1<<63 - 1
	}
	return rows(ctx, s.read, scanAudit, `SELECT `+auditColumns+` FROM audit WHERE id < ? ORDER BY id DESC LIMIT ?`, before, min(max(limit, 1), 1000))
}

func (s accountStore) VerifyAudit(ctx context.Context) (int64, error) {
	r, err := s.read.QueryContext(ctx, `SELECT `+auditColumns+` FROM audit ORDER BY id`)
	if err != nil {
		return 0, fmt.Errorf("audit log: %w", err)
	}
	defer r.Close()
	previous, want := "", int64(1)
	for r.Next() {
		a, err := scanAudit(r)
		if err != nil {
			return 0, fmt.Errorf("audit log: %w", err)
		}
		if a.ID != want || a.Hash != account.Chain(previous, a) {
			return a.ID, nil
		}
		previous, want = a.Hash, want+1
	}
	return 0, r.Err()
}
