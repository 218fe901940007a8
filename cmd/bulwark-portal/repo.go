package main

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/bulwarkhq/bulwark/portal/pki"
	"github.com/bulwarkhq/bulwark/portal/repository"
)

// repositoryOptions are those of all commands that sign packages.
type repositoryOptions struct{ passphraseFile string }

func (o *repositoryOptions) flags(c *cobra.Command) {
	c.Flags().StringVar(&o.passphraseFile, "repo-passphrase-file", "", "file with the passphrase of the key that signs packages (default: secrets/repository-passphrase in the data folder)")
}

// publisher of the repositories of a data folder, for hosts that find the
// portal at that address.
func (o *repositoryOptions) publisher(dir, portalURL string, ca *pki.Authority, log *slog.Logger) *repository.Publisher {
	pass := o.passphraseFile
	if pass == "" {
		pass = filepath.Join(dir, "secrets", "repository-passphrase")
	}
	return repository.New(repository.Config{
		Dir: filepath.Join(dir, "repository"), PassphraseFile: pass, Organization: "Bulwark repository", Log: log,
		URL: strings.TrimSuffix(portalURL, "/") + strings.TrimSuffix(repository.Path, "/"),
		CA:  ca.CertificatePEM(),
	})
}

// withRepository runs f on the repositories of the data folder, beside a
// running portal or without one.
func withRepository(cmd *cobra.Command, o *repositoryOptions, f func(dir string, p *repository.Publisher) error) error {
	dir, err := dataDir(cmd)
	if err != nil {
		return err
	}
	at, err := readServed(dir)
	if err != nil {
		return err
	}
	log := slog.New(slog.DiscardHandler)
	ca, err := openCA(dir, at.Names, log)
	if err != nil {
		return err
	}
	return f(dir, o.publisher(dir, at.URL, ca, log))
}

func repoPublishCommand() *cobra.Command {
	var o repositoryOptions
	var channel, from, release string
	var rollout int
	c := &cobra.Command{Use: "publish [FILE|FOLDER]...", Short: "Sign packages and publish them in a channel"}
	c.Long = `Sign packages and publish them in a channel: in the apt repository the debs, in
the yum, dnf and zypper repository the rpms. Folders are taken with all packages
in them. The portal serves the repositories below /repo/.

With --from CHANNEL --version VERSION, what is in one channel is published in
another; with both the same, only the share of the roll-out changes.

--rollout is the share of hosts, in percent, that upgrade to it. New
installations by apt always get the newest. For rpms, which know no shares,
install.sh puts every host into one of ten rings; a host in none gets a version
at 100.`
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if channel == "" {
			return usage("--channel is needed: one of %s", strings.Join(repository.Channels, ", "))
		}
		if err := repository.CheckChannel(channel); err != nil {
			return &usageError{err}
		}
		if rollout < 0 || rollout > 100 {
			return usage("--rollout: a share from 0 to 100")
		}
		if (from != "") == (len(args) > 0) || (from != "") != (release != "") {
			return usage("name package files, or --from CHANNEL and --version VERSION")
		}
		files, err := packageFiles(args)
		if err != nil {
			return err
		}
		return withRepository(cmd, &o, func(_ string, p *repository.Publisher) error {
			var done []repository.Package
			if from != "" {
				done, err = p.Promote(cmd.Context(), from, channel, release, rollout)
			} else {
				done, err = p.Publish(cmd.Context(), channel, rollout, files)
			}
			if err != nil {
				return err
			}
			for _, pkg := range done {
				fmt.Fprintf(cmd.OutOrStdout(), "%s %s %s (%s) is in %s for %d %% of the hosts\n", pkg.Name, pkg.Version, pkg.Arch, pkg.Format, pkg.Channel, pkg.Rollout)
			}
			return nil
		})
	}
	o.flags(c)
	f := c.Flags()
	f.StringVar(&channel, "channel", "", strings.Join(repository.Channels, ", "))
	f.IntVar(&rollout, "rollout", 100, "share of hosts, in percent, that upgrade to it")
	f.StringVar(&from, "from", "", "channel that has the version")
	f.StringVar(&release, "version", "", "version to publish from the other channel")
	return c
}

// packageFiles resolves files and folders.
func packageFiles(args []string) ([]string, error) {
	var out []string
	for _, a := range args {
		st, err := os.Stat(a)
		if err != nil {
			return nil, usage("%w", err)
		}
		if !st.IsDir() {
			out = append(out, a)
			continue
		}
		entries, err := os.ReadDir(a)
		if err != nil {
			return nil, fmt.Errorf("packages: %w", err)
		}
		before := len(out)
		for _, e := range entries {
			if ext := filepath.Ext(e.Name()); e.Type().IsRegular() && (ext == ".deb" || ext == ".rpm") {
				out = append(out, filepath.Join(a, e.Name()))
			}
		}
		if len(out) == before {
			return nil, usage("the folder %s has no .deb or .rpm in it", a)
		}
	}
	return out, nil
}

