// Package clickhouse starts ClickHouse servers for tests and benchmarks: one, or a
// cluster of two shards with two replicas each and a ZooKeeper. They listen on
// loopback addresses and keep everything in a folder of the test.
package clickhouse

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/test/loopback"
	"github.com/bulwarkhq/bulwark/test/need"
	"github.com/bulwarkhq/bulwark/test/program"
)

// User and Password are those of the servers. The password has what must be escaped
// in several places.
const (
	User     = "portal"
	Password = `p'a\s:s@/%`
)

// Cluster is the name of the cluster.
const Cluster = "bulwark"

// startTime is how long a server may take until it answers.
const startTime = 2 * time.Minute

// sessionTime is how long it may take then until it has a session with ZooKeeper.
const sessionTime = 3 * time.Minute

// Server is a running server.
type Server struct {
	// HTTP is the address, host:port, of its HTTP interface.
	HTTP string

	dir       string
	run       []string
	process   *program.Process
	clustered bool
}

// ports returns addresses of loopback that are free now.
func ports(t testing.TB, n int) []int {
	t.Helper()
	var out []int
	for range n {
		port, err := loopback.Port()
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, port)
	}
	return out
}

// Start starts one server; it ends with the test.
func Start(t testing.TB) *Server {
	t.Helper()
	p := ports(t, 3)
	s := newServer(t, t.TempDir(), p[0], p[1], p[2], "")
	s.Start(t)
	return s
}

// StartCluster starts the servers of the cluster: those of the first shard, then
// those of the second.
func StartCluster(t testing.TB) []*Server {
	t.Helper()
	zoo := startZooKeeper(t)
	p := ports(t, 12)
	var remote strings.Builder
	remote.WriteString("<remote_servers><" + Cluster + ">")
	for shard := range 2 {
		remote.WriteString("<shard><internal_replication>true</internal_replication>")
		for replica := range 2 {
			fmt.Fprintf(&remote, "<replica><host>127.0.0.1</host><port>%d</port><user>%s</user><password>%s</password></replica>", p[3*(2*shard+replica)+1], User, Password)
		}
		remote.WriteString("</shard>")
	}
	remote.WriteString("</" + Cluster + "></remote_servers>")
	var out []*Server
	for i := range 4 {
		extra := remote.String() + fmt.Sprintf(`<zookeeper><node><host>127.0.0.1</host><port>%d</port></node><session_timeout_ms>6000</session_timeout_ms></zookeeper>
<macros><shard>%d</shard><replica>%d</replica></macros><distributed_ddl><path>/clickhouse/ddl</path></distributed_ddl>`, zoo, i/2+1, i%2+1)
		s := newServer(t, t.TempDir(), p[3*i], p[3*i+1], p[3*i+2], extra)
		s.clustered = true
		s.launch(t)
		out = append(out, s)
	}
	for _, s := range out {
		s.await(t)
	}
	return out
}

func newServer(t testing.TB, dir string, httpPort, tcpPort, interPort int, extra string) *Server {
	t.Helper()
	file := need.Command(t, "clickhouse-server")
	config := fmt.Sprintf(`<yandex>
<logger><level>warning</level><log>%[1]s/log</log><errorlog>%[1]s/errors</errorlog></logger>
<http_port>%[2]d</http_port><tcp_port>%[3]d</tcp_port><interserver_http_port>%[4]d</interserver_http_port>
<interserver_http_host>127.0.0.1</interserver_http_host><listen_host>127.0.0.1</listen_host>
<path>%[1]s/data/</path><tmp_path>%[1]s/tmp/</tmp_path><user_files_path>%[1]s/files/</user_files_path>
<mark_cache_size>16777216</mark_cache_size><users_config>users.xml</users_config>
<default_profile>default</default_profile><default_database>default</default_database>
%[5]s
</yandex>
`, dir, httpPort, tcpPort, interPort, extra)
	users := fmt.Sprintf(`<yandex><profiles><default>
<max_threads>2</max_threads><max_memory_usage>4000000000</max_memory_usage><background_pool_size>2</background_pool_size><background_schedule_pool_size>4</background_schedule_pool_size>
</default></profiles>
<users><%[1]s><password>%[2]s</password><networks><ip>127.0.0.1</ip></networks><profile>default</profile><quota>default</quota></%[1]s>
<default><password></password><networks><ip>127.0.0.1</ip></networks><profile>default</profile><quota>default</quota></default></users>
<quotas><default></default></quotas></yandex>
`, User, Password)
	for name, text := range map[string]string{"config.xml": config, "users.xml": users} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return &Server{HTTP: fmt.Sprintf("127.0.0.1:%d", httpPort), dir: dir, run: []string{file, "--config-file=" + filepath.Join(dir, "config.xml")}}
}

