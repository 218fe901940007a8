// Command engine (make bench-engine) measures the scan engine beside Debian's
// clamscan, clamdscan and yara, on the same files with the same signatures, and
// shows how its time grows with hostile files.
//
// Everything is generated from a seed: 3,000,000 hash and 100,000 body
// signatures, in ClamAV's formats; the files are those of /usr/bin and /usr/lib
// up to 200 MB, read once beforehand so that all programs find them cached.
// Programs that are not installed are left out. Nothing is asserted: the tables
// are for people, and mean something only with the machine they name.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

type config struct {
	hashes, bodies int
	bytes          int64
	seed           uint64
	rules          string
	work           string
	short          bool
	runs           int
	only           string
}

// wants says whether a part of the comparison was asked for.
func (c *config) wants(part string) bool { return c.only == "" || c.only == part }

func main() {
	var c config
	var child childConfig
	flag.IntVar(&c.hashes, "hashes", 3_000_000, "hash signatures")
	flag.IntVar(&c.bodies, "bodies", 100_000, "body signatures")
	flag.Int64Var(&c.bytes, "bytes", 200<<20, "bytes of system files to scan")
	flag.Uint64Var(&c.seed, "seed", 1, "seed of the generator")
	flag.StringVar(&c.rules, "rules", "", "folder of YARA rules to compare with yara (default ../shared/testdata/yara if there)")
	flag.StringVar(&c.work, "work", "", "folder for generated files, kept afterwards (default: a temporary one, removed)")
	flag.StringVar(&c.only, "only", "", "clamav, yara or curves: this part alone")
	flag.BoolVar(&c.short, "short", false, "a tenth of everything")
	flag.IntVar(&c.runs, "runs", 3, "runs of our own engine, of which the best counts")
	flag.StringVar(&child.definitions, "child", "", "internal: compiled definitions to load and scan with")
	flag.StringVar(&child.list, "list", "", "internal: list of files to scan")
	flag.IntVar(&child.threads, "threads", 1, "internal: scanning goroutines")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	if child.definitions != "" {
		err = child.run(ctx)
	} else {
		err = c.run(ctx)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench/engine:", err)
		stop()
		os.Exit(1) //nolint:gocritic // stop was called
	}
}

func (c *config) run(ctx context.Context) error {
	if c.short {
		c.hashes, c.bodies, c.bytes, c.runs = c.hashes/10, c.bodies/10, c.bytes/10, 1
	}
	if c.work == "" {
		dir, err := os.MkdirTemp("", "bulwark-bench-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		c.work = dir
	}
	fmt.Println(machine())
	files, err := corpus(ctx, c.bytes)
	if err != nil {
		return err
	}
	list := filepath.Join(c.work, "files")
	if err := os.WriteFile(list, []byte(strings.Join(files.paths, "\n")+"\n"), 0o600); err != nil {
		return err
	}
	fmt.Printf("files: %d from /usr/bin and /usr/lib, %.0f MB\n", len(files.paths), float64(files.bytes)/1e6)
	b := bench{config: c, list: list, bytes: files.bytes}
	if c.wants("clamav") {
		sigs := filepath.Join(c.work, "signatures")
		if err := generate(sigs, c.seed, c.hashes, c.bodies); err != nil {
			return err
		}
		fmt.Printf("signatures: %d hashes, %d bodies, seed %d\n\n", c.hashes, c.bodies, c.seed)
		if err := b.clamav(ctx, sigs); err != nil {
			return err
		}
	}
	if c.rules == "" {
		if st, err := os.Stat("../shared/testdata/yara"); err == nil && st.IsDir() {
			c.rules = "../shared/testdata/yara"
		}
	}
	switch {
	case !c.wants("yara"):
	case c.rules == "":
		fmt.Println("yara: left out, ../shared/testdata/yara is not here; name a folder of rules with -rules")
	default:
		if err := b.yara(ctx, c.rules); err != nil {
			return err
		}
	}
	if c.wants("curves") {
		return curves(ctx, c)
	}
	return nil
}

// machine describes where the figures come from, with the load that others
// cause, without which they could not be judged.
func machine() string {
	model := runtime.GOARCH
	if info, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(info)) {
			if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == "model name" {
				model = strings.TrimSpace(v)
				break
			}
		}
	}
	var uts unix.Utsname
	kernel := ""
	if unix.Uname(&uts) == nil {
		kernel = unix.ByteSliceToString(uts.Release[:])
	}
	load, _ := os.ReadFile("/proc/loadavg")
	return fmt.Sprintf("machine: %s, %d processors, Linux %s, %s; %s; load average before: %s",
		model, runtime.NumCPU(), kernel, runtime.Version(), time.Now().UTC().Format("2006-01-02 15:04"),
		strings.Join(strings.Fields(string(load))[:min(3, len(strings.Fields(string(load))))], " "))
}

type fileSet struct {
	paths []string
	bytes int64
}

// corpus lists system files until their bytes are many enough, and reads each
// once so that all that follow find it cached.
func corpus(ctx context.Context, most int64) (fileSet, error) {
	var set fileSet
	enough := errors.New("enough")
	buf := make([]byte, 1<<20)
	for _, root := range []string{"/usr/bin", "/usr/lib"} {
		part := set.bytes + (most-set.bytes)/2
		if root == "/usr/lib" {
			part = most
		}
		err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() || strings.ContainsAny(path, "\n\"") {
				return nil // what cannot be read is no part of the files
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
			f, err := os.Open(path)
			if err != nil {
				return nil
			}
			defer f.Close()
			st, err := f.Stat()
			if err != nil || st.Size() > 20<<20 {
				return nil
			}
			for {
				if _, err := f.Read(buf); err != nil {
					break
				}
			}
			set.paths = append(set.paths, path)
			set.bytes += st.Size()
			if set.bytes >= part {
				return enough
			}
			return nil
		})
		if err != nil && !errors.Is(err, enough) {
			return set, err
		}
	}
	return set, nil
}
