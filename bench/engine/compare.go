package main

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/bulwarkhq/bulwark/engine/definitions"
)

// bench is one comparison over a list of files.
type bench struct {
	*config
	list  string
	bytes int64
}

// row is a line of the table.
type row struct {
	name          string
	load          float64 // seconds
	elapsed, cpu  float64 // seconds of scanning
	rss, anon, mm int64   // bytes: maximum resident; private and mapped, where known
}

const heading = "%-34s %8s %9s %9s %9s %9s %9s %9s\n"

func (b *bench) head(title string) {
	fmt.Printf("%s\n"+heading, title, "", "load s", "scan s", "MB/s", "CPU s", "MB/CPU s", "private", "mapped")
}

func (b *bench) print(r row) {
	mb := func(n int64) string {
		if n == 0 {
			return "-"
		}
		return fmt.Sprintf("%.0f MB", float64(n)/1e6)
	}
	size := float64(b.bytes) / 1e6
	private := mb(r.anon)
	if r.anon == 0 {
		private = mb(r.rss)
	}
	fmt.Printf(heading, r.name, fmt.Sprintf("%.3f", r.load), fmt.Sprintf("%.2f", r.elapsed), fmt.Sprintf("%.0f", size/r.elapsed),
		fmt.Sprintf("%.2f", r.cpu), fmt.Sprintf("%.0f", size/r.cpu), private, mb(r.mm))
}

// compile makes compiled definitions of a folder.
func (b *bench) compile(ctx context.Context, name, sources string) (string, error) {
	path := filepath.Join(b.work, name)
	out, err := os.Create(path)
	if err != nil {
		return "", err
	}
	defer out.Close()
	start := time.Now()
	rep, err := definitions.Compile(ctx, out, []definitions.Source{{Path: sources}}, definitions.CompileOptions{})
	if err != nil {
		return "", err
	}
	fmt.Printf("compiled in %.1f s: %d signatures, %d left out, %.0f MB\n", time.Since(start).Seconds(),
		rep.Counts.Total(), rep.Dropped, float64(rep.Bytes)/1e6)
	return path, out.Close()
}

// engine measures our own engine with one thread and with all processors.
func (b *bench) engine(ctx context.Context, defs string) error {
	one, err := ours(ctx, defs, b.list, 1, b.runs)
	if err != nil {
		return err
	}
	b.print(row{name: "bulwark, 1 thread", load: one.Load, elapsed: one.Scan, cpu: one.CPU, anon: one.Private, mm: one.Shared})
	two, err := ours(ctx, defs, b.list, 2, b.runs)
	if err != nil {
		return err
	}
	b.print(row{name: "bulwark, 2 threads", load: two.Load, elapsed: two.Scan, cpu: two.CPU, anon: two.Private, mm: two.Shared})
	fmt.Printf("  private memory after loading %.0f MB; 2 threads against 1: %.2f per processor by elapsed time, %.2f by processor time; %v\n",
		float64(one.Loaded)/1e6, one.Scan/two.Scan/2, one.CPU/two.CPU, one)
	return nil
}

// clamav compares on ClamAV signatures.
func (b *bench) clamav(ctx context.Context, sigs string) error {
	defs, err := b.compile(ctx, "clam.bwd", sigs)
	if err != nil {
		return err
	}
	b.head("ClamAV signatures")
	if err := b.engine(ctx, defs); err != nil {
		return err
	}
	if _, ok := installed("clamscan"); !ok {
		fmt.Println("clamscan is not installed")
		return nil
	}
	tiny := filepath.Join(b.work, "tiny")
	if err := os.WriteFile(tiny, []byte("tiny\n"), 0o600); err != nil {
		return err
	}
	load, err := execute(ctx, 1, "clamscan", "--no-summary", "-d", sigs, tiny)
	if err != nil {
		return err
	}
	scan, err := execute(ctx, 1, "clamscan", "--no-summary", "--infected", "-d", sigs, "--file-list="+b.list)
	if err != nil {
		return err
	}
	b.print(row{
		name: "clamscan (loading apart)", load: load.elapsed.Seconds(), elapsed: (scan.elapsed - load.elapsed).Seconds(),
		cpu: (scan.cpu - load.cpu).Seconds(), rss: scan.rss,
	})
	return b.clamd(ctx, sigs, tiny)
}