// Start starts the server, also again after Kill, and waits until it answers and, in
// a cluster, has a session with ZooKeeper.
func (s *Server) Start(t testing.TB) {
	t.Helper()
	s.launch(t)
	s.await(t)
}

func (s *Server) launch(t testing.TB) {
	t.Helper()
	s.process = launch(t, s.dir, s.run)
}

// launch starts a program in a folder; it ends with the test at the latest.
func launch(t testing.TB, dir string, run []string) *program.Process {
	t.Helper()
	out, err := os.OpenFile(filepath.Join(dir, "output"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd := exec.Command(run[0], run[1:]...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, out, out
	p, err := program.Start(cmd, syscall.SIGKILL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.Kill()
		if t.Failed() {
			t.Logf("%s: %s", strings.Join(run, " "), tail(dir, "output", "errors"))
		}
	})
	return p
}

// Kill ends the server at once, as a loss of power would but for what the kernel
// still writes.
func (s *Server) Kill() { s.process.Kill() }

func (s *Server) await(t testing.TB) {
	t.Helper()
	poll(t, startTime, func(ctx context.Context) bool {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.HTTP+"/ping", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			return false
		}
		res.Body.Close()
		return res.StatusCode == http.StatusOK
	}, func() string {
		return fmt.Sprintf("clickhouse-server does not answer on %s:\n%s", s.HTTP, tail(s.dir, "output", "errors"))
	})
	if !s.clustered {
		return
	}
	// ClickHouse 18.16 answers before, and a statement ON CLUSTER crashes it then.
	poll(t, sessionTime, func(ctx context.Context) bool {
		n, err := s.Number(ctx, "SELECT sum(value) FROM system.metrics WHERE metric = 'ZooKeeperSession'")
		return err == nil && n > 0
	}, func() string {
		return fmt.Sprintf("clickhouse-server on %s has no session with ZooKeeper:\n%s", s.HTTP, tail(s.dir, "output", "errors"))
	})
}

// poll waits until a condition holds; otherwise says what is wrong when it does not
// in that time.
func poll(t testing.TB, patience time.Duration, holds func(context.Context) bool, otherwise func() string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for !holds(ctx) {
		select {
		case <-ctx.Done():
			t.Fatal(otherwise())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Exec has the server run a statement.
func (s *Server) Exec(ctx context.Context, statement string) error {
	_, err := s.ask(ctx, statement)
	return err
}

// Number asks the server for a number.
func (s *Server) Number(ctx context.Context, query string) (int64, error) {
	text, err := s.ask(ctx, query)
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s: %.500s", query, text)
	}
	return n, nil
}

func (s *Server) ask(ctx context.Context, statement string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+s.HTTP+"/", strings.NewReader(statement))
	if err != nil {
		return "", err
	}
	req.Header.Set("X-ClickHouse-User", User)
	req.Header.Set("X-ClickHouse-Key", Password)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(io.LimitReader(res.Body, 4096))
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %.500s", statement, text)
	}
	return string(text), err
}

// tail is the end of some files.
func tail(dir string, names ...string) string {
	var b strings.Builder
	for _, n := range names {
		text, err := os.ReadFile(filepath.Join(dir, n))
		if err != nil {
			continue
		}
		fmt.Fprintf(&b, "%s: %s\n", n, text[max(0, len(text)-2000):])
	}
	return b.String()
}

// startZooKeeper starts a ZooKeeper and returns its port.
func startZooKeeper(t testing.TB) int {
	t.Helper()
	java := need.Command(t, "java")
	const jars = "/usr/share/java"
	if _, err := os.Stat(jars + "/zookeeper.jar"); err != nil {
		need.Missing(t, "needs ZooKeeper: %v", err)
	}
	dir, port := t.TempDir(), ports(t, 1)[0]
	config := fmt.Sprintf("tickTime=1000\ndataDir=%s\nclientPort=%d\nclientPortAddress=127.0.0.1\nadmin.enableServer=false\nforceSync=no\nmaxClientCnxns=0\n4lw.commands.whitelist=srvr\n", dir, port)
	path := filepath.Join(dir, "zoo.cfg")
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	launch(t, dir, []string{java, "-Xmx96m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", jars + "/*", "org.apache.zookeeper.server.quorum.QuorumPeerMain", path})
	poll(t, startTime, func(ctx context.Context) bool { return serves(ctx, port) }, func() string {
		return "ZooKeeper does not answer:\n" + tail(dir, "output")
	})
	return port
}

// serves reports whether a ZooKeeper answers: servers that ask it before it does
// may crash (ClickHouse 18.16).
func serves(ctx context.Context, port int) bool {
	c, err := new(net.Dialer).DialContext(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return false
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second)) // of a connection just made
	if _, err := io.WriteString(c, "srvr"); err != nil {
		return false
	}
	text, _ := io.ReadAll(io.LimitReader(c, 4096))
	return strings.Contains(string(text), "Mode: ")
}
