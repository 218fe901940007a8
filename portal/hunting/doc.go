// Package hunting answers questions in KQL over the events of all devices: it
// binds a query (package kql) to the tables and functions, checks its types, and
// makes one SQL statement of it that the event store runs within limits.
//
// A query never becomes SQL as text: names are bound to columns, which have
// names of their own in SQL, and literals are quoted, so a query can read the
// hunting tables and nothing else.
//
// Semantics follow https://learn.microsoft.com/kusto/query/. Differences, which
// docs/portal/hunting.md lists: times and timespans have a resolution of a
// microsecond (KQL: 100 ns), dcount() is exact, and a text is never null, so
// missing texts are empty.
package hunting
