package ebpf

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/features"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"

	"github.com/bulwarkhq/bulwark/agent/sensor"
	"github.com/bulwarkhq/bulwark/event"
)

// Ways of attaching a program.
type way int

const (
	rawTracepoint way = iota
	systemCalls       // the tracepoint at the end of system calls, with types
	egress
	ingress
)

type program struct {
	name, tracepoint string
	way              way
	kinds            []uint32 // that it reports
	optional         bool     // the sensor is of use without it
}

var programs = []program{
	{"bulwark_fork", "sched_process_fork", rawTracepoint, []uint32{kindFork}, false},
	{"bulwark_exec", "sched_process_exec", rawTracepoint, []uint32{kindExec}, false},
	{"bulwark_exit", "sched_process_exit", rawTracepoint, []uint32{kindExit}, false},
	{"bulwark_sock", "inet_sock_set_state", rawTracepoint, []uint32{kindConn}, false},
	{"bulwark_sys_exit", "sys_exit", systemCalls, []uint32{
		kindFile, kindImage, kindNet, kindModule, kindBPF, kindAccess, kindTamper, kindMemfd, kindDevice, kindMount, kindPriv,
	}, true},
	{"bulwark_module", "module_load", rawTracepoint, []uint32{kindModule}, true},
	{"bulwark_dns_out", "", egress, []uint32{kindDNS}, true},
	{"bulwark_dns_in", "", ingress, []uint32{kindDNS}, true},
}

func (p *program) wanted(only []event.Category) bool {
	return slices.ContainsFunc(p.kinds, func(k uint32) bool { return slices.Contains(only, categoryOf(k)) })
}

// Run implements sensor.Sensor.
func (s *Sensor) Run(ctx context.Context, only []event.Category, sink sensor.Sink) error {
	ring := !s.forcePerf && features.HaveMapType(ebpf.RingBuf) == nil
	if !ring {
		s.early = &earlyExits{}
	}
	coll, missing, err := s.load(ring, only)
	if err != nil {
		return err
	}
	defer coll.Close()
	reader, err := newReader(coll.Maps["events"], ring)
	if err != nil {
		return fmt.Errorf("ebpf: open the event buffer: %w", err)
	}
	defer reader.Close()
	if err := fillCalls(coll.Maps["ops"], only); err != nil {
		return err
	}
	unavailable := map[event.Category]error{}
	for _, p := range programs {
		if !p.wanted(only) {
			continue
		}
		err := missing
		if prog := coll.Programs[p.name]; prog != nil {
			var l link.Link
			if l, err = attach(&p, prog); err == nil {
				defer l.Close()
				continue
			}
			err = fmt.Errorf("attach %s: %w", p.name, err)
		}
		if !p.optional {
			return fmt.Errorf("ebpf: %w", err)
		}
		if p.name == "bulwark_module" {
			continue // a kernel without modules; the system calls are seen
		}
		for _, k := range p.kinds {
			if c := categoryOf(k); c != event.CategoryNetwork { // TCP is seen
				unavailable[c] = err
			}
		}
	}
	s.mu.Lock()
	s.unavailable = unavailable
	s.mu.Unlock()
	// Attached first: no process falls between the reading of /proc and this.
	if err := s.table.Seed(ctx); err != nil {
		return fmt.Errorf("ebpf: %w", err)
	}
	s.coll.Store(coll)
	sink.Ready()
	s.log.Info("eBPF sensor attached", "ring_buffer", ring, "categories", only, "unavailable", unavailable)

	watch, cancel := context.WithCancel(ctx)
	defer cancel()
	final := make(chan kernelCounts, 1)
	came := make(chan struct{}, 1)
	go func() { final <- s.watchCounters(watch, coll, came, sink) }()
	stop := context.AfterFunc(watch, func() { reader.Close() })
	defer stop()
	err = s.read(reader, came, sink)
	cancel()
	s.end(<-final, ctx.Err() != nil, sink)
	return err
}

