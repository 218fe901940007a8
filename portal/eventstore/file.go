package eventstore

import "time"

// File is a Parquet file of events of one table that arrived within an hour or a
// day, and that does not change any more.
type File struct {
	Table string
	// Hour is the hour of arrival, of several the last, in UTC.
	Hour        time.Time
	Name, Path  string
	Rows, Bytes int64
}
