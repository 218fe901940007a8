package hunting

import (
	"context"
	"errors"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/bulwarkhq/bulwark/portal/hunting/kql"
)

// ErrNotFound means that there is no such saved query, or that it is another
// user's and not shared.
var ErrNotFound = errors.New("there is no such saved query")

// Saved is a query that somebody keeps under a name.
type Saved struct {
	ID          int64
	Name        string
	Description string
	Query       string
	Owner       string // name of the user
	Shared      bool   // everybody sees it; only the owner changes it
	Updated     time.Time
}

// Limits of what people write, in bytes.
const (
	MaxName        = 100
	MaxDescription = 1000
	maxSaved       = 1000 // per user
)

// Library keeps saved queries. Implementations are safe for concurrent use.
type Library interface {
	// SavedQueries returns the user's queries and those that are shared, by name.
	SavedQueries(ctx context.Context, user string) ([]Saved, error)
	// SaveQuery stores a query; one of the same owner and name is replaced. With
	// limit queries of that owner there already, ErrTooMany.
	SaveQuery(ctx context.Context, q Saved, limit int) (int64, error)
	// DeleteQuery removes a query of the owner, or returns ErrNotFound.
	DeleteQuery(ctx context.Context, owner string, id int64) error
}

// ErrTooMany means that a user has as many saved queries as may be.
var ErrTooMany = errors.New("there are too many saved queries: delete some")

// Invalid is a saved query that cannot be kept.
type Invalid struct{ Message string }

func (e *Invalid) Error() string { return e.Message }

// Save checks and stores a query.
func Save(ctx context.Context, l Library, q Saved) (int64, error) {
	q.Name, q.Description = strings.TrimSpace(q.Name), strings.TrimSpace(q.Description)
	switch {
	case q.Name == "" || len(q.Name) > MaxName:
		return 0, &Invalid{"A saved query needs a name of at most 100 bytes."}
	case len(q.Description) > MaxDescription:
		return 0, &Invalid{"The description is longer than 1000 bytes."}
	case strings.TrimSpace(q.Query) == "" || len(q.Query) > kql.MaxBytes:
		return 0, &Invalid{"The query is empty or too long."}
	case !utf8.ValidString(q.Name + q.Description + q.Query):
		return 0, &Invalid{"The text is not valid UTF-8."}
	}
	return l.SaveQuery(ctx, q, maxSaved)
}
