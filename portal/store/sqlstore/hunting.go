package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/bulwarkhq/bulwark/portal/hunting"
)

// Hunting returns the saved queries of package hunting.
func (s *Store) Hunting() hunting.Library { return huntingStore{s} }

type huntingStore struct{ *Store }

func (s huntingStore) SavedQueries(ctx context.Context, user string) ([]hunting.Saved, error) {
	return rows(ctx, s.read, func(r scanner) (q hunting.Saved, err error) {
		var updated int64
		err = r.Scan(&q.ID, &q.Owner, &q.Name, &q.Description, &q.Query, &q.Shared, &updated)
		q.Updated = fromMicros(updated)
		return q, err
	}, `SELECT id, owner, name, description, query, shared, updated FROM saved_queries WHERE owner = ? OR shared = 1
		ORDER BY owner <> ?, `+s.nocase("name")+`, id LIMIT 2000`, user, user)
}

func (s huntingStore) SaveQuery(ctx context.Context, q hunting.Saved, limit int) (id int64, err error) {
	err = s.change(ctx, func(tx *transaction) error {
		return tx.QueryRowContext(ctx, `INSERT INTO saved_queries (owner, name, description, query, shared, updated)
			SELECT ?1, ?2, ?3, ?4, ?5, ?6 WHERE (SELECT count(*) FROM saved_queries WHERE owner = ?1 AND name <> ?2) < ?7
			ON CONFLICT (owner, name) DO UPDATE SET description = excluded.description, query = excluded.query, shared = excluded.shared, updated = excluded.updated
			RETURNING id`, q.Owner, q.Name, q.Description, q.Query, q.Shared, micros(s.now()), limit).Scan(&id)
	})
	if errors.Is(err, sql.ErrNoRows) {
		return 0, hunting.ErrTooMany
	}
	if err != nil {
		return 0, fmt.Errorf("saving query %.64q: %w", q.Name, err)
	}
	return id, nil
}

func (s huntingStore) DeleteQuery(ctx context.Context, owner string, id int64) error {
	return s.execOne(ctx, hunting.ErrNotFound, `DELETE FROM saved_queries WHERE owner = ? AND id = ?`, owner, id)
}
