package repository

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Rings of the roll-out of rpms. Neither yum, dnf nor zypper knows shares, so
// every host belongs to one of ten rings, and a version reaches the rings whose
// number times ten is below its share: 25 % are rings 0, 1 and 2. Who follows no
// ring gets a version when its share is 100 %.
const Rings = 10

// yum writes repositories as createrepo does.
func (t *tree) yum(context.Context) error {
	for _, channel := range Channels {
		all := t.state.in(channel, RPM)
		same := map[string]string{} // rings with the same packages are the same files
		for ring := range Rings + 1 {
			base := fmt.Sprintf("yum/%s/ring/%d/", channel, ring)
			need := 10*ring + 1
			if ring == Rings {
				base, need = "yum/"+channel+"/", 100
			}
			var packages []Package
			for _, p := range all {
				if p.Rollout >= need {
					packages = append(packages, p)
				}
			}
			content := fmt.Sprint(packages)
			if first, ok := same[content]; ok {
				if err := t.copyFolder(first, base); err != nil {
					return err
				}
				continue
			}
			if err := t.rpmMetadata(base, packages); err != nil {
				return fmt.Errorf("%s: %w", base, err)
			}
			same[content] = base
		}
	}
	return nil
}

// copyFolder links the files of a folder of the tree into another.
func (t *tree) copyFolder(from, to string) error {
	top := filepath.Join(t.dir, filepath.FromSlash(from))
	return filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return fmt.Errorf("repository: %w", err)
		}
		rel, err := filepath.Rel(top, path)
		if err != nil {
			return fmt.Errorf("repository: %w", err)
		}
		name := filepath.Join(t.dir, filepath.FromSlash(to), rel)
		if d.IsDir() {
			if rel == "ring" {
				return fs.SkipDir // of the channel's own folder
			}
			err = os.MkdirAll(name, 0o755)
		} else {
			err = os.Link(path, name)
		}
		if err != nil {
			return fmt.Errorf("repository: %w", err)
		}
		return nil
	})
}

// Names of the metadata's vocabularies.
const (
	commonSpace    = "http://linux.duke.edu/metadata/common"
	rpmSpace       = "http://linux.duke.edu/metadata/rpm"
	fileListsSpace = "http://linux.duke.edu/metadata/filelists"
	otherSpace     = "http://linux.duke.edu/metadata/other"
	repoSpace      = "http://linux.duke.edu/metadata/repo"
)

func (t *tree) rpmMetadata(base string, packages []Package) error {
	var primary, lists, other bytes.Buffer
	fmt.Fprintf(&primary, "%s<metadata xmlns=%q xmlns:rpm=%q packages=\"%d\">\n", xml.Header, commonSpace, rpmSpace, len(packages))
	fmt.Fprintf(&lists, "%s<filelists xmlns=%q packages=\"%d\">\n", xml.Header, fileListsSpace, len(packages))
	fmt.Fprintf(&other, "%s<otherdata xmlns=%q packages=\"%d\">\n", xml.Header, otherSpace, len(packages))
	for _, p := range packages {
		if err := t.link(p, base+"Packages/"+p.File); err != nil {
			return err
		}
		f := t.rpms[p.File]
		files, err := f.files()
		if err != nil {
			return fmt.Errorf("%s: %w", p.File, err)
		}
		writePrimary(&primary, p, f, files)
		head := fmt.Sprintf("<package pkgid=%q name=%q arch=%q>\n%s", p.SHA256, p.Name, p.Arch, versionElement(f))
		lists.WriteString(head)
		writeFiles(&lists, files)
		lists.WriteString("</package>\n")
		other.WriteString(head + "</package>\n")
	}
	primary.WriteString("</metadata>\n")
	lists.WriteString("</filelists>\n")
	other.WriteString("</otherdata>\n")
	return t.repomd(base, []struct {
		kind string
		data []byte
	}{{"primary", primary.Bytes()}, {"filelists", lists.Bytes()}, {"other", other.Bytes()}})
}

