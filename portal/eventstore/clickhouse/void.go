package clickhouse

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/bulwarkhq/bulwark/portal/hunting"
)

// voids are the groups whose rows do not count. There are few: one for each time
// that a server or a portal failed, until their day is too old.
type voids []uint64

// voids reads them: each reader does so first.
func (s *Store) voids(ctx context.Context) (voids, error) {
	var out voids
	err := s.client.read(ctx, "SELECT DISTINCT batch_group FROM aborted", "n", func(b *hunting.Block) error {
		for _, n := range b.Columns[0].Ints {
			out = append(out, uint64(n))
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading the groups that were given up: %w", err)
	}
	slices.Sort(out)
	return out, nil
}

// besides adds a group.
func (v voids) besides(group uint64) voids {
	return append(slices.Clip(v), group)
}

// condition leaves their rows out, as what follows other conditions.
func (v voids) condition(column string) string {
	if len(v) == 0 {
		return ""
	}
	return " AND " + column + " NOT IN (" + numbers(v) + ")"
}

// numbers are the numbers of groups, with commas.
func numbers(groups []uint64) string {
	list := make([]string, len(groups))
	for i, n := range groups {
		list[i] = strconv.FormatUint(n, 10)
	}
	return strings.Join(list, ", ")
}
