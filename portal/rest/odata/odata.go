// Package odata reads the part of OData 4.01's query options that the portal's
// REST API offers ($filter, $orderby, $top, $skip, $count, $expand) into a
// query.Query, checked against the fields of the collection.
//
// The filter language:
//
//	field eq|ne|gt|ge|lt|le literal
//	field in (literal, ...)
//	contains(field, 'text')  startswith(field, 'text')  endswith(field, 'text')
//	collection/any(x: x eq 'text')  collection/any(x: contains(x, 'text'))
//	not expr   expr and expr   expr or expr   (expr)
//
// Literals: 'text' in which two quotes stand for one, integers, true, false, null, and times
// as in RFC 3339 with or without quotes.
package odata

import (
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/bulwarkhq/bulwark/portal/query"
)

// maxFilter is the longest $filter in bytes.
const maxFilter = 8 << 10

// Error is a query option that cannot be read.
type Error struct {
	Option  string // e.g. "$filter"
	Message string
}

// Error is the message; it says where in the option the fault is.
func (e *Error) Error() string { return e.Message }

// Options are the read query options.
type Options struct {
	Query  query.Query
	Expand []string
}

// Parse reads the query options of a URL. expandable are the names that
// $expand may hold. The error is an *Error.
func Parse(values url.Values, schema query.Schema, expandable ...string) (Options, error) {
	var o Options
	for name, all := range values {
		if !strings.HasPrefix(name, "$") {
			continue // not an OData option; OData requires to ignore it
		}
		if len(all) != 1 {
			return o, &Error{name, fmt.Sprintf("%s is given %d times", name, len(all))}
		}
		v := all[0]
		var err error
		switch strings.ToLower(name) {
		case "$filter":
			o.Query.Filter, err = Filter(v, schema)
		case "$orderby":
			o.Query.Order, err = orderBy(v, schema)
		case "$top":
			o.Query.Top, err = number(name, v, 0, query.MaxTop)
			if err == nil && o.Query.Top == 0 {
				err = &Error{name, "$top=0 asks for nothing: use $top=1&$count=true for the number alone"}
			}
		case "$skip":
			o.Query.Skip, err = number(name, v, 0, query.MaxSkip)
		case "$count":
			switch v {
			case "true":
				o.Query.Count = true
			case "false":
			default:
				err = &Error{name, "$count is true or false"}
			}
		case "$expand":
			for part := range strings.SplitSeq(v, ",") {
				part = strings.TrimSpace(part)
				if !slices.Contains(expandable, part) {
					return o, &Error{name, fmt.Sprintf("$expand: %.64q cannot be expanded here; known: %s", part, orNothing(expandable))}
				}
				o.Expand = append(o.Expand, part)
			}
		default:
			err = &Error{name, fmt.Sprintf("the option %.64s is not supported: use $filter, $orderby, $top, $skip, $count, $expand", name)}
		}
		if err != nil {
			return o, err
		}
	}
	return o, nil
}

func orNothing(names []string) string {
	if len(names) == 0 {
		return "nothing"
	}
	return strings.Join(names, ", ")
}

func number(name, v string, low, high int) (int, error) {
	n, err := strconv.Atoi(v)
	if err != nil || n < low || n > high {
		return 0, &Error{name, fmt.Sprintf("%s=%.20s: a whole number from %d to %d is needed", name, v, low, high)}
	}
	return n, nil
}

func orderBy(v string, schema query.Schema) ([]query.Order, error) {
	var out []query.Order
	parts := strings.Split(v, ",")
	if len(parts) > 5 {
		return nil, &Error{"$orderby", "$orderby has more than 5 keys"}
	}
	for _, part := range parts {
		words := strings.Fields(part)
		if len(words) == 0 || len(words) > 2 {
			return nil, &Error{"$orderby", fmt.Sprintf("$orderby: %.64q is not a field, optionally followed by asc or desc", part)}
		}
		o := query.Order{Field: words[0]}
		if len(words) == 2 {
			switch strings.ToLower(words[1]) {
			case "asc":
			case "desc":
				o.Descending = true
			default:
				return nil, &Error{"$orderby", fmt.Sprintf("$orderby: %.32q is neither asc nor desc", words[1])}
			}
		}
		t, ok := schema[o.Field]
		if !ok {
			return nil, &Error{"$orderby", "$orderby: " + unknownField(o.Field, schema)}
		}
		if t == query.Collection {
			return nil, &Error{"$orderby", fmt.Sprintf("$orderby: %s is a collection and cannot be ordered by", o.Field)}
		}
		out = append(out, o)
	}
	return out, nil
}

func unknownField(name string, schema query.Schema) string {
	for known := range schema {
		if strings.EqualFold(known, name) {
			return fmt.Sprintf("there is no field %.64q: did you mean %s? Case counts", name, known)
		}
	}
	names := make([]string, 0, len(schema))
	for known := range schema {
		names = append(names, known)
	}
	slices.Sort(names)
	return fmt.Sprintf("there is no field %.64q; known: %s", name, strings.Join(names, ", "))
}
