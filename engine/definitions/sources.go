package definitions

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/bulwarkhq/bulwark/engine/clamdb"
)

// Source is a file, or a folder that is read with everything below it.
type Source struct {
	Path string
}

// sourceFile is one file to read.
type sourceFile struct {
	path string
	name string // as verdicts call it
	yara bool
	clam clamdb.Format
	// container is a .cvd, .cld or .cud; unsupported says why the signatures of
	// the file are not used.
	container   bool
	unsupported string
}

// find lists the files of the sources in order; those with unknown extensions
// are returned apart. Names are base names, made longer where two sources
// share one.
func find(ctx context.Context, sources []Source) (files []sourceFile, unknown []string, err error) {
	for _, s := range sources {
		st, err := os.Stat(s.Path)
		if err != nil {
			return nil, nil, fmt.Errorf("definitions source %s: %w", s.Path, err)
		}
		if !st.IsDir() {
			if !st.Mode().IsRegular() {
				return nil, nil, fmt.Errorf("definitions source %s: not a file or folder", s.Path)
			}
			if f, ok := classify(s.Path); ok {
				files = append(files, f)
			} else if !clamdb.Administrative(filepath.Ext(s.Path)) {
				unknown = append(unknown, s.Path)
			}
			continue
		}
		err = filepath.WalkDir(s.Path, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return fmt.Errorf("definitions source %s: %w", path, err)
			}
			if err := ctx.Err(); err != nil {
				return err
			}
			if d.IsDir() {
				return nil
			}
			// Links to files count; anything else is no source.
			if st, err := os.Stat(path); err != nil || !st.Mode().IsRegular() {
				return nil //nolint:nilerr // a broken link
			}
			f, ok := classify(path)
			if !ok {
				if !clamdb.Administrative(filepath.Ext(path)) {
					unknown = append(unknown, path)
				}
				return nil
			}
			if rel, err := filepath.Rel(s.Path, path); err == nil {
				f.name = filepath.ToSlash(rel)
			}
			files = append(files, f)
			return nil
		})
		if err != nil {
			return nil, nil, err
		}
	}
	// Ignore lists first: they say what to leave out of the others.
	slices.SortStableFunc(files, func(a, b sourceFile) int { return ignoreRank(a) - ignoreRank(b) })
	return files, unknown, nil
}

func ignoreRank(f sourceFile) int {
	if f.clam == "ign" || f.clam == "ign2" {
		return 0
	}
	return 1
}

func classify(path string) (sourceFile, bool) {
	f := sourceFile{path: path, name: filepath.Base(path)}
	ext := strings.ToLower(filepath.Ext(path))
	switch ext {
	case ".yar", ".yara", ".rule":
		f.yara = true
		return f, true
	}
	if clamdb.IsContainer(ext) {
		f.container = true
		return f, true
	}
	var ok bool
	if f.unsupported, ok = clamdb.Unsupported(ext); ok {
		return f, true
	}
	f.clam, ok = clamdb.FormatOf(ext)
	return f, ok
}
