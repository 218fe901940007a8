package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bulwarkhq/bulwark/bench/measure"
	"github.com/bulwarkhq/bulwark/engine"
)

// childConfig is one measured process of our own engine.
type childConfig struct {
	definitions string
	list        string
	threads     int
}

// childResult is what it reports on its standard output.
type childResult struct {
	Load, Scan, CPU         float64 // seconds
	Found, Files            int64
	Private, Shared, Loaded int64 // bytes: anonymous and mapped at the end; anonymous after loading
}

func (c *childConfig) run(ctx context.Context) error {
	start := time.Now()
	e, err := engine.Open(c.definitions)
	if err != nil {
		return err
	}
	defer e.Close()
	res := childResult{Load: time.Since(start).Seconds()}
	res.Loaded, _ = memory()
	list, err := os.ReadFile(c.list)
	if err != nil {
		return err
	}
	paths := strings.Fields(strings.ReplaceAll(string(list), " ", "\x00"))
	runtime.GOMAXPROCS(max(c.threads, 1))
	var next, found, files atomic.Int64
	var wg sync.WaitGroup
	errs := make(chan error, c.threads)
	cpu := processTime()
	start = time.Now()
	for range c.threads {
		wg.Go(func() {
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= len(paths) {
					return
				}
				infected, err := scanFile(ctx, e, strings.ReplaceAll(paths[i], "\x00", " "))
				if err != nil {
					errs <- err
					return
				}
				files.Add(1)
				if infected {
					found.Add(1)
				}
			}
		})
	}
	wg.Wait()
	res.Scan = time.Since(start).Seconds()
	res.CPU = (processTime() - cpu).Seconds()
	select {
	case err := <-errs:
		return err
	default:
	}
	res.Found, res.Files = found.Load(), files.Load()
	res.Private, res.Shared = memory()
	return json.NewEncoder(os.Stdout).Encode(res)
}

func scanFile(ctx context.Context, e *engine.Engine, path string) (bool, error) {
	f, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return false, err
	}
	v, err := e.Scan(ctx, f, st.Size(), engine.Options{Name: path, Archives: true})
	return v.Infected(), err
}

// memory is the anonymous and the mapped memory of this process in bytes.
func memory() (private, shared int64) {
	return measure.StatusBytes(os.Getpid(), "RssAnon:"), measure.StatusBytes(os.Getpid(), "RssFile:")
}

func (r childResult) String() string {
	return fmt.Sprintf("%d files, %d found", r.Files, r.Found)
}
