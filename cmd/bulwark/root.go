package main

import (
	"context"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// run runs the program with the name it was started by and returns its exit
// status.
func run(ctx context.Context, name string, args []string, stdout, stderr io.Writer) int {
	a := newApp(name, stdout, stderr)
	root := a.rootCommand()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if a.client != nil {
		a.client.Close()
	}
	if err != nil {
		return a.report(err)
	}
	return statusOK
}

func (a *app) rootCommand() *cobra.Command {
	root := a.group(a.name, "Endpoint protection and EDR for Linux",
		a.versionCommand(), a.healthCommand(), a.configCommand(), a.scanCommand(), a.definitionsCommand(),
		a.threatCommand(), a.exclusionCommand(), a.networkCommand(), a.connectivityCommand(), a.logCommand(), a.selftestCommand(), a.productUpdateCommand(),
		a.offboardCommand(), a.isolationCommand(), a.coverageCommand(), a.topCommand(), a.explainFileCommand(), a.diagnosticCommand(), a.edrCommand(), a.rulesCommand(), a.completionCommand(), a.manualCommand(),
	)
	root.Long = "Bulwark protects this host: " + a.name + " asks and directs its daemon.\n" +
		"Everybody may look; changes are for root and members of the group bulwark."
	root.SilenceErrors, root.SilenceUsage = true, true
	root.CompletionOptions.DisableDefaultCmd = true
	root.PersistentFlags().StringVar(&a.output, "output", "text", "form of the answer: text or json")
	root.PersistentFlags().StringVar(&a.root, "root", "", "root folder of a side-by-side installation")
	complete(root, "output", "text", "json")
	root.PersistentPreRunE = func(c *cobra.Command, _ []string) error {
		if err := validWords(c); err != nil {
			return err
		}
		if a.output != "text" && a.output != "json" {
			err := fmt.Errorf("--output %q: want text or json", a.output)
			a.output = "text"
			return err
		}
		return nil
	}
	root.SetFlagErrorFunc(flagError)
	refuseUnknownHelp(root)
	if a.reference() {
		asReference(root)
	}
	return root
}

// refuseUnknownHelp makes cobra's help command fail for a command that there is not.
func refuseUnknownHelp(root *cobra.Command) {
	root.InitDefaultHelpCmd()
	help, _, err := root.Find([]string{"help"})
	if err != nil {
		return
	}
	help.Run, help.RunE = nil, func(_ *cobra.Command, args []string) error {
		c, rest, err := root.Find(args)
		if err != nil || len(rest) > 0 {
			return unknownCommand(c, rest[0])
		}
		c.InitDefaultHelpFlag()
		return c.Help()
	}
}

// pathFlags are the flags whose values are file names: any bytes.
var pathFlags = []string{"path", "destination-path", "process", "report", "html", "bundle", "from", "exclusions", "folder", "out", "root", "definitions", "container-key", "rules", "events"}

// validWords refuses values that are no text: on their way to the daemon they
// would become others.
func validWords(c *cobra.Command) (err error) {
	c.Flags().Visit(func(f *pflag.Flag) {
		if err == nil && !slices.Contains(pathFlags, f.Name) && !utf8.ValidString(f.Value.String()) {
			err = fmt.Errorf("--%s %q is not valid UTF-8", f.Name, f.Value.String())
		}
	})
	return err
}

// group is a command that only has sub-commands: alone it lists them.
func (a *app) group(name, short string, subs ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: name, Short: short, SuggestionsMinimumDistance: 2, Args: cobra.ArbitraryArgs}
	c.AddCommand(subs...)
	c.RunE = func(c *cobra.Command, args []string) error {
		if len(args) > 0 {
			return unknownCommand(c, args[0])
		}
		fmt.Fprintln(a.stdout, "Expected one of:")
		for _, sub := range c.Commands() {
			if sub.IsAvailableCommand() || sub.Name() == "help" {
				fmt.Fprintf(a.stdout, "  %-34s %s\n", sub.Name(), sub.Short)
			}
		}
		fmt.Fprintf(a.stdout, "\n%s --help says more.\n", c.CommandPath())
		return exit(statusError)
	}
	return c
}

