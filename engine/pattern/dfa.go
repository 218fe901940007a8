package pattern

import (
	"encoding/binary"
	"slices"
)

// A program that turns out to be costly in an object runs as a deterministic
// automaton from then on, whose states are made when they are first reached: one
// look into a table for a byte, whatever the number of its states. It also
// remembers the ways of the last runs: a run that comes to a place in the same
// state as one of them goes on where that one ended. So the runs from all places of a text of
// near-matches together take linear time wherever their ways join.

const (
	// hotSteps is from how many steps of one program on an automaton is made.
	hotSteps = 1 << 17
	// longRun is how many steps a single run must take to count.
	longRun = 512
	// maxDFAs is how many programs have one at a time, maxDFAStates how many
	// states (of 1 KB) it may have before it begins anew, which it may do
	// maxDFAFlushes times for an object.
	maxDFAs       = 4
	maxDFAStates  = 1024
	maxDFAFlushes = 16
	// dfaWays is how many ways of runs are remembered: runs from places of
	// different kinds may never join.
	dfaWays = 8
)

const (
	dfaUnknown = -1 // of a table of transitions: not computed
	dfaDead    = -2
)

// dfa is the forward part of one program without assertions.
type dfa struct {
	code    []byte
	classes []byte
	sets    [][]uint32
	accept  []bool
	next    []int32
	index   map[string]int32
	flushes int
	cur     states
	stack   []uint32

	ways [dfaWays]way
	own  []int32 // the states of the run before it is on a way
	runs int64
}

// Begin forgets what depends on the object that was looked at.
func (s *Scratch) Begin() {
	s.Steps = 0
	clear(s.heat)
	clear(s.dfas)
}

// warm notes the steps of a run of a program.
func (s *Scratch) warm(code, classes []byte, steps int64) {
	if steps < longRun {
		return
	}
	key := &code[0]
	if s.heat == nil {
		s.heat, s.dfas = map[*byte]int64{}, map[*byte]*dfa{}
	}
	if _, made := s.dfas[key]; made {
		return
	}
	if s.heat[key] += steps; s.heat[key] >= hotSteps && len(s.dfas) < maxDFAs {
		d := &dfa{code: code, classes: classes}
		d.flush()
		s.dfas[key] = d
	}
}

// flush begins anew: with the state in which a run begins, number 0.
func (d *dfa) flush() {
	d.sets, d.accept, d.next, d.index = d.sets[:0], d.accept[:0], d.next[:0], map[string]int32{}
	d.ways = [dfaWays]way{}
	d.cur.reset(len(d.code) / instBytes)
	d.follow(0)
	d.state()
}

// follow adds an instruction and those behind its jumps to the current set.
func (d *dfa) follow(pc uint32) {
	d.stack = append(d.stack[:0], pc)
	for len(d.stack) > 0 {
		pc := d.stack[len(d.stack)-1]
		d.stack = d.stack[:len(d.stack)-1]
		if !d.cur.add(pc) {
			continue
		}
		switch in := d.code[pc*instBytes:]; in[0] {
		case opSplit:
			d.stack = append(d.stack, binary.LittleEndian.Uint32(in[8:]), binary.LittleEndian.Uint32(in[4:]))
		case opJump:
			d.stack = append(d.stack, binary.LittleEndian.Uint32(in[4:]))
		}
	}
}

// state is the number of the current set, dfaDead of the empty one.
func (d *dfa) state() int32 {
	if len(d.cur.dense) == 0 {
		return dfaDead
	}
	// Jumps are followed already: only what consumes, and the end, count.
	set := make([]uint32, 0, len(d.cur.dense))
	accept := false
	for _, pc := range d.cur.dense {
		switch d.code[pc*instBytes] {
		case opByte, opClass:
			set = append(set, pc)
		case opMatch:
			set = append(set, pc)
			accept = true
		}
	}
	slices.Sort(set)
	key := make([]byte, 0, 4*len(set))
	for _, pc := range set {
		key = binary.LittleEndian.AppendUint32(key, pc)
	}
	n, ok := d.index[string(key)]
	if !ok {
		n = int32(len(d.sets))
		d.index[string(key)] = n
		d.sets = append(d.sets, set)
		d.accept = append(d.accept, accept)
		for range 256 {
			d.next = append(d.next, dfaUnknown)
		}
	}
	return n
}

// step is the state behind a byte; ok is false when there is no room for it.
func (d *dfa) step(from int32, c byte) (to int32, ok bool) {
	if len(d.sets) >= maxDFAStates {
		return 0, false
	}
	d.cur.dense = d.cur.dense[:0]
	for _, pc := range d.sets[from] {
		switch in := d.code[pc*instBytes:]; in[0] {
		case opByte:
			if c&in[2] != in[1] {
				continue
			}
		case opClass:
			x := binary.LittleEndian.Uint32(in[4:])
			if d.classes[x*32+uint32(c>>3)]>>(c&7)&1 == 0 {
				continue
			}
		default:
			continue
		}
		d.follow(pc + 1)
	}
	to = d.state()
	d.next[int(from)<<8|int(c)] = to
	return to, true
}

