// Package archive copies the Parquet files of closed days to storage that speaks
// Amazon's S3 protocol, where they stay when the portal's own retention removes
// them, for other programs to query.
//
// A file is uploaded once nothing will be joined with it any more, a day after its
// own has ended, and is marked in the event store after the storage has taken it:
// a crash between the two writes the same object again. Objects are named
// prefix/Table/day=2026-03-02/file.parquet, so that what reads partitions of Hive
// (DuckDB, Spark, Athena, ClickHouse) leaves out the days that a query does not
// need.
//
// The retention of the event store does not wait for the archive: a storage that
// is away must not fill the portal's disk. Status says what waits.
package archive

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path"
	"regexp"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/bulwarkhq/bulwark/portal/eventstore"
)

const (
	// interval is how often is looked for files.
	interval = 10 * time.Minute
	// fileTime is how long the upload of one file may take.
	fileTime = time.Hour
	// answerTime is how long the storage may take to begin an answer.
	answerTime = time.Minute
	// tries is how often the client itself sends a request again.
	tries = 3
	// contentType is the media type of Parquet (registered with IANA).
	contentType = "application/vnd.apache.parquet"
	// amazon is the endpoint when none is given.
	amazon = "https://s3.amazonaws.com"
)

// Source has the files.
type Source interface {
	// Archivable returns the files that do not change any more and are not
	// archived, oldest first.
	Archivable(ctx context.Context) ([]eventstore.File, error)
	// SetArchived marks one by its name; it is no error when it is gone.
	SetArchived(ctx context.Context, name string) error
}

// Config of a Service.
type Config struct {
	Source Source
	// URL is s3://bucket or s3://bucket/prefix.
	URL string
	// Endpoint is the address of the storage, https://host[:port]; Amazon's when
	// empty. Region may be empty.
	Endpoint, Region string
	Logger           *slog.Logger
	// Now is time.Now outside of tests.
	Now func() time.Time
}

// Status says how it goes.
type Status struct {
	// Files and Bytes were waiting after the last pass.
	Files, Bytes int64
	// Archived are the files since the start.
	Archived int64
	// Success is the end of the last pass without a failure; zero for none.
	Success time.Time
	// Error is of the last pass; empty when it went well.
	Error string
}

// Service uploads. It is safe for concurrent use.
type Service struct {
	cfg            Config
	client         *minio.Client
	bucket, prefix string

	mu     sync.Mutex
	status Status
}

// bucketName is what S3 allows (Amazon S3 User Guide, "Bucket naming rules").
var bucketName = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$`)

// New returns a Service, or says what is wrong with the settings. The key is
// looked for where Amazon's own programs do: AWS_ACCESS_KEY_ID and
// AWS_SECRET_ACCESS_KEY, the file of AWS_SHARED_CREDENTIALS_FILE, the role of the
// virtual machine or container.
func New(cfg Config) (*Service, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	u, err := url.Parse(cfg.URL)
	if err != nil || u.Scheme != "s3" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || !bucketName.MatchString(u.Host) {
		return nil, fmt.Errorf("archive: %.200q is not of the form s3://bucket/prefix", cfg.URL)
	}
	if cfg.Endpoint == "" {
		cfg.Endpoint = amazon
	}
	e, err := url.Parse(cfg.Endpoint)
	if err != nil || (e.Scheme != "https" && e.Scheme != "http") || e.Host == "" || e.User != nil || strings.Trim(e.Path, "/") != "" || e.RawQuery != "" || e.Fragment != "" {
		return nil, fmt.Errorf("archive: the endpoint %.200q is not of the form https://host or https://host:port", cfg.Endpoint)
	}
	transport, err := minio.DefaultTransport(e.Scheme == "https")
	if err != nil {
		return nil, fmt.Errorf("archive: %w", err)
	}
	transport.ResponseHeaderTimeout = answerTime
	client, err := minio.New(e.Host, &minio.Options{
		Creds:  credentials.NewChainCredentials([]credentials.Provider{&credentials.EnvAWS{}, &credentials.FileAWSCredentials{}, &credentials.IAM{Client: &http.Client{Transport: transport, Timeout: answerTime}}}),
		Secure: e.Scheme == "https", Region: cfg.Region, Transport: transport, MaxRetries: tries,
	})
	if err != nil {
		return nil, fmt.Errorf("archive: %w", err)
	}
	return &Service{cfg: cfg, client: client, bucket: u.Host, prefix: strings.Trim(path.Clean(u.Path), "/.")}, nil
}

// URL is where the files go.
func (s *Service) URL() string { return s.cfg.URL }

// Status says how it goes.
func (s *Service) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status
}

// Loop archives every few minutes until ctx ends.
func (s *Service) Loop(ctx context.Context) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		if err := s.passSafely(ctx); err != nil && ctx.Err() == nil {
			s.cfg.Logger.ErrorContext(ctx, "event files are not archived; it is tried again", "bucket", s.bucket, "in", interval.String(), "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// passSafely is Pass, and turns a panic into an error.
func (s *Service) passSafely(ctx context.Context) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("panic: %v\n%s", v, debug.Stack())
		}
	}()
	return s.Pass(ctx)
}

// Pass uploads the files that wait, oldest first, up to the first failure: the
// next would most probably meet the same.
func (s *Service) Pass(ctx context.Context) error {
	files, err := s.cfg.Source.Archivable(ctx)
	done, archived := 0, int64(0)
	for err == nil && done < len(files) {
		var there bool
		if there, err = s.upload(ctx, files[done]); err == nil {
			done++
		}
		if there {
			archived++
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status.Files, s.status.Bytes, s.status.Error = 0, 0, ""
	s.status.Archived += archived
	for _, f := range files[done:] {
		s.status.Files++
		s.status.Bytes += f.Bytes
	}
	if err != nil {
		s.status.Error = err.Error()
		return err
	}
	s.status.Success = s.cfg.Now()
	return nil
}

// object is the name of a file in the storage.
func (s *Service) object(f eventstore.File) string {
	return path.Join(s.prefix, f.Table, "day="+f.Hour.UTC().Format(time.DateOnly), f.Name)
}

// upload reports whether the file is in the storage now: one that is gone is not,
// which is no error.
func (s *Service) upload(ctx context.Context, f eventstore.File) (archived bool, err error) {
	file, err := os.Open(f.Path)
	if errors.Is(err, fs.ErrNotExist) { // retention was faster
		s.cfg.Logger.WarnContext(ctx, "an event file was removed before it was archived", "file", f.Name)
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("archive: %w", err)
	}
	defer file.Close()
	ctx, cancel := context.WithTimeout(ctx, fileTime)
	defer cancel()
	// The signed checksum covers the contents, so that they need no signature of their own.
	info, err := s.client.PutObject(ctx, s.bucket, s.object(f), file, f.Bytes, minio.PutObjectOptions{ContentType: contentType, SendContentMd5: true, DisableContentSha256: true, NumThreads: 1})
	if err != nil {
		return false, fmt.Errorf("archive: %s in the bucket %s: %w", s.object(f), s.bucket, err)
	}
	if info.Size != f.Bytes {
		return false, fmt.Errorf("archive: %s in the bucket %s has %d bytes of %d", s.object(f), s.bucket, info.Size, f.Bytes)
	}
	if err := s.cfg.Source.SetArchived(ctx, f.Name); err != nil {
		return false, fmt.Errorf("archive: %w", err)
	}
	s.cfg.Logger.InfoContext(ctx, "archived an event file", "object", s.object(f), "events", f.Rows, "bytes", f.Bytes)
	return true, nil
}
