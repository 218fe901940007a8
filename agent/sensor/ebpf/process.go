package ebpf

import (
	"fmt"
	"path"
	"strconv"
	"strings"

	"github.com/bulwarkhq/bulwark/agent/process"
	"github.com/bulwarkhq/bulwark/agent/sensor"
	"github.com/bulwarkhq/bulwark/event"
)

func (s *Sensor) processRecord(data []byte, sink sensor.Sink) error {
	r, err := ParseRecord(data)
	if err != nil {
		return err
	}
	key := process.Key{PID: int(r.PID), Start: process.Ticks(r.Start)}
	parent := process.Key{PID: int(r.PPID), Start: process.Ticks(r.ParentStart)}
	switch r.Kind {
	case kindFork:
		s.table.Fork(key, parent, r.UID)
		if _, ok := s.early.get(key); ok {
			s.table.Exit(key)
		}
		s.filtered(kindFork)
	case kindExec:
		proc, pp := s.exec(&r, key, parent, sink)
		if end, ok := s.early.get(key); ok {
			s.table.Exit(key)
			s.kinds[kindExit].filtered.Add(^uint64(0)) // was counted when it came too early
			s.exit(&end, proc, pp, sink)
		}
	case kindExit:
		proc, pp, image, known := s.table.Exit(key)
		if !known || !image {
			s.early.put(key, r)
			s.filtered(kindExit)
			return nil
		}
		s.exit(&r, proc, pp, sink)
	}
	return nil
}

func (s *Sensor) exit(r *Record, proc, parent event.Process, sink sensor.Sink) {
	s.emit(sink, r.Kind, event.Event{
		Time: s.table.Clock().Mono(r.Time), Class: event.ClassProcess, Action: event.ProcessTerminated,
		Process: proc, Initiating: parent, Additional: process.ExitStatus(r.ExitCode),
	}, process.Image{})
}

func (s *Sensor) exec(r *Record, key, parent process.Key, sink sensor.Sink) (proc, pp event.Process) {
	file, name := r.image()
	p := event.Process{
		FolderPath: file, FileName: name, CommandLine: r.CommandLine, WorkingDir: r.Cwd,
		FileSize: int64(r.Size), UID: int64(r.UID), LoginUID: process.AuditID(r.LoginUID),
		SessionID: process.AuditID(r.SessionID), Terminal: process.TTYKernelName(r.TTY),
		ContainerID: process.ContainerID(r.Cgroup),
		Namespaces:  s.namespaces(r), Capabilities: s.capabilities(r.CapEffective),
		SessionLeader: int64(r.SessionLeader),
	}
	if r.Flags&flagInterpreted != 0 && r.Filename != file {
		p.Script = r.Filename
		if !path.IsAbs(p.Script) {
			p.Script = path.Join(r.Cwd, p.Script)
		}
	}
	extra := make(map[string]string, 4)
	if r.Flags&(flagArgsUnreadable|flagArgsCut) != 0 {
		// Longer than the kernel side copies, or swapped out: /proc has it all
		// while the process lives.
		if full, st, err := s.table.Read(key.PID); err == nil && st.Start == key.Start && len(full.CommandLine) > len(p.CommandLine) {
			p.CommandLine = full.CommandLine
		}
		if n := int(r.ArgsTotal) - 1; n > len(p.CommandLine) {
			extra["CommandLineLength"] = strconv.Itoa(n)
		}
	}
	if p.CommandLine == "" {
		p.CommandLine = r.Filename
	}
	if r.Filename != file {
		extra["ExecFileName"] = r.Filename
	}
	if r.Flags&flagUnlinked != 0 {
		extra["ImageDeleted"] = "true"
	}
	if r.EUID != r.UID {
		extra["EffectiveUid"] = strconv.FormatUint(uint64(r.EUID), 10)
	}
	proc, pp = s.table.Exec(key, parent, p)
	if len(extra) == 0 {
		extra = nil
	}
	s.emit(sink, r.Kind, event.Event{
		Time: s.table.Clock().Mono(r.Time), Class: event.ClassProcess, Action: event.ProcessCreated,
		Process: proc, Initiating: pp, Additional: extra,
	}, r.imageFile())
	if name, ok := strings.CutPrefix(file, "/memfd:"); ok && r.Flags&flagUnlinked != 0 {
		s.also(sink, kindMemfd, event.Event{
			Time: s.table.Clock().Mono(r.Time), Class: event.ClassDevice, Action: event.MemoryFileExecuted,
			Process: proc, Initiating: proc, File: event.File{FileName: name, FolderPath: file, Size: int64(r.Size)},
		})
	}
	return proc, pp
}

// namespaces lists the namespaces of a process. Almost all are in the same, so
// the last text is kept.
func (s *Sensor) namespaces(r *Record) string {
	key := [7]uint32{r.CgroupNS, r.IPCNS, r.MountNS, r.NetNS, r.PIDNS, r.UserNS, r.UTSNS}
	if s.lastNS == key {
		return s.lastNSText
	}
	s.lastNS = key
	s.lastNSText = fmt.Sprintf("cgroup:%d ipc:%d mnt:%d net:%d pid:%d user:%d uts:%d", key[0], key[1], key[2], key[3], key[4], key[5], key[6])
	return s.lastNSText
}

// capabilities is a set of them in hex. Almost all programs have none or all, so
// the last texts are kept.
func (s *Sensor) capabilities(set uint64) string {
	at := &s.lastCaps[set&1]
	if at.text == "" || at.set != set {
		at.set, at.text = set, fmt.Sprintf("%016x", set)
	}
	return at.text
}
