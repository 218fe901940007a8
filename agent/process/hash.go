package process

import (
	"container/list"
	"context"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"

	"github.com/bulwarkhq/bulwark/event"
)

// Hashes of a file and what else its bytes say.
type Hashes struct {
	MD5, SHA1, SHA256 string // in hex
	Fuzzy             string // ssdeep's; empty for large files
	Header            string // the first bytes, in hex
	Entropy           float64
	Size              int64
	Read              bool // the file was read: not so when it is too large
}

// fileID identifies the content of a file as well as a stat can: any write
// changes ctime.
type fileID struct {
	dev, ino       uint64
	ctimeS, ctimeN int64
	size           int64
}

// HasherOptions bound the work of a Hasher. Zero values mean the default.
type HasherOptions struct {
	MaxFile int64 // larger files are not hashed; 256 MiB
	Cache   int   // results kept; 8192
	Queue   int   // files waiting; 512
	// Rate is how many bytes per second are read in the long run, so that a
	// host that builds programs all the time is not slowed down by it; 32 MiB.
	// The first 256 MiB are free.
	Rate int
	// FileRate is the same for files that are no executables of processes, of
	// which the first 64 MiB are free; 8 MiB, and as much for those of up to
	// 64 KiB. What is beyond it has a size only,
	// as has a file of more than 32 MiB.
	FileRate int
}

const (
	maxOtherFile = 32 << 20
	freeOther    = 64 << 20
	// smallFile is the size up to which files have a budget of their own (the same):
	// scripts are small, and what a build writes must not use up theirs.
	smallFile = 64 << 10
)

// Hasher computes and remembers the hashes of executables. One goroutine does
// the work (Run); callers wait as long as they like.
type Hasher struct {
	opts  HasherOptions
	root  string // of /proc
	limit *rate.Limiter
	other *rate.Limiter // of files that are no executables
	small *rate.Limiter // of those up to smallFile
	queue chan *hashJob // executables
	later chan *hashJob // other files: when there are no executables

	mu      sync.Mutex
	cache   map[fileID]*list.Element // of *hashed
	order   *list.List               // least recently used first
	pending map[fileID]*hashJob

	dropped, failed, computed atomic.Uint64
}

type hashed struct {
	id fileID
	h  Hashes
}

type hashJob struct {
	id   fileID
	file *os.File
	done chan struct{}
	h    Hashes
	err  error
}

// NewHasher makes a Hasher that opens executables below procRoot ("/proc").
func NewHasher(procRoot string, opts HasherOptions) *Hasher {
	if procRoot == "" {
		procRoot = "/proc"
	}
	if opts.MaxFile == 0 {
		opts.MaxFile = 256 << 20
	}
	if opts.Cache == 0 {
		opts.Cache = 8192
	}
	if opts.Queue == 0 {
		opts.Queue = 512
	}
	if opts.Rate == 0 {
		opts.Rate = 32 << 20
	}
	if opts.FileRate == 0 {
		opts.FileRate = 8 << 20
	}
	return &Hasher{
		opts: opts, root: procRoot, limit: rate.NewLimiter(rate.Limit(opts.Rate), 256<<20), other: rate.NewLimiter(rate.Limit(opts.FileRate), freeOther),
		small: rate.NewLimiter(rate.Limit(opts.FileRate), freeOther), queue: make(chan *hashJob, opts.Queue), later: make(chan *hashJob, opts.Queue),
		cache: make(map[fileID]*list.Element), order: list.New(), pending: make(map[fileID]*hashJob),
	}
}

// HasherThread is the name of the thread on which a Hasher computes, so that
// those who measure can tell what it costs (/proc/PID/task/TID/comm).
const HasherThread = "hasher"

