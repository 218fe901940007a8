package unpack

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/engine/filetype"
	"github.com/bulwarkhq/bulwark/engine/verdict"
	"github.com/bulwarkhq/bulwark/test/need"
)

// tree opens an object and everything in it, like the engine does, and returns
// the contents of all members.
func tree(data []byte, b *Budget) (contents []string, limits []verdict.Limit, err error) {
	var visit func(o Object, depth int) error
	visit = func(o Object, depth int) error {
		text, err := io.ReadAll(io.NewSectionReader(o.Data, 0, o.Size))
		if err != nil {
			return err
		}
		contents = append(contents, string(text))
		if depth > 8 {
			return nil
		}
		return Open(context.Background(), filetype.Detect(text[:min(len(text), filetype.HeadSize)]), o, b,
			func(l verdict.Limit) {
				if !slices.Contains(limits, l) {
					limits = append(limits, l)
				}
			}, func(m Object) error { return visit(m, depth+1) })
	}
	err = visit(Object{Name: "in", Data: bytes.NewReader(data), Size: int64(len(data))}, 0)
	return contents, limits, err
}

// mixed is 300 KB that compress in part: text, repetitions, noise, and calls as in
// x86 code for the filters.
func mixed() []byte {
	r := rand.New(rand.NewSource(7))
	var b bytes.Buffer
	for b.Len() < 300_000 {
		switch r.Intn(6) {
		case 5: // calls of other processors, by words
			for b.Len()%4 != 0 {
				b.WriteByte(0)
			}
			b.Write([]byte{
				byte(r.Intn(256)), byte(r.Intn(256)), byte(r.Intn(256)), 0xeb, // ARM
				byte(r.Intn(256)), byte(r.Intn(256)), byte(r.Intn(256)), 0x94, // ARM64 bl
				byte(r.Intn(256)), byte(r.Intn(256)), byte(r.Intn(256)), 0x90 | byte(r.Intn(4)<<5), // ARM64 adrp
				byte(r.Intn(256)), 0xf0 | byte(r.Intn(8)), byte(r.Intn(256)), 0xf8 | byte(r.Intn(8)), // Thumb
				0x48 | byte(r.Intn(4)), byte(r.Intn(256)), byte(r.Intn(256)), byte(r.Intn(64)<<2) | 1, // PowerPC
				0x40, byte(r.Intn(64)), byte(r.Intn(256)), byte(r.Intn(256)), // SPARC
				0x7f, byte(0xc0 | r.Intn(64)), byte(r.Intn(256)), byte(r.Intn(256)),
			})
		case 0:
			fmt.Fprintf(&b, "line %d of the file that is packed, again and again\n", r.Intn(1000))
		case 1:
			b.Write(bytes.Repeat([]byte{byte(r.Intn(256))}, r.Intn(300)))
		case 2:
			noise := make([]byte, r.Intn(200))
			r.Read(noise)
			b.Write(noise)
		case 3:
			at := uint32(r.Intn(4000)) - uint32(b.Len())
			b.Write([]byte{0xe8, byte(at), byte(at >> 8), byte(at >> 16), byte(at >> 24), 0x55, 0x89, 0xe5})
		case 4:
			have := b.Bytes()
			if n := len(have); n > 1000 {
				from := r.Intn(n - 900)
				b.Write(bytes.Clone(have[from : from+r.Intn(900)]))
			}
		}
	}
	return b.Bytes()
}

