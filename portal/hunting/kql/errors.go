package kql

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// Limits of a query.
const (
	MaxBytes = 100 << 10
	// MaxDepth is how deep expressions, brackets and sub-queries may be nested.
	MaxDepth = 100
	// maxTokens bounds the work on text that is all operators.
	maxTokens = 60_000
)

// Pos is a byte offset in the text of the query.
type Pos int

// Error is what is wrong with a query, and where.
type Error struct {
	Pos     Pos
	Message string
	// Hint says what may have been meant; or empty.
	Hint string
}

func (e *Error) Error() string {
	if e.Hint == "" {
		return e.Message
	}
	return e.Message + "; " + e.Hint
}

// Errorf makes an Error.
func Errorf(pos Pos, format string, args ...any) *Error {
	return &Error{Pos: pos, Message: fmt.Sprintf(format, args...)}
}

// LineColumn converts a position to a line and a column, both from 1; the
// column counts characters.
func LineColumn(text string, pos Pos) (line, column int) {
	p := min(max(int(pos), 0), len(text))
	before := text[:p]
	line = 1 + strings.Count(before, "\n")
	return line, 1 + utf8.RuneCountInString(before[strings.LastIndexByte(before, '\n')+1:])
}

// Closest returns the name of names that a typing error would turn into word,
// or an empty string.
func Closest(word string, names []string) string {
	best, distance := "", 1+max(1, min(3, len(word)/3))
	for _, n := range names {
		if abs(len(n)-len(word)) >= distance {
			continue
		}
		if d := editDistance(strings.ToLower(word), strings.ToLower(n), distance); d < distance {
			best, distance = n, d
		}
	}
	return best
}

func abs(n int) int { return max(n, -n) }

// editDistance is the Damerau-Levenshtein distance (neighbours swapped count
// one) of two short words; it gives up at limit.
func editDistance(a, b string, limit int) int {
	if len(a) > 64 || len(b) > 64 {
		return limit
	}
	var before []int
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		next := make([]int, len(b)+1)
		next[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			next[j] = min(row[j]+1, next[j-1]+1, row[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				next[j] = min(next[j], before[j-2]+1)
			}
		}
		before, row = row, next
	}
	return min(row[len(b)], limit)
}
