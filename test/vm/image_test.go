//go:build vm

package vm

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/bulwarkhq/bulwark/test/need"
)

// release is the Debian release of the machine.
const release = "bookworm"

// image is what a machine boots from. The files are shared and never written.
type image struct{ disk, kernel, initrd string }

// cachedImage returns the image, and makes it when no earlier run has.
func cachedImage(t *testing.T) image {
	t.Helper()
	need.Root(t)
	cache := cacheFolder(t)
	key, err := recipe("image")
	if err != nil {
		t.Fatal(err)
	}
	// Tests of other checkouts may want it at the same time.
	unlock := lock(t, filepath.Join(cache, "lock"))
	defer unlock()
	dir := filepath.Join(cache, key)
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		makeImage(t, cache, dir)
	} else if err != nil {
		t.Fatal(err)
	}
	return image{filepath.Join(dir, "disk"), filepath.Join(dir, "vmlinuz"), filepath.Join(dir, "initrd")}
}

// cacheFolder is the user's cache folder for images.
func cacheFolder(t *testing.T) string {
	t.Helper()
	base, err := os.UserCacheDir()
	if err != nil {
		base = os.TempDir() // no home folder
	}
	dir := filepath.Join(base, "bulwark-vm")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// recipe names an image by everything that goes into it.
func recipe(folder string) (string, error) {
	sum := sha256.New()
	fmt.Fprintln(sum, release)
	for _, name := range []string{"build", "packages"} {
		b, err := os.ReadFile(filepath.Join(folder, name))
		if err != nil {
			return "", fmt.Errorf("recipe of the image: %w", err)
		}
		fmt.Fprintln(sum, name, len(b))
		sum.Write(b)
	}
	return hex.EncodeToString(sum.Sum(nil))[:16], nil
}

// makeImage makes the image in dir and removes those of older recipes.
func makeImage(t *testing.T, cache, dir string) {
	t.Helper()
	need.Command(t, "mmdebstrap")
	need.Command(t, "mkfs.ext4")
	old, err := os.ReadDir(cache)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range old {
		if e.IsDir() {
			if err := os.RemoveAll(filepath.Join(cache, e.Name())); err != nil {
				t.Fatal(err)
			}
		}
	}
	start := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Minute)
	defer cancel()
	part, err := os.MkdirTemp(cache, "part.")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, filepath.Join("image", "build"), release, part)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("make the image of the virtual machine: %v\n%s", err, out)
	}
	if err := os.Rename(part, dir); err != nil {
		t.Fatal(err)
	}
	t.Logf("made the image in %v (%.0f s of CPU time)", time.Since(start).Round(time.Second),
		(cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds())
}

// lock waits for a lock on a file.
func lock(t *testing.T, path string) (unlock func()) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	return func() { f.Close() }
}
