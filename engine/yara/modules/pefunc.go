package modules

import "strings"

const (
	importStandard = 1
	importDelayed  = 2
)

// entryBytes is what a look at one entry of a table costs, in bytes of
// Input.Spend.
const entryBytes = 64

// lists returns the imports that a function is about: the standard ones, or
// what its first argument says.
func (p *peFile) importLists(args []any) ([][]peDLL, []any) {
	flags := int64(importStandard)
	if f, ok := args[0].(int64); ok {
		flags, args = f, args[1:]
	}
	var out [][]peDLL
	if flags&importStandard != 0 {
		d, _ := p.o.Get("\x00imports").([]peDLL)
		out = append(out, d)
	}
	if flags&importDelayed != 0 {
		d, _ := p.o.Get("\x00delayed").([]peDLL)
		out = append(out, d)
	}
	return out, args
}

// imported counts the imports that the arguments describe; one by name or
// number counts once.
func (p *peFile) imported(args []any) any {
	lists, args := p.importLists(args)
	n := int64(0)
	for _, dlls := range lists {
		for _, d := range dlls {
			p.in.Spend(entryBytes)
			if r, ok := args[0].(Regexp); ok {
				if !r.Match([]byte(d.name)) {
					continue
				}
			} else if !strings.EqualFold(d.name, args[0].(string)) {
				continue
			}
			if len(args) == 1 {
				n += int64(len(d.functions))
				continue
			}
			p.in.Spend(entryBytes * len(d.functions))
			for _, f := range d.functions {
				switch want := args[1].(type) {
				case Regexp:
					if want.Match([]byte(f.name)) {
						n++
					}
				case string:
					if strings.EqualFold(f.name, want) {
						return int64(1)
					}
				case int64:
					if f.ordinal == want {
						return int64(1)
					}
				}
			}
		}
	}
	return n
}

func importRVA(in Input, dlls []peDLL, args []any) any {
	for _, d := range dlls {
		in.Spend(entryBytes)
		if !strings.EqualFold(d.name, args[0].(string)) {
			continue
		}
		in.Spend(entryBytes * len(d.functions))
		for _, f := range d.functions {
			switch want := args[1].(type) {
			case string:
				if strings.EqualFold(f.name, want) {
					return f.rva
				}
			case int64:
				if f.ordinal == want {
					return f.rva
				}
			}
		}
	}
	return nil
}

// export is the index of an export, -1 for none.
func (p *peFile) export(want any) int64 {
	all, _ := p.o.Get("\x00exports").([]peExport)
	for i, e := range all {
		p.in.Spend(entryBytes)
		hit := false
		switch w := want.(type) {
		case string:
			hit = e.named && strings.EqualFold(e.name, w)
		case Regexp:
			hit = e.named && w.Match([]byte(e.name))
		case int64:
			hit = w != 0 && w <= int64(len(all)) && e.ordinal == w
		}
		if hit {
			return int64(i)
		}
	}
	return -1
}

func (p *peFile) functions() {
	o := p.o
	defined := func(i int64) any {
		if i < 0 {
			return nil
		}
		return i
	}
	o["imphash"] = Func(func([]any) any { return o.Get("\x00imphash") })
	o["\x00imphash"] = Lazy(func() any {
		d, _ := o.Get("\x00imports").([]peDLL)
		return imphash(d)
	})
	o["imports"] = Func(p.imported)
	o["import_rva"] = Func(func(args []any) any {
		d, _ := o.Get("\x00imports").([]peDLL)
		return importRVA(p.in, d, args)
	})
	o["delayed_import_rva"] = Func(func(args []any) any {
		d, _ := o.Get("\x00delayed").([]peDLL)
		return importRVA(p.in, d, args)
	})
	o["exports"] = Func(func(args []any) any { return truth(p.export(args[0]) >= 0) })
	o["exports_index"] = Func(func(args []any) any { return defined(p.export(args[0])) })
	o["section_index"] = Func(func(args []any) any {
		p.in.Spend(entryBytes * len(p.sections))
		for i, s := range p.sections {
			switch want := args[0].(type) {
			case string:
				if strings.TrimRight(string(s.name[:]), "\x00") == want {
					return int64(i)
				}
			case int64:
				if want >= int64(s.raw) && want < int64(s.raw)+int64(s.rawSize) {
					return int64(i)
				}
			}
		}
		return nil
	})
	languages := func(mask int64) Func {
		return func(args []any) any {
			l, _ := o.Get("resources").(List)
			p.in.Spend(entryBytes * l.N)
			for i := range l.N {
				r, _ := l.At(i).(Object)
				if v, ok := r["language"].(int64); ok && v&mask == args[0].(int64) {
					return int64(1)
				}
			}
			return int64(0)
		}
	}
	o["locale"], o["language"] = languages(0xffff), languages(0xff)
	o["is_dll"] = Func(func([]any) any { return o["characteristics"].(int64) & 0x2000 })
	o["is_32bit"] = Func(func([]any) any { return truth(!p.wide) })
	o["is_64bit"] = Func(func([]any) any { return truth(p.wide) })
	o["rva_to_offset"] = Func(func(args []any) any { return defined(p.offset(uint64(args[0].(int64)))) })
	o["calculate_checksum"] = Func(func([]any) any { return o.Get("\x00checksum") })
	o["\x00checksum"] = Lazy(p.checksum)
}

// checksum is the PE checksum: 32-bit words added with carry, folded to 16 bits,
// plus the size; the field itself counts as zero.
func (p *peFile) checksum() any {
	skip := p.opt + 64
	sum, word, n, at := uint64(0), uint64(0), 0, int64(0)
	add := func() {
		if at-int64(n) != skip {
			sum += word
			if sum > 0xffffffff {
				sum = sum&0xffffffff + sum>>32
			}
		}
		word, n = 0, 0
	}
	if !each(p.in, 0, p.size, func(b []byte) {
		for _, c := range b {
			word |= uint64(c) << (8 * n)
			n++
			at++
			if n == 4 {
				add()
			}
		}
	}) {
		return nil
	}
	if n > 0 {
		add()
	}
	sum = sum&0xffff + sum>>16
	sum += sum >> 16
	return int64(sum&0xffff) + p.size
}
