package modules

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

// classLines are the classes of a .NET file as one line for each class and
// method. Members that are not defined are "-".
func classLines(t *testing.T, data []byte) (lines []string) {
	t.Helper()
	text := func(v any) string {
		if v == nil {
			return "-"
		}
		return fmt.Sprint(v)
	}
	words := func(o Object, names ...string) (s string) {
		for _, n := range names {
			if o.Get(n) == int64(1) {
				s += n + " "
			}
		}
		return s
	}
	all := func(o Object, field string) (out []any) {
		l, ok := o.Get(field).(List)
		if n := o.Get("number_of_" + field); !ok && n != nil || ok && n != int64(l.N) {
			t.Errorf("number_of_%s is %v, of %d", field, n, l.N)
		}
		for i := range l.N {
			out = append(out, l.At(i))
		}
		return out
	}
	for _, v := range all(open("dotnet", data), "classes") {
		c := v.(Object)
		lines = append(lines, fmt.Sprintf("%v %s%v %s|%s|%s%v : %v", c.Get("visibility"), words(c, "abstract", "sealed"), c.Get("type"),
			text(c.Get("namespace")), text(c.Get("name")), text(c.Get("fullname")), all(c, "generic_parameters"), all(c, "base_types")))
		for _, v := range all(c, "methods") {
			m := v.(Object)
			var params []string
			for _, p := range all(m, "parameters") {
				params = append(params, text(p.(Object).Get("type"))+" "+text(p.(Object).Get("name")))
			}
			lines = append(lines, fmt.Sprintf("  %v %s%s %v%v(%s)", m.Get("visibility"), words(m, "static", "virtual", "final", "abstract"),
				text(m.Get("return_type")), m.Get("name"), all(m, "generic_parameters"), strings.Join(params, "; ")))
		}
	}
	return lines
}

