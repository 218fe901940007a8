package eventstore

import "time"

// Hour is one of the arrival of a table's events.
type Hour struct {
	Table string
	At    time.Time // its begin, UTC
	Rows  int64
}

// Ledger is what a store knows beside events.
type Ledger struct {
	Marks    []Mark
	Receipts []DeviceReceipt
}

// Mark is the highest sequence that is stored of a spool.
type Mark struct {
	DeviceID, SpoolID string
	Sequence          uint64
}

// DeviceReceipt is the receipt of a class of a device's events.
type DeviceReceipt struct {
	DeviceID, Class string
	Receipt
}
