// Package kql reads queries in the Kusto Query Language, as advanced hunting
// uses it: text in, syntax tree out. It knows no tables and no functions; that
// is the work of package hunting.
//
// The grammar follows the language reference at
// https://learn.microsoft.com/kusto/query/ (statements, tabular operators,
// scalar operators, literals). A query is bounded in size and in depth, and an
// error names its position in the text.
package kql
