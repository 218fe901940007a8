package detect

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"path"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bulwarkhq/bulwark/event"
)

// Limits of a folder of rules.
const (
	maxRuleFiles = 20000
	maxRules     = 20000
)

// Source is a folder of rule files (*.yml, *.yaml), with its subfolders.
type Source struct {
	// Name stands before the path of a file in messages; the folder's path for
	// administrators' rules.
	Name string
	FS   fs.FS
	// Builtin is for the product's own rules.
	Builtin bool
}

// Match is a rule that an event matched.
type Match struct {
	Rule *Rule
	// Group is set for correlations.
	Group *Group
}

// Options of an Engine. Zero values mean the default.
type Options struct {
	Log *slog.Logger
	// Window is how long further matches of a rule in one process tree are
	// counted instead of reported or recorded; 10 minutes.
	Window time.Duration
	// MaxTrees bounds what is remembered for that; 8192.
	MaxTrees int
	Now      func() time.Time
}

// Engine evaluates the loaded rules. It is safe for use by many goroutines,
// also during Load.
type Engine struct {
	log       *slog.Logger
	active    atomic.Pointer[active]
	dedupe    *dedupe
	behaviors *behaviors
	rare      *rare

	loading sync.Mutex
	good    map[string]parsed // by file: what was last read without error
	// given are the rules as they were last read, modes what the policy says of
	// some of them.
	given     []*Rule
	pipelines []*pipeline
	modes     Modes
}

type active struct {
	sets map[string]*ruleset // by stream
	list []RuleInfo
	corr *correlator // nil without correlations
	// unknown are ids in Modes that no rule has.
	unknown []string
}

// Report says what a Load made of the sources.
type Report struct {
	Loaded   int // rules that events are evaluated against
	Inactive int // rules for events that no sensor here delivers
	Problems []Problem
}

// RuleInfo describes a loaded rule.
type RuleInfo struct {
	Rule *Rule
	// Inactive says why no event reaches the rule; empty when it is in use.
	Inactive           string
	Evaluated, Matched uint64
	// Cost is what one evaluation takes on average, measured at some of them.
	Cost time.Duration
	// Skipped are the evaluations left out because the rule took too much time;
	// Paused says that it is so now.
	Skipped uint64
	Paused  bool
	// Off rules are inactive because Modes say so; RecordOnly rules make
	// behaviours in place of alerts.
	Off, RecordOnly bool
	// Stream is the kind of events that the rule sees: a category of Sigma, or
	// "service:" and the name of a log.
	Stream string
}

