// Package openapi holds the OpenAPI 3.1 description of the portal's REST API.
package openapi

import (
	_ "embed"
	"slices"
)

//go:embed portal.json
var document []byte

// Document returns the description, JSON.
func Document() []byte { return slices.Clone(document) }