// load loads the programs that are wanted with maps for this kernel. Without the optional ones
// when the kernel refuses them: missing says why.
func (s *Sensor) load(ring bool, only []event.Category) (coll *ebpf.Collection, missing, err error) {
	// Kernels before 5.11 charge BPF memory to RLIMIT_MEMLOCK.
	if err := rlimit.RemoveMemlock(); err != nil {
		return nil, nil, fmt.Errorf("ebpf: raise RLIMIT_MEMLOCK: %w", err)
	}
	spec, err := ebpf.LoadCollectionSpecFromReader(bytes.NewReader(object))
	if err != nil {
		return nil, nil, fmt.Errorf("ebpf: read the embedded object: %w", err)
	}
	if !s.own {
		if err := spec.Variables["self_tgid"].Set(uint32(os.Getpid())); err != nil {
			return nil, nil, fmt.Errorf("ebpf: set self_tgid: %w", err)
		}
	}
	if s.ringBytes > 0 {
		spec.Maps["events"].MaxEntries = s.ringBytes
	}
	if !ring {
		m := spec.Maps["events"]
		m.Type, m.MaxEntries, m.KeySize, m.ValueSize = ebpf.PerfEventArray, 0, 4, 4
		if err := spec.Variables["use_ring"].Set(uint32(0)); err != nil {
			return nil, nil, fmt.Errorf("ebpf: set use_ring: %w", err)
		}
	}
	defer debug.FreeOSMemory() // the kernel's type information was some megabytes
	// Each way of attaching is newer than the one before.
	for _, without := range [][]way{nil, {egress, ingress}, {systemCalls}, {systemCalls, egress, ingress}} {
		less := spec.Copy()
		for _, p := range programs {
			if slices.Contains(without, p.way) || !p.wanted(only) {
				delete(less.Programs, p.name)
			}
		}
		coll, err := ebpf.NewCollection(less)
		if err == nil {
			return coll, missing, nil
		}
		missing = errors.Join(missing, err)
	}
	return nil, nil, fmt.Errorf("ebpf: load the programs (needs BTF and Linux 5.5): %w", missing)
}

func attach(p *program, prog *ebpf.Program) (link.Link, error) {
	switch p.way {
	case systemCalls:
		return link.AttachTracing(link.TracingOptions{Program: prog, AttachType: ebpf.AttachTraceRawTp})
	case egress, ingress:
		at, err := cgroupRoot()
		if err != nil {
			return nil, err
		}
		direction := ebpf.AttachCGroupInetEgress
		if p.way == ingress {
			direction = ebpf.AttachCGroupInetIngress
		}
		return link.AttachCgroup(link.CgroupOptions{Path: at, Attach: direction, Program: prog})
	}
	return link.AttachRawTracepoint(link.RawTracepointOptions{Name: p.tracepoint, Program: prog})
}

// cgroupRoot finds where control group v2 is mounted.
func cgroupRoot() (string, error) {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", fmt.Errorf("find the control group root: %w", err)
	}
	for line := range strings.SplitSeq(string(data), "\n") {
		before, after, ok := strings.Cut(line, " - ")
		f := strings.Fields(before)
		if ok && len(f) > 4 && f[3] == "/" && strings.HasPrefix(after, "cgroup2 ") {
			return f[4], nil
		}
	}
	return "", errors.New("control group v2 is not mounted")
}

// fillCalls tells the program at the end of system calls which ones matter.
func fillCalls(ops *ebpf.Map, only []event.Category) error {
	for nr, op := range calls() {
		if !slices.ContainsFunc(wantedBy(op), func(c event.Category) bool { return slices.Contains(only, c) }) {
			continue
		}
		if err := ops.Put(nr, op); err != nil {
			return fmt.Errorf("ebpf: system call %d: %w", nr, err)
		}
	}
	return nil
}

// kernelCounts are the counters of the programs, by kind.
type kernelCounts struct {
	made, lost, skipped [kindMax]uint64
}

func readKernelCounts(coll *ebpf.Collection) kernelCounts {
	var k kernelCounts
	for name, to := range map[string]*[kindMax]uint64{"made": &k.made, "lost": &k.lost, "skipped": &k.skipped} {
		for kind := uint32(kindExec); kind < kindMax; kind++ {
			var perCPU []uint64
			if err := coll.Maps[name].Lookup(kind, &perCPU); err != nil {
				continue
			}
			for _, v := range perCPU {
				to[kind] += v
			}
		}
	}
	return k
}

