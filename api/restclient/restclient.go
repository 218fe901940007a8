// Package restclient is a typed client of the portal's REST API.
//
// It is generated from the OpenAPI document of the portal's REST API
// (api/openapi, docs/portal/rest.md): a method for each operation and a type for
// each object. New makes a client that has the token, waits when the portal is asked
// too often and returns refusals as errors. Quote, for $filter, is in api/rest.
//
// Methods that end in WithResponse decode the answer; those without it return it
// as it is, which is the way to write a file (ExportQuery, GetPackage) to a disk.
package restclient

import (
	"crypto/x509"
	"errors"
	"fmt"
	"iter"
	"mime"
	"net/http"

	"github.com/bulwarkhq/bulwark/api/rest"
)

//go:generate sh ./generate.sh

// Error is a refusal of the portal: what each method returns unless the portal did
// what it was asked.
type Error = rest.Error

// New returns a client of the portal at address, https://host[:port]. roots are the
// authorities that may speak for it; nil for those of the system.
func New(address, token string, roots *x509.CertPool) (*ClientWithResponses, error) {
	c, err := rest.New(address, token, roots)
	if err != nil {
		return nil, err
	}
	return NewClientWithResponses(c.Address(), WithHTTPClient(sender{c}))
}

// sender is the transport of the generated code.
type sender struct{ c *rest.Client }

// Do returns no answer that the generated code would take for an empty one because
// it is of a form that no operation has.
func (s sender) Do(req *http.Request) (*http.Response, error) {
	resp, err := s.c.Send(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusNoContent {
		return resp, nil
	}
	form := resp.Header.Get("Content-Type")
	switch kind, _, _ := mime.ParseMediaType(form); kind {
	case "application/json", "application/octet-stream", "application/vnd.apache.parquet":
		return resp, nil
	}
	return nil, errors.Join(fmt.Errorf("%s %s: the answer is %q, which no portal sends: does something answer in its place?", req.Method, req.URL.Path, form), resp.Body.Close())
}

// Pages returns the elements of a list, at most limit of them, asking page by page:
// page gives $top and $skip to the operation and returns its elements and the link
// to the next page, which is nil on the last. An error of page is the last that is
// returned.
func Pages[T any](limit int, page func(top, skip *int) (values []T, next *string, err error)) iter.Seq2[T, error] {
	return rest.Pages(limit, func(top, skip int) ([]T, bool, error) {
		values, next, err := page(&top, &skip)
		return values, next != nil, err
	})
}