// Run computes until ctx ends.
func (h *Hasher) Run(ctx context.Context) {
	runtime.LockOSThread() // and never unlocked: the thread ends with its name
	// Before Linux 3.17 it keeps the program's name.
	_ = os.WriteFile("/proc/thread-self/comm", []byte(HasherThread), 0)
	buf := make([]byte, 64<<10)
	for {
		select {
		case job := <-h.queue:
			h.compute(ctx, job, buf)
			continue
		default:
		}
		select {
		case <-ctx.Done():
			return
		case job := <-h.queue:
			h.compute(ctx, job, buf)
		case job := <-h.later:
			h.compute(ctx, job, buf)
		}
	}
}

// Image identifies the file of a process's executable as the kernel saw it at
// exec. Zero members are not known.
type Image struct {
	Inode  uint64
	Device uint64 // as in stat(2)
	Size   int64
	Change int64 // time of the last change (ctime), ns
}

// Executable gives the hashes of p's executable. Unknown ones are computed by
// Run while the caller may wait for them. A file that image identifies in full
// and that is known needs no system call. The executable of a process that ended
// is found by its path if the file there is the one that it ran.
func (h *Hasher) Executable(p *event.Process, image Image) Pending {
	if image.Inode != 0 && image.Change != 0 {
		id := fileID{image.Device, image.Inode, image.Change / 1e9, image.Change % 1e9, image.Size}
		h.mu.Lock()
		e := h.cache[id]
		if e != nil {
			h.order.MoveToBack(e)
		}
		h.mu.Unlock()
		if e != nil {
			return Pending{h: e.Value.(*hashed).h}
		}
	}
	ino := image.Inode
	f, err := os.OpenFile(filepath.Join(h.root, strconv.FormatInt(p.PID, 10), "exe"), os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOATIME, 0)
	if err == nil {
		// Same pid, another program: it ended, or went on to the next exec.
		if id, ierr := identify(f); ierr != nil || ino != 0 && id.ino != ino {
			f.Close()
			err = os.ErrNotExist
		}
	}
	if err != nil {
		if p.FolderPath == "" || p.FolderPath[0] != '/' || p.ContainerID != "" {
			return Pending{err: fmt.Errorf("hash executable of process %d: %w", p.PID, err)}
		}
		if f, err = os.OpenFile(p.FolderPath, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOATIME, 0); err != nil {
			return Pending{err: fmt.Errorf("hash executable of process %d: %w", p.PID, err)}
		}
		if id, ierr := identify(f); ierr != nil || ino != 0 && id.ino != ino {
			f.Close()
			return Pending{err: fmt.Errorf("hash executable of process %d: %s was replaced", p.PID, p.FolderPath)}
		}
	}
	return h.begin(f, h.queue)
}

func identify(f *os.File) (fileID, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return fileID{}, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return fileID{}, fmt.Errorf("%s is not a regular file", f.Name())
	}
	return fileID{uint64(st.Dev), st.Ino, int64(st.Ctim.Sec), int64(st.Ctim.Nsec), st.Size}, nil
}

// Pending is a computation that was begun.
type Pending struct {
	job *hashJob // nil: the answer is there
	h   Hashes
	err error
}

// Wait waits for the answer until ctx ends.
func (p Pending) Wait(ctx context.Context) (Hashes, error) {
	if p.job == nil {
		return p.h, p.err
	}
	select {
	case <-p.job.done:
		return p.job.h, p.job.err
	case <-ctx.Done():
		return Hashes{}, ctx.Err()
	}
}

// WaitUntil is Wait for callers without a context.
func (p Pending) WaitUntil(t time.Time) (Hashes, error) {
	if p.job == nil {
		return p.h, p.err
	}
	ctx, cancel := context.WithDeadline(context.Background(), t)
	defer cancel()
	return p.Wait(ctx)
}

