package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	api "github.com/bulwarkhq/bulwark/api/control"
	"github.com/bulwarkhq/bulwark/atomicfile"
	"github.com/bulwarkhq/bulwark/policy"
)

// Places of the reference product, below its root.
const (
	theirConfig  = "etc/opt/microsoft/mdatp"
	theirProgram = "opt/microsoft/mdatp/sbin/wdavdaemonclient"
	theirManaged = "managed/mdatp_managed.json"
	theirConsole = "managed/mdeattach_managed.json" // policy of the cloud console
	theirLocal   = "wdavcfg"                        // local settings
)

// listTimeout bounds asking the reference product's program.
const listTimeout = 30 * time.Second

// imported is the JSON answer of `config import-mdatp`.
type imported struct {
	DryRun bool `json:"dry_run"`
	// Managed is the profile that was written, absent without one.
	Managed *importedProfile `json:"managed,omitempty"`
	// Exclusions are the local ones.
	Exclusions []importedExclusion `json:"exclusions"`
	// Problems name what could not be taken over; Notes say what else to know.
	Problems []api.ConfigProblem `json:"problems"`
	Notes    []string            `json:"notes"`
}

type importedProfile struct {
	From     string `json:"from"`
	To       string `json:"to"`
	Settings int    `json:"settings"`
}

type importedExclusion struct {
	api.Exclusion
	// Error is why it was not taken over; empty when it was.
	Error string `json:"error,omitempty"`
}

type importOptions struct {
	from, exclusions string
	dryRun, force    bool
}

func (a *app) importCommand() *cobra.Command {
	var o importOptions
	c := a.command("import-mdatp", "Take over managed profile and local exclusions of the reference product on this host", func(ctx context.Context) error {
		return a.importFrom(ctx, o)
	})
	c.Flags().StringVar(&o.from, "from", "/", "root folder of the system to take them from")
	c.Flags().StringVar(&o.exclusions, "exclusions", "", "file with the output of `mdatp exclusion list`, instead of the local settings")
	c.Flags().BoolVar(&o.dryRun, "dry-run", false, "only show what would be taken over")
	c.Flags().BoolVar(&o.force, "force", false, "replace a managed profile that is there; it is kept beside as managed.json.before-import")
	return c
}

func (a *app) importFrom(ctx context.Context, o importOptions) error {
	out := imported{DryRun: o.dryRun, Exclusions: []importedExclusion{}, Problems: []api.ConfigProblem{}, Notes: []string{}}
	config := filepath.Join(o.from, theirConfig)
	profile, err := out.profile(filepath.Join(config, theirManaged), a.dirs().Managed())
	if err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(config, theirConsole)); err == nil {
		out.Notes = append(out.Notes, filepath.Join(config, theirConsole)+" has policy of the cloud console: set it in the portal")
	}
	local, err := out.localExclusions(ctx, o, config)
	if err != nil {
		return err
	}
	if out.Managed == nil && len(local) == 0 {
		return &api.Error{
			Code: api.NotFound, Message: fmt.Sprintf("there is nothing to take over below %s: neither %s nor local exclusions", config, theirManaged),
			Hint: "--from names the root folder of the other system, --exclusions a file with the output of `mdatp exclusion list`",
		}
	}
	if e := policy.Resolve(policy.Document{}, profile, policy.Document{}); len(local) > 0 &&
		(e.String(policy.KeyExclusionsMerge) == policy.AdminOnly || e.String(policy.KeyScopedMerge) == policy.AdminOnly) {
		out.Notes = append(out.Notes, fmt.Sprintf("%d local exclusion(s) left out: the profile's merge policy is admin_only", len(local)))
		local = nil
	}
	if err := a.applyImport(ctx, o, &out, profile, local); err != nil {
		return err
	}
	return a.sayImport(out)
}

// profile reads the managed profile; without one the document is empty.
func (out *imported) profile(from, to string) (policy.Document, error) {
	data, err := policy.ReadFile(from)
	if errors.Is(err, fs.ErrNotExist) {
		return policy.Document{}, nil
	}
	if err != nil {
		return policy.Document{}, fmt.Errorf("managed profile: %w", err)
	}
	doc, problems := policy.Parse(data)
	out.problems(from, problems)
	if policy.Broken(problems) {
		return policy.Document{}, fmt.Errorf("managed profile %s: %s", from, problems[0])
	}
	out.Managed = &importedProfile{From: from, To: to, Settings: len(doc.Names())}
	return doc, nil
}

func (out *imported) problems(file string, list []policy.Problem) {
	for _, p := range list {
		out.Problems = append(out.Problems, api.ConfigProblem{
			File: file, Line: p.Line, Column: p.Column, Key: p.Key, Message: p.Message, Suggestion: p.Suggestion, Warning: p.Warning,
		})
	}
}