// repomd writes the three lists and the signed index of them.
func (t *tree) repomd(base string, lists []struct {
	kind string
	data []byte
},
) error {
	var index bytes.Buffer
	fmt.Fprintf(&index, "%s<repomd xmlns=%q xmlns:rpm=%q>\n<revision>%d</revision>\n", xml.Header, repoSpace, rpmSpace, t.now.Unix())
	for _, l := range lists {
		zipped, err := compressed(l.data)
		if err != nil {
			return err
		}
		sum := sha256.Sum256(zipped)
		name := "repodata/" + hex.EncodeToString(sum[:]) + "-" + l.kind + ".xml.gz"
		if err := t.put(base+name, zipped); err != nil {
			return err
		}
		fmt.Fprintf(&index, "<data type=%q><checksum type=\"sha256\">%x</checksum><open-checksum type=\"sha256\">%x</open-checksum>"+
			"<location href=%q/><timestamp>%d</timestamp><size>%d</size><open-size>%d</open-size></data>\n",
			l.kind, sum, sha256.Sum256(l.data), name, t.now.Unix(), len(zipped), len(l.data))
	}
	index.WriteString("</repomd>\n")
	signature, err := t.key.detached(bytes.NewReader(index.Bytes()), true)
	if err != nil {
		return err
	}
	public, err := t.key.PublicArmored()
	if err != nil {
		return err
	}
	return errors.Join(t.put(base+"repodata/repomd.xml", index.Bytes()), t.put(base+"repodata/repomd.xml.asc", signature),
		t.put(base+"repodata/repomd.xml.key", public), t.keepOld(base+"repodata"))
}

// escaped is text as XML, without what XML cannot say.
func escaped(text string) string {
	var out bytes.Buffer
	if err := xml.EscapeText(&out, []byte(strings.ToValidUTF8(text, "?"))); err != nil {
		return "" // a buffer does not fail
	}
	return out.String()
}

func versionElement(f *rpmFile) string {
	return fmt.Sprintf("<version epoch=\"%d\" ver=%q rel=%q/>\n", f.main.number(tagEpoch), f.main.text(tagVersion), f.main.text(tagRelease))
}

func writePrimary(out *bytes.Buffer, p Package, f *rpmFile, files []packaged) {
	h := f.main
	fmt.Fprintf(out, "<package type=\"rpm\">\n<name>%s</name>\n<arch>%s</arch>\n%s<checksum type=\"sha256\" pkgid=\"YES\">%s</checksum>\n", p.Name, p.Arch, versionElement(f), p.SHA256)
	fmt.Fprintf(out, "<summary>%s</summary>\n<description>%s</description>\n<packager>%s</packager>\n<url>%s</url>\n",
		escaped(h.text(tagSummary)), escaped(h.text(tagDescription)), escaped(h.text(tagPackager)), escaped(h.text(tagURL)))
	fmt.Fprintf(out, "<time file=\"%d\" build=\"%d\"/>\n<size package=\"%d\" installed=\"%d\" archive=\"%d\"/>\n<location href=\"Packages/%s\"/>\n",
		p.Published.Unix(), h.number(tagBuildTime), p.Size, h.number(tagSize), max(h.number(tagArchiveSize), f.signatures.number(sigPayloadSize)), p.File)
	fmt.Fprintf(out, "<format>\n<rpm:license>%s</rpm:license>\n<rpm:vendor>%s</rpm:vendor>\n<rpm:group>%s</rpm:group>\n<rpm:buildhost>%s</rpm:buildhost>\n<rpm:sourcerpm>%s</rpm:sourcerpm>\n",
		escaped(h.text(tagLicense)), escaped(h.text(tagVendor)), escaped(h.text(tagGroup)), escaped(h.text(tagBuildHost)), escaped(h.text(tagSourceRPM)))
	// After signing, the main header begins elsewhere than in the file given.
	fmt.Fprintf(out, "<rpm:header-range start=\"%d\" end=\"%d\"/>\n", h.begin, h.end)
	for _, kind := range dependencyTags {
		list := f.relations(kind.name, kind.flags, kind.version)
		if len(list) == 0 {
			continue
		}
		fmt.Fprintf(out, "<rpm:%s>\n", kind.element)
		for _, d := range list {
			fmt.Fprintf(out, "<rpm:entry name=\"%s\"", escaped(d.name))
			if d.flags != "" {
				fmt.Fprintf(out, " flags=%q epoch=\"%s\" ver=\"%s\"", d.flags, escaped(d.epoch), escaped(d.version))
				if d.release != "" {
					fmt.Fprintf(out, " rel=\"%s\"", escaped(d.release))
				}
			}
			if d.pre && kind.element == "requires" {
				out.WriteString(" pre=\"1\"")
			}
			out.WriteString("/>\n")
		}
		fmt.Fprintf(out, "</rpm:%s>\n", kind.element)
	}
	// The files that others may depend on by path.
	var often []packaged
	for _, file := range files {
		if strings.HasPrefix(file.path, "/etc/") || strings.Contains(file.path, "bin/") || file.path == "/usr/lib/sendmail" {
			often = append(often, file)
		}
	}
	writeFiles(out, often)
	out.WriteString("</format>\n</package>\n")
}

func writeFiles(out *bytes.Buffer, files []packaged) {
	for _, f := range files {
		if f.kind == "" {
			fmt.Fprintf(out, "<file>%s</file>\n", escaped(f.path))
		} else {
			fmt.Fprintf(out, "<file type=%q>%s</file>\n", f.kind, escaped(f.path))
		}
	}
}
