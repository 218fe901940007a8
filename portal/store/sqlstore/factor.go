package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/bulwarkhq/bulwark/portal/access"
	"github.com/bulwarkhq/bulwark/portal/account"
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
	err := s.read.QueryRowContext(ctx, `SELECT secret, created, confirmed, (SELECT count(*) FROM recovery_codes c WHERE c.user_id = f.user_id AND c.used = 0)
		FROM second_factors f WHERE user_id = ?`, userID).Scan(&f.Sealed, &created, &confirmed, &f.Codes)
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
		if err := setRecoveryCodes(ctx, tx, f.UserID, codes); err != nil {
			return err
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

func (s accountStore) RemoveSecondFactor(ctx context.Context, userID string, keep [32]byte, a account.Audit) error {
	return s.change(ctx, func(tx *transaction) error {
		res, err := tx.ExecContext(ctx, `DELETE FROM second_factors WHERE user_id = ?`, userID)
		if err := one(res, err, account.ErrNotFound); err != nil {
			return err
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
