// Package yara holds the YARA rules that the product ships. They are our own;
// docs/content.md says how they are written, named and tested.
//
// The package installs the files as they are, and the agent compiles them with
// the definitions of the host. Text strings in the rules have one letter written
// as an escape, so that neither the rules nor a program that embeds them is
// taken for what they look for.
package yara

import (
	"embed"
	"io/fs"
)

//go:embed *.yar
var files embed.FS

// FS is the folder of rules: one file per kind of threat.
func FS() fs.FS { return files }
