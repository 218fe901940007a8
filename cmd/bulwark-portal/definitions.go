package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/bulwarkhq/bulwark/api/onboarding"
	"github.com/bulwarkhq/bulwark/api/release"
	"github.com/bulwarkhq/bulwark/atomicfile"
	"github.com/bulwarkhq/bulwark/engine/clamdb"
	"github.com/bulwarkhq/bulwark/portal/definitions"
)

// publisherOptions are those of all commands that sign definitions.
type publisherOptions struct {
	validity      days
	containerKeys string
}

func (o *publisherOptions) flags(c *cobra.Command) {
	o.validity = days(definitions.DefaultValidity)
	c.Flags().Var(&o.validity, "definitions-validity", "how long agents believe definitions that were not signed anew; mirrors must be synchronised more often")
	c.Flags().StringVar(&o.containerKeys, "container-keys", "", "file with the keys of ClamAV databases that an organisation signs itself (default: the keys of the ClamAV project)")
}

func (o *publisherOptions) publisher(dir string, log *slog.Logger) (*definitions.Publisher, error) {
	cfg := definitions.Config{Dir: filepath.Join(dir, "definitions"), Validity: time.Duration(o.validity), Version: version, Log: log}
	if cfg.Validity < time.Hour {
		return nil, usage("--definitions-validity: at least 1h")
	}
	if o.containerKeys != "" {
		var err error
		if cfg.ContainerKeys, err = clamdb.ReadKeys(o.containerKeys); err != nil {
			return nil, err
		}
	}
	return definitions.New(cfg), nil
}

// sourcesPath is the file with the sources of releases, one a line.
func sourcesPath(dir string) string { return filepath.Join(dir, "definitions", "sources") }

// readSources reads the sources file; without one there is what the product
// ships.
func readSources(dir string) ([]definitions.Source, error) {
	f, err := os.Open(sourcesPath(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return parseSources([]string{"content"})
	}
	if err != nil {
		return nil, fmt.Errorf("sources of definitions: %w", err)
	}
	defer f.Close()
	var out []definitions.Source
	lines := bufio.NewScanner(f)
	for n := 1; lines.Scan(); n++ {
		text := strings.TrimSpace(lines.Text())
		if text == "" || text[0] == '#' {
			continue
		}
		s, err := definitions.ParseSource(text)
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w", f.Name(), n, err)
		}
		out = append(out, s)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("%s: %w", f.Name(), err)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%s: no sources in it", f.Name())
	}
	return out, nil
}

func parseSources(texts []string) ([]definitions.Source, error) {
	var out []definitions.Source
	for _, text := range texts {
		s, err := definitions.ParseSource(text)
		if err != nil {
			return nil, &usageError{err}
		}
		out = append(out, s)
	}
	return out, nil
}

