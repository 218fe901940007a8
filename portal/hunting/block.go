package hunting

// Block is rows of a table, column by column, as a store hands them over.
type Block struct {
	Rows    int
	Columns []Vector
}

// Vector is the values of a column: one of the slices has one for each row.
type Vector struct {
	// Nulls says which values are null; nil for none.
	Nulls []bool
	Texts []string
	// Ints are whole numbers, truth values (0 and 1), and times in microseconds
	// since 1970. Unsigned numbers of 64 bits are here by their bits.
	Ints []int64
}
