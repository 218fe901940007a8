package techniques

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bulwarkhq/bulwark/event"
	"github.com/bulwarkhq/bulwark/test/need"
)

// What administrators do every day raises no alert above Informational. The
// packages are unpacked from the archives that are at hand; BULWARK_NOISE=1
// builds the whole project and makes a whole system besides.
func TestEverydayIsSilent(t *testing.T) {
	need.Root(t)
	w := startWatch(t)
	dir := t.TempDir()
	run := func(name string, script string) {
		t.Helper()
		got, events := w.during(t, int64(os.Getpid()), func() {
			cmd := exec.Command("/bin/bash", "-e")
			cmd.Stdin = strings.NewReader(script)
			cmd.Dir = dir
			cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%s: %v\n%.4000s", name, err, out)
			}
		})
		t.Logf("%-12s %6d events, alerts of no severity above Informational: %d", name, events, len(got))
		seen := map[string]bool{}
		for _, f := range got {
			if f.rule.Severity == event.SeverityInformational || seen[f.rule.Title] {
				continue
			}
			seen[f.rule.Title] = true
			t.Errorf("%s: %s (%s): %s %q, parent %q, file %s", name, f.rule.Title, f.rule.Severity, f.event.Action,
				f.event.Process.CommandLine+f.event.Initiating.FolderPath, f.event.Initiating.CommandLine, f.event.File.FolderPath)
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
	if os.Getenv("BULWARK_NOISE") == "" {
		return
	}
	need.Command(t, "debootstrap")
	packages := "cron,rsync,nginx-light,openssh-server,sudo,postfix,mariadb-server,php-cli,redis-server,python3,vim-tiny,git,curl,unattended-upgrades,logrotate,rsyslog,chrony,bind9-host,dnsutils,tcpdump,at,zip,unzip,screen,tmux,htop,strace,gdb,make,gcc,fail2ban,ufw,iptables,nftables,postgresql,apache2-bin,haproxy,memcached,samba-common,nfs-common,smartmontools,lvm2,mdadm,cryptsetup,snmpd,openvpn,wireguard-tools,ca-certificates,locales,tzdata,bash-completion,man-db,iputils-ping"
	run("packages", `mirror=$(apt-get indextargets --format '$(REPO_URI)' | head -n 1); debootstrap --variant=minbase --include=`+packages+` $(. /etc/os-release; echo $VERSION_CODENAME) system "$mirror"`)
	run("project", `cd `+root+` && go build -a -o `+dir+`/bw ./cmd/bulwark`)
}
