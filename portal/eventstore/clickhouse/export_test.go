package clickhouse

// Unsettle has the store believe that it does not know what became of a group; to
// be called before anything is appended.
func (s *Store) Unsettle(group uint64) { s.unsettled = append(s.unsettled, group) }
