package web

import (
	"net/url"
	"slices"
	"strconv"

	"github.com/bulwarkhq/bulwark/portal/query"
)

// pageSize is the number of rows of a list.
const pageSize = 50

// listing is the state of a list that its address carries: search, filters,
// order and page.
type listing struct {
	path   string
	values url.Values
	// Search is the text of the search field.
	Search string
	Sort   string
	Desc   bool
	Number int // of the page, from 1
	Total  int
	Shown  int
}

// newListing reads the state from an address; what is not allowed falls back
// to the default, so that no address is an error. sorts are the fields that
// can be ordered by; a leading dash on fallback orders downwards.
func newListing(u *url.URL, filters []string, sorts []string, fallback string) listing {
	in := u.Query()
	l := listing{path: u.Path, values: url.Values{}, Number: 1}
	for _, name := range append([]string{"q", "sort"}, filters...) {
		if v := in.Get(name); v != "" && len(v) <= 200 {
			l.values.Set(name, v)
		}
	}
	l.Search = l.values.Get("q")
	sort := l.values.Get("sort")
	if field, _ := cutDash(sort); !slices.Contains(sorts, field) {
		l.values.Del("sort")
		sort = fallback
	}
	l.Sort, l.Desc = cutDash(sort)
	if n, err := strconv.Atoi(in.Get("page")); err == nil && n > 1 && n <= query.MaxSkip/pageSize {
		l.Number = n
	}
	return l
}

func cutDash(s string) (string, bool) {
	if len(s) > 0 && s[0] == '-' {
		return s[1:], true
	}
	return s, false
}

// Filter returns the value of a filter.
func (l listing) Filter(name string) string { return l.values.Get(name) }

// query returns the rows of the page.
func (l listing) query(filter query.Expr) query.Query {
	return query.Query{Filter: filter, Order: []query.Order{{Field: l.Sort, Descending: l.Desc}}, Top: pageSize, Skip: (l.Number - 1) * pageSize, Count: true}
}

// Pages is the number of pages.
func (l listing) Pages() int { return max(1, (l.Total+pageSize-1)/pageSize) }

// First and Last are the numbers of the rows that are shown.
func (l listing) First() int { return min((l.Number-1)*pageSize+1, l.Total) }

// Last is the number of the last row that is shown.
func (l listing) Last() int { return (l.Number-1)*pageSize + l.Shown }

// URL returns the address of another page of the list.
func (l listing) URL(page int) string {
	v := url.Values{}
	for k, all := range l.values {
		v[k] = all
	}
	if page > 1 {
		v.Set("page", strconv.Itoa(page))
	}
	return l.address(v)
}

// SortURL returns the address that orders by a field, or turns the order
// around when it is ordered by it.
func (l listing) SortURL(field string) string {
	v := url.Values{}
	for k, all := range l.values {
		v[k] = all
	}
	if l.Sort == field && !l.Desc {
		field = "-" + field
	}
	v.Set("sort", field)
	return l.address(v)
}

// SortState is the value of aria-sort for a field.
func (l listing) SortState(field string) string {
	switch {
	case l.Sort != field:
		return "none"
	case l.Desc:
		return "descending"
	}
	return "ascending"
}

func (l listing) address(v url.Values) string {
	if len(v) == 0 {
		return l.path
	}
	return l.path + "?" + v.Encode()
}

// Filtered reports whether the list shows less than all.
func (l listing) Filtered() bool {
	for k := range l.values {
		if k != "sort" {
			return true
		}
	}
	return false
}

// equals is a filter for one value, nil for none; values outside of allowed
// are none.
func (l listing) equals(name, field string, allowed []string) query.Expr {
	v := l.Filter(name)
	if v == "" || (allowed != nil && !slices.Contains(allowed, v)) {
		return nil
	}
	return query.Compare{Field: field, Op: query.Eq, Value: v}
}

// contains is a filter for the search text in any of the fields.
func (l listing) contains(fields ...string) query.Expr {
	if l.Search == "" {
		return nil
	}
	var all []query.Expr
	for _, f := range fields {
		all = append(all, query.Text{Field: f, Match: query.Contains, Value: l.Search})
	}
	return query.Either(all...)
}
