// Package loaded finds the processes that run a file: whose program it is, who
// have it mapped as code (a library), or who interpret it (a script). It ends
// them where policy wants that (features.remediateInfectedFile).
//
// Whoever merely has a file open, or mapped as data, does not run it: a backup
// program, an editor, a file server.
package loaded

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// How says in what way a process runs a file.
type How string

// The values of How.
const (
	Program     How = "program"
	Library     How = "library"
	Interpreted How = "script"
)

// Process runs the file that was asked for.
type Process struct {
	PID  int
	How  How
	Path string // of its program
	// Killed: it was ended. Err says why it was not.
	Killed bool
	Err    error
}

// File is what identifies the file: any of its names and any mount will do.
type File struct {
	Device, Inode uint64
	// Name is its file name, by which scripts are recognised before they are
	// looked at.
	Name string
}

// FileOf identifies an open file.
func FileOf(f *os.File, path string) (File, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return File{}, fmt.Errorf("%s: %w", path, err)
	}
	return File{Device: st.Dev, Inode: st.Ino, Name: filepath.Base(path)}, nil
}

const (
	// maxMaps bounds a process's table of mappings: 65,530 of them are allowed
	// (vm.max_map_count), of about 100 bytes.
	maxMaps = 16 << 20
	// maxCommandLine bounds what is read of a command line.
	maxCommandLine = 64 << 10
	// maxFound bounds the result.
	maxFound = 4096
)

// Find returns the processes that run f. Processes that end meanwhile, kernel
// threads and those that may not be looked at are left out.
func Find(f File) ([]Process, error) { return each(f, nil) }

// Kill ends the processes that run f, except those that spare names: the
// caller's own and the first one are always spared. A process that is found is
// the process that is ended, also when its number is used again meanwhile
// (Linux 5.3; before, it is checked immediately before).
func Kill(f File, spare func(pid int) bool) ([]Process, error) {
	return each(f, func(p *Process, still func() bool) {
		if p.PID == 1 || p.PID == os.Getpid() || spare != nil && spare(p.PID) {
			p.Err = errors.New("spared: the agent's own or the first process")
			return
		}
		p.Err = end(p.PID, still)
		p.Killed = p.Err == nil
	})
}

func each(f File, act func(p *Process, still func() bool)) ([]Process, error) {
	pids, err := processes()
	if err != nil {
		return nil, err
	}
	var out []Process
	for _, pid := range pids {
		how := f.runs(pid)
		if how == "" {
			continue
		}
		if len(out) == maxFound {
			return out, fmt.Errorf("more than %d processes run %s", maxFound, f.Name)
		}
		path, _ := os.Readlink(dir(pid) + "/exe")
		p := Process{PID: pid, How: how, Path: path}
		if act != nil {
			act(&p, func() bool { return f.runs(pid) != "" })
		}
		out = append(out, p)
	}
	return out, nil
}

func dir(pid int) string { return "/proc/" + strconv.Itoa(pid) }

func processes() ([]int, error) {
	d, err := os.Open("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	var pids []int
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			pids = append(pids, pid)
		}
	}
	slices.Sort(pids)
	return pids, nil
}

// end kills the process pid if still says that it is the one that is meant.
func end(pid int, still func() bool) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if err == nil {
		defer unix.Close(fd)
	} else if !errors.Is(err, unix.ENOSYS) {
		return fmt.Errorf("process %d: %w", pid, err)
	}
	if !still() {
		return fmt.Errorf("process %d does not run it any more", pid)
	}
	if err == nil {
		err = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
	} else {
		err = unix.Kill(pid, unix.SIGKILL)
	}
	if err != nil {
		return fmt.Errorf("kill process %d: %w", pid, err)
	}
	return nil
}

// is reports whether a path leads to the file. The links of /proc are followed
// without a look at the path they show.
func (f File) is(path string) bool {
	var st unix.Stat_t
	return unix.Stat(path, &st) == nil && st.Dev == f.Device && st.Ino == f.Inode
}

// runs says how a process runs the file; "" when it does not.
func (f File) runs(pid int) How {
	switch {
	case f.is(dir(pid) + "/exe"):
		return Program
	case f.mapped(pid):
		return Library
	case f.interpreted(pid):
		return Interpreted
	}
	return ""
}

// mapped reports whether the process has the file mapped as code.
func (f File) mapped(pid int) bool {
	file, err := os.Open(dir(pid) + "/maps")
	if err != nil {
		return false
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, maxMaps))
	if err != nil {
		return false
	}
	for line := range bytes.Lines(data) {
		// address perms offset device inode path; see proc_pid_maps(5).
		fields := bytes.Fields(line)
		if len(fields) < 5 || len(fields[1]) < 3 || fields[1][2] != 'x' {
			continue
		}
		if inode, err := strconv.ParseUint(string(fields[4]), 10, 64); err != nil || inode != f.Inode {
			continue
		}
		// The device there is not always stat's (btrfs); the link is the file.
		link := dir(pid) + "/map_files/" + string(fields[0])
		var st unix.Stat_t
		if err := unix.Stat(link, &st); err == nil {
			if st.Dev == f.Device && st.Ino == f.Inode {
				return true
			}
			continue
		}
		// Before Linux 4.3 only some processes had these links.
		if string(fields[3]) == fmt.Sprintf("%02x:%02x", unix.Major(f.Device), unix.Minor(f.Device)) {
			return true
		}
	}
	return false
}

// interpreters read their program from a file that an argument names. Versions
// follow the names (python3.11).
var interpreters = []string{
	"sh", "bash", "dash", "ash", "ksh", "mksh", "zsh", "fish", "busybox", "python", "pypy", "perl", "ruby", "node", "nodejs",
	"php", "lua", "luajit", "tclsh", "awk", "gawk", "mawk", "pwsh", "java", "guile", "Rscript",
}

func interpreter(program string) bool {
	name := strings.TrimRight(strings.TrimSuffix(filepath.Base(program), " (deleted)"), "0123456789.-")
	return slices.Contains(interpreters, name)
}

// interpreted reports whether the process is an interpreter with the file as an
// argument.
func (f File) interpreted(pid int) bool {
	if f.Name == "" {
		return false
	}
	program, err := os.Readlink(dir(pid) + "/exe")
	if err != nil || !interpreter(program) {
		return false
	}
	file, err := os.Open(dir(pid) + "/cmdline")
	if err != nil {
		return false
	}
	defer file.Close()
	line, err := io.ReadAll(io.LimitReader(file, maxCommandLine))
	if err != nil {
		return false
	}
	script := scriptOf(strings.Split(string(line), "\x00"))
	if script == "" || filepath.Base(script) != f.Name {
		return false
	}
	// As the process sees it: in its root and working directory.
	from := dir(pid) + "/cwd/"
	if filepath.IsAbs(script) {
		from = dir(pid) + "/root/"
	}
	return f.is(from + script)
}

// scriptOf is the argument that names an interpreter's program: the first one
// that is no option. Those that follow are the script's own, and a script that
// only works on the file does not run it.
func scriptOf(arguments []string) string {
	for _, a := range arguments[1:] {
		switch {
		case a == "-c" || a == "-e" || a == "-E" || a == "-m":
			return "" // the program is the argument itself, or no file
		case a != "" && !strings.HasPrefix(a, "-"):
			return a
		}
	}
	return ""
}
