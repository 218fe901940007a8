package clickhouse

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"mime/multipart"
	"net/url"
)

// mostListed is how many texts stand in a statement; more are sent beside it, as a
// set: servers bound how long and how deep a statement is that they parse.
const mostListed = 1000

// set is a table of one column of texts, which goes with a statement.
type set struct {
	name  string
	texts []string
}

// sets are those of a statement while it is being written.
type sets struct {
	// in is the operator with which a statement looks into one.
	in   string
	list []set
}

// add makes a set and returns its name.
func (s *sets) add(texts []string) string {
	name := fmt.Sprintf("set_%d", len(s.list))
	s.list = append(s.list, set{name, texts})
	return name
}

// formOf is the body of a request with a statement and its sets, and the body's
// type. What the sets are is told by parameters.
func formOf(statement string, list []set, parameters url.Values) (body []byte, kind string, err error) {
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	if err := w.WriteField("query", statement); err != nil {
		return nil, "", err
	}
	for _, s := range list {
		parameters.Set(s.name+"_structure", "value String")
		parameters.Set(s.name+"_format", "RowBinary")
		part, err := w.CreateFormFile(s.name, s.name)
		if err != nil {
			return nil, "", err
		}
		var rows []byte
		for _, text := range s.texts {
			rows = append(binary.AppendUvarint(rows, uint64(len(text))), text...)
		}
		if _, err := part.Write(rows); err != nil {
			return nil, "", err
		}
	}
	if err := w.Close(); err != nil {
		return nil, "", err
	}
	return b.Bytes(), w.FormDataContentType(), nil
}