// way is what a run remembers: the states at the places from at on, of which
// those from the place from on are of the last run that went this way; the last
// is where it ended.
type way struct {
	states   []int32
	at, from int64
	accept   int64 // the last place whose state accepts; -1 for none
	used     int64 // when, for the choice of the one to give up
}

func (w *way) end() int64 { return w.at + int64(len(w.states)) }

// meets reports whether the way has the state at a place of a run from pos, and
// goes on. The run must have begun behind the last on the way: else that one may
// have gone further than this one is allowed to.
func (w *way) meets(pos, at int64, state int32) bool {
	return pos >= w.from && at+1 < w.end() && w.states[at-w.at] == state
}

// last is the last place behind at where the way accepts, with lazy the first.
func (d *dfa) last(w *way, at int64, lazy bool) (end int64, ok bool) {
	if w.accept <= at {
		return 0, false
	}
	if lazy {
		i := slices.IndexFunc(w.states[at+1-w.at:], func(st int32) bool { return d.accept[st] })
		return at + 1 + int64(i), i >= 0
	}
	return w.accept, true
}

// add puts a state at the end of a way.
func (d *dfa) add(w *way, state int32) {
	if d.accept[state] {
		w.accept = w.end()
	}
	w.states = append(w.states, state)
}

// take makes the way that of a run from pos that met it behind going through
// states.
func (d *dfa) take(w *way, pos int64, states []int32) {
	copy(w.states[pos-w.at:], states)
	if meets := pos + int64(len(states)); w.accept <= meets {
		w.accept = d.lastAccept(pos, states)
		if d.accept[w.states[meets-w.at]] {
			w.accept = meets
		}
	}
	if drop := pos - w.at; drop > 1<<14 {
		w.states = w.states[:copy(w.states, w.states[drop:])]
		w.at = pos
	}
	w.from = pos
}

// lastAccept is the last place from pos on whose state accepts, -1 for none.
func (d *dfa) lastAccept(pos int64, states []int32) int64 {
	for i, st := range slices.Backward(states) {
		if d.accept[st] {
			return pos + int64(i)
		}
	}
	return -1
}

// run is a forward run from pos as machine.run makes it: end is the last place
// where the program may end, with lazy the first. done is false if the automaton
// grew too large.
func (d *dfa) run(in Input, s *Scratch, pos, limit int64, lazy bool) (end int64, ok, done bool) {
	at, state := pos, int32(0)
	if d.accept[0] {
		if end, ok = pos, true; lazy {
			return end, true, true
		}
	}
	var cur *way // the way that the run is on
	own := d.own[:0]
	var data []byte
	dataAt := int64(0)
	d.runs++
	s.Steps += 16
	for {
		if cur != nil {
			if at == cur.end() {
				d.add(cur, state)
			}
		} else {
			for i := range d.ways {
				if w := &d.ways[i]; w.meets(pos, at, state) {
					cur = w
					break
				}
			}
			if cur == nil {
				own = append(own, state)
			} else {
				d.take(cur, pos, own)
				cur.used = d.runs
				if e, some := d.last(cur, at, lazy); some {
					if end, ok = e, true; lazy {
						d.own = own
						return end, true, true
					}
				}
				at = cur.end() - 1
				state = cur.states[len(cur.states)-1]
			}
		}
		if limit > 0 && at-pos >= limit || at >= in.Size() {
			break
		}
		if at < dataAt || at >= dataAt+int64(len(data)) {
			dataAt = at
			data = in.Slice(at, chunk)
			s.Steps += chunk / 16
			if len(data) == 0 {
				break
			}
		}
		c := data[at-dataAt]
		to := d.next[int(state)<<8|int(c)]
		if to == dfaUnknown {
			s.Steps += int64(len(d.sets[state]))
			if to, done = d.step(state, c); !done {
				return 0, false, false
			}
		}
		if to == dfaDead {
			break
		}
		at++
		state = to
		if d.accept[state] {
			if end, ok = at, true; lazy {
				break
			}
		}
	}
	if cur == nil {
		d.remember(pos, own)
	}
	d.own = own
	return end, ok, true
}

// remember keeps the states of a run instead of those of the way that was used
// longest ago. Short ones are not worth it.
func (d *dfa) remember(pos int64, states []int32) {
	if len(states) < 16 {
		return
	}
	w := &d.ways[0]
	for i := range d.ways {
		if d.ways[i].used < w.used {
			w = &d.ways[i]
		}
	}
	w.states = append(w.states[:0], states...)
	w.at, w.from, w.used, w.accept = pos, pos, d.runs, d.lastAccept(pos, states)
}
