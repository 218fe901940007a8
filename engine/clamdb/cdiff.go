package clamdb

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// A .cdiff takes an unpacked database from one version to the next: the text
// "ClamAV-Diff:VERSION:SIZE:", commands compressed with gzip that are SIZE
// bytes long, and ":" with a signature of the SHA-256 of everything before it.
//
//	OPEN file                       the commands up to CLOSE are about it
//	ADD line                        append
//	DEL number prefix               delete that line, which begins so
//	XCHG number prefix line         replace it
//	CLOSE
//	MOVE from to first prefix last prefix   append lines of one to another
//	UNLINK file
//
// Line numbers are those before any change.

const (
	// MaxDiff bounds a .cdiff in bytes, maxCommands what it unpacks to, maxDiffLine a
	// line of a database.
	MaxDiff     = 64 << 20
	maxCommands = 64 << 20
	maxDiffLine = 10 << 20
	// diffTail is where the signature is looked for.
	diffTail = 350
)

// ErrDiff is wrapped by the errors about .cdiff files that are damaged, or not
// for this database.
var ErrDiff = errors.New("not a usable .cdiff")

// VerifyDiff checks the signature of a .cdiff and returns the version that it
// leads to and its commands.
func VerifyDiff(r io.ReaderAt, size int64, key *Key) (version int, commands io.Reader, err error) {
	if size < 16 || size > MaxDiff {
		return 0, nil, fmt.Errorf("%w: %d bytes", ErrDiff, size)
	}
	tail := make([]byte, min(size, diffTail))
	if _, err := r.ReadAt(tail, size-int64(len(tail))); err != nil && !errors.Is(err, io.EOF) {
		return 0, nil, fmt.Errorf("reading a .cdiff: %w", err)
	}
	at := bytes.LastIndexByte(tail, ':')
	if at < 0 {
		return 0, nil, fmt.Errorf("%w: it is not signed", ErrDiff)
	}
	end := size - int64(len(tail)-at)
	sum := sha256.New()
	if _, err := io.Copy(sum, io.NewSectionReader(r, 0, end)); err != nil {
		return 0, nil, fmt.Errorf("reading a .cdiff: %w", err)
	}
	if err := key.VerifyDigest([sha256.Size]byte(sum.Sum(nil)), string(tail[at+1:])); err != nil {
		return 0, nil, fmt.Errorf("%w: %w", ErrDiff, err)
	}
	head := make([]byte, 64)
	n, err := r.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, nil, fmt.Errorf("reading a .cdiff: %w", err)
	}
	f := strings.SplitN(string(head[:n]), ":", 4)
	if len(f) < 4 || f[0] != "ClamAV-Diff" {
		return 0, nil, fmt.Errorf("%w: it does not begin with ClamAV-Diff and two numbers", ErrDiff)
	}
	version, err1 := strconv.Atoi(f[1])
	length, err2 := strconv.ParseInt(f[2], 10, 64)
	if err1 != nil || err2 != nil || version <= 0 || length < 0 || length > maxCommands {
		return 0, nil, fmt.Errorf("%w: version %.20q, %.20q bytes of commands", ErrDiff, f[1], f[2])
	}
	start := int64(len(f[0]) + len(f[1]) + len(f[2]) + 3)
	z, err := gzip.NewReader(bufio.NewReader(io.NewSectionReader(r, start, end-start)))
	if err != nil {
		return 0, nil, fmt.Errorf("%w: %w", ErrDiff, err)
	}
	return version, io.LimitReader(z, length), nil
}

// ApplyDiff carries out the commands of a .cdiff in the folder of an unpacked
// database. After an error the folder is of no use; after success it must be
// verified (VerifyFolder).
func ApplyDiff(dir string, commands io.Reader) error {
	d := &differ{dir: dir}
	in := bufio.NewReaderSize(commands, 64<<10)
	for n := 1; ; n++ {
		line, err := readLine(in)
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			err = d.do(strings.TrimRight(string(line), "\r\n"))
		}
		if err != nil {
			return fmt.Errorf("%w: line %d: %w", ErrDiff, n, err)
		}
	}
	if d.open != "" {
		return fmt.Errorf("%w: %s is not closed", ErrDiff, d.open)
	}
	return nil
}

// readLine reads a line with its end. The last one may have none.
func readLine(r *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case len(line) > maxDiffLine:
			return nil, fmt.Errorf("longer than %d bytes", maxDiffLine)
		case err == nil || errors.Is(err, io.EOF) && len(line) > 0:
			return line, nil
		case !errors.Is(err, bufio.ErrBufferFull):
			return nil, err
		}
	}
}

// differ carries out commands.
type differ struct {
	dir  string
	open string
	add  []string
	edit map[int]edit // by line
}

// edit is a DEL or XCHG.
type edit struct {
	prefix string
	line   string
	delete bool
}

