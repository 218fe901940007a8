package repository

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"regexp"
	"strconv"
	"strings"
)

// Tags of rpm's main header.
const (
	tagName         = 1000
	tagVersion      = 1001
	tagRelease      = 1002
	tagEpoch        = 1003
	tagSummary      = 1004
	tagDescription  = 1005
	tagBuildTime    = 1006
	tagBuildHost    = 1007
	tagSize         = 1009
	tagVendor       = 1011
	tagLicense      = 1014
	tagPackager     = 1015
	tagGroup        = 1016
	tagURL          = 1020
	tagArch         = 1022
	tagFileModes    = 1030
	tagFileFlags    = 1037
	tagSourceRPM    = 1044
	tagArchiveSize  = 1046
	tagDirIndexes   = 1116
	tagBaseNames    = 1117
	tagDirNames     = 1118
	sigPayloadSize  = 1007
	sigHeaderRSA    = 268
	sigHeaderDSA    = 267
	sigPackageGPG   = 1005
	sigPackagePGP   = 1002
	flagGhost       = 1 << 6
	maxRPMSignature = 1 << 20
)

// dependencyTags are the tags of names, flags and versions of the relations.
var dependencyTags = []struct {
	element              string
	name, flags, version uint32
}{
	{"provides", 1047, 1112, 1113},
	{"requires", 1049, 1048, 1050},
	{"conflicts", 1054, 1053, 1055},
	{"obsoletes", 1090, 1114, 1115},
}

