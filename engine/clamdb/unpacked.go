package clamdb

import (
	"archive/tar"
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
)

// An unpacked database is a folder with the members of a container. Databases
// are updated in that form (ApplyDiff), verified (VerifyFolder), and packed
// again as a .cld (Pack), which is what ClamAV's own updater makes too.

// maxMember bounds one member in bytes.
const maxMember = 4 << 30

// memberName reports whether a member may have that name: letters, digits and
// dots, so that it can be nothing but a file in the folder.
func memberName(name string) bool {
	return name != "" && len(name) <= 64 && name[0] != '.' && !strings.Contains(name, "..") &&
		!strings.ContainsFunc(name, func(r rune) bool {
			return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.')
		})
}

// Unpack writes the members of a container into an empty folder.
func (c *Container) Unpack(dir string) error {
	left := int64(maxUnpacked)
	return c.members(func(name string, r io.Reader) error {
		if !memberName(name) {
			return fmt.Errorf("%w: member %.64q has a name that is not allowed", ErrContainer, name)
		}
		f, err := os.OpenFile(filepath.Join(dir, name), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
		if err != nil {
			return fmt.Errorf("unpacking %s: %w", name, err)
		}
		n, err := io.Copy(f, io.LimitReader(r, min(maxMember, left)+1))
		if left -= n; n > maxMember || left < 0 {
			err = errors.Join(err, fmt.Errorf("%w: it unpacks to too much", ErrContainer))
		}
		return errors.Join(err, f.Close())
	})
}

// infoFile is what a .info file says.
type infoFile struct {
	Header
	sums map[string]string // member -> SHA-256
	size map[string]int64
}

// readInfo reads and verifies a .info file: the header of the database, a line
// "name:size:sha256" for each member, and a line "DSIG:signature" over all that
// comes before it.
func readInfo(text []byte, key *Key) (*infoFile, error) {
	at := bytes.LastIndex(text, []byte("\nDSIG:"))
	if at < 0 {
		return nil, fmt.Errorf("%w: the .info file is not signed", ErrContainer)
	}
	body, signature := text[:at+1], strings.TrimSpace(string(text[at+len("\nDSIG:"):]))
	if err := key.VerifyDigest(sha256.Sum256(body), signature); err != nil {
		return nil, fmt.Errorf(".info file: %w", err)
	}
	i := &infoFile{sums: map[string]string{}, size: map[string]int64{}}
	first := true
	for line := range strings.Lines(string(body)) {
		line = strings.TrimRight(line, "\r\n")
		if first {
			var err error
			if i.Header, err = ParseHeader([]byte(line)); err != nil {
				return nil, fmt.Errorf(".info file: %w", err)
			}
			first = false
			continue
		}
		f := strings.Split(line, ":")
		if len(f) != 3 || len(f[2]) != 2*sha256.Size || !memberName(f[0]) {
			return nil, fmt.Errorf("%w: .info file: %.80q", ErrContainer, line)
		}
		n, err := strconv.ParseInt(f[1], 10, 64)
		if err != nil || n < 0 || len(i.sums) >= maxMembers {
			return nil, fmt.Errorf("%w: .info file: %.80q", ErrContainer, line)
		}
		i.sums[f[0]], i.size[f[0]] = strings.ToLower(f[2]), n
	}
	return i, nil
}

// VerifyFolder verifies an unpacked database of that name (daily, main): its
// .info file is signed, every member that it names is there as it says, and
// nothing else is there but texts without signatures.
func VerifyFolder(dir, name string, key *Key) (Header, error) {
	text, err := readBounded(filepath.Join(dir, name+".info"), maxInfo)
	if err != nil {
		return Header{}, fmt.Errorf("%w: %w", ErrContainer, err)
	}
	info, err := readInfo(text, key)
	if err != nil {
		return Header{}, err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return Header{}, fmt.Errorf("unpacked database: %w", err)
	}
	present := 0
	for _, e := range entries {
		want, named := info.sums[e.Name()]
		if !named {
			if e.Name() == name+".info" || e.Name() == "COPYING" {
				continue
			}
			return Header{}, fmt.Errorf("%w: %s is not named in the .info file", ErrContainer, e.Name())
		}
		present++
		sum, n, err := sumFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return Header{}, err
		}
		if sum != want || n != info.size[e.Name()] {
			return Header{}, fmt.Errorf("%w: %s has %d bytes and the SHA-256 %s, the .info file says %d and %s", ErrContainer, e.Name(), n, sum, info.size[e.Name()], want)
		}
	}
	if present != len(info.sums) {
		return Header{}, fmt.Errorf("%w: %d of its %d members are there", ErrContainer, present, len(info.sums))
	}
	return info.Header, nil
}

func readBounded(path string, most int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, most+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > most {
		return nil, fmt.Errorf("%s has more than %d bytes", filepath.Base(path), most)
	}
	return b, nil
}

func sumFile(path string) (sum string, size int64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return "", 0, fmt.Errorf("unpacked database: %w", err)
	}
	defer f.Close()
	h := sha256.New()
	if size, err = io.Copy(h, f); err != nil {
		return "", 0, fmt.Errorf("unpacked database: %w", err)
	}
	return hex.EncodeToString(h.Sum(nil)), size, nil
}

// Pack writes an unpacked database as a .cld: a header without a signature, and
// the members, not compressed. It is what was verified before, for the host
// that verified it.
func Pack(w io.Writer, dir string, h Header) error {
	head := fmt.Sprintf("ClamAV-VDB:%s:%d:%d:%d:X:X:%s:%d", h.Built.UTC().Format("02 Jan 2006 15-04 -0700"), h.Version, h.Signatures, h.Level, h.Builder, h.Built.Unix())
	if len(head) > headerBytes || strings.ContainsAny(h.Builder, ":\n") {
		return fmt.Errorf("%w: its header is too long", ErrContainer)
	}
	out := bufio.NewWriterSize(w, 256<<10)
	fmt.Fprintf(out, "%-*s", headerBytes, head)
	t := tar.NewWriter(out)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("packing a database: %w", err)
	}
	// The .info file first: it has the sums of what follows.
	for _, info := range []bool{true, false} {
		for _, e := range entries {
			if (path.Ext(e.Name()) == ".info") != info {
				continue
			}
			if err := packMember(t, filepath.Join(dir, e.Name()), h); err != nil {
				return fmt.Errorf("packing %s: %w", e.Name(), err)
			}
		}
	}
	if err := errors.Join(t.Close(), out.Flush()); err != nil {
		return fmt.Errorf("packing a database: %w", err)
	}
	return nil
}

func packMember(t *tar.Writer, path string, h Header) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	err = t.WriteHeader(&tar.Header{Name: filepath.Base(path), Mode: 0o644, Size: st.Size(), ModTime: h.Built, Format: tar.FormatUSTAR})
	if err != nil {
		return err
	}
	_, err = io.Copy(t, f)
	return err
}
