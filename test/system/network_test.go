//go:build system

package system

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bulwarkhq/bulwark/test/need"
	"github.com/bulwarkhq/bulwark/test/program"
)

// A host's network and the world behind a gateway, in namespaces of their own:
//
//	host 10.77.1.2 --- gateway 10.77.1.1, portal 10.77.2.1:8443
//
// The gateway lets nothing through to the portal; the proxies on it do.
const (
	gateway    = "10.77.1.1"
	portalHost = "10.77.2.1"
	portalPort = "8443"
)

// Ports on the gateway.
const (
	portSquid       = "3128" // allows CONNECT to the portal
	portDenied      = "3129" // denies everything
	portSlow        = "3130" // 4 kB/s
	portBump        = "3131" // decrypts
	portTransparent = "3132" // gets redirected connections, passes them on
	portTransBump   = "3133" // gets redirected connections, decrypts
	portTiny        = "3134" // tinyproxy
	portTinyAuth    = "3135" // tinyproxy with a password
	portClosed      = "3139"
)

// isolated is a product whose agent and portal are in namespaces.
type isolated struct {
	*product
	host, world string // names of the namespaces
	ca          *x509.Certificate
	work        string
}

func isolate(t *testing.T) *isolated {
	t.Helper()
	for _, program := range []string{"squid", "tinyproxy", "ip", "nft", "nsenter"} {
		need.Command(t, program)
	}
	n := &isolated{product: prepare(t), host: fmt.Sprintf("bulwark-h%d", os.Getpid()), world: fmt.Sprintf("bulwark-w%d", os.Getpid())}
	n.work = filepath.Join(n.root, "network")
	if err := errors.Join(os.Mkdir(n.work, 0o755), os.Chmod(n.root, 0o755)); err != nil {
		t.Fatal(err)
	}
	for _, ns := range []string{n.host, n.world} {
		if out, err := exec.Command("ip", "netns", "add", ns).CombinedOutput(); err != nil {
			need.Missing(t, "make a network namespace: %v %s", err, out)
		}
		t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", ns).Run() })
		n.sh(ns, "ip link set lo up")
	}
	n.sh(n.host, "ip link add eth0 type veth peer name eth0 netns "+n.world)
	n.sh(n.host, "ip addr add 10.77.1.2/24 dev eth0; ip link set eth0 up; ip route add default via "+gateway)
	n.sh(n.world, "ip addr add "+gateway+"/24 dev eth0; ip link set eth0 up; ip addr add "+portalHost+"/32 dev lo")
	n.redirect("")
	return n
}

// sh runs commands in a namespace; the first that fails ends the test.
func (n *isolated) sh(ns, commands string) {
	n.t.Helper()
	out, err := exec.Command("nsenter", "--net=/run/netns/"+ns, "sh", "-ec", commands).CombinedOutput()
	if err != nil {
		n.t.Fatalf("%s: %v\n%s", commands, err, out)
	}
}

// redirect sends connections to the portal to a port of the gateway, or refuses
// them where to is empty.
func (n *isolated) redirect(to string) {
	n.t.Helper()
	rules := "nft flush ruleset; nft add table ip t; "
	if to == "" {
		rules += "nft add chain ip t in '{ type filter hook input priority 0; }'; " +
			"nft add rule ip t in iifname eth0 ip daddr " + portalHost + " tcp dport " + portalPort + " reject with tcp reset"
	} else {
		rules += "nft add chain ip t pre '{ type nat hook prerouting priority -100; }'; " +
			"nft add rule ip t pre iifname eth0 ip daddr " + portalHost + " tcp dport " + portalPort + " redirect to :" + to
	}
	n.sh(n.world, rules)
}

// start runs a program in a namespace until the test ends.
func (n *isolated) start(name, ns string, env []string, argv ...string) *program.Process {
	n.t.Helper()
	logPath := filepath.Join(n.work, name+".log")
	log, err := os.Create(logPath)
	if err != nil {
		n.t.Fatal(err)
	}
	defer log.Close()
	argv = append([]string{"--net=/run/netns/" + ns, "timeout", "--signal=KILL", fmt.Sprint(int(deadman.Seconds()))}, argv...)
	cmd := exec.Command("nsenter", argv...)
	cmd.Stdout, cmd.Stderr, cmd.Env = log, log, append(os.Environ(), env...)
	p, err := program.Start(cmd, syscall.SIGTERM)
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() {
		n.end(p)
		if n.t.Failed() {
			b, _ := os.ReadFile(logPath)
			n.t.Logf("log of %s:\n%s", name, tail(b, 30))
		}
	})
	return p
}