func definitionsBuildCommand() *cobra.Command {
	var po publisherOptions
	var sources []string
	o := definitions.BuildOptions{}
	var problems int
	c := &cobra.Command{Use: "build", Short: "Gather signatures, try them, and publish them as a signed release", Args: noArgs}
	c.Long = `Gather signatures from their sources, try them with the engine, and publish
them as a signed release, when anything is different from the last one.

Sources:
  content                     what the product ships
  clamav=URL[,DATABASE...]    a mirror of ClamAV databases; main and daily by default
  yara=URL|PATH               YARA rules: .yar, .zip, .tar.gz
  hashes=URL|PATH             lines of MD5, SHA-1 or SHA-256, and a name
  folder=PATH                 databases and rules as they are
A name before tells two of a kind apart: linux:yara=rules.zip.

Without --source they are read from definitions/sources in the data folder, one
a line; without that file there is content only. With --source, for
production, they are written there. The portal builds from that
file by itself (serve --definitions-interval).`
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		dir, err := dataDir(cmd)
		if err != nil {
			return err
		}
		log, err := newLogger(cmd, "info", "text")
		if err != nil {
			return err
		}
		p, err := po.publisher(dir, log)
		if err != nil {
			return err
		}
		o.Read = func() ([]definitions.Source, error) { return readSources(dir) }
		if len(sources) > 0 {
			if o.Sources, err = parseSources(sources); err != nil {
				return err
			}
			if o.Channel == release.Production {
				// The portal's own builds go on with them.
				o.Remember = func() error {
					return atomicfile.Write(sourcesPath(dir), []byte(strings.Join(sources, "\n")+"\n"), 0o600)
				}
			}
		}
		r, err := p.Build(cmd.Context(), o)
		for i, problem := range r.Problems {
			if i == problems {
				break
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "left out: %s\n", problem)
		}
		if n := r.ProblemsTotal; n > problems {
			fmt.Fprintf(cmd.ErrOrStderr(), "left out: %d lines and rules in all (--problems N shows more)\n", n)
		}
		if err != nil {
			return err
		}
		what := "has been published"
		if !r.Changed {
			what = "is still the newest: nothing has changed"
		}
		fmt.Fprintf(cmd.OutOrStdout(), "Release %s (%s) %s: %d signatures, %d files, %.1f MB\n", r.Set.Version, r.Set.Channel, what, r.Set.Signatures, len(r.Set.Files), float64(r.Set.Bytes())/1e6)
		if len(r.Stale) > 0 {
			return fmt.Errorf("%d source(s) could not be had; the release has what they had before", len(r.Stale))
		}
		return nil
	}
	po.flags(c)
	f := c.Flags()
	f.StringArrayVar(&sources, "source", nil, "where signatures come from; may be repeated")
	f.StringVar(&o.Channel, "channel", release.Production, "production or preview")
	f.BoolVar(&o.KeepGoing, "keep-going", false, "use what a source had before where it cannot be had now")
	f.BoolVar(&o.Force, "force", false, "publish also what has less than half of the signatures of the release before")
	f.IntVar(&problems, "problems", 10, "how many lines and rules that cannot be used to show")
	return c
}

func definitionsRootCommand() *cobra.Command {
	var po publisherOptions
	c := &cobra.Command{Use: "root", Short: "Print the root metadata, for hosts without an onboarding package and for mirrors", Args: noArgs}
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		dir, err := dataDir(cmd)
		if err != nil {
			return err
		}
		p, err := po.publisher(dir, slog.New(slog.DiscardHandler))
		if err != nil {
			return err
		}
		root, err := p.Root()
		if err != nil {
			return err
		}
		_, err = cmd.OutOrStdout().Write(append(root, '\n'))
		return err
	}
	po.flags(c)
	return c
}

func mirrorSyncCommand() *cobra.Command {
	var from, to, root, onboard, settings string
	var o definitions.SyncOptions
	c := &cobra.Command{Use: "sync", Short: "Copy the published definitions to a folder for hosts that do not reach the portal", Args: noArgs}
	c.Long = `Copy the published definitions to a folder that a web server, an NFS export or
a disk carries to hosts that do not reach the portal. Everything is verified
before it becomes visible. Hosts are told the folder LINUX/production below it
(antivirusEngine.offlineDefinitionUpdateUrl).

--from is the portal's address (with --onboarding, by whose key it is
recognised), the address of another mirror's production folder, or a folder.`
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		log, err := newLogger(cmd, "info", "text")
		if err != nil {
			return err
		}
		if settings != "" {
			s, err := definitions.ReadMirrorSettings(settings)
			if err != nil {
				return &usageError{err}
			}
			if to == "" {
				to = s.DownloadFolder
			}
			o.Preview = o.Preview || s.DownloadPreviewUpdates
			if !cmd.Flags().Changed("backup") {
				o.Backup = s.BackupPreviousUpdates
			}
			if s.LogFilePath != "" {
				f, err := os.OpenFile(s.LogFilePath, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
				if err != nil {
					return fmt.Errorf("mirror settings: logFilePath: %w", err)
				}
				defer f.Close()
				log = slog.New(slog.NewTextHandler(f, nil))
			}
		}
		if to == "" {
			return usage("--to FOLDER or --settings FILE is needed")
		}
		o.Folder, o.Log = to, log
		if err := mirrorSource(cmd.Context(), &o, from, root, onboard); err != nil {
			return err
		}
		synced, err := definitions.Sync(cmd.Context(), o)
		for _, s := range synced {
			what := "is up to date"
			if s.Changed {
				what = fmt.Sprintf("has been fetched (%.1f MB)", float64(s.Bytes)/1e6)
			}
			text := fmt.Sprintf("Release %s (%s) %s: %s", s.Set.Version, s.Channel, what, filepath.Join(to, "linux", s.Channel))
			fmt.Fprintln(cmd.OutOrStdout(), text)
			log.Info(text)
		}
		if err != nil {
			log.Error("the mirror was not brought up to date", "error", err)
		}
		return err
	}
	f := c.Flags()
	f.StringVar(&from, "from", "", "where definitions come from (default: the portal of --onboarding)")
	f.StringVar(&to, "to", "", "folder of the mirror")
	f.StringVar(&root, "root", "", "file with the root metadata to trust (bulwark-portal definitions root; default: that of --onboarding)")
	f.StringVar(&onboard, "onboarding", "", "onboarding package of the portal")
	f.StringVar(&settings, "settings", "", "settings.json with downloadFolder, downloadPreviewUpdates, backupPreviousUpdates and logFilePath")
	f.BoolVar(&o.Preview, "preview", false, "copy the channel preview too")
	f.BoolVar(&o.Backup, "backup", true, "keep the release before as production_back")
	return c
}