// localExclusions are those of the list that was given, else of the local
// settings, else what the reference product's program lists.
func (out *imported) localExclusions(ctx context.Context, o importOptions, config string) ([]policy.Exclusion, error) {
	if o.exclusions != "" {
		data, err := policy.ReadFile(o.exclusions)
		if err != nil {
			return nil, fmt.Errorf("list of exclusions: %w", err)
		}
		list, problems := policy.ParseListing(string(data))
		out.problems(o.exclusions, problems)
		return list, nil
	}
	file := filepath.Join(config, theirLocal)
	data, err := policy.ReadFile(file)
	switch {
	case err == nil:
		doc, problems := policy.Parse(data)
		// The file has a hundred inner settings besides; only exclusions matter.
		for _, p := range problems {
			if policy.Broken([]policy.Problem{p}) || strings.HasPrefix(p.Key, policy.KeyExclusions) || strings.HasPrefix(p.Key, policy.KeyScopedExclusions) {
				out.problems(file, []policy.Problem{p})
			}
		}
		return policy.Resolve(policy.Document{}, policy.Document{}, doc).Exclusions().All(), nil
	case !errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("local settings: %w", err)
	}
	program := filepath.Join(o.from, theirProgram)
	if _, err := os.Stat(program); err != nil {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, "exclusion", "list")
	cmd.WaitDelay = time.Second
	answer, err := cmd.Output()
	if err != nil {
		out.Notes = append(out.Notes, fmt.Sprintf("%s does not list its exclusions (%v): local exclusions are left out", program, err))
		return nil, nil
	}
	list, problems := policy.ParseListing(string(answer))
	out.problems(program, problems)
	return list, nil
}

// applyImport writes the profile and adds the exclusions. Nothing is changed
// when the daemon does not answer or a profile is in the way.
func (a *app) applyImport(ctx context.Context, o importOptions, out *imported, profile policy.Document, local []policy.Exclusion) error {
	if len(local) > 0 && !o.dryRun {
		if _, err := a.daemon().Exclusions(ctx); err != nil {
			return err
		}
	}
	if out.Managed != nil {
		if err := writeProfile(out.Managed.To, profile, o); err != nil {
			return err
		}
	}
	for _, x := range local {
		add := importedExclusion{Exclusion: exclusionOf(x)}
		if !o.dryRun {
			added, err := a.daemon().AddExclusion(ctx, add.Exclusion)
			var refused *api.Error
			switch {
			case errors.As(err, &refused):
				add.Error = refused.Message
			case err != nil:
				return err
			default:
				add.Exclusion = added
			}
		}
		out.Exclusions = append(out.Exclusions, add)
	}
	return nil
}

func writeProfile(to string, profile policy.Document, o importOptions) error {
	existing, err := policy.ReadFile(to)
	if err == nil && !o.force && !o.dryRun {
		return &api.Error{Code: api.Conflict, Message: "there is a managed profile at " + to + " already", Hint: "--force replaces it and keeps it beside; --dry-run shows what would be taken over"}
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("managed profile: %w", err)
	}
	data, marshalErr := json.Marshal(profile)
	if marshalErr != nil {
		return fmt.Errorf("managed profile: %w", marshalErr)
	}
	var pretty bytes.Buffer
	if err := json.Indent(&pretty, data, "", "  "); err != nil {
		return fmt.Errorf("managed profile: %w", err)
	}
	pretty.WriteByte('\n')
	if o.dryRun {
		return nil
	}
	if err == nil {
		if err := atomicfile.Write(to+".before-import", existing, 0o644); err != nil {
			return fmt.Errorf("keep the managed profile: %w", err)
		}
	}
	if err := atomicfile.Write(to, pretty.Bytes(), 0o644); err != nil {
		return fmt.Errorf("managed profile: %w", err)
	}
	return nil
}

// exclusionOf is an exclusion as the local API has it.
func exclusionOf(x policy.Exclusion) api.Exclusion {
	out := api.Exclusion{Type: string(x.Type), Scopes: x.Scopes.Names(), Owner: x.Owner, Reason: x.Reason, Expires: x.Expires}
	switch {
	case x.Type == policy.ExcludeExtension:
		out.Extension = x.Value
	case x.Type == policy.ExcludeProcess && !strings.ContainsRune(x.Value, '/'):
		out.Name = x.Value
	default:
		out.Path = api.Path(x.Value)
	}
	return out
}

// sayImport ends with status 1 when something was not taken over.
func (a *app) sayImport(out imported) error {
	failed := false
	for _, p := range out.Problems {
		failed = failed || !p.Warning
	}
	done, would := 0, ""
	if out.DryRun {
		would = "would be "
	}
	for _, x := range out.Exclusions {
		if x.Error == "" {
			done++
		}
		failed = failed || x.Error != ""
	}
	if a.json() {
		if err := a.printJSON(out); err != nil {
			return err
		}
	} else {
		for _, p := range out.Problems {
			fmt.Fprintln(a.stderr, problemLine(p))
		}
		for _, x := range out.Exclusions {
			if x.Error != "" {
				fmt.Fprintf(a.stderr, "%s: not taken over: %s\n", strings.Join(a.exclusionLines(x.Exclusion), ", "), visible(x.Error))
			}
		}
		if m := out.Managed; m != nil {
			a.say("Managed profile: %d setting(s) of %s %swritten to %s", m.Settings, visible(m.From), would, visible(m.To))
		}
		a.say("Local exclusions: %d %staken over", done, would)
		for _, n := range out.Notes {
			a.say("Note: %s", visible(n))
		}
	}
	if failed {
		return exit(statusNo)
	}
	return nil
}