// begin takes over f.
func (h *Hasher) begin(f *os.File, queue chan *hashJob) Pending {
	id, err := identify(f)
	if err != nil {
		f.Close()
		return Pending{err: err}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if e := h.cache[id]; e != nil {
		h.order.MoveToBack(e)
		f.Close()
		return Pending{h: e.Value.(*hashed).h}
	}
	if id.size > h.opts.MaxFile {
		f.Close()
		return Pending{h: Hashes{Size: id.size}}
	}
	if job := h.pending[id]; job != nil {
		f.Close()
		return Pending{job: job}
	}
	budget := h.other
	if id.size <= smallFile {
		budget = h.small
	}
	if queue == h.later && (id.size > maxOtherFile || !budget.AllowN(time.Now(), int(id.size))) {
		f.Close()
		h.dropped.Add(1)
		return Pending{h: Hashes{Size: id.size}}
	}
	job := &hashJob{id: id, file: f, done: make(chan struct{})}
	select {
	case queue <- job:
		h.pending[id] = job
		return Pending{job: job}
	default:
		f.Close()
		h.dropped.Add(1)
		return Pending{err: fmt.Errorf("hash %s: too many files waiting", f.Name())}
	}
}

// compute answers job; buf is room for what is read.
func (h *Hasher) compute(ctx context.Context, job *hashJob, buf []byte) {
	defer close(job.done)
	defer job.file.Close()
	before, berr := modified(job.file)
	m, s1, s2, c := md5.New(), sha1.New(), sha256.New(), newContent(job.id.size)
	n, err := io.CopyBuffer(io.MultiWriter(m, s1, s2, c), &limitedReader{ctx, h.limit, io.LimitReader(job.file, h.opts.MaxFile+1)}, buf)
	after, aerr := modified(job.file)
	switch {
	case err != nil:
		job.err = fmt.Errorf("hash %s: %w", job.file.Name(), err)
	case berr != nil || aerr != nil || after != before || n != job.id.size:
		job.err = fmt.Errorf("hash %s: the file changed meanwhile", job.file.Name())
	default:
		job.h = Hashes{MD5: hex.EncodeToString(m.Sum(nil)), SHA1: hex.EncodeToString(s1.Sum(nil)), SHA256: hex.EncodeToString(s2.Sum(nil)), Size: n}
		again := func(w io.Writer) error {
			_, err := io.CopyBuffer(w, &limitedReader{ctx, h.limit, io.NewSectionReader(job.file, 0, n)}, buf)
			return err
		}
		if err := c.into(&job.h, again); err != nil {
			job.err = fmt.Errorf("hash %s: %w", job.file.Name(), err)
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.pending, job.id)
	if job.err != nil {
		h.failed.Add(1)
		return
	}
	h.computed.Add(1)
	h.cache[job.id] = h.order.PushBack(&hashed{job.id, job.h})
	if h.order.Len() > h.opts.Cache {
		old := h.order.Front()
		h.order.Remove(old)
		delete(h.cache, old.Value.(*hashed).id)
	}
}

// modified is when the content last changed. Unlike ctime it does not change
// when a program removes its own file while we read it.
func modified(f *os.File) (unix.Timespec, error) {
	var st unix.Stat_t
	err := unix.Fstat(int(f.Fd()), &st)
	return st.Mtim, err
}

// limitedReader reads no faster than the limit and no longer than ctx lasts.
type limitedReader struct {
	ctx   context.Context
	limit *rate.Limiter
	r     io.Reader
}

func (r *limitedReader) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	if n > 0 {
		if werr := r.limit.WaitN(r.ctx, n); werr != nil {
			return 0, werr
		}
	}
	return n, err
}

// HasherStats counts what a Hasher did.
type HasherStats struct {
	Cached                    int
	Computed, Failed, Dropped uint64
}

// Stats tells what the hasher did so far.
func (h *Hasher) Stats() HasherStats {
	h.mu.Lock()
	defer h.mu.Unlock()
	return HasherStats{h.order.Len(), h.computed.Load(), h.failed.Load(), h.dropped.Load()}
}