// What the distribution's programs pack comes out again.
func TestRealPrograms(t *testing.T) {
	need.NoRaceDetector(t) // nothing in it runs in parallel
	data := mixed()
	const rpmSpec = "Name: x\nVersion: 1\nRelease: 1\nSummary: x\nLicense: x\nBuildArch: noarch\n%%define _binary_payload %s\n%%description\nx\n%%install\nmkdir -p %%{buildroot}/opt\ncp %s %%{buildroot}/opt/data.bin\n%%files\n/opt/data.bin\n"
	for name, c := range map[string]struct {
		program string
		run     string // shell; $F is the file, $O what is to be made
		many    bool
		limits  bool // limits may be noted
	}{
		"zip":            {program: "zip", run: "zip -q $O $F"},
		"zip bzip2":      {program: "zip", run: "zip -q -Z bzip2 $O $F"},
		"zip stream":     {program: "zip", run: "zip -q - - < $F > $O"},
		"zip deflate64":  {program: "7z", run: "7z a -tzip -mm=Deflate64 $O $F"},
		"zip lzma":       {program: "7z", run: "7z a -tzip -mm=LZMA $O $F"},
		"7z":             {program: "7z", run: "7z a $O $F"},
		"7z lzma":        {program: "7z", run: "7z a -m0=LZMA $O $F"},
		"7z ppmd":        {program: "7z", run: "7z a -m0=PPMd $O $F"},
		"7z bzip2":       {program: "7z", run: "7z a -m0=BZip2 $O $F"},
		"7z deflate":     {program: "7z", run: "7z a -m0=Deflate $O $F"},
		"7z copy":        {program: "7z", run: "7z a -m0=Copy $O $F"},
		"7z bcj":         {program: "7z", run: "7z a -m0=BCJ -m1=LZMA2 $O $F"},
		"7z bcj2":        {program: "7z", run: "7z a -m0=BCJ2 -m1=LZMA:d23 -m2=LZMA:d19 -m3=LZMA:d19 -mb0:1 -mb0s1:2 -mb0s2:3 $O $F"},
		"7z delta":       {program: "7z", run: "7z a -m0=Delta:4 -m1=LZMA2 $O $F"},
		"7z plain head":  {program: "7z", run: "7z a -mhc=off $O $F"},
		"lzma":           {program: "xz", run: "xz --format=lzma -c $F > $O"},
		"xz":             {program: "xz", run: "xz -c $F > $O"},
		"xz x86":         {program: "xz", run: "xz --x86 --lzma2=dict=64KiB -c $F > $O"},
		"xz arm":         {program: "xz", run: "xz --arm --lzma2 -c $F > $O"},
		"xz armthumb":    {program: "xz", run: "xz --armthumb --lzma2 -c $F > $O"},
		"xz arm64":       {program: "xz", run: "xz --arm64 --lzma2 -c $F > $O"},
		"xz powerpc":     {program: "xz", run: "xz --powerpc --lzma2 -c $F > $O"},
		"xz sparc":       {program: "xz", run: "xz --sparc=start=4096 --lzma2 -c $F > $O"},
		"xz delta":       {program: "xz", run: "xz --delta=dist=3 --lzma2 --check=none -c $F > $O"},
		"xz streams":     {program: "xz", run: "(head -c 1000 $F | xz -c --check=sha256; head -c 8 /dev/zero; tail -c +1001 $F | xz -c --check=crc32) > $O"},
		"7z arm":         {program: "7z", run: "7z a -m0=ARM -m1=LZMA2 $O $F"},
		"7z armt":        {program: "7z", run: "7z a -m0=ARMT -m1=LZMA2 $O $F"},
		"7z ppc":         {program: "7z", run: "7z a -m0=PPC -m1=LZMA2 $O $F"},
		"7z sparc":       {program: "7z", run: "7z a -m0=SPARC -m1=LZMA2 $O $F"},
		"xz blocks":      {program: "xz", run: "xz --block-size=65536 -c $F > $O"},
		"lzip":           {program: "lzip", run: "lzip -c $F > $O; lzip -c /dev/null >> $O"},
		"zstd":           {program: "zstd", run: "zstd -q -19 -c $F > $O"},
		"lz4":            {program: "lz4", run: "lz4 -q -9 -c $F > $O"},
		"arj 1":          {program: "arj", run: "arj a -m1 $O $F"},
		"arj 2":          {program: "arj", run: "arj a -m2 $O $F"},
		"arj 3":          {program: "arj", run: "arj a -m3 $O $F"},
		"arj 4":          {program: "arj", run: "arj a -m4 $O $F"},
		"arj 0":          {program: "arj", run: "arj a -m0 $O $F"},
		"cab mszip":      {program: "gcab", run: "gcab -c -z $O $F"},
		"cab stored":     {program: "gcab", run: "gcab -c $O $F"},
		"szdd":           {program: "mscompress", run: "mscompress $F; mv data.bi_ $O 2>/dev/null || mv data.bin_ $O"},
		"iso":            {program: "genisoimage", run: "genisoimage -quiet -o $O $F"},
		"iso joliet":     {program: "genisoimage", run: "genisoimage -quiet -J -R -o $O $F"},
		"iso with udf":   {program: "genisoimage", run: "genisoimage -quiet -udf -o $O $F"},
		"udf":            {program: "genisoimage", run: "mkdir -p d/sub/deep; cp $F d/sub/deep/; genisoimage -quiet -udf -o $O d; dd if=$O of=$O bs=2048 skip=18 seek=16 count=3 conv=notrunc status=none"},
		"wim lzx":        {program: "wimlib-imagex", run: "mkdir d; cp $F d; wimlib-imagex capture d $O --quiet --compress=LZX"},
		"wim lzx big":    {program: "wimlib-imagex", run: "mkdir d; cp $F d; wimlib-imagex capture d $O --quiet --compress=LZX:100 --chunk-size=256K"},
		"wim xpress":     {program: "wimlib-imagex", run: "mkdir d; cp $F d; wimlib-imagex capture d $O --quiet --compress=XPRESS"},
		"wim xpress 4K":  {program: "wimlib-imagex", run: "mkdir d; cp $F d; wimlib-imagex capture d $O --quiet --compress=XPRESS:100 --chunk-size=4K"},
		"wim stored":     {program: "wimlib-imagex", run: "mkdir d; cp $F d; wimlib-imagex capture d $O --quiet --compress=none"},
		"squashfs gzip":  {program: "mksquashfs", run: "mksquashfs $F $O -quiet -no-progress -comp gzip"},
		"squashfs xz":    {program: "mksquashfs", run: "mksquashfs $F $O -quiet -no-progress -comp xz"},
		"squashfs lzo":   {program: "mksquashfs", run: "mksquashfs $F $O -quiet -no-progress -comp lzo"},
		"squashfs lzo 1": {program: "mksquashfs", run: "mksquashfs $F $O -quiet -no-progress -comp lzo -Xalgorithm lzo1x_1 -b 4096"},
		"squashfs zstd":  {program: "mksquashfs", run: "mksquashfs $F $O -quiet -no-progress -comp zstd -b 4096"},
		"squashfs lz4":   {program: "mksquashfs", run: "mksquashfs $F $O -quiet -no-progress -comp lz4 -no-fragments"},
		"rpm gzip":       {program: "rpmbuild", run: "printf '" + rpmSpec + "' w9.gzdio $PWD/$F > x.spec; rpmbuild -bb --quiet --define \"_topdir $PWD/r\" x.spec && cp r/RPMS/noarch/*.rpm $O"},
		"rpm zstd":       {program: "rpmbuild", run: "printf '" + rpmSpec + "' w19.zstdio $PWD/$F > x.spec; rpmbuild -bb --quiet --define \"_topdir $PWD/r\" x.spec && cp r/RPMS/noarch/*.rpm $O"},
		"lha 0":          {program: "jlha", run: "jlha -aqz1 $O $F >/dev/null; mv out* out.x 2>/dev/null; true"},
		"lha 5":          {program: "jlha", run: "jlha -aqo50 $O $F >/dev/null; mv out* out.x 2>/dev/null; true"},
		"lha 5 head 2":   {program: "jlha", run: "jlha -aqo52 $O $F >/dev/null; mv out* out.x 2>/dev/null; true"},
		"deb":            {program: "dpkg-deb", run: "mkdir -p d/DEBIAN d/opt; cp $F d/opt/; printf 'Package: x\\nVersion: 1\\nArchitecture: all\\nMaintainer: x <x@x.example>\\nDescription: x\\n' > d/DEBIAN/control; dpkg-deb --root-owner-group -Zxz -b d x.deb >/dev/null; mv x.deb $O"},
		"deb zstd":       {program: "dpkg-deb", run: "mkdir -p d/DEBIAN d/opt; cp $F d/opt/; printf 'Package: x\\nVersion: 1\\nArchitecture: all\\nMaintainer: x <x@x.example>\\nDescription: x\\n' > d/DEBIAN/control; dpkg-deb --root-owner-group -Zzstd -b d x.deb >/dev/null; mv x.deb $O"},
		"ar":             {program: "ar", run: "ar rc $O $F"},
		"cpio newc":      {program: "cpio", run: "echo $F | cpio -o -H newc --quiet > $O"},
		"cpio crc":       {program: "cpio", run: "echo $F | cpio -o -H crc --quiet > $O"},
		"cpio odc":       {program: "cpio", run: "echo $F | cpio -o -H odc --quiet > $O"},
		"cpio bin":       {program: "cpio", run: "echo $F | cpio -o -H bin --quiet > $O"},
		"tar.bz2":        {program: "bzip2", run: "tar -cjf $O $F"},
		"compress":       {program: "compress", run: "compress -c $F > $O"},
		"compress 12":    {program: "compress", run: "compress -b 12 -c $F > $O"},
		"compress 10":    {program: "compress", run: "compress -b 10 -c $F > $O"},
		"compress clear": {program: "compress", run: "(for i in 1 2 3 4; do cat $F; head -c 300000 /dev/zero; head -c 200000 /bin/true; done) > many; cp many data.bin; compress -f -c many > $O", many: true},
		"fat12":          {program: "mkfs.fat", run: "mkfs.fat -F 12 -C $O 2048 >/dev/null && " + fatCopy},
		"fat16":          {program: "mkfs.fat", run: "mkfs.fat -F 16 -C $O 9000 >/dev/null && " + fatCopy},
		"fat32":          {program: "mkfs.fat", run: "mkfs.fat -F 32 -s 1 -C $O 36000 >/dev/null && " + fatCopy},
		"ext2":           {program: "mke2fs", run: "mkdir -p d/sub/deep; cp $F d/sub/deep/; mke2fs -q -t ext2 -b 1024 -I 128 -d d $O 4M"},
		"ext2 large":     {program: "mke2fs", run: "mkdir d; (head -c 70000000 /dev/zero; cat $F) > d/large; cp d/large data.bin; mke2fs -q -t ext2 -b 1024 -d d $O 80M", many: true},
		"ext3":           {program: "mke2fs", run: "mkdir d; cp $F d/; mke2fs -q -t ext3 -d d $O 8M"},
		"ext4":           {program: "mke2fs", run: "mkdir -p d/sub; cp $F d/sub/; mke2fs -q -t ext4 -O 64bit,metadata_csum,flex_bg -d d $O 8M"},
		"ext4 sparse":    {program: "mke2fs", run: "mkdir d; for i in 1 3 5 7 9 11 13 15 17 19; do dd if=$F of=d/s bs=4096 count=1 seek=$((i*3)) conv=notrunc status=none; done; cp --sparse=never d/s data.bin; mke2fs -q -t ext4 -b 1024 -d d $O 8M", many: true},
		"ext4 dirs":      {program: "mke2fs", run: "mkdir d; for i in $(seq 300); do : > d/a-rather-long-name-of-an-empty-file-$i; done; cp $F d/zz; mke2fs -q -t ext4 -b 1024 -O dir_index -d d $O 8M"},
		"partitions":     {program: "sfdisk", run: "mkdir d; cp $F d/; mke2fs -q -t ext4 -d d p 8M; truncate -s 10M $O; echo '2048,16384,83' | sfdisk -q $O; dd if=p of=$O bs=512 seek=2048 conv=notrunc status=none"},
		"gpt":            {program: "sfdisk", run: "mkdir d; cp $F d/; mke2fs -q -t ext4 -d d p 8M; truncate -s 12M $O; printf 'label: gpt\nstart=2048,size=16384\n' | sfdisk -q $O; dd if=p of=$O bs=512 seek=2048 conv=notrunc status=none"},
		"iso hybrid":     {program: "xorriso", run: "xorriso -as mkisofs -quiet -J -R -o $O $F"},
		"msi":            {program: "wixl", run: wixl},
		"uuencode":       {program: "uuencode", run: "uuencode $F data.bin > $O"},
		"uuencode -m":    {program: "uuencode", run: "uuencode -m $F data.bin > $O"},
		"base64":         {program: "base64", run: "(echo '<html><a href=\"data:application/x;base64,'; base64 -w0 $F; echo '\">') > $O"},
		"nsis zlib":      {program: "makensis", run: nsis("zlib")},
		"nsis bzip2":     {program: "makensis", run: nsis("bzip2")},
		"nsis lzma":      {program: "makensis", run: nsis("lzma")},
		"nsis zlib all":  {program: "makensis", run: nsis("/SOLID zlib")},
		"nsis bzip2 all": {program: "makensis", run: nsis("/SOLID bzip2")},
		"nsis lzma all":  {program: "makensis", run: nsis("/SOLID lzma")},
	} {
		t.Run(name, func(t *testing.T) {
			need.Command(t, c.program)
			data := data
			dir := t.TempDir()
			must(t, os.WriteFile(filepath.Join(dir, "data.bin"), data, 0o600))
			cmd := exec.Command("sh", "-c", c.run)
			cmd.Dir = dir
			cmd.Env = append(os.Environ(), "F=data.bin", "O=out.x", "HOME="+dir)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%s: %v\n%s", c.run, err, out)
			}
			made, err := filepath.Glob(filepath.Join(dir, "out.x*"))
			if err != nil || len(made) == 0 {
				t.Fatalf("nothing made: %v", err)
			}
			packed, err := os.ReadFile(made[0])
			must(t, err)
			if c.many { // the command made another file
				data, err = os.ReadFile(filepath.Join(dir, "data.bin"))
				must(t, err)
			}
			got, limits, err := tree(packed, budget(packed))
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Contains(got[1:], string(data)) {
				var sizes []int
				for _, g := range got {
					sizes = append(sizes, len(g))
				}
				t.Errorf("not found among %d; sizes %v, limits %v", len(got), sizes, limits)
			}
			if len(limits) > 0 {
				t.Errorf("limits %v", limits)
			}
		})
	}
}