func (k *kernelCounts) add(o kernelCounts) {
	for kind := range k.made {
		k.made[kind] += o.made[kind]
		k.lost[kind] += o.lost[kind]
		k.skipped[kind] += o.skipped[kind]
	}
}

// lostEvents is how many events were lost with the records of a kind. A fork is
// no event: who was forked is told by the exec, the end and /proc.
func (k *kernelCounts) lostEvents(kind uint32) uint64 {
	if kind == kindFork {
		return 0
	}
	return k.lost[kind]
}

// kernel is the programs' counters in all runs, and the runs that they missed.
func (s *Sensor) kernel() (k kernelCounts, missed [kindMax]uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if coll := s.coll.Load(); coll != nil {
		k = readKernelCounts(coll)
	}
	k.add(s.ended)
	return k, s.missed
}

// end keeps the counters of a run. What is in the buffer then is read by nobody:
// lost, unless it was time to stop.
func (s *Sensor) end(run kernelCounts, stopped bool, sink sensor.Sink) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.coll.Store(nil)
	s.ended.add(run)
	if stopped {
		return
	}
	for kind := uint32(kindExec); kind < kindMax; kind++ {
		unread := s.ended.made[kind] - s.ended.lost[kind] - s.kinds[kind].read.Load()
		s.ended.lost[kind] += unread
		if unread > 0 && kind != kindFork {
			sink.Lost(categoryOf(kind), unread)
		}
	}
}

// Counts implements sensor.Counter.
func (s *Sensor) Counts() map[event.Category]sensor.Stats {
	k, missed := s.kernel()
	out := make(map[event.Category]sensor.Stats)
	for kind := range s.kinds {
		n, c := &s.kinds[kind], categoryOf(uint32(kind))
		st := out[c]
		lost := k.lostEvents(uint32(kind))
		st.Seen += k.made[kind] + k.skipped[kind] + missed[kind] + n.derived.Load()
		st.Lost += lost + missed[kind]
		st.Filtered += k.skipped[kind] + n.filtered.Load() + k.lost[kind] - lost
		st.Malformed += n.malformed.Load()
		st.Delivered += n.delivered.Load()
		out[c] = st
	}
	return out
}

// Stats implements sensor.Sensor.
func (s *Sensor) Stats() sensor.Stats {
	var sum sensor.Stats
	for st := range maps.Values(s.Counts()) {
		sum.Seen += st.Seen
		sum.Lost += st.Lost
		sum.Filtered += st.Filtered
		sum.Malformed += st.Malformed
		sum.Delivered += st.Delivered
	}
	return sum
}

// watchCounters reports what the programs could not put into the buffer, and
// returns what was reported in the end. Where nothing came nothing was lost: it
// looks when there is something in came.
func (s *Sensor) watchCounters(ctx context.Context, coll *ebpf.Collection, came <-chan struct{}, sink sensor.Sink) (last kernelCounts) {
	missed := map[string]uint64{}
	look := func() {
		k := readKernelCounts(coll)
		for kind := uint32(kindExec); kind < kindMax; kind++ {
			if n := k.lostEvents(kind) - last.lostEvents(kind); n > 0 {
				sink.Lost(categoryOf(kind), n)
			}
		}
		last = k
		// Runs that the kernel skipped because the program was busy on that CPU.
		for _, p := range programs {
			prog := coll.Programs[p.name]
			if prog == nil {
				continue
			}
			if info, err := prog.Stats(); err == nil && info.RecursionMisses > missed[p.name] && p.kinds[0] != kindFork {
				n := info.RecursionMisses - missed[p.name]
				missed[p.name] = info.RecursionMisses
				sink.Lost(categoryOf(p.kinds[0]), n)
				s.mu.Lock()
				s.missed[p.kinds[0]] += n
				s.mu.Unlock()
			}
		}
	}
	timer := time.NewTimer(idleCount)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			look()
			return last
		case <-came:
			// Once for all that comes until then, and after it.
			timer.Reset(countInterval)
			select {
			case <-ctx.Done():
				continue
			case <-timer.C:
			}
		case <-timer.C:
		}
		look()
		timer.Reset(idleCount)
	}
}