// New makes an engine without rules.
func New(opts Options) *Engine {
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	if opts.Window == 0 {
		opts.Window = 10 * time.Minute
	}
	if opts.MaxTrees == 0 {
		opts.MaxTrees = 8192
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	e := &Engine{log: opts.Log, good: map[string]parsed{}, dedupe: newDedupe(opts.Window, opts.MaxTrees, opts.Now), behaviors: newBehaviors(opts.Window, opts.Now), rare: newRare(opts.Now)}
	e.active.Store(&active{})
	return e
}

// Load reads the sources and replaces the rules at once. A file that cannot be
// read or parsed is reported and keeps the rules that it gave before; the
// others are used. Of two rules with the same id the later source's counts, so
// that an administrator can replace a rule of the product.
func (e *Engine) Load(sources ...Source) Report {
	e.loading.Lock()
	defer e.loading.Unlock()
	var rep Report
	var all []*Rule
	var pipelines []*pipeline
	byID := make(map[string]int)
	good := make(map[string]parsed)
	for _, src := range sources {
		for _, got := range e.loadSource(src, good, &rep) {
			pipelines = append(pipelines, got.pipelines...)
			for _, r := range got.rules {
				if i, ok := byID[r.ID]; ok {
					if src.Builtin || !all[i].Builtin {
						rep.Problems = append(rep.Problems, Problem{r.File, r.Line, r.Title, fmt.Errorf("replaces the rule of the same id %s in %s", r.ID, all[i].File)})
					}
					all[i] = r
					continue
				}
				if len(all) >= maxRules {
					rep.Problems = append(rep.Problems, Problem{r.File, r.Line, r.Title, fmt.Errorf("more than %d rules", maxRules)})
					break
				}
				byID[r.ID] = len(all)
				all = append(all, r)
			}
		}
	}
	e.good, e.given, e.pipelines = good, all, pipelines
	e.activate(&rep, nil)
	return rep
}

// activate compiles the given rules and puts them in the place of those in use.
// costs are what rules have cost so far, by id. loading must be held.
func (e *Engine) activate(rep *Report, costs map[string]*cost) {
	links := link(e.given, e.pipelines, e.modes, func(p Problem) { rep.Problems = append(rep.Problems, p) })
	next := &active{sets: make(map[string]*ruleset), corr: links.corr, unknown: e.modes.unknown(e.given)}
	by := make(map[string][]*Rule)
	for _, r := range links.rules {
		why := links.inactive[r]
		info := RuleInfo{Rule: r, Inactive: why, Off: e.modes.off(r), RecordOnly: r.recordOnly}
		if r.cond != nil {
			info.Stream, _ = r.stream()
		}
		next.list = append(next.list, info)
		if why != "" {
			rep.Inactive++
			continue
		}
		rep.Loaded++
		if r.cond != nil {
			by[info.Stream] = append(by[info.Stream], r)
		}
	}
	for stream, rules := range by {
		set := newRuleset(stream, rules)
		set.log = e.log
		for _, c := range set.rules {
			if so := costs[c.rule.ID]; so != nil {
				c.cost = so
			}
		}
		next.sets[stream] = set
	}
	e.active.Store(next)
	e.log.Info("behaviour rules loaded", "rules", rep.Loaded, "inactive", rep.Inactive, "problems", len(rep.Problems))
	if len(next.unknown) > 0 {
		e.log.Warn("the policy names rules that are not here", "ids", next.unknown)
	}
}

func (e *Engine) loadSource(src Source, good map[string]parsed, rep *Report) []parsed {
	var out []parsed
	files := 0
	err := fs.WalkDir(src.FS, ".", func(name string, d fs.DirEntry, err error) error {
		file := path.Join(src.Name, name)
		if err != nil {
			rep.Problems = append(rep.Problems, Problem{File: file, Err: err})
			return nil //nolint:nilerr // reported; the other files still count
		}
		if d.IsDir() {
			if strings.Count(name, "/") > 8 || name == "testdata" {
				return fs.SkipDir
			}
			return nil
		}
		if ext := path.Ext(name); ext != ".yml" && ext != ".yaml" {
			return nil
		}
		if files++; files > maxRuleFiles {
			rep.Problems = append(rep.Problems, Problem{File: src.Name, Err: fmt.Errorf("more than %d files; the rest is not read", maxRuleFiles)})
			return fs.SkipAll
		}
		got, problems := readFile(src.FS, name, file)
		if len(problems) > 0 {
			if old, ok := e.good[file]; ok && len(got.rules)+len(got.pipelines) == 0 {
				got = old
				for i := range problems {
					problems[i].Err = fmt.Errorf("%w (its previous version stays in use)", problems[i].Err)
				}
			}
			rep.Problems = append(rep.Problems, problems...)
		}
		for _, r := range got.rules {
			r.Builtin = src.Builtin
			r.SelfTest = r.SelfTest && src.Builtin
		}
		good[file] = got
		out = append(out, got)
		return nil
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		rep.Problems = append(rep.Problems, Problem{File: src.Name, Err: err})
	}
	return out
}

func readFile(fsys fs.FS, name, file string) (parsed, []Problem) {
	f, err := fsys.Open(name)
	if err != nil {
		return parsed{}, []Problem{{File: file, Err: err}}
	}
	defer f.Close()
	if st, err := f.Stat(); err == nil && !st.Mode().IsRegular() {
		return parsed{}, []Problem{{File: file, Err: errors.New("not a regular file")}}
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFileSize+1))
	if err != nil {
		return parsed{}, []Problem{{File: file, Err: err}}
	}
	return parseFile(file, data)
}

// Evaluate gives the rules that ev matches; it allocates only when there are
// any.
func (e *Engine) Evaluate(ev *event.Event) []Match {
	active := e.active.Load()
	if len(active.sets) == 0 {
		return nil
	}
	var out []Match
	streams := streamsOf(ev)
	for _, stream := range streams.name[:streams.n] {
		if s := active.sets[stream]; s != nil {
			out = s.evaluate(ev, out)
		}
	}
	if len(out) > 0 && active.corr != nil {
		out = active.corr.run(ev, out)
	}
	return out
}

// Responses are what a rule wants done besides its alert.
func (e *Engine) Responses(id string) []Response {
	for _, r := range e.active.Load().list {
		if r.Rule.ID == id {
			return r.Rule.Responses
		}
	}
	return nil
}

// Rules lists the loaded rules with their statistics, by title.
func (e *Engine) Rules() []RuleInfo {
	a := e.active.Load()
	counts := make(map[*Rule]*compiled)
	for _, s := range a.sets {
		for _, c := range s.rules {
			counts[c.rule] = c
		}
	}
	list := append([]RuleInfo(nil), a.list...)
	for i := range list {
		if c := counts[list[i].Rule]; c != nil {
			list[i].Evaluated, list[i].Matched, list[i].Cost = c.cost.evaluated.Load(), c.cost.matched.Load(), c.cost.mean()
			list[i].Skipped, list[i].Paused = c.cost.skipped.Load(), c.cost.paused.Load() > time.Now().UnixNano()
		}
	}
	sort.Slice(list, func(i, j int) bool { return list[i].Rule.Title < list[j].Rule.Title })
	return list
}
