package definitions

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/bulwarkhq/bulwark/engine/clamdb"
	"github.com/bulwarkhq/bulwark/engine/yara"
)

// IsCompiled reports whether a file begins as compiled definitions do.
func IsCompiled(path string) (bool, error) {
	st, err := os.Stat(path)
	if err != nil || !st.Mode().IsRegular() {
		return false, err
	}
	f, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer f.Close()
	b := make([]byte, len(magic))
	n, err := io.ReadFull(f, b)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return false, err
	}
	return string(b[:n]) == magic, nil
}

// maxFound bounds what Lookup returns.
const maxFound = 100

// Found is a signature of the sources, as it stands there.
type Found struct {
	File string `json:"file"`
	Line int    `json:"line"`
	// Format is the extension of its file, Text the line (empty for YARA), Words
	// what it says.
	Format string   `json:"format"`
	Text   string   `json:"text,omitempty"`
	Words  []string `json:"words"`
}

// Lookup finds the signatures of that name in the sources, at most 100.
func Lookup(ctx context.Context, sources []Source, name string, key *clamdb.Key) ([]Found, error) {
	files, _, err := find(ctx, sources)
	if err != nil {
		return nil, err
	}
	if key == nil {
		key = clamdb.PublishedKey()
	}
	l := &lookup{ctx: ctx, name: name, key: key}
	for _, f := range files {
		if err := l.file(f); err != nil {
			return nil, fmt.Errorf("definitions source %s: %w", f.path, err)
		}
	}
	return l.found, nil
}

type lookup struct {
	ctx   context.Context
	name  string
	key   *clamdb.Key
	found []Found
}

func (l *lookup) file(f sourceFile) error {
	file, err := os.Open(f.path)
	if err != nil {
		return err
	}
	defer file.Close()
	switch {
	case f.yara:
		return l.yara(file, f.path)
	case f.container:
		st, err := file.Stat()
		if err != nil {
			return err
		}
		c, err := clamdb.OpenContainer(file, st.Size(), filepath.Ext(f.path), l.key)
		if err != nil {
			return err
		}
		return c.Members(func(name string, r io.Reader) error {
			if format, ok := clamdb.FormatOf(filepath.Ext(name)); ok {
				return l.lines(r, f.path+"/"+name, format)
			}
			return nil
		})
	case f.unsupported != "":
		return nil
	}
	return l.lines(file, f.path, f.clam)
}

func (l *lookup) lines(r io.Reader, path string, format clamdb.Format) error {
	_, err := clamdb.Read(&ctxReader{l.ctx, bufio.NewReaderSize(r, 1<<20)}, format, func(line int, text []byte, rec clamdb.Record) {
		if rec.Name() != l.name || len(l.found) >= maxFound {
			return
		}
		words, err := clamdb.Explain(string(text), format)
		if err == nil {
			l.found = append(l.found, Found{File: path, Line: line, Format: string(format), Text: string(text), Words: words})
		}
	}, func(clamdb.Problem) {})
	return err
}

func (l *lookup) yara(r io.Reader, path string) error {
	src, err := io.ReadAll(io.LimitReader(&ctxReader{l.ctx, r}, maxYaraFile))
	if err != nil {
		return err
	}
	file, _ := yara.Parse(src)
	for _, rule := range file.Rules {
		if rule.Name != l.name || len(l.found) >= maxFound {
			continue
		}
		words := []string{"Name: " + rule.Name, "Kind: YARA rule"}
		for _, m := range []string{"threat", "type", "description", "author", "reference"} {
			if v := rule.MetaString(m); v != "" {
				words = append(words, strings.ToUpper(m[:1])+m[1:]+": "+v)
			}
		}
		words = append(words, fmt.Sprintf("Strings: %d", len(rule.Strings)))
		l.found = append(l.found, Found{File: path, Line: rule.Pos.Line, Format: "yar", Words: words})
	}
	return nil
}
