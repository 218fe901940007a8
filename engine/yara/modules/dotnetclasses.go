package modules

import "strings"

// netClassType is the type of the members of a .NET file that YARA 4.3 added:
// its classes with their methods.
const netClassType = `number_of_classes:i classes:[(fullname:s name:s namespace:s visibility:s type:s abstract:i sealed:i
	number_of_generic_parameters:i generic_parameters:[s] number_of_base_types:i base_types:[s]
	number_of_methods:i methods:[(name:s visibility:s static:i virtual:i final:i abstract:i return_type:s
		number_of_parameters:i parameters:[(name:s type:s)] number_of_generic_parameters:i generic_parameters:[s])])]`

// Tables of ECMA-335, II.22.
const (
	netTypeRef, netTypeDef, netMethodDef, netParam = 0x01, 0x02, 0x06, 0x08
	netInterfaceImpl, netTypeSpec                  = 0x09, 0x1b
	netNestedClass, netGenericParam                = 0x29, 0x2a
)

const (
	maxNetNesting = 16      // classes in classes
	maxNetParams  = 1 << 12 // of a method
	// maxNetWork is how many rows and types are looked at for all classes: those
	// of the largest libraries have a few hundred thousand.
	maxNetWork = 1 << 20
)

var (
	// II.23.1.15 TypeAttributes, by VisibilityMask; from 2 on they are nested.
	netTypeVisibility = [8]string{"internal", "public", "public", "private", "protected", "internal", "private protected", "protected internal"}
	// II.23.1.10 MethodAttributes, by MemberAccessMask. Who looks at it takes
	// what only the compiler controls for private.
	netMethodVisibility = [8]string{"private", "private", "private protected", "internal", "protected", "protected internal", "public", "private"}
)

// netClasses is what the descriptions of classes are made from.
type netClasses struct {
	*netFile
	enclosing  map[uint32]uint32   // nested class -> the class around it
	interfaces map[uint32][]uint32 // class -> coded indexes
	generics   map[uint32][]string // TypeOrMethodDef index -> names of parameters
	given      uint32              // methods looked at, of all classes
}

// label is a name of the heap. Its length counts as work, as that of types does:
// many rows may have one long name.
func (n *netClasses) label(index uint32) (string, bool) {
	name, ok := n.heapText(index)
	if n.spent(len(name) / 16) {
		return "", false
	}
	return name, ok
}

// netScope are the names that stand for the parameters of generic classes and
// methods.
type netScope struct{ class, method []string }

// classes lists the classes of the file. What each is made of is read when a
// rule asks for it.
func (n *netFile) classes() List {
	n.budget = maxNetWork
	c := &netClasses{netFile: n, enclosing: map[uint32]uint32{}, interfaces: map[uint32][]uint32{}, generics: map[uint32][]string{}}
	n.each(netNestedClass, func(r []byte) {
		inner := n.column(netNestedClass, r, 0)
		if _, have := c.enclosing[inner]; !have {
			c.enclosing[inner] = n.column(netNestedClass, r, 1)
		}
	})
	n.each(netInterfaceImpl, func(r []byte) {
		class := n.column(netInterfaceImpl, r, 0)
		c.interfaces[class] = append(c.interfaces[class], n.column(netInterfaceImpl, r, 1))
	})
	broken := map[uint32]bool{}
	n.each(netGenericParam, func(r []byte) {
		owner := n.column(netGenericParam, r, 2)
		name, _ := c.label(n.column(netGenericParam, r, 3))
		if broken[owner] = broken[owner] || name == ""; broken[owner] {
			delete(c.generics, owner)
			return
		}
		c.generics[owner] = append(c.generics[owner], name)
	})
	var all []any
	for i := range n.rows[netTypeDef] {
		r := n.row(netTypeDef, i)
		if r == nil {
			break
		}
		name, _ := c.label(n.column(netTypeDef, r, 1))
		if short, _, _ := strings.Cut(name, "`"); short != "" && name != "<Module>" {
			all = append(all, c.class(i+1, r, name, short))
		}
	}
	return list(all)
}

