package control

import "time"

// EventStatistics are the events of the sensors since Start: what causes most
// of them. Lists are the most frequent first, at most 100 entries.
type EventStatistics struct {
	Start time.Time `json:"start_time"`
	End   time.Time `json:"end_time"`
	// Subsystem that delivers process events, as in the health.
	Subsystem string `json:"supplementary_events_subsystem"`
	// Files are accessed or executed files, Initiators the programs that did it.
	Files      []NamedCount `json:"top_file_paths"`
	Initiators []NamedCount `json:"top_initiator_paths"`
	// Syscalls are the system calls that the events stand for, by the numbers of
	// this host's architecture.
	Syscalls []NamedCount `json:"top_syscall_ids"`
	// Counters by class and action, "process_count", ..., and "dropped_count" for
	// events that were lost.
	Counters []NamedCount `json:"counters"`
}

// NamedCount is a name and how often it occurred.
type NamedCount struct {
	Name  Path  `json:"name"`
	Count int64 `json:"count"`
}
