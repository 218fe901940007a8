package hostconfig

import (
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bulwarkhq/bulwark/agent/sensor/sensortest"
	"github.com/bulwarkhq/bulwark/event"
	"github.com/bulwarkhq/bulwark/test/need"
)

// host makes the files of a small host.
func host(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	for path, content := range map[string]string{
		"etc/passwd":                             "root:x:0:0:root:/root:/bin/bash\nanna:x:1000:1000:Anna:/home/anna:/bin/bash\n",
		"etc/shadow":                             "root:$y$1:19000:0:99999:7:::\nanna:$y$2:19000:0:99999:7:::\n",
		"etc/group":                              "root:x:0:\nsudo:x:27:\nanna:x:1000:\n",
		"etc/crontab":                            "SHELL=/bin/sh\n17 * * * * root run-parts /etc/cron.hourly\n",
		"etc/cron.d/clean":                       "# c\n*/5 * * * * www-data /usr/bin/clean now\n",
		"usr/lib/systemd/system/web.service":     "[Unit]\nDescription=Web\n[Service]\nUser=www\nExecStart=/usr/sbin/web \\\n  --port 80\n",
		"etc/systemd/system/other.target.wants/": "",
		"etc/init.d/legacy":                      "#!/bin/sh\n",
		"var/spool/":                             "",
	} {
		p := filepath.Join(root, path)
		if strings.HasSuffix(path, "/") {
			if err := os.MkdirAll(p, 0o755); err != nil {
				t.Fatal(err)
			}
			continue
		}
		put(t, p, content)
	}
	if err := os.Symlink("usr/lib", filepath.Join(root, "lib")); err != nil {
		t.Fatal(err)
	}
	return root
}