// class describes the class of row number index, from 1.
func (n *netClasses) class(index uint32, r []byte, name, short string) Object {
	flags := le.Uint32(r)
	o := Object{
		"name": short, "visibility": netTypeVisibility[flags&7], "type": "class",
		"abstract": flagOf(flags, 0x80), "sealed": flagOf(flags, 0x100),
	}
	if flags&0x20 != 0 {
		o["type"] = "interface"
	}
	namespace, known := n.label(n.column(netTypeDef, r, 2))
	if netNested(flags) {
		namespace = netFullName(namespace, n.around(index, 1))
		known = namespace != ""
	}
	if known {
		o["namespace"] = namespace
	}
	o["fullname"] = netFullName(name, namespace)
	scope := netScope{class: n.generics[index<<1]}
	texts(o, "generic_parameters", scope.class)
	bases := Lazy(func() any {
		var out []string
		for _, coded := range append([]uint32{n.column(netTypeDef, r, 3)}, n.interfaces[index]...) {
			if t, ok := n.typeName(coded, scope, 0); ok {
				out = append(out, t)
			}
		}
		return out
	})
	o["\x00bases"] = bases
	o["base_types"] = Lazy(func() any { return textList(o.Get("\x00bases").([]string)) })
	o["number_of_base_types"] = Lazy(func() any { return int64(len(o.Get("\x00bases").([]string))) })
	o["methods"] = Lazy(func() any { return list(n.methods(index, r, scope)) })
	o["number_of_methods"] = Lazy(func() any { return int64(o.Get("methods").(List).N) })
	return o
}

func netNested(flags uint32) bool { return flags&7 >= 2 }

func flagOf(flags, mask uint32) int64 {
	if flags&mask != 0 {
		return 1
	}
	return 0
}

func textList(v []string) List {
	return List{N: len(v), At: func(i int) any { return v[i] }}
}

func texts(o Object, field string, v []string) {
	o[field], o["number_of_"+field] = textList(v), int64(len(v))
}

// netFullName joins the names of a class and of what it is in, without the
// number of generic parameters.
func netFullName(name, in string) string {
	if name == "" {
		return in
	}
	if in != "" {
		name = in + "." + name
	}
	name, _, _ = strings.Cut(name, "`")
	return name
}

// around is the full name of the class around a nested one.
func (n *netClasses) around(index uint32, depth int) string {
	outer, ok := n.enclosing[index]
	if !ok || depth > maxNetNesting || outer == 0 {
		return ""
	}
	r := n.row(netTypeDef, outer-1)
	if r == nil {
		return ""
	}
	name, _ := n.label(n.column(netTypeDef, r, 1))
	if name == "<Module>" {
		return ""
	}
	namespace, _ := n.label(n.column(netTypeDef, r, 2))
	if netNested(le.Uint32(r)) && outer != index {
		namespace = netFullName(namespace, n.around(outer, depth+1))
	}
	return netFullName(name, namespace)
}

// methods are those of the class of row number index: up to the first of the
// class behind it. A method belongs to one class: where those of classes overlap
// they are given until there are as many as the file has.
func (n *netClasses) methods(index uint32, class []byte, scope netScope) []any {
	first, end := n.column(netTypeDef, class, 5), n.rows[netMethodDef]+1
	if index < n.rows[netTypeDef] {
		next := n.row(netTypeDef, index)
		if next == nil {
			return nil
		}
		end = min(end, n.column(netTypeDef, next, 5))
	}
	var all []any
	for i := max(first, 1); first > 0 && i < end && n.given < n.rows[netMethodDef]; i++ {
		n.given++
		r := n.row(netMethodDef, i-1)
		if r == nil {
			break
		}
		scope.method = n.generics[i<<1|1]
		if m := n.method(r, scope); m != nil {
			all = append(all, m)
		}
	}
	return all
}

// method describes a method; nil where its name or signature (II.23.2.1) is none.
func (n *netClasses) method(r []byte, scope netScope) any {
	name, _ := n.label(n.column(netMethodDef, r, 3))
	s := n.signature(n.column(netMethodDef, r, 4))
	if name == "" || len(s.b) < 3 {
		return nil
	}
	const generic = 0x10
	if s.byte()&generic != 0 {
		s.number()
	}
	count := s.number()
	result, ok := s.typ(scope, 0)
	if !ok || count > maxNetParams {
		return nil
	}
	flags := uint32(le.Uint16(r[6:]))
	o := Object{
		"name": name, "visibility": netMethodVisibility[flags&7],
		"static": flagOf(flags, 0x10), "final": flagOf(flags, 0x20), "virtual": flagOf(flags, 0x40), "abstract": flagOf(flags, 0x400),
	}
	if name != ".ctor" && name != ".cctor" {
		o["return_type"] = result
	}
	texts(o, "generic_parameters", scope.method)
	first := n.column(netMethodDef, r, 5)
	if first == 0 {
		return o
	}
	// As in libyara the names are those of the rows from the method's first on,
	// of the return value included where it has one.
	var params []any
	for i := range count {
		p := Object{"name": "P_" + decimal(int64(i))}
		if row := n.row(netParam, first-1+i); row != nil {
			delete(p, "name")
			if text, ok := n.label(n.column(netParam, row, 2)); ok {
				p["name"] = text
			}
		}
		t, ok := s.typ(scope, 0)
		if !ok {
			return nil
		}
		p["type"] = t
		params = append(params, p)
	}
	o["parameters"], o["number_of_parameters"] = list(params), int64(len(params))
	return o
}
