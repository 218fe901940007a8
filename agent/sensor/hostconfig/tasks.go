package hostconfig

import (
	"path"
	"strconv"
	"strings"
	"time"
)

// crontabs are where tables of cron are: user says that a line has a user after
// the times (crontab(5)), owner that the file's name is the user's.
var crontabs = []struct {
	dir         string
	user, owner bool
	script      string // of folders of scripts: when they are run
}{
	{dir: "/etc/cron.d", user: true},
	{dir: "/var/spool/cron/crontabs", owner: true}, // Debian
	{dir: "/var/spool/cron/tabs", owner: true},     // SUSE
	{dir: "/var/spool/cron", owner: true},          // Red Hat
	{dir: "/etc/cron.hourly", script: "hourly"},
	{dir: "/etc/cron.daily", script: "daily"},
	{dir: "/etc/cron.weekly", script: "weekly"},
	{dir: "/etc/cron.monthly", script: "monthly"},
}

// readTasks reads crontabs, the folders of scripts that cron runs, anacrontab
// and the jobs of at.
func (s *snapshot) readTasks(before *snapshot) {
	for _, c := range crontabs {
		dir := s.path(c.dir)
		for _, name := range s.names(dir) {
			p := path.Join(dir, name)
			// crontab(1) and editors write beside the file, then rename.
			if strings.HasPrefix(name, "tmp.") || isBackup(name) || name == "atjobs" || name == "atspool" {
				continue
			}
			f := s.get(p, before, maxFile)
			if f == nil {
				continue
			}
			i := &item{kind: task, name: name, files: []string{p}, fields: map[string]string{"content": sum(f.content)}}
			switch {
			case c.script != "":
				i.fields["TaskType"], i.fields["Schedule"], i.fields["Command"] = "cron script", "@"+c.script, p
				i.fields["Executable"] = yes(f.mode&0o111 != 0)
			case c.owner:
				crontab(i, f.content, false)
				i.fields["RunAs"] = name
			default:
				crontab(i, f.content, c.user)
			}
			s.add(i)
		}
	}
	for _, p := range []string{s.path("/etc/crontab"), s.path("/etc/anacrontab")} {
		if f := s.get(p, before, maxFile); f != nil {
			i := &item{kind: task, name: path.Base(p), files: []string{p}, fields: map[string]string{"content": sum(f.content)}}
			crontab(i, f.content, true)
			s.add(i)
		}
	}
	for _, d := range []string{"/var/spool/cron/atjobs", "/var/spool/at"} {
		dir := s.path(d)
		for _, name := range s.names(dir) {
			if when, ok := atTime(name); ok {
				p := path.Join(dir, name)
				if f := s.get(p, before, maxFile); f != nil {
					s.add(&item{kind: task, name: "at " + name, files: []string{p}, fields: map[string]string{
						"content": sum(f.content), "TaskType": "at", "Schedule": when.Format(time.RFC3339), "Command": atCommand(f.content),
						"RunAs": "uid " + strconv.FormatUint(uint64(f.uid), 10),
					}})
				}
			}
		}
	}
}

// crontab adds what the lines of a table run and when.
func crontab(i *item, content []byte, user bool) {
	i.fields["TaskType"] = "cron"
	var when, commands, users []string
	for _, l := range lines(content, false) {
		f := strings.Fields(l)
		n := 5
		if strings.HasPrefix(f[0], "@") {
			n = 1
		}
		if user {
			n++
		}
		if len(f) <= n || strings.Contains(f[0], "=") {
			continue // a variable, or no entry
		}
		times := f[:n]
		if user {
			times = f[:n-1]
			users = append(users, f[n-1])
		}
		when = append(when, strings.Join(times, " "))
		commands = append(commands, strings.Join(f[n:], " "))
	}
	i.fields["Schedule"] = short(strings.Join(when, "; "))
	i.fields["Command"] = short(strings.Join(commands, "; "))
	if user {
		i.fields["RunAs"] = short(strings.Join(users, "; "))
	}
}

// atTime reads the time from the name of a job of at: the queue, five digits of
// the job's number and eight of the minute since 1970, all hexadecimal.
func atTime(name string) (time.Time, bool) {
	if len(name) != 14 || name[0] == '=' {
		return time.Time{}, false
	}
	minutes, err := strconv.ParseInt(name[6:], 16, 64)
	if err != nil {
		return time.Time{}, false
	}
	return time.Unix(minutes*60, 0).UTC(), true
}

// atCommand is the end of a job: the commands stand after the environment.
func atCommand(content []byte) string {
	all := lines(content, false)
	for n, l := range all {
		if l == "}" { // of the cd into the folder
			all = all[n+1:]
			break
		}
	}
	return short(strings.Join(all, "; "))
}
