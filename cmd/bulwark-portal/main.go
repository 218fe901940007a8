// Command bulwark-portal is the server of Bulwark: it takes what agents
// deliver, shows it to people and programs, and issues onboarding packages.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
)

// version is set by the linker: -X main.version=1.2.3.
var version = "0.0.0-dev"

// Exit codes.
const (
	exitFailure = 1
	exitUsage   = 2
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// usageError is a mistake in the command line or the settings.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

func usage(format string, args ...any) error { return &usageError{fmt.Errorf(format, args...)} }

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := rootCommand()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return 0
	}
	fmt.Fprintf(stderr, "%s: %v\n", cmd.CommandPath(), err)
	var u *usageError
	if errors.As(err, &u) || strings.HasPrefix(err.Error(), "unknown command") {
		fmt.Fprintf(stderr, "Try: %s --help\n", cmd.CommandPath())
		return exitUsage
	}
	return exitFailure
}

func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "bulwark-portal",
		Short: "The portal of Bulwark",
		Long: `The portal of Bulwark: agents deliver to it, people and programs ask it.

Every option can also be given as an environment variable (--data-dir is
BULWARK_PORTAL_DATA_DIR) or, with --config FILE, in a YAML file whose keys are
the names of the options. The command line wins over the environment, the
environment over the file.

Exit status: 0 done, 1 it failed, 2 the command line or a setting is wrong.`,
		SilenceUsage: true, SilenceErrors: true,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error { return applySettings(cmd, os.LookupEnv) },
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &usageError{err} })
	root.PersistentFlags().String("config", "", "YAML file with options")
	root.PersistentFlags().String("data-dir", "/var/opt/bulwark-portal", "folder of the portal's data")
	group := func(use, short string, subs ...*cobra.Command) *cobra.Command {
		c := &cobra.Command{Use: use, Short: short, Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
			return usage("name a command: one of %s", strings.Join(names(cmd), ", "))
		}}
		c.AddCommand(subs...)
		return c
	}
	root.PersistentFlags().String("database", "", "control database: postgres://USER@HOST/NAME, or sqlite for the file control.db in the data folder (default: that)")
	root.AddCommand(serveCommand(),
		group("admin", "Manage administrators", adminCommand("create", "Make an administrator with a one-time password", true),
			adminCommand("reset-password", "Give an account a new one-time password and end its sessions", false), resetFactorCommand()),
		group("onboarding", "Manage onboarding packages", onboardingCommand()),
		group("definitions", "Publish definitions", definitionsBuildCommand(), definitionsRootCommand()),
		group("mirror", "Carry definitions to hosts that do not reach the portal", mirrorSyncCommand()),
		group("repo", "Publish packages", repoPublishCommand(), repoListCommand(), repoWithdrawCommand(), repoExportCommand(), repoKeyCommand()),
		group("token", "Manage API tokens", tokenCommand()),
		group("database", "Manage the control database", databaseCopyCommand()),
		group("events", "Manage the events of devices", eventsCopyCommand()),
		ctlCommand(),
		&cobra.Command{Use: "version", Short: "Print the version", Args: noArgs, RunE: func(cmd *cobra.Command, _ []string) error {
			fmt.Fprintln(cmd.OutOrStdout(), "bulwark-portal", version)
			return nil
		}})
	return root
}

func names(c *cobra.Command) []string {
	var out []string
	for _, s := range c.Commands() {
		out = append(out, s.Name())
	}
	return out
}

func noArgs(_ *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usage("unexpected argument %q", args[0])
	}
	return nil
}