func unknownCommand(c *cobra.Command, word string) error {
	message := fmt.Sprintf("unknown command %q for %q", word, c.CommandPath())
	if near := c.SuggestionsFor(word); len(near) > 0 {
		message += "; did you mean " + strings.Join(near, " or ") + "?"
	} else {
		var names []string
		for _, sub := range c.Commands() {
			if sub.IsAvailableCommand() {
				names = append(names, sub.Name())
			}
		}
		if len(names) > 0 {
			message += "; expected one of: " + strings.Join(names, ", ")
		}
	}
	return fmt.Errorf("%s", message)
}

var unknownFlag = regexp.MustCompile(`^unknown flag: (--\S+)`)

// flagError adds the flag that was probably meant.
func flagError(c *cobra.Command, err error) error {
	if c.HasSubCommands() && c.Flags().NArg() > 0 {
		// The flag is of a sub-command that there is not.
		return unknownCommand(c, c.Flags().Arg(0))
	}
	m := unknownFlag.FindStringSubmatch(err.Error())
	if m == nil {
		return fmt.Errorf("%w; see %s --help", err, c.CommandPath())
	}
	var flags []string
	c.Flags().VisitAll(func(f *pflag.Flag) { flags = append(flags, "--"+f.Name) })
	c.InheritedFlags().VisitAll(func(f *pflag.Flag) { flags = append(flags, "--"+f.Name) })
	slices.Sort(flags)
	if near := nearest(m[1], slices.Compact(flags)); near != "" {
		return fmt.Errorf("unknown flag %s; did you mean %s?", m[1], near)
	}
	return fmt.Errorf("unknown flag %s; see %s --help", m[1], c.CommandPath())
}

// nearest finds the word that shares most with s, by pairs of letters.
func nearest(s string, words []string) string {
	pairs := func(s string) map[string]bool {
		m := map[string]bool{}
		for i := range len(s) - 1 {
			m[s[i:i+2]] = true
		}
		return m
	}
	mine := pairs(strings.TrimLeft(s, "-"))
	best, bestScore := "", 0.5
	for _, w := range words {
		theirs := pairs(strings.TrimLeft(w, "-"))
		both := 0
		for p := range mine {
			if theirs[p] {
				both++
			}
		}
		if score := 2 * float64(both) / float64(max(1, len(mine)+len(theirs))); score > bestScore {
			best, bestScore = w, score
		}
	}
	return best
}

// command is a command without arguments.
func (a *app) command(use, short string, run func(ctx context.Context) error) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) > 0 {
				return fmt.Errorf("%s takes no argument %q; see %s --help", c.CommandPath(), args[0], c.CommandPath())
			}
			return nil
		},
		RunE: func(c *cobra.Command, _ []string) error { return run(c.Context()) },
	}
}

// require marks flags as required, with an error of our own.
func require(c *cobra.Command, flags ...string) *cobra.Command {
	run := c.RunE
	c.RunE = func(c *cobra.Command, args []string) error {
		for _, f := range flags {
			if !c.Flags().Changed(f) {
				return fmt.Errorf("%s needs --%s; see %s --help", c.CommandPath(), f, c.CommandPath())
			}
		}
		return run(c, args)
	}
	return c
}

// complete names the values of a flag for completion.
func complete(c *cobra.Command, flag string, values ...string) {
	_ = c.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
}

func (a *app) completionCommand() *cobra.Command {
	shell := func(name string, write func(root *cobra.Command) error) *cobra.Command {
		c := a.command(name, "completion for "+name, nil)
		c.RunE = func(c *cobra.Command, _ []string) error { return write(c.Root()) }
		return c
	}
	return a.group("completion", "Print shell completion: source <("+a.name+" completion bash)",
		shell("bash", func(r *cobra.Command) error { return r.GenBashCompletionV2(a.stdout, true) }),
		shell("zsh", func(r *cobra.Command) error { return r.GenZshCompletion(a.stdout) }),
		shell("fish", func(r *cobra.Command) error { return r.GenFishCompletion(a.stdout, true) }),
	)
}