// fatCopy puts the file into a directory of a FAT image, in pieces: one before it
// is deleted again.
const fatCopy = `export MTOOLS_SKIP_CHECK=1
mmd -i $O ::/sub ::/sub/deeper
head -c 20000 /bin/true > hole
mcopy -i $O hole ::/a && mcopy -i $O hole ::/b && mdel -i $O ::/a
mcopy -i $O $F "::/sub/deeper/a file with a long name.bin"`

// wixl makes an installer for Windows: OLE2 with a cabinet inside.
const wixl = `cat > x.wxs <<'END'
<?xml version="1.0"?><Wix xmlns="http://schemas.microsoft.com/wix/2006/wi">
<Product Name="x" Id="*" UpgradeCode="12345678-1234-1234-1234-111111111111" Language="1033" Codepage="1252" Version="1.0.0" Manufacturer="x">
<Package Id="*" Keywords="x" Description="x" Manufacturer="x" InstallerVersion="100" Languages="1033" Compressed="yes" SummaryCodepage="1252"/>
<Media Id="1" Cabinet="x.cab" EmbedCab="yes"/>
<Directory Id="TARGETDIR" Name="SourceDir"><Component Id="c" Guid="12345678-1234-1234-1234-222222222222">
<File Id="f" Name="data.bin" DiskId="1" Source="data.bin" KeyPath="yes"/></Component></Directory>
<Feature Id="F" Level="1"><ComponentRef Id="c"/></Feature></Product></Wix>
END
wixl -o $O x.wxs`