func (d *differ) do(command string) error {
	if command == "" || command[0] == '#' {
		return nil
	}
	name, rest, ok := strings.Cut(command, " ")
	if !ok && name != "CLOSE" {
		return fmt.Errorf("%.40q lacks arguments", command)
	}
	switch name {
	case "OPEN":
		if d.open != "" {
			return fmt.Errorf("%s is still open", d.open)
		}
		if !memberName(rest) {
			return fmt.Errorf("%.64q is no name of a member", rest)
		}
		d.open, d.add, d.edit = rest, nil, map[int]edit{}
		return nil
	case "MOVE", "UNLINK":
		if d.open != "" {
			return fmt.Errorf("%s is still open", d.open)
		}
		if name == "MOVE" {
			return d.move(rest)
		}
		if !memberName(rest) {
			return fmt.Errorf("%.64q is no name of a member", rest)
		}
		return os.Remove(filepath.Join(d.dir, rest))
	case "ADD", "DEL", "XCHG", "CLOSE":
	default:
		return fmt.Errorf("unknown command %.20q", name)
	}
	if d.open == "" {
		return fmt.Errorf("%s without an open file", name)
	}
	switch name {
	case "ADD":
		d.add = append(d.add, rest)
		return nil
	case "CLOSE":
		return d.close()
	}
	number, rest, ok := strings.Cut(rest, " ")
	n, err := strconv.Atoi(number)
	if err != nil || n <= 0 || !ok {
		return fmt.Errorf("%s: %.20q is no line number", name, number)
	}
	if _, twice := d.edit[n]; twice {
		return fmt.Errorf("%s: line %d is changed twice", name, n)
	}
	e := edit{prefix: rest, delete: name == "DEL"}
	if !e.delete {
		if e.prefix, e.line, ok = strings.Cut(rest, " "); !ok {
			return errors.New("XCHG lacks the new line")
		}
	}
	d.edit[n] = e
	return nil
}

// close changes the open file.
func (d *differ) close() error {
	name := d.open
	d.open = ""
	path := filepath.Join(d.dir, name)
	if len(d.edit) > 0 {
		left := len(d.edit)
		err := rewrite(path, func(n int, line []byte, out *bufio.Writer) error {
			e, ok := d.edit[n]
			if !ok {
				_, err := out.Write(line)
				return err
			}
			left--
			if !bytes.HasPrefix(line, []byte(e.prefix)) {
				return fmt.Errorf("%s: line %d does not begin with %.40q", name, n, e.prefix)
			}
			if e.delete {
				return nil
			}
			_, err := out.WriteString(e.line + "\n")
			return err
		})
		if err != nil {
			return err
		}
		if left > 0 {
			return fmt.Errorf("%s: %d changes are beyond its end", name, left)
		}
	}
	if len(d.add) == 0 {
		return nil
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	out := bufio.NewWriter(f)
	for _, line := range d.add {
		out.WriteString(line + "\n") //nolint:errcheck // Flush returns the error
	}
	return errors.Join(out.Flush(), f.Close())
}

// move appends lines of one file to another and removes them.
func (d *differ) move(args string) error {
	f := strings.Split(args, " ")
	if len(f) != 6 || !memberName(f[0]) || !memberName(f[1]) || f[0] == f[1] {
		return errors.New("MOVE needs two files, and two line numbers with the beginnings of the lines")
	}
	first, err1 := strconv.Atoi(f[2])
	last, err2 := strconv.Atoi(f[4])
	if err1 != nil || err2 != nil || first <= 0 || last < first {
		return fmt.Errorf("MOVE: lines %.20q to %.20q", f[2], f[4])
	}
	to, err := os.OpenFile(filepath.Join(d.dir, f[1]), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer to.Close()
	moved := bufio.NewWriter(to)
	done := false
	err = rewrite(filepath.Join(d.dir, f[0]), func(n int, line []byte, out *bufio.Writer) error {
		if n < first || n > last {
			_, err := out.Write(line)
			return err
		}
		if n == first && !bytes.HasPrefix(line, []byte(f[3])) || n == last && !bytes.HasPrefix(line, []byte(f[5])) {
			return fmt.Errorf("MOVE: line %d of %s is another one", n, f[0])
		}
		done = done || n == last
		_, err := moved.Write(line)
		return err
	})
	if err = errors.Join(err, moved.Flush(), to.Close()); err == nil && !done {
		err = fmt.Errorf("MOVE: %s ends before line %d", f[0], last)
	}
	return err
}

// rewrite replaces a file by what change writes for every line.
func rewrite(path string, change func(n int, line []byte, out *bufio.Writer) error) (err error) {
	in, err := os.Open(path)
	if err != nil {
		return err
	}
	defer in.Close()
	tmp, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	defer func() {
		if err = errors.Join(err, tmp.Close()); err == nil {
			err = errors.Join(os.Chmod(tmp.Name(), 0o644), os.Rename(tmp.Name(), path))
		}
		if err != nil {
			os.Remove(tmp.Name())
		}
	}()
	r, out := bufio.NewReaderSize(in, 256<<10), bufio.NewWriterSize(tmp, 256<<10)
	for n := 1; ; n++ {
		line, err := readLine(r)
		if errors.Is(err, io.EOF) {
			return out.Flush()
		}
		if err != nil {
			return fmt.Errorf("%s: line %d: %w", filepath.Base(path), n, err)
		}
		if err := change(n, line, out); err != nil {
			return err
		}
	}
}
