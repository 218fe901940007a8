package definitions

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/bulwarkhq/bulwark/engine/clamdb"
)

// SourceReport says what came out of a source file.
type SourceReport struct {
	Path   string `json:"path"`
	Format string `json:"format"` // its extension
	// Signatures that are in the set, lines or rules that are Problems, and
	// signatures of kinds that nothing here can use.
	Signatures  int `json:"signatures"`
	Problems    int `json:"problems"`
	Unsupported int `json:"unsupported"`
	// Container describes .cvd, .cld and .cud.
	Container *ContainerReport `json:"container,omitempty"`
}

// ContainerReport describes a container of databases.
type ContainerReport struct {
	Built   time.Time `json:"built"`
	Version int       `json:"version"`
	Builder string    `json:"builder"`
	Signed  bool      `json:"signed"`
	// Signer names who signed the file beside it (.sign); empty: there is none.
	Signer string `json:"signer,omitempty"`
}

// mark is how much there was before a source.
type mark struct{ signatures, problems, unsupported int }

func (c *compiler) now() mark {
	return mark{c.report.Counts.Total() + c.report.Counts.Allow, c.report.Dropped, c.report.Counts.Unsupported}
}

func (c *compiler) beginSource(f sourceFile) {
	c.marks = append(c.marks, c.now())
	c.report.Sources = append(c.report.Sources, SourceReport{
		Path:   f.path,
		Format: strings.ToLower(strings.TrimPrefix(filepath.Ext(f.path), ".")),
	})
}

// finishSources turns the marks into differences.
func (c *compiler) finishSources() {
	for i := range c.report.Sources {
		next := c.now()
		if i+1 < len(c.marks) {
			next = c.marks[i+1]
		}
		s := &c.report.Sources[i]
		s.Signatures = next.signatures - c.marks[i].signatures
		s.Problems = next.problems - c.marks[i].problems
		s.Unsupported = next.unsupported - c.marks[i].unsupported
	}
}

// late adds what came of a source after the others were read.
func (s *SourceReport) late(before, after mark) {
	s.Signatures += after.signatures - before.signatures
	s.Problems += after.problems - before.problems
}

// read reads one source file.
func (c *compiler) read(f sourceFile) error {
	switch {
	case f.yara:
		return c.yaraFile(f)
	case f.container:
		return c.container(f)
	case f.unsupported != "":
		file, err := os.Open(f.path)
		if err != nil {
			return err
		}
		defer file.Close()
		return c.countUnsupported(file, f.path)
	}
	return c.clamFile(f)
}

// countUnsupported counts the signatures of a file that is not used: a .cbc is
// one, the others have one in a line.
func (c *compiler) countUnsupported(r io.Reader, name string) error {
	ext := filepath.Ext(name)
	n := 0
	defer func() {
		if what, ok := clamdb.Unsupported(ext); ok && n > 0 {
			c.lacks(what, n)
		}
		c.report.Counts.Unsupported += n
	}()
	if strings.EqualFold(ext, ".cbc") {
		n = 1
		return nil
	}
	br := bufio.NewReader(&ctxReader{c.ctx, r})
	for {
		line, err := br.ReadSlice('\n')
		for errors.Is(err, bufio.ErrBufferFull) {
			_, err = br.ReadSlice('\n')
		}
		if line = bytes.TrimSpace(line); len(line) > 0 && line[0] != '#' {
			n++
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// detached verifies the detached signature of a container where one stands
// beside it: daily-27473.cvd.sign, or daily.cvd.sign, for daily.cvd.
func detached(r io.ReaderAt, size int64, path string, version int, key *clamdb.Key) (signer string, err error) {
	ext := filepath.Ext(path)
	base, _, _ := strings.Cut(strings.TrimSuffix(filepath.Base(path), ext), "-")
	for _, name := range []string{fmt.Sprintf("%s-%d%s.sign", base, version, ext), filepath.Base(path) + ".sign"} {
		name = filepath.Join(filepath.Dir(path), name)
		f, err := os.Open(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return "", err
		}
		defer f.Close()
		sign, err := io.ReadAll(io.LimitReader(f, clamdb.MaxSign))
		if err != nil {
			return "", err
		}
		signer, err := clamdb.VerifyDetached(r, size, sign, key.DetachedRoots(), time.Now())
		if err != nil {
			return "", fmt.Errorf("detached signature %s: %w", name, err)
		}
		return signer, nil
	}
	return "", nil
}

// container reads a .cvd, .cld or .cud. One that is not what it should be is a
// problem and left out as a whole.
func (c *compiler) container(f sourceFile) error {
	file, err := os.Open(f.path)
	if err != nil {
		return err
	}
	defer file.Close()
	st, err := file.Stat()
	if err != nil {
		return err
	}
	db, err := clamdb.OpenContainer(file, st.Size(), filepath.Ext(f.path), c.key)
	if errors.Is(err, clamdb.ErrContainer) {
		c.problem(0, 0, err.Error())
		return nil
	}
	if err != nil {
		return err
	}
	signer, err := detached(file, st.Size(), f.path, db.Version, c.key)
	if err != nil {
		c.problem(0, 0, err.Error())
		if !errors.Is(err, clamdb.ErrNoDetached) {
			return nil
		}
	}
	c.report.Sources[len(c.report.Sources)-1].Container = &ContainerReport{db.Built, db.Version, db.Builder, db.Signed, signer}
	// Ignore lists first: they say what to leave out of the others.
	for _, ignores := range []bool{true, false} {
		err := db.Members(func(name string, r io.Reader) error {
			format, ok := clamdb.FormatOf(filepath.Ext(name))
			if isIgnore := format == "ign" || format == "ign2"; isIgnore != ignores {
				return nil
			}
			c.inside = name
			defer func() { c.inside = "" }()
			if ok {
				return c.clamText(bufio.NewReaderSize(r, 1<<20), format)
			}
			if _, ok := clamdb.Unsupported(filepath.Ext(name)); ok {
				return c.countUnsupported(r, name)
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("reading its databases: %w", err)
		}
	}
	return nil
}