// nsis is a shell command that makes an installer with a compressor.
func nsis(compressor string) string {
	script := strings.Join([]string{"SetCompressor " + compressor, "Name x", "OutFile out.x", "Section", "SetOutPath $TEMP", "File data.bin", "SectionEnd"}, "\n")
	return "cat > x.nsi <<'END'\n" + script + "\nEND\nmakensis -V1 x.nsi"
}

// Passwords are not asked for, but what they hide is named.
func TestEncrypted(t *testing.T) {
	for name, c := range map[string][2]string{
		"zip":     {"zip", "zip -q -P secret $O $F"},
		"zip aes": {"7z", "7z a -tzip -mem=AES256 -psecret $O $F"},
		"7z":      {"7z", "7z a -psecret $O $F"},
		"7z head": {"7z", "7z a -psecret -mhe=on $O $F"},
		"arj":     {"arj", "arj a -gsecret $O $F"},
	} {
		t.Run(name, func(t *testing.T) {
			need.Command(t, c[0])
			dir := t.TempDir()
			must(t, os.WriteFile(filepath.Join(dir, "data.bin"), []byte(text), 0o600))
			cmd := exec.Command("sh", "-c", c[1])
			cmd.Dir = dir
			cmd.Env = append(os.Environ(), "F=data.bin", "O=out.x")
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			made, _ := filepath.Glob(filepath.Join(dir, "out.x*"))
			packed, err := os.ReadFile(made[0])
			must(t, err)
			got, limits, err := tree(packed, budget(packed))
			if err != nil || !slices.Contains(limits, verdict.Encrypted) || slices.Contains(got[1:], text) {
				t.Errorf("%d objects, %v, %v", len(got), limits, err)
			}
		})
	}
}

// A budget of time ends every format.
func TestDeadline(t *testing.T) {
	for name, data := range seeds(t) {
		b := budget(data)
		b.Deadline = time.Now().Add(-time.Second)
		if _, limits, err := tree(data, b); err != nil || !slices.Contains(limits, verdict.LimitTime) {
			t.Errorf("%s: %v %v", name, limits, err)
		}
	}
}