// mirrorSource finds out where to copy from and what to trust.
func mirrorSource(ctx context.Context, o *definitions.SyncOptions, from, root, onboard string) error {
	var pkg *onboarding.Package
	client := &http.Client{Timeout: time.Hour}
	if onboard != "" {
		data, err := os.ReadFile(onboard)
		if err != nil {
			return fmt.Errorf("onboarding package: %w", err)
		}
		if pkg, err = onboarding.Parse(data); err != nil {
			return err
		}
		o.Root = pkg.DefinitionsRoot
		if from == "" || strings.TrimSuffix(from, "/") == strings.TrimSuffix(pkg.Portal, "/") {
			cfg, err := pkg.TLSConfig(nil, time.Now)
			if err != nil {
				return err
			}
			client.Transport = &http.Transport{Proxy: http.ProxyFromEnvironment, TLSClientConfig: cfg, ForceAttemptHTTP2: true}
			from = strings.TrimSuffix(pkg.Portal, "/") + release.Path
		}
	}
	switch {
	case from == "":
		return usage("--from or --onboarding is needed")
	case strings.HasPrefix(from, "http://") || strings.HasPrefix(from, "https://"):
		o.Source = &release.HTTPSource{Client: client, Base: from, UserAgent: "Bulwark-mirror/" + version}
	default:
		o.Source = &release.FolderSource{Dir: from}
	}
	if root != "" {
		var err error
		if o.Root, err = os.ReadFile(root); err != nil {
			return fmt.Errorf("root metadata: %w", err)
		}
	}
	if len(o.Root) == 0 && pkg != nil && client.Transport != nil {
		// The connection is the pinned one.
		var err error
		if o.Root, err = release.FetchRoot(ctx, o.Source); err != nil {
			return err
		}
	}
	if len(o.Root) == 0 {
		return usage("--root FILE is needed: what is copied is verified, and that is what trust begins with")
	}
	return nil
}

// buildDefinitions publishes releases from the sources file until ctx ends.
func buildDefinitions(ctx context.Context, p *definitions.Publisher, dir string, every time.Duration, log *slog.Logger) {
	defer func() {
		if v := recover(); v != nil {
			log.Error("building definitions panicked; it is not tried again before the portal restarts", "panic", v)
		}
	}()
	for {
		r, err := p.Build(ctx, definitions.BuildOptions{
			Channel: release.Production, Read: func() ([]definitions.Source, error) { return readSources(dir) }, KeepGoing: true,
		})
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			log.Error("no new release of definitions", "error", err)
		case r.Changed:
			log.Info("a release of definitions has been published", "version", r.Set.Version, "signatures", r.Set.Signatures, "left_out", r.ProblemsTotal)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(every):
		}
	}
}