func put(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestChanges makes each kind of change by a process of its own and looks for
// exactly the events that tell it, with both ways of notification.
func TestChanges(t *testing.T) {
	need.Root(t)
	steps := []struct {
		script string // $R is the root
		want   []string
	}{
		{
			`echo 'eve:!:19000:0:99999:7:::' >>$R/etc/shadow; echo 'eve:x:1001:' >>$R/etc/group; cp $R/etc/passwd $R/etc/passwd+; echo 'eve:x:0:1001:Eve:/tmp:/bin/sh' >>$R/etc/passwd+; mv $R/etc/passwd+ $R/etc/passwd`,
			[]string{
				"UserAccountCreated account=eve file=/etc/passwd UserId=0 Shell=/bin/sh Locked=true",
				"SecurityGroupCreated account=eve file=/etc/group GroupId=1001",
			},
		},
		{
			`sed -i 's|^anna:[^:]*:|anna:$y$3:|' $R/etc/shadow`,
			[]string{"UserAccountModified account=anna file=/etc/passwd Changed=password"},
		},
		{
			`sed -i 's|^sudo:x:27:|sudo:x:27:anna|' $R/etc/group`,
			[]string{"UserAccountAddedToLocalGroup account=anna file=/etc/group GroupName=sudo GroupId=27"},
		},
		{
			`sed -i '/^eve:/d' $R/etc/passwd $R/etc/group`,
			[]string{
				"UserAccountDeleted account=eve file=/etc/passwd UserId=0",
				"SecurityGroupDeleted account=eve file=/etc/group",
			},
		},
		{
			`printf '[Service]\nExecStart=/tmp/x -d\nUser=root\n' >$R/etc/systemd/system/evil.service`,
			[]string{"ServiceInstalled account= file=/etc/systemd/system/evil.service ServiceName=evil.service Command=/tmp/x -d RunAs=root Enabled=false"},
		},
		{
			`ln -s ../evil.service $R/etc/systemd/system/other.target.wants/evil.service`,
			[]string{"ServiceModified account= file=/etc/systemd/system/evil.service Changed=Enabled PreviousEnabled=false"},
		},
		{
			`mkdir $R/etc/systemd/system/web.service.d; printf '[Service]\nExecStartPre=/tmp/y\n' >$R/etc/systemd/system/web.service.d/o.conf`,
			[]string{"ServiceModified account= file=/etc/systemd/system/web.service.d/o.conf ServiceName=web.service Command=/tmp/y DropIn=o.conf"},
		},
		{
			`rm $R/etc/systemd/system/evil.service`,
			[]string{"ServiceDeleted account= file=/etc/systemd/system/evil.service ServiceName=evil.service"},
		},
		{
			`echo 'echo more' >>$R/etc/init.d/legacy`,
			[]string{"ServiceModified account= file=/etc/init.d/legacy ServiceName=legacy"},
		},
		{
			`printf '[Timer]\nOnCalendar=daily\nUnit=evil.service\n' >$R/etc/systemd/system/evil.timer`,
			[]string{"ScheduledTaskCreated account= file=/etc/systemd/system/evil.timer TaskName=evil.timer Schedule=OnCalendar=daily Unit=evil.service"},
		},
		{
			`echo '@reboot root /tmp/z --now' >$R/etc/cron.d/boot`,
			[]string{"ScheduledTaskCreated account= file=/etc/cron.d/boot TaskName=boot Schedule=@reboot Command=/tmp/z --now RunAs=root"},
		},
		{
			// The folder does not exist when the sensor starts.
			`mkdir -p $R/var/spool/cron/crontabs; echo '1 2 3 4 5 /tmp/z' >$R/var/spool/cron/crontabs/anna`,
			[]string{"ScheduledTaskCreated account= file=/var/spool/cron/crontabs/anna TaskName=anna Schedule=1 2 3 4 5 Command=/tmp/z RunAs=anna"},
		},
		{
			`echo '1 2 3 4 6 /tmp/z' >$R/var/spool/cron/crontabs/anna`,
			[]string{"ScheduledTaskUpdated account= file=/var/spool/cron/crontabs/anna Changed=Schedule,content PreviousSchedule=1 2 3 4 5"},
		},
		{
			`rm $R/var/spool/cron/crontabs/anna`,
			[]string{"ScheduledTaskDeleted account= file=/var/spool/cron/crontabs/anna"},
		},
		{
			`mkdir $R/var/spool/cron/atjobs; printf '#!/bin/sh\numask 22\ncd /root || {\n\techo no >&2\n\texit 1\n}\n/tmp/z\n' >$R/var/spool/cron/atjobs/a0000101cb1234`,
			[]string{"ScheduledTaskCreated account= file=/var/spool/cron/atjobs/a0000101cb1234 TaskType=at Command=/tmp/z RunAs=uid 0"},
		},
	}
	for _, inotify := range []bool{false, true} {
		t.Run(fmt.Sprintf("inotify=%v", inotify), func(t *testing.T) {
			root := host(t)
			s := New(sensortest.Table(t), sensortest.Log(t), Options{Root: root, Inotify: inotify})
			// Longer than a busy machine takes between two commands of a script.
			s.settle = time.Second
			sink := sensortest.Start(t, s)
			seen := 0
			steps := steps
			if inotify {
				steps = steps[:4]
			}
			for _, step := range steps {
				// The shell lives until its change is reported, so that it can be named.
				cmd := exec.Command("sh", "-ec", step.script+"; read -r done")
				cmd.Env = append(os.Environ(), "R="+root)
				stdin, err := cmd.StdinPipe()
				if err != nil {
					t.Fatal(err)
				}
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				all := func(*event.Event) bool { return true }
				events := sink.Wait(t, seen+len(step.want), step.script, all)[seen:]
				stdin.Close()
				_ = cmd.Wait()
				seen += len(events)
				if len(events) != len(step.want) {
					t.Errorf("%s: %d events: %+v", step.script, len(events), events)
				}
				for _, want := range step.want {
					matches(t, step.script, want, root, events)
				}
				for _, e := range events {
					builtin := !strings.Contains(step.script, "sed") && !strings.Contains(step.script, "mkdir") && !strings.Contains(step.script, "mv ") && !strings.HasPrefix(step.script, "rm") && !strings.HasPrefix(step.script, "ln")
					if !inotify && e.Initiating.PID == 0 || builtin && !inotify && e.Initiating.PID != int64(cmd.Process.Pid) {
						t.Errorf("%s: %s is said to be done by %+v, not %d", step.script, e.Action, e.Initiating, cmd.Process.Pid)
					}
				}
			}
		})
	}
}

func matches(t *testing.T, script, want, root string, events []event.Event) {
	t.Helper()
	action, rest, _ := strings.Cut(want, " ")
	// Values may contain blanks: a field begins with a name and =.
	var fields [][2]string
	for _, w := range strings.Split(rest, " ") {
		name, value, ok := strings.Cut(w, "=")
		if ok && (name == "account" || name == "file" || name[0] >= 'A' && name[0] <= 'Z') && !strings.HasPrefix(value, "OnCal") || w == "Schedule=OnCalendar=daily" {
			fields = append(fields, [2]string{name, value})
		} else {
			fields[len(fields)-1][1] += " " + w
		}
	}
	for _, e := range events {
		if e.Action != action || e.Class != event.ClassDevice || e.Time.IsZero() {
			continue
		}
		for _, f := range fields {
			got := e.Additional[f[0]]
			switch f[0] {
			case "account":
				got = e.Logon.AccountName
			case "file":
				got = strings.TrimPrefix(e.File.FolderPath, root)
			}
			if got != f[1] {
				t.Errorf("%s: %s: %s is %q, want %q", script, action, f[0], got, f[1])
			}
		}
		return
	}
	t.Errorf("%s: no %s in %+v", script, action, events)
}

// TestSecrets: what a password is must not leave the host, not even as a hash.
func TestSecrets(t *testing.T) {
	root := host(t)
	old := newSnapshot(root)
	old.read(nil)
	put(t, filepath.Join(root, "etc/shadow"), "anna:$y$secret:19000:0:99999:7:::\n")
	now := newSnapshot(root)
	now.read(old)
	ds := compare(old, now)
	if len(ds) != 2 { // root's is gone
		t.Fatalf("%d differences", len(ds))
	}
	for _, d := range ds {
		ev := d.event()
		for k, v := range ev.Additional {
			if strings.Contains(v, "secret") || strings.Contains(v, "$y$") || k == "password" {
				t.Errorf("%s=%s is told", k, v)
			}
		}
	}
}

// TestThisHost reads the definitions of the machine: nothing changes between
// two readings, and nothing is read that is none.
func TestThisHost(t *testing.T) {
	a, b := newSnapshot(""), newSnapshot("")
	a.read(nil)
	if a.count(account) == 0 || a.count(group) == 0 {
		t.Errorf("%d accounts, %d groups", a.count(account), a.count(group))
	}
	b.read(a)
	opened := 0
	for p, f := range b.files {
		if f != a.files[p] {
			opened++
		}
	}
	// Another test may add an account meanwhile.
	if opened > 8 {
		t.Errorf("%d of %d files were read again", opened, len(b.files))
	}
}

func FuzzNotifications(f *testing.F) {
	b := make([]byte, 24+28)
	binary.NativeEndian.PutUint32(b, uint32(len(b)))
	b[4] = unix.FANOTIFY_METADATA_VERSION
	binary.NativeEndian.PutUint16(b[6:], 24)
	b[24] = unix.FAN_EVENT_INFO_TYPE_DFID_NAME
	binary.NativeEndian.PutUint16(b[26:], 28)
	binary.NativeEndian.PutUint32(b[36:], 4)
	copy(b[48:], "abc\x00")
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		ParseFanotify(b, func(r Record) {
			if len(r.Folder) > len(b) || strings.Contains(r.Name, "\x00") {
				t.Errorf("%+v", r)
			}
		})
		ParseInotify(b, func(_ int32, _ uint32, name string) {
			if strings.Contains(name, "\x00") {
				t.Errorf("%q", name)
			}
		})
	})
}

func FuzzDefinitions(f *testing.F) {
	for _, s := range []string{"a:x:0:0:a:/root:/bin/sh\n", "[Service]\nExecStart=/bin/x \\\n y\n", "*/5 * * * * root x\n@reboot a b\n", "}\n"} {
		f.Add(s)
	}
	f.Fuzz(func(_ *testing.T, s string) {
		fields([]byte(s), 4, func([]string) {})
		i := &item{kind: service, name: "a.service", fields: map[string]string{}}
		describeUnit(i, []byte(s))
		crontab(i, []byte(s), true)
		crontab(i, []byte(s), false)
		_ = atCommand([]byte(s))
		_, _ = atTime(s)
	})
}
