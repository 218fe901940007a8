// Package owner tells which package of the distribution a file belongs to, and
// whether it still is what the package brought: dpkg's database is read, rpm's
// is asked through the program rpm, since it has had four formats. It starts a
// program and is therefore for the command line, not for the daemon.
package owner

import (
	"bytes"
	"context"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// The states of a file.
const (
	Unmodified = "unmodified"
	Modified   = "modified"
	// Unknown: the package has no checksum of the file, or it cannot be read.
	Unknown = "unknown"
)

// Owner is the package that a file belongs to.
type Owner struct {
	// Manager is "dpkg" or "rpm".
	Manager string `json:"manager"`
	Package string `json:"package"`
	Version string `json:"version"`
	// Configuration: administrators may change it.
	Configuration bool   `json:"configuration"`
	State         string `json:"state"`
	// Expected is the package's checksum, Found the file's ("md5:...").
	Expected string `json:"expected,omitempty"`
	Found    string `json:"found,omitempty"`
}

// ErrNone means that no package owns the file.
var ErrNone = errors.New("no package owns the file")

// Bounds: of one file of a database, of the number of packages, of what rpm
// says and how long it may take, and of a file that is hashed.
const (
	maxDatabaseFile = 64 << 20
	maxPackages     = 100_000
	maxAnswer       = 64 << 20
	rpmTimeout      = 20 * time.Second
	maxHashed       = 4 << 30
)

// Finder looks files up.
type Finder struct {
	// Root is the root of the system whose databases are read; "/" when empty.
	Root string
	// RPM is the program to ask; the usual places when empty.
	RPM string
}

// Find returns the package of the file at name, an absolute path with links
// resolved. ErrNone when there is none.
func (f Finder) Find(ctx context.Context, name string) (Owner, error) {
	if !path.IsAbs(name) || strings.ContainsAny(name, "\n\x00") {
		return Owner{}, ErrNone // package databases have no such names
	}
	o, err := f.dpkg(name)
	if errors.Is(err, ErrNone) {
		o, err = f.rpm(ctx, name)
	}
	return o, err
}

func (f Finder) root(elem ...string) string {
	return filepath.Join(append([]string{"/" + f.Root}, elem...)...)
}

// names are the names under which a package may have listed a file: on systems
// with a merged /usr it may be without that.
func names(name string) []string {
	out := []string{name}
	for _, dir := range []string{"bin/", "sbin/", "lib/", "lib32/", "lib64/", "libx32/"} {
		if rest, ok := strings.CutPrefix(name, "/usr/"+dir); ok {
			out = append(out, "/"+dir+rest)
		}
	}
	return out
}

func read(name string) ([]byte, error) {
	r, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = r.Close() }() // read-only
	data, err := io.ReadAll(io.LimitReader(r, maxDatabaseFile+1))
	if err == nil && len(data) > maxDatabaseFile {
		err = fmt.Errorf("%s: bigger than %d bytes", name, maxDatabaseFile)
	}
	return data, err
}

func (f Finder) dpkg(name string) (Owner, error) {
	info := f.root("var/lib/dpkg/info")
	entries, err := os.ReadDir(info)
	if errors.Is(err, os.ErrNotExist) {
		return Owner{}, ErrNone
	}
	if err != nil {
		return Owner{}, fmt.Errorf("dpkg's database: %w", err)
	}
	wanted := names(name)
	diverted := f.diverted(wanted)
	for i, entry := range entries {
		pkg, ok := strings.CutSuffix(entry.Name(), ".list")
		if !ok || i > maxPackages {
			continue
		}
		list, err := read(filepath.Join(info, entry.Name()))
		if err != nil {
			continue // one package's list; others may answer
		}
		list = append([]byte{'\n'}, list...)
		for _, w := range wanted {
			plain, _, _ := strings.Cut(pkg, ":")
			if by, ok := diverted[w]; ok && by != plain {
				continue // that package's file was moved away for another's
			}
			if bytes.Contains(list, []byte("\n"+w+"\n")) {
				return f.dpkgState(pkg, w, name), nil
			}
		}
	}
	return Owner{}, ErrNone
}

// diverted are the names among wanted that dpkg-divert gave to one package.
func (f Finder) diverted(wanted []string) map[string]string {
	data, err := read(f.root("var/lib/dpkg/diversions"))
	if err != nil {
		return nil
	}
	out := map[string]string{}
	lines := strings.Split(string(data), "\n")
	for i := 0; i+2 < len(lines); i += 3 {
		for _, w := range wanted {
			if lines[i] == w {
				out[w] = lines[i+2]
			}
		}
	}
	return out
}

func (f Finder) dpkgState(pkg, listed, name string) Owner {
	o := Owner{Manager: "dpkg", Package: pkg, State: Unknown}
	plain, _, _ := strings.Cut(pkg, ":")
	status, err := read(f.root("var/lib/dpkg/status"))
	if err == nil {
		o.Version, o.Expected = stanza(string(status), plain, listed)
		o.Configuration = o.Expected != ""
	}
	if o.Expected == "" {
		sums, err := read(f.root("var/lib/dpkg/info", pkg+".md5sums"))
		if err == nil {
			o.Expected = sumOf(string(sums), listed)
		}
	}
	if o.Expected == "" {
		return o
	}
	o.Expected = "md5:" + o.Expected
	o.compare(md5.New(), "md5:", f.root(name))
	return o
}

