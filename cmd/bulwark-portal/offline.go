package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/bulwarkhq/bulwark/atomicfile"
	"github.com/bulwarkhq/bulwark/portal"
	"github.com/bulwarkhq/bulwark/portal/access"
	"github.com/bulwarkhq/bulwark/portal/account"
	"github.com/bulwarkhq/bulwark/portal/definitions"
	"github.com/bulwarkhq/bulwark/portal/enroll"
	"github.com/bulwarkhq/bulwark/portal/fleet"
	"github.com/bulwarkhq/bulwark/portal/store/sqlstore"
)

// actor names offline commands in the audit log.
const actor = "bulwark-portal (command line)"

// withAccounts runs f on the accounts of the data folder, beside a running
// portal or without one.
func withAccounts(cmd *cobra.Command, f func(s *sqlstore.Store, a *account.Service, at served) error) (err error) {
	dir, err := dataDir(cmd)
	if err != nil {
		return err
	}
	at, err := readServed(dir)
	if err != nil {
		return err
	}
	database, err := controlDatabase(cmd, dir, true)
	if err != nil {
		return err
	}
	s, err := openControl(cmd.Context(), dir, database, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	return f(s, account.New(s.Accounts(), account.DefaultHashCost(), time.Now, account.Options{}), at)
}

func adminCommand(use, short string, create bool) *cobra.Command {
	var name string
	c := &cobra.Command{Use: use, Short: short, Args: noArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		return withAccounts(cmd, func(_ *sqlstore.Store, a *account.Service, at served) error {
			var password string
			var err error
			if create {
				password, err = a.CreateUser(cmd.Context(), name, access.Administrator, actor, "")
				if errors.Is(err, account.ErrExists) {
					return fmt.Errorf("the account %s exists already; to get a new one-time password: bulwark-portal admin reset-password --name %s", name, name)
				}
			} else {
				password, err = a.ResetPassword(cmd.Context(), name, actor, "")
			}
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "Address:           %s\nUser name:         %s\nOne-time password: %s\nThe password must be changed at the first sign-in.\n", at.URL, name, password)
			return nil
		})
	}}
	c.Flags().StringVar(&name, "name", "admin", "user name")
	return c
}

func resetFactorCommand() *cobra.Command {
	var name string
	c := &cobra.Command{
		Use: "reset-second-factor", Short: "Remove the second factor of an account and end its sessions", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withAccounts(cmd, func(_ *sqlstore.Store, a *account.Service, _ served) error {
				err := a.ResetFactor(cmd.Context(), name, actor, "")
				if errors.Is(err, account.ErrNotFound) {
					return fmt.Errorf("%w: there is no such account, or it has no second factor", err)
				}
				if err != nil {
					return err
				}
				fmt.Fprintf(cmd.OutOrStdout(), "The second factor of %s is removed: the password alone signs in. If the role needs one, the portal asks to set it up anew.\n", name)
				return nil
			})
		},
	}
	c.Flags().StringVar(&name, "name", "admin", "user name")
	return c
}