// end stops a program of start. Stopping twice is harmless.
func (n *isolated) end(p *program.Process) {
	_ = p.Process.Signal(syscall.SIGTERM) // timeout(1) passes it on; an error says that it has ended
	select {
	case <-p.Ended:
	case <-time.After(patience):
		n.t.Logf("%v does not stop", p.Args)
		p.Kill() // timeout(1) alone: what it started may live on
	}
}

// dial connects from a namespace.
func dial(ns, address string) (net.Conn, error) {
	type result struct {
		c   net.Conn
		err error
	}
	ch := make(chan result, 1)
	go func() {
		// Not unlocked: the thread ends with the goroutine, and its namespace.
		runtime.LockOSThread()
		f, err := os.Open("/run/netns/" + ns)
		if err == nil {
			err = unix.Setns(int(f.Fd()), unix.CLONE_NEWNET)
			f.Close()
		}
		var c net.Conn
		if err == nil {
			c, err = net.DialTimeout("tcp", address, 2*time.Minute)
		}
		ch <- result{c, err}
	}()
	r := <-ch
	return r.c, r.err
}

func (n *isolated) listening(ns, address string) {
	n.t.Helper()
	n.until(address+" listens", func() error {
		c, err := dial(ns, address)
		if err != nil {
			return err
		}
		return c.Close()
	})
}

// interceptor makes the authority of the interceptor, and a file with the
// system's authorities and it.
func (n *isolated) interceptor() (pemFile, bundle string) {
	n.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		n.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Corporate Inspection CA", Organization: []string{"Example"}}, IsCA: true,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		n.t.Fatal(err)
	}
	if n.ca, err = x509.ParseCertificate(der); err != nil {
		n.t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		n.t.Fatal(err)
	}
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	pemFile, bundle = filepath.Join(n.work, "ca.pem"), filepath.Join(n.work, "bundle.pem")
	system, _ := os.ReadFile("/etc/ssl/certs/ca-certificates.crt")
	err = errors.Join(
		os.WriteFile(pemFile, append(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), cert...), 0o644),
		os.WriteFile(bundle, append(system, cert...), 0o644))
	if err != nil {
		n.t.Fatal(err)
	}
	return pemFile, bundle
}

// startProxies starts squid and tinyproxy on the gateway.
func (n *isolated) startProxies() (bundle string) {
	n.t.Helper()
	ca, bundle := n.interceptor()
	certs := filepath.Join(n.work, "certs")
	if out, err := exec.Command("/usr/lib/squid/security_file_certgen", "-c", "-s", certs, "-M", "4MB").CombinedOutput(); err != nil {
		n.t.Fatalf("%v %s", err, out)
	}
	if out, err := exec.Command("chown", "-R", "proxy", n.work).CombinedOutput(); err != nil {
		n.t.Fatalf("%v %s", err, out)
	}
	bump := " ssl-bump cert=" + ca + " generate-host-certificates=on dynamic_cert_mem_cache_size=4MB\n"
	squid := filepath.Join(n.work, "squid.conf")
	conf := "http_port " + gateway + ":" + portSquid + " name=plain\n" +
		"http_port " + gateway + ":" + portDenied + " name=denied\n" +
		"http_port " + gateway + ":" + portSlow + " name=slow\n" +
		"http_port " + gateway + ":" + portBump + " name=bump" + bump +
		"http_port 127.0.0.1:3140\n" + // squid wants one that is no interception
		"https_port " + portTransparent + " intercept name=transparent" + bump +
		"https_port " + portTransBump + " intercept name=transbump" + bump +
		`sslcrtd_program /usr/lib/squid/security_file_certgen -s ` + certs + ` -M 4MB
sslcrtd_children 2
acl denied myportname denied
acl slow myportname slow
acl decrypt myportname bump transbump
acl portal dst ` + portalHost + `
http_access deny denied
http_access allow portal
http_access deny all
acl step1 at_step SslBump1
ssl_bump bump decrypt
ssl_bump splice all
tls_outgoing_options flags=DONT_VERIFY_PEER
sslproxy_cert_error allow all
delay_pools 1
delay_class 1 1
delay_access 1 allow slow
delay_access 1 deny all
delay_parameters 1 4000/4000
cache deny all
pid_filename none
access_log stdio:` + n.work + `/access.log
cache_log ` + n.work + `/cache.log
coredump_dir ` + n.work + `
visible_hostname gateway.example
shutdown_lifetime 0 seconds
max_filedescriptors 1024
`
	if err := os.WriteFile(squid, []byte(conf), 0o644); err != nil {
		n.t.Fatal(err)
	}
	n.start("squid", n.world, nil, "squid", "-N", "-f", squid)
	for port, auth := range map[string]string{portTiny: "", portTinyAuth: "BasicAuth agent secret-word\n"} {
		path := filepath.Join(n.work, "tinyproxy-"+port+".conf")
		if err := os.WriteFile(path, []byte("Listen "+gateway+"\nPort "+port+"\nTimeout 600\nMaxClients 50\nAllow 10.77.1.0/24\nConnectPort "+portalPort+"\n"+auth), 0o644); err != nil {
			n.t.Fatal(err)
		}
		n.start("tinyproxy-"+port, n.world, nil, "tinyproxy", "-d", "-c", path)
		n.listening(n.host, gateway+":"+port)
	}
	n.listening(n.host, gateway+":"+portSquid)
	return bundle
}

