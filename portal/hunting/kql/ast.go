package kql

// Expr is a scalar expression, or in some places a tabular one (*Pipe).
type Expr interface{ Position() Pos }

// Name is a column, a variable or a table.
type Name struct {
	Pos  Pos
	Text string
}

// Literal is a constant. Value is nil for null, else one of int64, float64,
// string, bool, time.Time, time.Duration, GUID or JSON. Type is the KQL type.
type Literal struct {
	Pos   Pos
	Type  string
	Value any
}

// GUID is the text of a guid literal.
type GUID string

// JSON is the text of a dynamic literal or value.
type JSON string

// Call is a function with its arguments.
type Call struct {
	Pos  Pos
	Func string
	Args []Expr
}

// Unary is "-x" or "+x".
type Unary struct {
	Pos Pos
	Op  string
	X   Expr
}

// Binary is an operator between two operands. Op is as written: "and", "+",
// "=~", "!contains", "matches regex" ...
type Binary struct {
	Pos  Pos // of the operator
	Op   string
	L, R Expr
}

// In is an operator with a list: in, !in, in~, !in~, has_any, has_all. A list of one
// element may be a table or a dynamic array.
type In struct {
	Pos  Pos
	Op   string
	X    Expr
	List []Expr
}

// Between is "x between (lo .. hi)".
type Between struct {
	Pos       Pos
	Not       bool
	X, Lo, Hi Expr
}

// Member is "x.name".
type Member struct {
	Pos  Pos
	X    Expr
	Name string
}

// Index is "x[i]".
type Index struct {
	Pos Pos
	X   Expr
	At  Expr
}

// Star is "*".
type Star struct{ Pos Pos }

// Wildcard is a pattern of column names such as Initiating*.
type Wildcard struct {
	Pos     Pos
	Pattern string
}

// Named is "name = x" or "(a, b) = x", in lists of columns and of arguments.
type Named struct {
	Pos   Pos
	Names []Name
	X     Expr
}

// TypeOf is "typeof(type)".
type TypeOf struct {
	Pos  Pos
	Type string
}

// Function is a user-defined function: parameters, statements, and a result.
type Function struct {
	Pos    Pos
	Params []Param
	Lets   []Let
	Body   Expr
}

// Param is a parameter of a function. A tabular one has Table set.
type Param struct {
	Pos     Pos
	Name    string
	Type    string
	Table   bool
	Columns []ColumnDef
	Default Expr
}

// ColumnDef is a name with a type.
type ColumnDef struct {
	Pos  Pos
	Name string
	Type string
}

// Pipe is a source of rows and what is done with them.
type Pipe struct {
	Pos    Pos
	Source Expr // Name, Call, *Pipe in brackets, *Datatable, *RangeTable, *Print, *Union, *Search
	Ops    []Op
}

// Let is "let name = value".
type Let struct {
	Pos   Pos
	Name  string
	Value Expr
}

// Query is a whole query.
type Query struct {
	Lets []Let
	Body *Pipe
}

// Datatable is "datatable(columns) [values]".
type Datatable struct {
	Pos     Pos
	Columns []ColumnDef
	Values  []Expr
}

// RangeTable is "range x from a to b step s".
type RangeTable struct {
	Pos            Pos
	Column         Name
	From, To, Step Expr
}

// Print is "print a = 1".
type Print struct {
	Pos     Pos
	Columns []Expr
}

// Union stands at the beginning or after a pipe.
type Union struct {
	Pos        Pos
	Inner      bool
	WithSource string
	Fuzzy      bool
	Tables     []Expr // *Pipe or Wildcard
}

// Search looks for a text in all columns.
type Search struct {
	Pos    Pos
	Kind   string // case_sensitive or empty
	Tables []Expr
	What   Expr
}

// Op is an operator after a pipe.
type Op interface{ Position() Pos }

// Where keeps the rows for which a condition holds.
type Where struct {
	Pos  Pos
	Cond Expr
}

// Project is project, project-away, -keep, -rename or -reorder.
type Project struct {
	Pos     Pos
	Kind    string
	Columns []Expr
	Orders  []string // of project-reorder, parallel to Columns: "", asc, desc
}

// Extend adds columns.
type Extend struct {
	Pos     Pos
	Columns []Expr
}

// Summarize aggregates.
type Summarize struct {
	Pos     Pos
	Columns []Expr
	By      []Expr
}

// Distinct keeps one of equal rows.
type Distinct struct {
	Pos     Pos
	Columns []Expr
}

// Sort is sort or order.
type Sort struct {
	Pos  Pos
	Keys []SortKey
}

// Top is "top n by x".
type Top struct {
	Pos Pos
	N   Expr
	By  SortKey
}

// TopHitters is "top-hitters n of x by y".
type TopHitters struct {
	Pos Pos
	N   Expr
	Of  Expr
	By  Expr // or nil
}

// Take is take, limit or sample.
type Take struct {
	Pos    Pos
	N      Expr
	Random bool
}

