package sqlstore

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	agentv1 "github.com/bulwarkhq/bulwark/api/agent/v1"
	"github.com/bulwarkhq/bulwark/portal/enroll"
	"github.com/bulwarkhq/bulwark/portal/inventory"
)

// Enroll returns the store of package enroll.
func (s *Store) Enroll() enroll.Store { return enrollStore{s} }

type enrollStore struct{ *Store }

const tokenColumns = `id, name, hash, created_by, created, expires, revoked, max_uses, uses, tags`

func scanEnrollToken(r scanner) (enroll.Token, error) {
	var t enroll.Token
	var hash []byte
	var created, expires, revoked int64
	var tags string
	err := r.Scan(&t.ID, &t.Name, &hash, &t.CreatedBy, &created, &expires, &revoked, &t.MaxUses, &t.Uses, &tags)
	if errors.Is(err, sql.ErrNoRows) {
		return t, enroll.ErrNotFound
	}
	if err != nil {
		return t, err
	}
	copy(t.Hash[:], hash)
	t.Created, t.Expires, t.Revoked = fromMicros(created), fromMicros(expires), fromMicros(revoked)
	if tags != "" && tags != "null" {
		if err := json.Unmarshal([]byte(tags), &t.Tags); err != nil {
			return t, fmt.Errorf("tags of enrollment token %s: %w", t.ID, err)
		}
	}
	return t, nil
}

