// Package rules holds the behaviour rules that the product ships, in Sigma
// format. Each has its test events in tests/, under the same file name.
package rules

import (
	"embed"
	"io/fs"
)

//go:embed *.yml
var files embed.FS

// FS is the folder of rules.
func FS() fs.FS { return files }
