package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// manualCommand writes the manual pages, for the packages.
func (a *app) manualCommand() *cobra.Command {
	var folder string
	c := a.command("man", "Write the manual pages into a folder", nil)
	c.RunE = func(c *cobra.Command, _ []string) error { return a.writeManual(c.Context(), c.Root(), folder) }
	c.Hidden = true
	c.Flags().StringVar(&folder, "folder", "", "folder for the pages")
	return require(c, "folder")
}

// exitStatusText is on the first page.
const exitStatusText = `# EXIT STATUS

- 0: success; a scan found nothing.
- 1: the command worked and the answer is no: threats found, an address that cannot be reached, a failed step.
- 2: an error: wrong usage, no daemon, not allowed, managed by policy, not found, a failed scan.
- 130: a scan that was cancelled by a signal.

# FILES

- /etc/opt/bulwark/managed/managed.json: the managed configuration.
- /etc/opt/bulwark/onboard.json: the onboarding package.
- /var/opt/bulwark: definitions, quarantine, history.
- /var/log/bulwark: logs.`

// writeManual writes one page for each command. The date is that of the source
// (SOURCE_DATE_EPOCH), so that the same source gives the same pages.
func (a *app) writeManual(_ context.Context, root *cobra.Command, folder string) error {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return fmt.Errorf("manual pages: %w", err)
	}
	root.DisableAutoGenTag = true
	date := time.Unix(0, 0).UTC()
	if epoch := os.Getenv("SOURCE_DATE_EPOCH"); epoch != "" {
		var seconds int64
		if _, err := fmt.Sscan(epoch, &seconds); err != nil {
			return fmt.Errorf("SOURCE_DATE_EPOCH %q: %w", epoch, err)
		}
		date = time.Unix(seconds, 0).UTC()
	}
	long := root.Long
	root.Long = long + "\n\n" + exitStatusText
	defer func() { root.Long = long }()
	header := &doc.GenManHeader{Section: "1", Source: "Bulwark " + version, Manual: "Bulwark", Date: &date}
	if err := doc.GenManTree(root, header, folder); err != nil {
		return fmt.Errorf("manual pages: %w", err)
	}
	pages, err := filepath.Glob(filepath.Join(folder, "*.1"))
	if err != nil {
		return fmt.Errorf("manual pages: %w", err)
	}
	return a.done(fmt.Sprintf("%d manual pages in %s", len(pages), visible(folder)), map[string]int{"pages": len(pages)})
}
