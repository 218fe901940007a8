// Package content is data that is shipped with the programs and that changes
// more often than they do.
package content

import _ "embed"

//go:embed kernels.json
var kernels []byte

// Kernels is the list of kernels that are known to be bad for real-time
// protection; agent/onaccess/kernels reads it.
func Kernels() []byte { return kernels }
