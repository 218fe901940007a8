package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/bulwarkhq/bulwark/portal/access"
	"github.com/bulwarkhq/bulwark/portal/account"
	"github.com/bulwarkhq/bulwark/portal/securitykey"
)

func (s accountStore) UserBySubject(ctx context.Context, issuer, subject string) (account.User, error) {
	return scanUser(s.read.QueryRowContext(ctx, `SELECT `+userColumns+` FROM users u WHERE u.issuer = ? AND u.subject = ? AND u.issuer <> ''`, issuer, subject))
}

func (s accountStore) SetRole(ctx context.Context, userID string, role access.Role, a account.Audit) error {
	return s.audited(ctx, a, account.ErrNotFound, `UPDATE users SET role = ? WHERE id = ?`, string(role), userID)
}

func (s accountStore) SetGroups(ctx context.Context, userID string, groups []string, a account.Audit) error {
	return s.audited(ctx, a, account.ErrNotFound, `UPDATE users SET groups = ? WHERE id = ?`, list(groups), userID)
}

func (s accountStore) SetDisabled(ctx context.Context, userID string, disabled bool, a account.Audit) error {
	return s.change(ctx, func(tx *transaction) error {
		res, err := tx.ExecContext(ctx, `UPDATE users SET disabled = ? WHERE id = ?`, disabled, userID)
		if err := one(res, err, account.ErrNotFound); err != nil {
			return err
		}
		if disabled {
			if err := endSessions(ctx, tx, userID, [32]byte{}); err != nil {
				return err
			}
		}
		return addAudit(ctx, tx, a)
	})
}

// endSessions ends all sessions of a user but one.
func endSessions(ctx context.Context, tx *transaction, userID string, keep [32]byte) error {
	_, err := tx.ExecContext(ctx, `DELETE FROM sessions WHERE user_id = ? AND hash <> ?`, userID, keep[:])
	return err
}

func (s accountStore) SecondFactor(ctx context.Context, userID string) (account.SecondFactor, error) {
	f := account.SecondFactor{UserID: userID}
	var created, confirmed int64
	err := s.read.QueryRowContext(ctx, `SELECT secret, created, confirmed FROM second_factors f WHERE user_id = ?`, userID).Scan(&f.Sealed, &created, &confirmed)
	if errors.Is(err, sql.ErrNoRows) {
		return f, account.ErrNotFound
	}
	f.Created, f.Confirmed = fromMicros(created), fromMicros(confirmed)
	return f, err
}

func (s accountStore) BeginSecondFactor(ctx context.Context, f account.SecondFactor) error {
	return s.execOne(ctx, account.ErrExists, `INSERT INTO second_factors (user_id, secret, created) VALUES (?, ?, ?)
		ON CONFLICT (user_id) DO UPDATE SET secret = excluded.secret, created = excluded.created WHERE second_factors.confirmed = 0`, f.UserID, f.Sealed, micros(f.Created))
}

func (s accountStore) ConfirmSecondFactor(ctx context.Context, f account.SecondFactor, step int64, codes [][32]byte, keep [32]byte, a account.Audit) error {
	return s.change(ctx, func(tx *transaction) error {
		res, err := tx.ExecContext(ctx, `UPDATE second_factors SET confirmed = ?, step = ? WHERE user_id = ? AND secret = ? AND confirmed = 0`, micros(a.Time), step, f.UserID, f.Sealed)
		if err := one(res, err, account.ErrNotFound); err != nil {
			return err
		}
		if len(codes) > 0 {
			if err := setRecoveryCodes(ctx, tx, f.UserID, codes); err != nil {
				return err
			}
		}
		if err := endSessions(ctx, tx, f.UserID, keep); err != nil {
			return err
		}
		return addAudit(ctx, tx, a)
	})
}

func setRecoveryCodes(ctx context.Context, tx *transaction, userID string, codes [][32]byte) error {
	if _, err := tx.ExecContext(ctx, `DELETE FROM recovery_codes WHERE user_id = ?`, userID); err != nil {
		return err
	}
	for _, c := range codes {
		if _, err := tx.ExecContext(ctx, `INSERT INTO recovery_codes (user_id, hash) VALUES (?, ?)`, userID, c[:]); err != nil {
			return err
		}
	}
	return nil
}

func (s accountStore) UseStep(ctx context.Context, userID string, step int64) error {
	return s.execOne(ctx, account.ErrUsed, `UPDATE second_factors SET step = ?1 WHERE user_id = ?2 AND confirmed <> 0 AND step < ?1`, step, userID)
}

func (s accountStore) UseRecoveryCode(ctx context.Context, userID string, hash [32]byte, at time.Time, a account.Audit) error {
	return s.audited(ctx, a, account.ErrNotFound, `UPDATE recovery_codes SET used = ? WHERE user_id = ? AND hash = ? AND used = 0`, micros(at), userID, hash[:])
}