func repoWithdrawCommand() *cobra.Command {
	var o repositoryOptions
	var channel, release string
	c := &cobra.Command{Use: "withdraw", Short: "Take a version out of a channel", Args: noArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		if channel == "" || release == "" {
			return usage("--channel and --version are needed")
		}
		return withRepository(cmd, &o, func(_ string, p *repository.Publisher) error {
			n, err := p.Withdraw(cmd.Context(), channel, release)
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%d packages of version %s were taken out of %s. Hosts that have it keep it.\n", n, release, channel)
			return nil
		})
	}}
	o.flags(c)
	c.Flags().StringVar(&channel, "channel", "", strings.Join(repository.Channels, ", "))
	c.Flags().StringVar(&release, "version", "", "version to take out")
	return c
}

func repoListCommand() *cobra.Command {
	var o repositoryOptions
	c := &cobra.Command{Use: "list", Short: "Show what is published", Args: noArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		return withRepository(cmd, &o, func(_ string, p *repository.Publisher) error {
			list, err := p.List()
			if err != nil {
				return err
			}
			if len(list) == 0 {
				return repository.ErrNothing
			}
			slices.SortStableFunc(list, func(a, b repository.Package) int {
				return strings.Compare(a.Channel+a.Name+a.Format+a.Arch, b.Channel+b.Name+b.Format+b.Arch)
			})
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 4, 2, ' ', 0)
			fmt.Fprintln(w, "CHANNEL\tPACKAGE\tVERSION\tFORMAT\tARCHITECTURE\tROLL-OUT\tPUBLISHED")
			for _, pkg := range list {
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%d %%\t%s\n", pkg.Channel, pkg.Name, pkg.Version, pkg.Format, pkg.Arch, pkg.Rollout, pkg.Published.UTC().Format("2006-01-02 15:04 MST"))
			}
			return w.Flush()
		})
	}}
	o.flags(c)
	return c
}

func repoKeyCommand() *cobra.Command {
	var o repositoryOptions
	c := &cobra.Command{Use: "key", Short: "Print the public key that packages are signed with", Args: noArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		return withRepository(cmd, &o, func(_ string, p *repository.Publisher) error {
			text, fingerprint, err := p.PublicKey()
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "Fingerprint: %s\n", fingerprint)
			_, err = cmd.OutOrStdout().Write(text)
			return err
		})
	}}
	o.flags(c)
	return c
}

func repoExportCommand() *cobra.Command {
	var o repositoryOptions
	var to, url, caFile string
	var validity days
	c := &cobra.Command{Use: "export", Short: "Copy the repositories for another web server or a disk", Args: noArgs}
	c.Long = `Copy the repositories to a folder that another web server, an NFS export or a
disk carries to hosts that do not reach the portal. The copy has entries and an
installer for the address under which hosts find it (--url; file:///mnt/bulwark
for a disk). Repeat it after every publish; the folder is replaced.`
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		if to == "" || url == "" {
			return usage("--to FOLDER and --url ADDRESS are needed")
		}
		if !strings.HasPrefix(url, "https://") && !strings.HasPrefix(url, "http://") && !strings.HasPrefix(url, "file:///") {
			return usage("--url %q: use https://, http:// or file:///", url)
		}
		opts := repository.ExportOptions{URL: url, Validity: time.Duration(validity)}
		if caFile != "" {
			var err error
			if opts.CA, err = os.ReadFile(caFile); err != nil {
				return usage("--ca: %w", err)
			}
		}
		return withRepository(cmd, &o, func(_ string, p *repository.Publisher) error {
			if err := p.Export(cmd.Context(), to, opts); err != nil {
				return err
			}
			size, files, err := folderSize(to)
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%d files, %.1f MB, for hosts that find them at %s: %s\n", files, float64(size)/1e6, url, to)
			return nil
		})
	}
	o.flags(c)
	f := c.Flags()
	f.StringVar(&to, "to", "", "folder to write; an earlier copy in it is replaced")
	f.StringVar(&url, "url", "", "address under which hosts find the copy")
	f.StringVar(&caFile, "ca", "", "certificate authority (PEM) of an https address that hosts do not trust already")
	f.Var(&validity, "validity", "how long apt believes the copy; 0 for ever")
	return c
}

func folderSize(dir string) (size int64, files int, err error) {
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		st, err := d.Info()
		if err == nil {
			size, files = size+st.Size(), files+1
		}
		return err
	})
	if err != nil {
		return 0, 0, fmt.Errorf("export: %w", errors.Join(err))
	}
	return size, files, nil
}