// acceptsInterceptor shows that an ordinary program with the authority in its
// store is satisfied with what the interceptor shows.
func (n *isolated) acceptsInterceptor() {
	n.t.Helper()
	c, err := dial(n.host, gateway+":"+portBump)
	if err != nil {
		n.t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	target := portalHost + ":" + portalPort
	fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", target, target)
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil || res.StatusCode != http.StatusOK {
		n.t.Fatalf("CONNECT through the interceptor: %v %v", res, err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(n.ca)
	// squid writes the address into the certificate's name only, so the chain is
	// what counts here.
	verify := func(cs tls.ConnectionState) error {
		_, err := cs.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: roots})
		return err
	}
	cfg := &tls.Config{ServerName: portalHost, InsecureSkipVerify: true, VerifyConnection: verify}
	if err := tls.Client(c, cfg).Handshake(); err != nil {
		n.t.Fatalf("the interceptor does not intercept: %v", err)
	}
}

// TestProxies has real proxies between agent and portal.
func TestProxies(t *testing.T) {
	t.Parallel()
	n := isolate(t)
	n.write(n.dirs.Managed(), `{"antivirusEngine": {"enforcementLevel": "passive"}}`)
	bundle := n.startProxies()
	n.start("portal", n.world, nil, filepath.Join(n.bin, "bulwark-portal"), "serve", "--listen", portalHost+":"+portalPort,
		"--data-dir", n.portalData, "--host-name", portalHost)
	n.listening(n.world, portalHost+":"+portalPort)
	n.portalCommand("onboarding", "create", "--portal-url", "https://"+portalHost+":"+portalPort, "--out", n.dirs.Onboarding())

	// The interceptor's authority is among those that the agent's system trusts.
	run := func(env ...string) *program.Process {
		p := n.start("agent", n.host, append(env, "SSL_CERT_FILE="+bundle), filepath.Join(n.bin, "bulwarkd"), "run", "--root", n.root, "--only-mounts", n.watch)
		n.until("the agent answers", func() error {
			if r := n.product.run("health", "--field", "app_version"); r.status != 0 {
				return fmt.Errorf("%s%s", r.stdout, r.stderr)
			}
			return nil
		})
		return p
	}
	// check runs the connectivity test and wants a status and texts.
	check := func(what string, ok bool, texts ...string) {
		t.Helper()
		r := n.product.run("connectivity", "test")
		for _, text := range texts {
			if !strings.Contains(r.stdout, text) {
				t.Errorf("%s: the test does not say %q:\n%s%s", what, text, r.stdout, r.stderr)
			}
		}
		if (r.status == 0) != ok {
			t.Errorf("%s: exit status %d:\n%s%s", what, r.status, r.stdout, r.stderr)
		}
	}
	connected := func(what string) {
		t.Helper()
		n.until(what+": the agent is connected", func() error {
			if r := n.product.run("health", "--field", "portal_status"); !strings.Contains(r.stdout, "connected") {
				return fmt.Errorf("%s%s", r.stdout, r.stderr)
			}
			return nil
		})
	}
	proxy := func(port string) string { return "http://" + gateway + ":" + port }
	target := portalHost + ":" + portalPort

	agent := run("HTTPS_PROXY=" + proxy(portSquid))
	connected("squid")
	check("squid by the environment", true, "through "+proxy(portSquid)+", from the environment", "[OK] identity")
	n.until("definitions come through the proxy", func() error {
		if r := n.product.run("definitions", "update"); r.status != 0 {
			return fmt.Errorf("%s%s", r.stdout, r.stderr)
		}
		return nil
	})

	set := func(value string) { t.Helper(); n.must("config", "proxy", "set", "--value", value) }
	set(proxy(portDenied))
	check("denied", false, "[FAIL] tls: the proxy "+proxy(portDenied)+" refuses the connection to "+target+": 403 Forbidden: allow CONNECT")
	set(proxy(portClosed))
	check("nothing listens", false, "[FAIL] tcp: ", "connection refused")
	set("http://proxy.invalid:3128")
	check("no such name", false, "[FAIL] name: the name proxy.invalid cannot be resolved", "the proxy's address")
	set(proxy(portTiny))
	check("tinyproxy", true, "through "+proxy(portTiny)+", from the policy")
	set(proxy(portTinyAuth))
	check("no password", false, "refuses the connection to "+target+": 407 Proxy Authentication Required: it wants a user name and password")
	set("http://agent:secret-word@" + gateway + ":" + portTinyAuth)
	check("password", true, "through http://agent:xxxxx@"+gateway+":"+portTinyAuth)
	for _, args := range [][]string{{"health"}, {"health", "--details", "portal"}, {"config", "show"}} {
		if r := n.product.run(args...); strings.Contains(r.stdout+r.stderr, "secret-word") {
			t.Errorf("%q shows the password:\n%s", args, r.stdout)
		}
	}
	set(proxy(portSlow))
	check("slow", true, "through "+proxy(portSlow))
	connected("slow")
	if r := n.product.run("config", "proxy", "set", "--value", "http://wpad.example/wpad.dat"); r.status == 0 || !strings.Contains(r.stderr, "PAC, WPAD") {
		t.Errorf("automatic configuration: status %d, %s", r.status, r.stderr)
	}

	// Decrypted on the way: refused, although the system trusts the interceptor.
	n.acceptsInterceptor()
	set(proxy(portBump))
	inspected := "TLS inspection in the path: certificate issued by CN=Corporate Inspection CA,O=Example"
	check("intercepting proxy", false, "[FAIL] tls: "+inspected)
	if r := n.product.run("definitions", "update"); r.status == 0 || !strings.Contains(r.stderr, inspected) {
		t.Errorf("update through the interceptor: status %d, %s", r.status, r.stderr)
	}

	// The administrator's profile wins over local settings.
	n.write(n.dirs.Managed(), `{"antivirusEngine": {"enforcementLevel": "passive"}, "cloudService": {"proxy": "`+proxy(portSquid)+`"}}`)
	n.until("the profile is in force", func() error {
		if out := n.must("config", "show", "cloudService.proxy"); !strings.Contains(out, portSquid) {
			return errors.New(out)
		}
		return nil
	})
	check("managed profile", true, "through "+proxy(portSquid)+", from the policy")
	n.end(agent)

	// Without any setting: blocked, a transparent proxy, an intercepting one.
	n.write(n.dirs.Managed(), `{"antivirusEngine": {"enforcementLevel": "passive"}}`)
	agent = run()
	n.must("config", "proxy", "unset")
	check("blocked", false, "[OK] proxy: none is configured", "[FAIL] tcp: ")
	n.redirect(portTransparent)
	check("transparent", true, "[OK] proxy: none is configured", "[OK] identity")
	connected("transparent")
	n.redirect(portTransBump)
	check("transparent interception", false, "[FAIL] tls: "+inspected)
	n.end(agent)

	// NO_PROXY: the portal is not reached through the proxy.
	n.redirect(portTransparent)
	agent = run("HTTPS_PROXY="+proxy(portClosed), "NO_PROXY="+portalHost)
	check("NO_PROXY", true, "it is reached without the proxy (NO_PROXY")
	n.end(agent)
}