func (s accountStore) SetRecoveryCodes(ctx context.Context, userID string, codes [][32]byte, a account.Audit) error {
	return s.change(ctx, func(tx *transaction) error {
		if err := setRecoveryCodes(ctx, tx, userID, codes); err != nil {
			return err
		}
		return addAudit(ctx, tx, a)
	})
}

func (s accountStore) RecoveryCodes(ctx context.Context, userID string) (int, error) {
	var n int
	err := s.read.QueryRowContext(ctx, `SELECT count(*) FROM recovery_codes WHERE user_id = ? AND used = 0`, userID).Scan(&n)
	return n, err
}

func (s accountStore) SecurityKeys(ctx context.Context, userID string) ([]account.SecurityKey, error) {
	return rows(ctx, s.read, func(r scanner) (account.SecurityKey, error) {
		k := account.SecurityKey{UserID: userID}
		var created, used int64
		err := r.Scan(&k.ID, &k.Name, &k.Data, &k.Counter, &created, &used)
		k.Created, k.Used = fromMicros(created), fromMicros(used)
		return k, err
	}, `SELECT id, name, data, counter, created, used FROM security_keys WHERE user_id = ? ORDER BY created, id`, userID)
}

func (s accountStore) AddSecurityKey(ctx context.Context, k account.SecurityKey, codes [][32]byte, keep [32]byte, a account.Audit) error {
	return s.change(ctx, func(tx *transaction) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO security_keys (id, user_id, name, data, counter, created) VALUES (?`+marks(5)+`)`,
			k.ID, k.UserID, k.Name, k.Data, int64(k.Counter), micros(k.Created))
		if taken(err) {
			return account.ErrExists
		}
		if err != nil {
			return err
		}
		if len(codes) > 0 {
			if err := setRecoveryCodes(ctx, tx, k.UserID, codes); err != nil {
				return err
			}
		}
		if err := endSessions(ctx, tx, k.UserID, keep); err != nil {
			return err
		}
		return addAudit(ctx, tx, a)
	})
}

func (s accountStore) UseSecurityKey(ctx context.Context, userID string, k securitykey.Key, at time.Time) error {
	return s.change(ctx, func(tx *transaction) error {
		var have int64
		err := tx.QueryRowContext(ctx, `SELECT counter FROM security_keys WHERE id = ? AND user_id = ?`, k.ID, userID).Scan(&have)
		switch {
		case errors.Is(err, sql.ErrNoRows):
			return account.ErrNotFound
		case err != nil:
			return err
		case int64(k.Counter) <= have && (k.Counter != 0 || have != 0):
			return account.ErrUsed
		}
		_, err = tx.ExecContext(ctx, `UPDATE security_keys SET data = ?, counter = ?, used = ? WHERE id = ?`, k.Data, int64(k.Counter), micros(at), k.ID)
		return err
	})
}

func (s accountStore) RemoveSecurityKey(ctx context.Context, userID string, id []byte, keep [32]byte, a account.Audit) error {
	return s.removeOne(ctx, userID, keep, a, `DELETE FROM security_keys WHERE user_id = ? AND id = ?`, userID, id)
}

func (s accountStore) RemoveAuthenticator(ctx context.Context, userID string, keep [32]byte, a account.Audit) error {
	return s.removeOne(ctx, userID, keep, a, `DELETE FROM second_factors WHERE user_id = ?`, userID)
}

// removeOne removes one of several second factors.
func (s accountStore) removeOne(ctx context.Context, userID string, keep [32]byte, a account.Audit, q string, args ...any) error {
	return s.change(ctx, func(tx *transaction) error {
		res, err := tx.ExecContext(ctx, q, args...)
		if err := one(res, err, account.ErrNotFound); err != nil {
			return err
		}
		var left bool
		if err := tx.QueryRowContext(ctx, `SELECT `+hasFactor+` FROM users u WHERE u.id = ?`, userID).Scan(&left); err != nil {
			return err
		}
		if !left {
			return account.ErrLast
		}
		if err := endSessions(ctx, tx, userID, keep); err != nil {
			return err
		}
		return addAudit(ctx, tx, a)
	})
}

func (s accountStore) RemoveSecondFactor(ctx context.Context, userID string, keep [32]byte, a account.Audit) error {
	return s.change(ctx, func(tx *transaction) error {
		removed := int64(0)
		for _, table := range []string{"second_factors", "security_keys"} {
			res, err := tx.ExecContext(ctx, `DELETE FROM `+table+` WHERE user_id = ?`, userID)
			if err != nil {
				return err
			}
			n, err := res.RowsAffected()
			if err != nil {
				return err
			}
			removed += n
		}
		if removed == 0 {
			return account.ErrNotFound
		}
		if err := setRecoveryCodes(ctx, tx, userID, nil); err != nil {
			return err
		}
		if err := endSessions(ctx, tx, userID, keep); err != nil {
			return err
		}
		return addAudit(ctx, tx, a)
	})
}