func (s enrollStore) CreateToken(ctx context.Context, t enroll.Token) error {
	tags, err := json.Marshal(t.Tags)
	if err != nil {
		return fmt.Errorf("enrollment token %s: %w", t.ID, err)
	}
	_, err = s.exec(ctx, `INSERT INTO enrollment_tokens (`+tokenColumns+`) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		t.ID, t.Name, t.Hash[:], t.CreatedBy, micros(t.Created), micros(t.Expires), micros(t.Revoked), t.MaxUses, t.Uses, string(tags))
	if taken(err) {
		return enroll.ErrExists
	}
	return err
}

func (s enrollStore) TokenByHash(ctx context.Context, hash [32]byte) (enroll.Token, error) {
	return scanEnrollToken(s.read.QueryRowContext(ctx, `SELECT `+tokenColumns+` FROM enrollment_tokens WHERE hash = ?`, hash[:]))
}

func (s enrollStore) Tokens(ctx context.Context) ([]enroll.Token, error) {
	return rows(ctx, s.read, scanEnrollToken, `SELECT `+tokenColumns+` FROM enrollment_tokens ORDER BY created DESC, id`)
}

func (s enrollStore) RevokeToken(ctx context.Context, id string, at time.Time) error {
	return s.revoke(ctx, `enrollment_tokens`, `id`, id, at)
}

// revoke sets the revoked column of one row unless it is set. table and key
// are constants of this file.
func (s enrollStore) revoke(ctx context.Context, table, key, id string, at time.Time) error {
	return s.execOne(ctx, enroll.ErrNotFound, `UPDATE `+table+` SET revoked = CASE revoked WHEN 0 THEN ? ELSE revoked END WHERE `+key+` = ?`, micros(at), id)
}

// one turns "no row" into missing.
func one(res sql.Result, err, missing error) error {
	if err != nil {
		return fmt.Errorf("control database: %w", err)
	}
	n, err := res.RowsAffected()
	if err != nil {
		return fmt.Errorf("control database: %w", err)
	}
	if n == 0 {
		return missing
	}
	return nil
}

func (s enrollStore) DeleteExpiredTokens(ctx context.Context, before time.Time) (int, error) {
	return s.exec(ctx, `DELETE FROM enrollment_tokens WHERE expires <> 0 AND expires < ?`, micros(before))
}

func count(res sql.Result, err error) (int, error) {
	if err != nil {
		return 0, fmt.Errorf("control database: %w", err)
	}
	n, err := res.RowsAffected()
	return int(n), err
}

func (s enrollStore) Enroll(ctx context.Context, e enroll.Enrollment) error {
	return s.together(ctx, func(ctx context.Context, tx *transaction) error {
		if e.TokenID != "" {
			if err := useToken(ctx, tx, e.TokenID); err != nil {
				return err
			}
		}
		if err := putEnrolled(ctx, tx, e.Device, s.now()); err != nil {
			return fmt.Errorf("device %s: %w", e.Device.ID, err)
		}
		c := e.Certificate
		_, err := tx.ExecContext(ctx, `INSERT INTO certificates (serial, device_id, not_before, not_after, revoked) VALUES (?, ?, ?, ?, ?)`,
			c.Serial, e.Device.ID, micros(c.NotBefore), micros(c.NotAfter), micros(c.Revoked))
		if taken(err) {
			return fmt.Errorf("certificate %s: %w", c.Serial, enroll.ErrExists)
		}
		return err
	})
}

func useToken(ctx context.Context, tx *transaction, id string) error {
	res, err := tx.ExecContext(ctx, `UPDATE enrollment_tokens SET uses = uses + 1 WHERE id = ? AND (max_uses = 0 OR uses < max_uses)`, id)
	n, err := count(res, err)
	if err != nil || n == 1 {
		return err
	}
	var there int
	if err := tx.QueryRowContext(ctx, `SELECT count(*) FROM enrollment_tokens WHERE id = ?`, id).Scan(&there); err != nil {
		return err
	}
	if there == 0 {
		return fmt.Errorf("enrollment token %s: %w", id, enroll.ErrNotFound)
	}
	return fmt.Errorf("enrollment token %s: %w", id, enroll.ErrTokenUsedUp)
}

func putEnrolled(ctx context.Context, tx *transaction, d enroll.Device, now time.Time) error {
	raw, err := proto.Marshal(d.Info)
	if err != nil {
		return err
	}
	if raw == nil {
		raw = []byte{}
	}
	inv := inventory.Describe(d.ID, d.Info)
	set := append([]any{d.HardwareID, d.MachineGUID, d.TokenID, micros(now), raw}, inventoryValues(inv)...)
	res, err := tx.ExecContext(ctx, `UPDATE devices SET hardware_id = ?, machine_guid = ?,
		token_id = CASE ? WHEN '' THEN token_id ELSE ?3 END, last_enrolled = ?, enroll_info = ?, `+inventoryUpdate+` WHERE id = ?`, append(set, d.ID)...)
	n, err := count(res, err)
	if err != nil || n == 1 {
		return err
	}
	values := append([]any{d.ID, d.HardwareID, d.MachineGUID, d.ReplacesID, d.TokenID, micros(d.Enrolled), micros(now), micros(d.Revoked), raw, micros(now)},
		inventoryValues(inv)...)
	_, err = tx.ExecContext(ctx, `INSERT INTO devices (id, hardware_id, machine_guid, replaces_id, token_id, enrolled, last_enrolled, revoked, enroll_info, last_seen, `+
		inventoryColumns+`) VALUES (?`+marks(len(values)-1)+`)`, values...)
	return err
}

const enrolledColumns = `d.id, d.hardware_id, d.machine_guid, d.replaces_id, d.token_id, d.enrolled, d.revoked, d.enroll_info`

func scanEnrolled(r scanner, more ...any) (enroll.Device, error) {
	var d enroll.Device
	var enrolled, revoked int64
	var raw []byte
	err := r.Scan(append([]any{&d.ID, &d.HardwareID, &d.MachineGUID, &d.ReplacesID, &d.TokenID, &enrolled, &revoked, &raw}, more...)...)
	if errors.Is(err, sql.ErrNoRows) {
		return d, enroll.ErrNotFound
	}
	if err != nil {
		return d, err
	}
	d.Enrolled, d.Revoked = fromMicros(enrolled), fromMicros(revoked)
	d.Info = &agentv1.DeviceInfo{}
	if err := proto.Unmarshal(raw, d.Info); err != nil {
		return d, fmt.Errorf("inventory of device %s: %w", d.ID, err)
	}
	return d, nil
}

func (s enrollStore) Device(ctx context.Context, id string) (enroll.Device, error) {
	return scanEnrolled(s.read.QueryRowContext(ctx, `SELECT `+enrolledColumns+` FROM devices d WHERE d.id = ?`, id))
}

func (s enrollStore) DevicesByHardwareID(ctx context.Context, hardwareID string) ([]enroll.Device, error) {
	return rows(ctx, s.read, func(r scanner) (enroll.Device, error) { return scanEnrolled(r) },
		`SELECT `+enrolledColumns+` FROM devices d WHERE d.hardware_id = ? ORDER BY d.last_enrolled DESC, d.rowid DESC`, hardwareID)
}

func (s enrollStore) Certificate(ctx context.Context, serial string) (enroll.Certificate, enroll.Device, error) {
	var c enroll.Certificate
	var notBefore, notAfter, revoked int64
	d, err := scanEnrolled(s.read.QueryRowContext(ctx, `SELECT `+enrolledColumns+`, c.serial, c.not_before, c.not_after, c.revoked
		FROM certificates c JOIN devices d ON d.id = c.device_id WHERE c.serial = ?`, serial), &c.Serial, &notBefore, &notAfter, &revoked)
	c.DeviceID = d.ID
	c.NotBefore, c.NotAfter, c.Revoked = fromMicros(notBefore), fromMicros(notAfter), fromMicros(revoked)
	return c, d, err
}

func (s enrollStore) RevokeCertificate(ctx context.Context, serial string, at time.Time) error {
	return s.revoke(ctx, `certificates`, `serial`, serial, at)
}

func (s enrollStore) RevokeDevice(ctx context.Context, id string, at time.Time) error {
	return s.change(ctx, func(tx *transaction) error {
		res, err := tx.ExecContext(ctx, `UPDATE devices SET revoked = CASE revoked WHEN 0 THEN ? ELSE revoked END WHERE id = ?`, micros(at), id)
		if err := one(res, err, enroll.ErrNotFound); err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `UPDATE certificates SET revoked = ? WHERE device_id = ? AND revoked = 0`, micros(at), id)
		return err
	})
}
