package techniques

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/event"
	"github.com/bulwarkhq/bulwark/test/need"
)

// What administrators do every day raises no alert, not even an Informational one.
// BULWARK_NOISE=1 builds the whole project and makes a whole system besides.
func TestEverydayIsSilent(t *testing.T) {
	need.Root(t)
	w := startWatch(t)
	dir := t.TempDir()
	if os.Getenv("BULWARK_NOISE") != "" {
		dir = workFolder(t)
	}
	run := func(name string, script string) {
		t.Helper()
		begin := time.Now()
		got, events := w.during(t, int64(os.Getpid()), func() {
			cmd := exec.Command("/bin/bash", "-e")
			cmd.Stdin = strings.NewReader(script)
			cmd.Dir = dir
			cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%s: %v\n%.4000s", name, err, out)
			}
		})
		alerts, behaviors, recorded, informational := map[string]bool{}, map[string]int{}, 0, 0
		for _, f := range got {
			if f.behavior {
				behaviors[f.rule.Title]++
				if f.recorded {
					recorded++
				}
				continue
			}
			if alerts[f.rule.Title] {
				continue
			}
			alerts[f.rule.Title] = true
			if f.rule.Severity == event.SeverityInformational {
				informational++
			}
			t.Errorf("%s: %s (%s): %s %q, parent %q, file %s, in %v", name, f.rule.Title, f.rule.Severity, f.event.Action,
				f.event.Process.CommandLine+" "+f.event.Initiating.FolderPath, f.event.Initiating.CommandLine, f.event.File.FolderPath, f.event.Additional)
		}
		took := time.Since(begin)
		matches := 0
		for _, n := range behaviors {
			matches += n
		}
		t.Logf("%-12s %7d events in %s, %d alerts (%d of them Informational), %d behaviours, of which %d recorded (%.0f an hour)", name, events, took.Round(time.Second), len(alerts), informational, matches, recorded, float64(recorded)/took.Hours())
		for _, title := range slices.SortedFunc(maps.Keys(behaviors), func(a, b string) int { return behaviors[b] - behaviors[a] }) {
			t.Logf("    %6d %s", behaviors[title], title)
		}
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	run("backup", `mkdir -p a/b && cp -r `+filepath.Join(root, "docs")+` a/ && tar -czf a.tgz a && tar -xzf a.tgz -C a/b && cp -a a c && gzip -k a.tgz && sha256sum a.tgz >sums && sha256sum -c sums
if command -v rsync >/dev/null; then rsync -a a/ d/ && rsync -a --delete a/ d/; fi
if command -v restic >/dev/null; then RESTIC_PASSWORD=x restic init -r repo && RESTIC_PASSWORD=x restic backup -r repo a && RESTIC_PASSWORD=x restic check -r repo; fi`)
	run("build", `cd `+root+` && go build -o /dev/null ./content/rules && go vet ./content/rules && git status --short | head -1`)
	run("cron", `for f in /etc/cron.hourly/* ; do [ -x "$f" ] && "$f" || true; done
if [ -x /usr/sbin/logrotate ]; then printf '`+dir+`/x.log { rotate 1\nsize 1\n}\n' > lr.conf; chmod 644 lr.conf; echo hello > x.log; /usr/sbin/logrotate -s lr.state lr.conf; fi`)
	if os.Getenv("BULWARK_NOISE") != "" {
		everything(t, run, root)
	}
}

// everyday is a Debian system with the programs of a usual server.
const everyday = "cron,rsync,nginx-light,openssh-server,sudo,postfix,mariadb-server,php-cli,redis-server,python3,vim-tiny,git,curl,unattended-upgrades,logrotate,rsyslog,chrony,bind9-host,dnsutils,tcpdump,at,zip,unzip,screen,tmux,htop,strace,make,gcc,fail2ban,ufw,iptables,nftables,postgresql,apache2-bin,haproxy,memcached,samba-common,nfs-common,smartmontools,lvm2,mdadm,cryptsetup,snmpd,openvpn,wireguard-tools,ca-certificates,locales,tzdata,bash-completion,man-db,iputils-ping,restic,debsums,aptitude,popularity-contest,bsdmainutils"

// workFolder is not a temporary one: programs in such are suspected, and the
// system that is made there shall look like one.
func workFolder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/var/lib", "everyday-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// everything is the long part: the packages of a server installed, a playbook
// applied to that system, all of its daily jobs, a backup of it, and this
// project built.
func everything(t *testing.T, run func(name, script string), root string) {
	need.Command(t, "debootstrap")
	need.Command(t, "unshare")
	// private is a script whose mounts are its own: none is left for the removal of
	// the folder to walk into.
	private := func(script string) string {
		return "exec unshare --mount --propagation private /bin/bash -e <<'PRIVATE'\n" + script + "\nPRIVATE\n"
	}
	run("packages", private(`mirror=$(apt-get indextargets --format '$(REPO_URI)' | head -n 1)
debootstrap --variant=minbase --include=`+everyday+` $(. /etc/os-release; echo $VERSION_CODENAME) system "$mirror" >debootstrap.log || { tail -n 20 debootstrap.log; exit 1; }
cp /etc/apt/apt.conf.d/* system/etc/apt/apt.conf.d/; cp /etc/resolv.conf system/etc/
chroot system apt-get -qq update && chroot system apt-get -qq -y install --no-install-recommends ansible-core python3-apt gdb >apt.log 2>&1 || { tail -n 20 apt.log; exit 1; }`))
	playbook, err := filepath.Abs("testdata/playbook.yml")
	if err != nil {
		t.Fatal(err)
	}
	run("ansible", private(`mkdir system/play && cp `+playbook+` system/play/ && mount -t proc proc system/proc
chroot system env LC_ALL=C.UTF-8 ansible-playbook -i localhost, -c local /play/playbook.yml
chroot system env LC_ALL=C.UTF-8 ansible-playbook -i localhost, -c local /play/playbook.yml`))
	run("cron day", private(`echo 'APT::Periodic::RandomSleep "0";' | tee sleep.conf >system/etc/apt/apt.conf.d/99sleep # up to half an hour otherwise
export APT_CONFIG=$PWD/sleep.conf
for f in /etc/cron.daily/*; do [ -x "$f" ] && "$f" || true; done
mount -t proc proc system/proc
for when in hourly daily weekly monthly; do env -u APT_CONFIG chroot system run-parts /etc/cron.$when || true; done`))
	run("backups", `mkdir saved && rsync -aAXH --delete system/etc system/var system/root saved/ && rsync -aAXH --delete system/etc system/var system/root saved/
export RESTIC_PASSWORD=x
restic -q init -r repo && restic -q backup -r repo system/etc system/var && restic -q backup -r repo system/etc system/var && restic -q forget --prune --keep-last 1 -r repo && restic -q check -r repo && restic -q restore latest -r repo --target back
tar -czf etc.tgz -C system etc && tar -tzf etc.tgz >/dev/null`)
	run("project", `cd `+root+` && go build -a -o `+t.TempDir()+`/ ./cmd/bulwark ./cmd/bulwarkd ./cmd/bulwark-guard && go vet ./event ./policy`)
}