// stanza finds a package in dpkg's status: its version, and the checksum of the
// file where it is one of its configuration files.
func stanza(status, pkg, file string) (version, sum string) {
	for s := range strings.SplitSeq(status, "\n\n") {
		if !strings.HasPrefix(s, "Package: "+pkg+"\n") {
			continue
		}
		for line := range strings.SplitSeq(s, "\n") {
			if v, ok := strings.CutPrefix(line, "Version: "); ok {
				version = v
			}
			if f := strings.Fields(line); strings.HasPrefix(line, " /") && len(f) >= 2 && f[0] == file && isHex(f[1]) {
				sum = f[1]
			}
		}
		return version, sum
	}
	return "", ""
}

// sumOf finds a file in the lines "<md5>  <path without the first slash>".
func sumOf(sums, file string) string {
	for line := range strings.SplitSeq(sums, "\n") {
		sum, name, ok := strings.Cut(line, "  ")
		if ok && "/"+name == file && isHex(sum) {
			return sum
		}
	}
	return ""
}

func isHex(s string) bool {
	_, err := hex.DecodeString(s)
	return err == nil && s != ""
}

// compare hashes the file and sets the state.
func (o *Owner) compare(h hash.Hash, prefix, name string) {
	r, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return
	}
	defer func() { _ = r.Close() }() // read-only
	if st, err := r.Stat(); err != nil || !st.Mode().IsRegular() || st.Size() > maxHashed {
		return
	}
	if _, err := io.Copy(h, io.LimitReader(r, maxHashed)); err != nil {
		return
	}
	o.Found = prefix + hex.EncodeToString(h.Sum(nil))
	o.State = Modified
	if o.Found == o.Expected {
		o.State = Unmodified
	}
}

// rpmFormat makes one line for each file of a package.
const rpmFormat = `[%{=NAME}\t%{=VERSION}-%{=RELEASE}\t%{=FILEDIGESTALGO}\t%{FILEFLAGS}\t%{FILEDIGESTS}\t%{FILENAMES}\n]`

func (f Finder) rpm(ctx context.Context, name string) (Owner, error) {
	program := f.RPM
	for _, usual := range []string{"/usr/bin/rpm", "/bin/rpm"} {
		if _, err := os.Stat(usual); program == "" && err == nil {
			program = usual
		}
	}
	// Without a database rpm would make one.
	found := false
	for _, db := range []string{"var/lib/rpm", "usr/lib/sysimage/rpm"} {
		files, err := os.ReadDir(f.root(db))
		found = found || err == nil && len(files) > 0
	}
	if program == "" || !found {
		return Owner{}, ErrNone
	}
	ctx, cancel := context.WithTimeout(ctx, rpmTimeout)
	defer cancel()
	for _, n := range names(name) {
		cmd := exec.CommandContext(ctx, program, "--root", f.root(), "-q", "--qf", rpmFormat, "-f", "--", n)
		cmd.Env = []string{"LC_ALL=C", "PATH=/usr/bin:/bin"}
		var out limited
		cmd.Stdout = &out
		if err := cmd.Run(); err != nil {
			if ctx.Err() != nil {
				return Owner{}, fmt.Errorf("rpm: %w", ctx.Err())
			}
			continue // it says so when nobody owns the file
		}
		if o, ok := rpmAnswer(out.String(), n); ok {
			if h, prefix := digest(o.Expected); h != nil {
				o.compare(h, prefix, f.root(name))
			}
			return o, nil
		}
	}
	return Owner{}, ErrNone
}

// limited keeps the beginning of what is written to it.
type limited struct{ bytes.Buffer }

func (l *limited) Write(p []byte) (int, error) {
	l.Buffer.Write(p[:min(len(p), max(0, maxAnswer-l.Len()))])
	return len(p), nil
}

// rpmConfig is RPMFILE_CONFIG.
const rpmConfig = 1

// rpmAnswer reads rpm's lines; Expected is "<algorithm>:<hex>", or empty.
func rpmAnswer(text, name string) (Owner, bool) {
	for line := range strings.SplitSeq(text, "\n") {
		f := strings.SplitN(line, "\t", 6)
		if len(f) != 6 || f[5] != name {
			continue
		}
		o := Owner{Manager: "rpm", Package: f[0], Version: f[1], State: Unknown}
		flags := 0
		if _, err := fmt.Sscan(f[3], &flags); err == nil {
			o.Configuration = flags&rpmConfig != 0
		}
		algorithm, known := map[string]string{"(none)": "md5", "1": "md5", "2": "sha1", "8": "sha256", "9": "sha384", "10": "sha512"}[f[2]]
		if known && isHex(f[4]) {
			o.Expected = algorithm + ":" + f[4]
		}
		return o, true
	}
	return Owner{}, false
}

// digest is the hash of a checksum with its algorithm; nil for others.
func digest(expected string) (hash.Hash, string) {
	algorithm, _, _ := strings.Cut(expected, ":")
	switch algorithm {
	case "md5":
		return md5.New(), "md5:"
	case "sha1":
		return sha1.New(), "sha1:"
	case "sha256":
		return sha256.New(), "sha256:"
	case "sha384":
		return sha512.New384(), "sha384:"
	case "sha512":
		return sha512.New(), "sha512:"
	}
	return nil, ""
}