var (
	rpmName    = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9+._-]{1,99}$`)
	rpmVersion = regexp.MustCompile(`^[A-Za-z0-9._+~^]{1,100}$`)
	rpmArch    = regexp.MustCompile(`^(?:x86_64|aarch64|noarch)$`)
)

// rpmFile is an rpm and where its parts are.
type rpmFile struct {
	signatures, main *rpmHeader
	size             int64
}

// readRPM reads the headers of an rpm of that size.
func readRPM(r io.ReaderAt, size int64) (*rpmFile, error) {
	wrong := func(err error) (*rpmFile, error) { return nil, fmt.Errorf("not an rpm that can be used: %w", err) }
	var lead [leadSize]byte
	if _, err := r.ReadAt(lead[:], 0); err != nil || !bytes.Equal(lead[:5], []byte{0xed, 0xab, 0xee, 0xdb, 3}) {
		return wrong(errors.New("it does not begin as one"))
	}
	sig, err := readHeader(r, leadSize)
	if err != nil {
		return wrong(fmt.Errorf("signature %w", err))
	}
	if sig.end-sig.begin > maxRPMSignature {
		return wrong(fmt.Errorf("its signatures have %d bytes", sig.end-sig.begin))
	}
	h, err := readHeader(r, (sig.end+7)/8*8)
	if err != nil {
		return wrong(err)
	}
	for _, want := range []struct {
		name string
		tag  uint32
		form *regexp.Regexp
	}{{"name", tagName, rpmName}, {"version", tagVersion, rpmVersion}, {"release", tagRelease, rpmVersion}, {"architecture", tagArch, rpmArch}} {
		if v := h.text(want.tag); !want.form.MatchString(v) {
			return wrong(fmt.Errorf("its %s is %.40q, want %s", want.name, v, want.form))
		}
	}
	return &rpmFile{signatures: sig, main: h, size: size}, nil
}

// version is version-release, with the epoch before when there is one.
func (f *rpmFile) version() string {
	v := f.main.text(tagVersion) + "-" + f.main.text(tagRelease)
	if e := f.main.number(tagEpoch); e != 0 {
		v = strconv.FormatInt(e, 10) + ":" + v
	}
	return v
}

// fileName is the name that rpm itself would give.
func (f *rpmFile) fileName() string {
	h := f.main
	return h.text(tagName) + "-" + h.text(tagVersion) + "-" + h.text(tagRelease) + "." + h.text(tagArch) + ".rpm"
}

// sign writes the rpm to w with signatures of the key in place of any others:
// one of the main header, which covers the digest of the payload, and the old
// one of header and payload, which is all that rpm of RHEL 7 checks of the
// latter.
func (f *rpmFile) sign(w io.Writer, r io.ReaderAt, k *Key) error {
	rest := func() io.Reader { return io.NewSectionReader(r, f.main.begin, f.size-f.main.begin) }
	header, err := k.detached(io.NewSectionReader(r, f.main.begin, f.main.end-f.main.begin), false)
	if err != nil {
		return err
	}
	whole, err := k.detached(rest(), false)
	if err != nil {
		return err
	}
	tags := maps.Clone(f.signatures.tags)
	for _, tag := range []uint32{regionSignatures, sigHeaderDSA, sigPackageGPG} {
		delete(tags, tag)
	}
	binaryEntry := func(b []byte) headerEntry { return headerEntry{typeBinary, uint32(len(b)), b} }
	tags[sigHeaderRSA], tags[sigPackagePGP] = binaryEntry(header), binaryEntry(whole)
	if _, err := io.Copy(w, io.NewSectionReader(r, 0, leadSize)); err != nil {
		return fmt.Errorf("writing the signed rpm: %w", err)
	}
	if _, err := w.Write(encodeSignatures(tags)); err != nil {
		return fmt.Errorf("writing the signed rpm: %w", err)
	}
	if _, err := io.Copy(w, rest()); err != nil {
		return fmt.Errorf("writing the signed rpm: %w", err)
	}
	return nil
}

// relation is a line of provides, requires, conflicts or obsoletes.
type relation struct {
	name, flags, epoch, version, release string
	pre                                  bool
}

// relations returns those of one kind, without what rpm itself provides.
func (f *rpmFile) relations(name, flags, version uint32) []relation {
	names, bits, versions := f.main.texts(name), f.main.numbers(flags), f.main.texts(version)
	var out []relation
	seen := map[relation]bool{}
	for i, n := range names {
		if i >= len(bits) || i >= len(versions) || strings.HasPrefix(n, "rpmlib(") {
			continue
		}
		d := relation{name: n, flags: map[int64]string{2: "LT", 4: "GT", 8: "EQ", 10: "LE", 12: "GE"}[bits[i]&14]}
		if d.flags != "" {
			v := versions[i]
			d.epoch = "0"
			if e, after, ok := strings.Cut(v, ":"); ok {
				d.epoch, v = e, after
			}
			d.version, d.release, _ = strings.Cut(v, "-")
		}
		// Prerequisites: needed before the scripts run.
		d.pre = bits[i]&(1<<6|1<<9|1<<10) != 0
		if !seen[d] {
			seen[d] = true
			out = append(out, d)
		}
	}
	return out
}

// packaged is a path of the rpm.
type packaged struct {
	path string
	kind string // empty, "dir" or "ghost"
}

func (f *rpmFile) files() ([]packaged, error) {
	base, dirs, at := f.main.texts(tagBaseNames), f.main.texts(tagDirNames), f.main.numbers(tagDirIndexes)
	modes, flags := f.main.numbers(tagFileModes), f.main.numbers(tagFileFlags)
	if len(at) != len(base) || len(modes) != len(base) || len(flags) != len(base) {
		return nil, errors.New("rpm: its lists of files differ in length")
	}
	out := make([]packaged, 0, len(base))
	for i, b := range base {
		if at[i] >= int64(len(dirs)) {
			return nil, fmt.Errorf("rpm: file %d is in a folder that there is not", i)
		}
		p := packaged{path: path.Join(dirs[at[i]], b)}
		switch {
		case flags[i]&flagGhost != 0:
			p.kind = "ghost"
		case modes[i]&0o170000 == 0o040000:
			p.kind = "dir"
		}
		out = append(out, p)
	}
	return out, nil
}
