package normalize

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bulwarkhq/bulwark/test/need"
)

var pages = []string{
	"<html>\n\n  <b>A  B</b>\t\tC\r\nD</html>",
	"<html><A HREF=Foo.html Class='X Y' ID=\"Z\" checked>t</A></html>",
	"<html>&lt;&gt;&amp;&quot;&nbsp;&eacute;&#x41;&#66;&#300;&#8364;&foo;</html>",
	"<html>a<!-- x > y -->b<!---->c<!-- z</html>",
	"<html>x<style>B { c: D }</style></html>",
	"<html><a href=\"http://X%41.com/%20a\">L</a><img src=\"/a b\" alt=\"Alt Text\"></html>",
	"<html>a\r\n\r\nb<br/>c</html>",
	"<HTML><HEAD><TITLE>Ti Tle</TITLE></HEAD><BODY bgcolor=#FFffFF><P>p1<P>p2</BODY></HTML>",
	"<html>a < b <c d=e>f</html>",
	"<html><?php echo \"A B\"; ?>c</html>",
	"<html>a\x00b</html>",
	"<html><a x='\"q\"' y=\"'z'\">k</a></html>",
	"<html><body  onload=\"X()\">Hello &amp; &#65;  World</body></html>",
	"<!DOCTYPE html>\n<html><head><meta charset=UTF-8><link rel=stylesheet href=\"A.css\"></head><body><form action=\"Go.php\"><input type=hidden value='V'></form></body></html>",
	"<html><iframe src=http://Evil/ width=0 height=0></iframe><table><tr><td>One<td>Two</table></html>",
}

// TestHTMLOracle compares the form without comments with that of Debian's
// sigtool.
func TestHTMLOracle(t *testing.T) {
	sigtool := need.Command(t, "sigtool")
	for _, src := range pages {
		dir := t.TempDir()
		in := filepath.Join(dir, "in.html")
		if err := os.WriteFile(in, []byte(src), 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(sigtool, "--html-normalise="+in)
		cmd.Dir = dir
		_ = cmd.Run() // it has written its files even where it crashes at its end
		want, err := os.ReadFile(filepath.Join(dir, "nocomment.html"))
		if err != nil {
			t.Fatal(err)
		}
		tags, err := os.ReadFile(filepath.Join(dir, "notags.html"))
		if err != nil {
			t.Fatal(err)
		}
		got, err := HTML(strings.NewReader(src))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got.NoComment, want) {
			t.Errorf("%q\nwe:      %q\nsigtool: %q", src, got.NoComment, want)
		}
		if !bytes.Equal(got.NoTags, tags) {
			t.Errorf("%q without tags\nwe:      %q\nsigtool: %q", src, got.NoTags, tags)
		}
	}
}

// TestTextOracle compares normalised text with that of Debian's sigtool.
func TestTextOracle(t *testing.T) {
	sigtool := need.Command(t, "sigtool")
	all := []byte("Start ")
	for c := range 256 {
		all = append(all, 'Q', byte(c), 'Q')
	}
	for _, src := range [][]byte{
		all, []byte("  Some\tTEXT \n\n\n with   spaces\r\n"), []byte("x"), []byte("ALL UPPER\x00CASE"),
		bytes.Repeat([]byte("Long  Line\n"), 20000),
	} {
		dir := t.TempDir()
		in := filepath.Join(dir, "in.txt")
		if err := os.WriteFile(in, src, 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(sigtool, "--ascii-normalise="+in)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		want, err := os.ReadFile(filepath.Join(dir, "normalised_text"))
		if err != nil {
			t.Fatal(err)
		}
		got, err := Text(bytes.NewReader(src))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			i := 0
			for i < min(len(got), len(want)) && got[i] == want[i] {
				i++
			}
			t.Errorf("%.40q: at %d\nwe:      %.60q\nsigtool: %.60q", src, i, got[i:], want[i:])
		}
	}
}

func FuzzHTML(f *testing.F) {
	for _, p := range pages {
		f.Add([]byte(p))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := HTML(bytes.NewReader(b))
		if err != nil || len(p.NoComment) > 8*len(b)+8 || len(p.NoTags) > 3*len(b)+8 {
			t.Errorf("%d bytes became %d and %d: %v", len(b), len(p.NoComment), len(p.NoTags), err)
		}
		if s, err := Text(bytes.NewReader(b)); err != nil || len(s) > len(b) {
			t.Errorf("text: %v", err)
		}
	})
}