// TestClasses reads what Mono's compiler made of testdata/classes.cs.
func TestClasses(t *testing.T) {
	data, err := os.ReadFile("testdata/classes.exe")
	if err != nil {
		t.Fatal(err)
	}
	got := classLines(t, data)
	want := []string{
		"public abstract interface Zoo.Land|IAnimal|Zoo.Land.IAnimal[] : []",
		"  public virtual abstract string Name[](int times; string[] words)",
		"public abstract class Zoo.Land|Animal|Zoo.Land.Animal[] : [System.Object Zoo.Land.IAnimal System.IDisposable]",
		"  protected - .ctor[]()",
		"  public virtual abstract string Name[](int times; string[] words)",
		"  public virtual final void Dispose[]()",
		"  protected virtual long Weigh[](ref double scale; ref bool ok; int[,] grid)",
		"  protected internal object Either[]()",
		"  internal static Ptr<void> Raw[](Ptr<byte> p; IntPtr q)",
		"private sealed class Zoo.Land.Animal|Cage|Zoo.Land.Animal.Cage[] : [System.Object]",
		"  public - .ctor[]()",
		"internal class Zoo.Land.Animal.Cage|Lock|Zoo.Land.Animal.Cage.Lock[] : [System.Object]",
		"  public - .ctor[]()",
		"  public static System.Collections.Generic.List<System.Collections.Generic.Dictionary<string,Zoo.Land.Animal.Cage.Lock>> Keys[]()",
		"internal sealed class Zoo.Land|Box|Zoo.Land.Box[T U] : [System.Collections.Generic.List<T>]",
		"  public - .ctor[]()",
		"  public U Swap[V](T first; V second; Zoo.Land.Box<V,U> third)",
		"  public static Zoo.Land.Box<int,string> Make[](System.Func<T,bool>[] f; object[] rest)",
		"public sealed class Zoo.Land|Point|Zoo.Land.Point[] : [System.ValueType]",
		"public sealed class Zoo.Land|Colour|Zoo.Land.Colour[] : [System.Enum]",
		"internal class |Plain|Plain[] : [System.Object]",
		"  private static - .cctor[]()",
		"  public - .ctor[]()",
		"  private static void Main[]()",
		"  private char C[](sbyte a; ushort b; uint c; ulong d; UIntPtr e; short f)",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// Signatures that no compiler at hand writes, and damaged ones.
func TestSignatureTypes(t *testing.T) {
	scope := netScope{class: []string{"T"}, method: []string{"V", "W"}}
	for in, want := range map[string]string{
		"\x14\x08\x02\x01\x05\x02\x02\x01":     "int[1...6,-64...]", // lower bounds 1 and -64
		"\x14\x08\x01\x01\x81\x00\x00":         "int[256]",          // a number of two bytes
		"\x14\x08\x01\x01\xc0\x01\x00\x00\x00": "int[65536]",        // of four
		"\x14\x08\x01\x00\x01\x80\x01":         "int[-8192...]",     // a negative one of two
		"\x14\x1d\x0e\x01\x00\x00":             "string[][]",        // an array of arrays
		"\x1b\x00\x02\x01\x13\x00\x1e\x01":     "FnPtr<void(T, W)>", // a pointer to a function
		"\x1f\x05\x20\x05\x10\x0f\x1c":         "ref Ptr<object>",   // modifiers are left out
		"\x16":                                 "TypedReference",
		"":                                     "", "\x00": "", "\x0f": "", "\x13\x01": "", "\x1e\x02": "", "\x12": "", "\x12\x05": "", "\x41": "",
		"\x14\x08\x00": "", "\x14\x08\x33": "", "\x14\x08\x01\x02": "", "\x14\x08\x01\x00\x02": "",
		"\x1b\x00\xdf\xff\xff\xff\x01":                        "", // too many parameters
		strings.Repeat("\x1d", 10) + "\x08":                   "int" + strings.Repeat("[]", 10),
		strings.Repeat("\x1d", 100) + "\x08":                  "", // too deep
		"\x1b\x00\x90\x00\x01" + strings.Repeat("\x16", 4096): "", // too long
	} {
		n := &netClasses{netFile: &netFile{peFile: &peFile{in: whole(nil), budget: maxNetWork}}}
		s := &netSignature{n, []byte(in)}
		if got, ok := s.typ(scope, 0); ok != (want != "") || got != want {
			t.Errorf("%.20x: %q, %v, want %q", in, got, ok, want)
		}
	}
}

// A file in which every type is made of others ends by its budget.
func TestClassesBudget(t *testing.T) {
	n := &netClasses{netFile: &netFile{peFile: &peFile{in: whole(nil), budget: 100}}}
	s := &netSignature{n, []byte("\x1b\x00\x83\xe8\x01" + strings.Repeat("\x08", 1000))}
	if got, ok := s.typ(netScope{}, 0); ok || got != "" || n.budget >= 0 || n.budget < -300 {
		t.Errorf("%q, %d left", got, n.budget)
	}
}

// Classes that all claim the same methods get as many as the file has, and a long
// name costs more than a short one.
func TestMethodsOfOneClass(t *testing.T) {
	data, err := os.ReadFile("testdata/classes.exe")
	if err != nil {
		t.Fatal(err)
	}
	p := parsePE(whole(data))
	n := &netFile{peFile: p, heaps: map[string]netHeap{}}
	p.o = Object{}
	va, _, _ := p.directory(14)
	cli := p.bytes(p.offset(uint64(va)), 72)
	n.root = p.offset(uint64(le.Uint32(cli[8:])))
	n.streams(n.root + 16 + int64(le.Uint32(p.bytes(n.root+12, 4))) + 2)
	n.tables(n.heaps["#~"], 0)
	methods := func() (sum int) {
		l := open("dotnet", data).Get("classes").(List)
		for i := range l.N {
			sum += l.At(i).(Object).Get("methods").(List).N
		}
		return sum
	}
	had, width := methods(), n.width[netTypeDef]
	for i := range int(n.rows[netTypeDef]) {
		column := data[int(n.at[netTypeDef])+i*width+n.cols[netTypeDef][5]:]
		le.PutUint16(column, []uint16{1, uint16(n.rows[netMethodDef] + 1)}[i%2])
	}
	if got := methods(); had == 0 || had > int(n.rows[netMethodDef]) || got > int(n.rows[netMethodDef]) || got < 1 {
		t.Errorf("%d methods of classes that overlap, %d of those that do not; the file has %d", got, had, n.rows[netMethodDef])
	}

	c := &netClasses{netFile: &netFile{peFile: &peFile{in: whole([]byte(strings.Repeat("n", 800) + "\x00")), size: 801, budget: 99}, heaps: map[string]netHeap{"#Strings": {0, 801}}}}
	if name, ok := c.label(0); !ok || len(name) != 800 || c.budget != 49 {
		t.Errorf("a name of %d bytes: %v, %d left", len(name), ok, c.budget)
	}
	if name, ok := c.label(0); ok || name != "" {
		t.Errorf("%q beyond the budget: %d left", name, c.budget)
	}
}
