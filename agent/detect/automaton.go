package detect

import "sort"

// automaton finds many literals in one pass (Aho-Corasick), or, as a trie,
// those that a text begins or ends with. Literals are in lower case; the text
// is folded on the way.
type automaton struct {
	class  [256]uint8 // byte, folded, to class; 0 is "in no literal"
	dense  []int32    // rows of full transitions for the first states
	width  int32      // classes
	nDense int32
	first  []int32 // edges of state s: edges[first[s]:first[s+1]]
	edges  []edge
	fail   []int32
	// outputs of state s: ids[out[s]:out[s+1]], and those of state dict[s] ...
	out  []int32
	ids  []int32
	dict []int32 // next state on the failure path that has outputs; 0 none
	size int     // literals
}

type edge struct {
	class uint8
	to    int32
}

// maxDense states get a full row of transitions: those next to the root, where
// nearly all of the time is spent. The others keep their edges only, so memory
// grows with the text of the rules and not with its square.
const maxDense = 2048

type literal struct {
	text string
	id   int32
}

// build makes the automaton; reverse turns the literals round, for endings.
func build(lits []literal, reverse bool) *automaton {
	if len(lits) == 0 {
		return nil
	}
	a := &automaton{size: len(lits)}
	var used [256]bool
	for _, l := range lits {
		for i := range len(l.text) {
			used[l.text[i]] = true
		}
	}
	n := uint8(0)
	var of [256]uint8
	for b := range 256 {
		if used[b] {
			n++ // at most 230: literals have no capital letters
			of[b] = n
		}
	}
	for b := range 256 {
		a.class[b] = of[fold(byte(b))]
	}
	a.width = int32(n) + 1

	type trieNode struct {
		kids map[uint8]int32
		ids  []int32
	}
	trie := []trieNode{{}}
	for _, l := range lits {
		s := int32(0)
		for i := range len(l.text) {
			b := l.text[i]
			if reverse {
				b = l.text[len(l.text)-1-i]
			}
			c := of[b]
			next, ok := trie[s].kids[c]
			if !ok {
				next = int32(len(trie))
				trie = append(trie, trieNode{})
				if trie[s].kids == nil {
					trie[s].kids = make(map[uint8]int32)
				}
				trie[s].kids[c] = next
			}
			s = next
		}
		trie[s].ids = append(trie[s].ids, l.id)
	}
	// Number the states breadth first, so that those near the root are first.
	order := []int32{0}
	number := make([]int32, len(trie))
	a.first = append(a.first, 0)
	a.out = append(a.out, 0)
	for i := 0; i < len(order); i++ {
		t := trie[order[i]]
		classes := make([]int, 0, len(t.kids))
		for c := range t.kids {
			classes = append(classes, int(c))
		}
		sort.Ints(classes)
		for _, c := range classes {
			k := t.kids[uint8(c)]
			number[k] = int32(len(order))
			order = append(order, k)
			a.edges = append(a.edges, edge{uint8(c), number[k]})
		}
		a.first = append(a.first, int32(len(a.edges)))
		a.ids = append(a.ids, t.ids...)
		a.out = append(a.out, int32(len(a.ids)))
	}
	a.fail = make([]int32, len(order))
	a.dict = make([]int32, len(order))
	a.nDense = min(int32(len(order)), maxDense)
	a.dense = make([]int32, a.nDense*a.width)
	for s := range int32(len(order)) {
		f := a.fail[s]
		if s != 0 {
			if a.out[f+1] > a.out[f] {
				a.dict[s] = f
			} else {
				a.dict[s] = a.dict[f]
			}
		}
		if s < a.nDense && s != 0 {
			copy(a.dense[s*a.width:(s+1)*a.width], a.dense[f*a.width:(f+1)*a.width])
		}
		for _, e := range a.edges[a.first[s]:a.first[s+1]] {
			if s != 0 {
				a.fail[e.to] = a.next(f, e.class)
			}
			if s < a.nDense {
				a.dense[s*a.width+int32(e.class)] = e.to
			}
		}
	}
	return a
}

func (a *automaton) child(s int32, c uint8) (int32, bool) {
	for _, e := range a.edges[a.first[s]:a.first[s+1]] {
		if e.class == c {
			return e.to, true
		}
	}
	return 0, false
}

func (a *automaton) next(s int32, c uint8) int32 {
	for s >= a.nDense {
		if to, ok := a.child(s, c); ok {
			return to
		}
		s = a.fail[s]
	}
	return a.dense[s*a.width+int32(c)]
}

// find calls hit for every literal anywhere in text. One may be called several
// times.
func (a *automaton) find(text string, hit func(*scratch, int32), sc *scratch) {
	s := int32(0)
	for i := range len(text) {
		c := a.class[text[i]]
		if s < a.nDense {
			s = a.dense[s*a.width+int32(c)]
		} else {
			s = a.next(s, c)
		}
		for o := s; o != 0; o = a.dict[o] {
			for _, id := range a.ids[a.out[o]:a.out[o+1]] {
				hit(sc, id)
			}
		}
	}
}

// begins calls hit for every literal that text begins with.
func (a *automaton) begins(text string, hit func(*scratch, int32), sc *scratch) {
	s, ok := int32(0), false
	for i := range len(text) {
		if s, ok = a.child(s, a.class[text[i]]); !ok {
			return
		}
		for _, id := range a.ids[a.out[s]:a.out[s+1]] {
			hit(sc, id)
		}
	}
}

// ends calls hit for every literal that text ends with; the automaton was built
// with reverse.
func (a *automaton) ends(text string, hit func(*scratch, int32), sc *scratch) {
	s, ok := int32(0), false
	for i := len(text) - 1; i >= 0; i-- {
		if s, ok = a.child(s, a.class[text[i]]); !ok {
			return
		}
		for _, id := range a.ids[a.out[s]:a.out[s+1]] {
			hit(sc, id)
		}
	}
}
