package main

import (
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/bulwarkhq/bulwark/portal/archive"
)

// archiveOptions are those of the archive of events.
type archiveOptions struct{ url, endpoint, region string }

func (o *archiveOptions) flags(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&o.url, "archive-url", "", "s3://bucket/prefix to which the Parquet files of closed days are copied; empty for none")
	f.StringVar(&o.endpoint, "archive-endpoint", "", "address of the storage that has the bucket, https://host[:port] (default: Amazon S3)")
	f.StringVar(&o.region, "archive-region", "", "region of the bucket, where the storage has regions")
}

// service returns nil when there is no archive.
func (o *archiveOptions) service(store events, log *slog.Logger) (*archive.Service, error) {
	if o.url == "" {
		if o.endpoint != "" || o.region != "" {
			return nil, usage("options of the archive are given without --archive-url")
		}
		return nil, nil
	}
	source, ok := store.(archive.Source)
	if !ok {
		return nil, usage("--archive-url is for the embedded event store: archive with ClickHouse's own means")
	}
	s, err := archive.New(archive.Config{Source: source, URL: o.url, Endpoint: o.endpoint, Region: o.region, Logger: log})
	if err != nil {
		return nil, usage("--archive-url, --archive-endpoint: %w", err)
	}
	return s, nil
}