// clamd starts a daemon of its own for clamdscan.
func (b *bench) clamd(ctx context.Context, sigs, tiny string) error {
	clamd, ok := installed("clamd")
	client, ok2 := installed("clamdscan")
	if !ok || !ok2 {
		fmt.Println("clamd or clamdscan is not installed")
		return nil
	}
	conf := filepath.Join(b.work, "clamd.conf")
	text := fmt.Sprintf("LocalSocket %s\nDatabaseDirectory %s\nForeground yes\nMaxThreads 2\nStreamMaxLength 100M\nLogFile %s\n",
		filepath.Join(b.work, "clamd.socket"), sigs, filepath.Join(b.work, "clamd.log"))
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		return err
	}
	d, err := startDaemon(ctx, clamd, "-c", conf)
	if err != nil {
		return err
	}
	defer d.stop()
	start := time.Now()
	for {
		if _, err := execute(ctx, 1, client, "--config-file="+conf, "--fdpass", "--no-summary", tiny); err == nil {
			break
		}
		if time.Since(start) > time.Minute || !d.alive() {
			fmt.Println("clamd did not start here")
			return nil
		}
		time.Sleep(100 * time.Millisecond)
	}
	load := time.Since(start)
	cpu := d.cpu()
	scan, err := execute(ctx, 1, client, "--config-file="+conf, "--fdpass", "--no-summary", "--infected", "--file-list="+b.list)
	if err != nil {
		fmt.Println("clamdscan:", err)
		return nil
	}
	b.print(row{
		name: "clamd + clamdscan", load: load.Seconds(), elapsed: scan.elapsed.Seconds(),
		cpu: (scan.cpu + d.cpu() - cpu).Seconds(), rss: d.rss(),
	})
	return nil
}

// yara compares on YARA rules.
func (b *bench) yara(ctx context.Context, rules string) error {
	fmt.Println()
	defs, err := b.compile(ctx, "yara.bwd", rules)
	if err != nil {
		return err
	}
	b.head("YARA rules of " + filepath.Base(rules))
	if err := b.engine(ctx, defs); err != nil {
		return err
	}
	_, ok := installed("yara")
	yarac, ok2 := installed("yarac")
	if !ok || !ok2 {
		fmt.Println("yara is not installed")
		return nil
	}
	var args []string
	for _, v := range []string{"filename", "filepath", "extension", "filetype", "owner"} {
		args = append(args, "-d", v+"=")
	}
	var files []string
	err = filepath.WalkDir(rules, func(path string, d fs.DirEntry, err error) error {
		if err == nil && (strings.HasSuffix(path, ".yar") || strings.HasSuffix(path, ".yara")) {
			files = append(files, fmt.Sprintf("n%d:%s", len(files), path))
		}
		return err
	})
	if err != nil {
		return err
	}
	compiled := filepath.Join(b.work, "yara.yac")
	comp, err := execute(ctx, 0, yarac, append(append(append([]string{"-w"}, args...), files...), compiled)...)
	if err != nil {
		fmt.Println("yarac:", err)
		return nil
	}
	tiny := filepath.Join(b.work, "tiny")
	if err := os.WriteFile(tiny, []byte("tiny\n"), 0o600); err != nil {
		return err
	}
	load, err := execute(ctx, 0, "yara", "-C", "-w", "-p", "1", compiled, tiny)
	if err != nil {
		return err
	}
	scan, err := execute(ctx, 1, "yara", "-C", "-w", "-p", "1", "--scan-list", compiled, b.list)
	if err != nil {
		return err
	}
	b.print(row{
		name: "yara -p 1 (rules compiled before)", load: load.elapsed.Seconds(), elapsed: (scan.elapsed - load.elapsed).Seconds(),
		cpu: (scan.cpu - load.cpu).Seconds(), rss: scan.rss,
	})
	fmt.Printf("  yarac needed %.1f s for %d files\n", comp.elapsed.Seconds(), len(files))
	return nil
}
