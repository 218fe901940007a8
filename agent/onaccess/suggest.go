package onaccess

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Risk is what an exclusion would open.
type Risk string

// The risks.
const (
	RiskLow    Risk = "low"    // only root could put malware there
	RiskMedium Risk = "medium" // one service or user could
	RiskHigh   Risk = "high"   // anybody could, or the program handles files from outside
)

// Suggestion is an exclusion that would save scanning.
type Suggestion struct {
	// Type is "process" or "folder", Value what to exclude.
	Type, Value string
	Saves       time.Duration // of scanning so far
	Scans       uint64
	Share       float64 // of all scanning time, 0 to 1
	Risk        Risk
	Why         string // of the risk
}

const (
	// worthShare is the part of all scanning time from which on an exclusion is
	// worth its risk, and worthTime the least time.
	worthShare = 0.05
	worthTime  = 500 * time.Millisecond
	// folderDepth is how deep the folders of suggestions are at most: deeper
	// ones are counted to their parents.
	folderDepth = 4
)

// outside are programs that handle whatever comes from outside: to exclude
// what they open lets in what they unpack, run or fetch.
var outside = []string{
	"sh", "bash", "dash", "zsh", "ksh", "busybox", "python*", "perl*", "ruby*", "php*", "node", "java",
	"curl", "wget", "ssh", "sshd", "scp", "sftp*", "rsync", "ftp", "tar", "unzip", "7z*", "gzip", "xz", "cpio", "bsdtar",
	"firefox*", "chrom*", "thunderbird", "smbd", "nginx", "apache2", "httpd", "postfix", "exim*", "dovecot", "sendmail",
	"cp", "mv", "cat", "dd", "find", "xargs", "apt*", "dpkg*", "rpm", "dnf", "yum", "zypper", "pip*", "npm", "git", "docker*", "containerd*", "systemd",
}

// Suggest derives exclusions from statistics, those that save most first.
// look tells about the permissions of a path; nil means this host's.
func Suggest(s Stats, look func(path string) (uid, mode uint32, err error)) []Suggestion {
	if look == nil {
		look = permissions
	}
	var out []Suggestion
	var total time.Duration
	byProgram := map[string]*Suggestion{}
	for _, p := range s.Processes {
		total += p.TotalScan
		if !strings.HasPrefix(p.Path, "/") {
			continue
		}
		e := byProgram[p.Path]
		if e == nil {
			e = &Suggestion{Type: "process", Value: p.Path}
			byProgram[p.Path] = e
		}
		e.Saves += p.TotalScan
		e.Scans += p.Files
	}
	byFolder := map[string]*Suggestion{}
	for _, p := range s.Files {
		dir := folderOf(p.Path)
		if dir == "" {
			continue
		}
		e := byFolder[dir]
		if e == nil {
			e = &Suggestion{Type: "folder", Value: dir}
			byFolder[dir] = e
		}
		e.Saves += p.TotalScan
		e.Scans += p.Scans
	}
	for _, set := range []map[string]*Suggestion{byProgram, byFolder} {
		for _, e := range set {
			if total == 0 || e.Saves < worthTime {
				continue
			}
			if e.Share = min(1, float64(e.Saves)/float64(total)); e.Share < worthShare {
				continue
			}
			if e.Type == "process" {
				e.Risk, e.Why = programRisk(e.Value, look)
			} else {
				e.Risk, e.Why = folderRisk(e.Value, look)
			}
			out = append(out, *e)
		}
	}
	slices.SortFunc(out, func(a, b Suggestion) int {
		return cmp.Or(cmp.Compare(b.Saves, a.Saves), cmp.Compare(a.Type, b.Type), cmp.Compare(a.Value, b.Value))
	})
	return out
}

// folderOf is the folder that a file's scans are counted to; "" where an
// exclusion would be out of proportion (the top folders of the system).
func folderOf(path string) string {
	dir := filepath.Dir(path)
	parts := strings.Split(strings.TrimPrefix(dir, "/"), "/")
	if !strings.HasPrefix(path, "/") || len(parts) < 2 {
		return ""
	}
	return "/" + strings.Join(parts[:min(len(parts), folderDepth)], "/")
}

func programRisk(path string, look func(string) (uint32, uint32, error)) (Risk, string) {
	name := filepath.Base(path)
	for _, pattern := range outside {
		if ok, _ := filepath.Match(pattern, name); ok {
			return RiskHigh, name + " handles whatever comes from outside or starts other programs: nothing that it opens would be scanned"
		}
	}
	uid, mode, err := look(path)
	switch {
	case err != nil:
		return RiskHigh, "the program cannot be looked at: " + err.Error()
	case uid != 0 || mode&0o022 != 0:
		return RiskHigh, "the program can be replaced by others than root, and would then open anything unscanned"
	}
	return RiskMedium, "what this program opens would not be scanned; what it writes for others would be, when they open it"
}

func folderRisk(dir string, look func(string) (uint32, uint32, error)) (Risk, string) {
	for _, top := range []string{"/tmp", "/var/tmp", "/dev/shm", "/home", "/root", "/run/user"} {
		if dir == top || strings.HasPrefix(dir, top+"/") {
			return RiskHigh, "below " + top + ", where downloads and malware land"
		}
	}
	uid, mode, err := look(dir)
	switch {
	case err != nil:
		return RiskHigh, "the folder cannot be looked at: " + err.Error()
	case mode&0o002 != 0:
		return RiskHigh, "anybody can write there"
	case uid != 0 || mode&0o020 != 0:
		return RiskMedium, fmt.Sprintf("the user %d or a group can write there", uid)
	}
	return RiskLow, "only root can add files to the folder itself"
}

// permissions is the owner and the mode of a path.
func permissions(path string) (uid, mode uint32, err error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return 0, 0, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	return st.Uid, st.Mode & 0o7777, nil
}