// SampleDistinct is "sample-distinct n of x".
type SampleDistinct struct {
	Pos Pos
	N   Expr
	Of  Expr
}

// Count counts the rows.
type Count struct {
	Pos Pos
	As  string
}

// Join is join or lookup.
type Join struct {
	Pos    Pos
	Kind   string
	Lookup bool
	Right  *Pipe
	On     []Expr
}

// MvExpand makes a row of each element of arrays.
type MvExpand struct {
	Pos       Pos
	Bag       bool
	IndexName string
	Items     []MvItem
	Limit     Expr
}

// MvApply is "mv-apply x = y on (operators)".
type MvApply struct {
	Pos       Pos
	IndexName string
	Items     []MvItem
	Limit     Expr
	On        *Pipe // its Source is nil
}

// ParseText is parse or parse-where.
type ParseText struct {
	Pos   Pos
	Kind  string // simple, regex or relaxed
	Flags string
	Where bool
	X     Expr
	Parts []ParsePart
}

// MakeSeries makes arrays over an axis.
type MakeSeries struct {
	Pos            Pos
	Aggs           []SeriesAgg
	On             Expr
	From, To, Step Expr
	By             []Expr
}

// Evaluate is a plug-in: bag_unpack, pivot.
type Evaluate struct {
	Pos  Pos
	Call *Call
}

// Render says how to draw the result.
type Render struct {
	Pos   Pos
	Kind  string
	Props map[string]string
}

// GetSchema lists the columns.
type GetSchema struct{ Pos Pos }

// Serialize keeps the order, and adds columns.
type Serialize struct {
	Pos     Pos
	Columns []Expr
}

// Invoke calls a function with the rows so far as its first argument.
type Invoke struct {
	Pos  Pos
	Call *Call
}

// As names what comes before it.
type As struct {
	Pos  Pos
	Name string
}

// SortKey is a column of an order. KQL sorts descending, nulls last, unless
// told otherwise.
type SortKey struct {
	X          Expr
	Asc        bool
	NullsFirst bool
}

// MvItem is a column of mv-expand: name = x to typeof(type).
type MvItem struct {
	Pos  Pos
	Name string
	X    Expr
	Type string
}

// ParsePart is a piece of a parse pattern: a text, a star, or a column.
type ParsePart struct {
	Pos  Pos
	Text string
	Star bool
	Name string
	Type string
}

// SeriesAgg is an aggregate of make-series.
type SeriesAgg struct {
	X       Expr
	Default Expr
}

// Position implements Expr and Op.
func (n *Name) Position() Pos           { return n.Pos }
func (n *Literal) Position() Pos        { return n.Pos }
func (n *Call) Position() Pos           { return n.Pos }
func (n *Unary) Position() Pos          { return n.Pos }
func (n *Binary) Position() Pos         { return n.Pos }
func (n *In) Position() Pos             { return n.Pos }
func (n *Between) Position() Pos        { return n.Pos }
func (n *Member) Position() Pos         { return n.Pos }
func (n *Index) Position() Pos          { return n.Pos }
func (n *Star) Position() Pos           { return n.Pos }
func (n *Wildcard) Position() Pos       { return n.Pos }
func (n *Named) Position() Pos          { return n.Pos }
func (n *TypeOf) Position() Pos         { return n.Pos }
func (n *Function) Position() Pos       { return n.Pos }
func (n *Pipe) Position() Pos           { return n.Pos }
func (n *Datatable) Position() Pos      { return n.Pos }
func (n *RangeTable) Position() Pos     { return n.Pos }
func (n *Print) Position() Pos          { return n.Pos }
func (n *Union) Position() Pos          { return n.Pos }
func (n *Search) Position() Pos         { return n.Pos }
func (n *Where) Position() Pos          { return n.Pos }
func (n *Project) Position() Pos        { return n.Pos }
func (n *Extend) Position() Pos         { return n.Pos }
func (n *Summarize) Position() Pos      { return n.Pos }
func (n *Distinct) Position() Pos       { return n.Pos }
func (n *Sort) Position() Pos           { return n.Pos }
func (n *Top) Position() Pos            { return n.Pos }
func (n *TopHitters) Position() Pos     { return n.Pos }
func (n *Take) Position() Pos           { return n.Pos }
func (n *SampleDistinct) Position() Pos { return n.Pos }
func (n *Count) Position() Pos          { return n.Pos }
func (n *Join) Position() Pos           { return n.Pos }
func (n *MvExpand) Position() Pos       { return n.Pos }
func (n *MvApply) Position() Pos        { return n.Pos }
func (n *ParseText) Position() Pos      { return n.Pos }
func (n *MakeSeries) Position() Pos     { return n.Pos }
func (n *Evaluate) Position() Pos       { return n.Pos }
func (n *Render) Position() Pos         { return n.Pos }
func (n *GetSchema) Position() Pos      { return n.Pos }
func (n *Serialize) Position() Pos      { return n.Pos }
func (n *As) Position() Pos             { return n.Pos }
func (n *Invoke) Position() Pos         { return n.Pos }