func onboardingCommand() *cobra.Command {
	var out, name, portalURL, form string
	po := publisherOptions{validity: days(definitions.DefaultValidity)}
	var tags []string
	var uses int64
	expires := days(enroll.DefaultTokenValidity)
	c := &cobra.Command{Use: "create", Short: "Make an onboarding package", Args: noArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		if out == "" {
			return usage("--out FILE is needed (onboard.json, or - for standard output)")
		}
		if form == "" {
			form = enroll.FormJSON
			if ext := strings.TrimPrefix(filepath.Ext(out), "."); slices.Contains(enroll.Forms, ext) {
				form = ext
			}
		}
		if !slices.Contains(enroll.Forms, form) {
			return usage("--form %q: use one of %s", form, strings.Join(enroll.Forms, ", "))
		}
		spec := enroll.PackageSpec{Name: name, CreatedBy: actor, Validity: time.Duration(expires), MaxUses: uses}
		for _, t := range tags {
			k, v, ok := strings.Cut(t, "=")
			if !ok {
				return usage("--tag %q is not of the form KEY=VALUE", t)
			}
			spec.Tags = append(spec.Tags, enroll.Tag{Key: k, Value: v})
		}
		return withAccounts(cmd, func(s *sqlstore.Store, a *account.Service, at served) error {
			if portalURL != "" {
				u, err := url.Parse(portalURL)
				if err != nil || u.Scheme != "https" || u.Hostname() == "" {
					return usage("--portal-url %q is not of the form https://host[:port]", portalURL)
				}
				at.URL = portalURL
			}
			dir, err := dataDir(cmd)
			if err != nil {
				return err
			}
			ca, err := openCA(dir, at.Names, slog.New(slog.DiscardHandler))
			if err != nil {
				return err
			}
			org, _, err := s.Organisation(cmd.Context(), portal.NewOrganisationID)
			if err != nil {
				return err
			}
			publisher, err := po.publisher(dir, slog.New(slog.DiscardHandler))
			if err != nil {
				return err
			}
			svc := enroll.New(enroll.Config{Store: s.Enroll(), CA: ca, OrgID: org, PortalURL: at.URL, Version: version, DefinitionsRoot: publisher.Root})
			t, text, err := svc.NewPackage(cmd.Context(), spec)
			if err != nil {
				return err
			}
			file, err := enroll.Form(form, t, text)
			if err != nil {
				return err
			}
			text = file.Text
			if err := a.Record(cmd.Context(), actor, "", "onboarding.create", t.ID, name); err != nil {
				return err
			}
			if out == "-" {
				_, err = cmd.OutOrStdout().Write(text)
				return err
			}
			if err := atomicfile.Write(out, text, 0o600); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "Onboarding package %s for %s, good until %s: %s\n", t.ID, at.URL, t.Expires.UTC().Format("2006-01-02 15:04 MST"), out)
			return nil
		})
	}}
	f := c.Flags()
	f.StringVar(&out, "out", "", "file to write, - for standard output")
	f.StringVar(&form, "form", "", "json for configuration management tools, sh or py for a script (default: by the name of the file)")
	f.StringVar(&name, "name", "", "what the package is for, shown in the portal")
	f.StringVar(&portalURL, "portal-url", "", "address under which the agents reach the portal (default: that of the portal that runs)")
	f.StringArrayVar(&tags, "tag", nil, "tag for devices that enroll, KEY=VALUE; may be repeated")
	f.Int64Var(&uses, "max-devices", 0, "how many devices may enroll; 0 for any number")
	f.Var(&expires, "expires", "how long devices can enroll with it")
	return c
}

func tokenCommand() *cobra.Command {
	var name string
	var scopes, groups []string
	expires := days(365 * 24 * time.Hour)
	c := &cobra.Command{Use: "create", Short: "Make an API token and print it", Args: noArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		var list []access.Permission
		for _, n := range scopes {
			sc, err := access.ParseScope(n)
			if err != nil {
				return &usageError{err}
			}
			list = append(list, sc)
		}
		if name == "" {
			return usage("--name is needed")
		}
		return withAccounts(cmd, func(s *sqlstore.Store, a *account.Service, _ served) error {
			ids, err := groupIDs(cmd.Context(), s, groups)
			if err != nil {
				return err
			}
			t, secret, err := a.CreateToken(cmd.Context(), name, list, time.Duration(expires), actor, "", ids...)
			if err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), secret)
			fmt.Fprintf(cmd.ErrOrStderr(), "Token %s (%s). It is not shown again.\n", t.ID, name)
			return nil
		})
	}}
	var all []string
	for _, s := range access.Scopes() {
		all = append(all, string(s))
	}
	c.Flags().StringVar(&name, "name", "", "what the token is for")
	c.Flags().StringSliceVar(&scopes, "scope", []string{string(access.MachineRead), string(access.AlertRead)}, "what it may do: "+strings.Join(all, ", "))
	c.Flags().StringArrayVar(&groups, "group", nil, "name of a device group that it is limited to; may be repeated (default: all devices)")
	c.Flags().Var(&expires, "expires", "how long it is good; 0 for ever")
	return c
}

// groupIDs finds device groups by their names.
func groupIDs(ctx context.Context, s *sqlstore.Store, names []string) ([]string, error) {
	list, err := s.Fleet().Groups(ctx)
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, name := range names {
		i := slices.IndexFunc(list, func(g fleet.Group) bool { return strings.EqualFold(g.Name, name) })
		if i < 0 {
			return nil, usage("there is no device group %q", name)
		}
		ids = append(ids, list[i].ID)
	}
	return ids, nil
}
