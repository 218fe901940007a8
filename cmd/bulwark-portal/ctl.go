package main

import (
	"crypto/x509"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"text/tabwriter"
	"unicode"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/bulwarkhq/bulwark/api/rest"
	"github.com/bulwarkhq/bulwark/event"
)

const maxTokenFile = 4 << 10

// ctl is what the commands below `ctl` share: where the portal is and how answers
// are shown.
type ctl struct {
	url, tokenFile, token, ca, output string
	cmd                               *cobra.Command
	*rest.Client
}

func ctlCommand() *cobra.Command {
	t := &ctl{}
	c := &cobra.Command{
		Use: "ctl", Short: "Ask and command a portal from a terminal, through its REST API",
		Long: `Ask and command a portal from a terminal, through its REST API.

On the portal's host its address and authority are read from the data folder;
elsewhere give --url and --ca (a copy of pki/ca.crt). The token, made by
"bulwark-portal token create --scope ...", comes from --token-file or from
BULWARK_PORTAL_TOKEN. What a command may do is decided by the token's scopes.

A MACHINE is a device's id, its host name, or the first part of that.`,
		Example: `  bulwark-portal token create --name ops --scope Machine.ReadWrite.All,Alert.ReadWrite.All,Machine.Scan >ops.token
  export BULWARK_PORTAL_TOKEN_FILE=ops.token
  bulwark-portal ctl machines --filter "healthStatus ne 'Active'"
  bulwark-portal ctl alerts --open
  bulwark-portal ctl scan web1.example.org --comment "after the incident" --wait
  bulwark-portal ctl hunt "DeviceProcessEvents | where FileName == 'nc' | take 10"`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return usage("name a command: one of %s", strings.Join(names(cmd), ", "))
		},
	}
	f := c.PersistentFlags()
	f.StringVar(&t.url, "url", "", "the portal's address (default: that of the portal that uses the data folder)")
	f.StringVar(&t.tokenFile, "token-file", "", "file with the API token")
	f.StringVar(&t.token, "token", "", "API token; better in BULWARK_PORTAL_TOKEN, because everybody on the host sees command lines")
	f.StringVar(&t.ca, "ca", "", "file with the portal's authority, PEM (default: pki/ca.crt of the data folder if it is there, else the system's)")
	f.StringVar(&t.output, "output", "text", "text, json or csv")
	c.AddCommand(t.listCommands()...)
	c.AddCommand(t.orderCommands()...)
	c.AddCommand(t.huntCommand(), t.settingsCommand())
	return c
}

// command makes a command of ctl with n arguments.
func (t *ctl) command(use, short string, n int, run func(args []string) error) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != n {
				return usage("%d arguments given: usage: %s", len(args), cmd.UseLine())
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := t.connect(cmd); err != nil {
				return err
			}
			return run(args)
		},
	}
}

// connect reads where the portal is.
func (t *ctl) connect(cmd *cobra.Command) error {
	t.cmd = cmd
	if t.output != "text" && t.output != "json" && t.output != "csv" {
		return usage("--output %q: use text, json or csv", t.output)
	}
	dir, err := cmd.Flags().GetString("data-dir")
	if err != nil {
		return err
	}
	if t.url == "" {
		at, err := readServed(dir)
		if err != nil {
			return err
		}
		t.url = at.URL
	}
	token := t.token
	if token == "" && t.tokenFile != "" {
		text, err := readSmall(t.tokenFile, maxTokenFile)
		if err != nil {
			return fmt.Errorf("API token: %w", err)
		}
		token = strings.TrimSpace(string(text))
	}
	if token == "" {
		return usage("no API token: --token-file FILE or BULWARK_PORTAL_TOKEN; `bulwark-portal token create --name ctl --scope ...` makes one")
	}
	roots, err := t.roots(filepath.Join(dir, "pki", "ca.crt"))
	if err != nil {
		return err
	}
	if t.Client, err = rest.New(t.url, token, roots); err != nil {
		return &usageError{err}
	}
	return nil
}

// roots are the authorities that may speak for the portal; nil for the system's.
func (t *ctl) roots(own string) (*x509.CertPool, error) {
	path := t.ca
	if path == "" {
		path = own
		if readable := unix.Access(path, unix.R_OK) == nil; !readable { // not the portal's host, or not its user
			return nil, nil
		}
	}
	text, err := readSmall(path, 1<<20)
	if err != nil {
		return nil, fmt.Errorf("the portal's authority: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("the portal's authority: %s has no certificate in PEM form", path)
	}
	return roots, nil
}

// show prints objects: as a table of the given members, or as JSON or CSV.
func (t *ctl) show(objects []json.RawMessage, members ...string) error {
	out := t.cmd.OutOrStdout()
	if t.output == "json" {
		if objects == nil {
			objects = []json.RawMessage{}
		}
		return t.json(objects)
	}
	rows := make([][]string, 0, len(objects)+1)
	rows = append(rows, members)
	for _, o := range objects {
		var m map[string]any
		if err := json.Unmarshal(o, &m); err != nil {
			return fmt.Errorf("the portal's answer: %w", err)
		}
		row := make([]string, len(members))
		for i, name := range members {
			row[i] = shown(m[name])
		}
		rows = append(rows, row)
	}
	if t.output == "csv" {
		w := csv.NewWriter(out)
		if err := w.WriteAll(rows); err != nil {
			return err
		}
		return w.Error()
	}
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	for i, row := range rows {
		for j, cell := range row {
			if i == 0 {
				cell = strings.ToUpper(cell)
			}
			sep := "\t"
			if j == len(row)-1 {
				sep = "\n"
			}
			if _, err := io.WriteString(w, printable(cell)+sep); err != nil {
				return err
			}
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if len(objects) == 0 {
		fmt.Fprintln(t.cmd.ErrOrStderr(), "nothing found")
	}
	return nil
}

func (t *ctl) json(v any) error {
	e := json.NewEncoder(t.cmd.OutOrStdout())
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// object prints one object with all its members.
func (t *ctl) object(o json.RawMessage) error {
	if t.output == "csv" {
		return usage("--output csv is for lists: use text or json")
	}
	return t.json(o)
}

// shown is a value in a cell.
func shown(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		return v
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64)
	case []any:
		parts := make([]string, len(v))
		for i := range v {
			parts[i] = shown(v[i])
		}
		return strings.Join(parts, " ")
	}
	text, err := json.Marshal(v)
	if err != nil {
		return "?"
	}
	return string(text)
}

// printable replaces what could command a terminal: devices choose their names and
// command lines.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '\uFFFD'
		}
		return r
	}, s)
}

// machine returns the id of a device that was named by it, by its host name or by
// the first part of that. Host names do not depend on case (RFC 4343).
func (t *ctl) machine(name string) (string, error) {
	if event.IsHex(name, 40) {
		return name, nil
	}
	var exact, short []string
	q := url.Values{"$filter": {"startswith(computerDnsName," + rest.Quote(name) + ")"}, "$orderby": {"computerDnsName"}}
	err := t.List(t.cmd.Context(), "/api/machines", q, 1000, func(o json.RawMessage) error {
		var m struct{ ID, ComputerDNSName string }
		if err := json.Unmarshal(o, &m); err != nil || m.ID == "" {
			return errors.Join(errors.New("the portal's answer has no id"), err)
		}
		first, _, _ := strings.Cut(m.ComputerDNSName, ".")
		switch {
		case strings.EqualFold(m.ComputerDNSName, name):
			exact = append(exact, m.ID)
		case strings.EqualFold(first, name):
			short = append(short, m.ID)
		}
		return nil
	})
	if err != nil {
		return "", err
	}
	if len(exact) == 0 {
		exact = short
	}
	switch len(exact) {
	case 0:
		return "", fmt.Errorf("there is no device named %q; `bulwark-portal ctl machines` lists them", name)
	case 1:
		return exact[0], nil
	}
	return "", fmt.Errorf("%d devices are named %q: give the id: %s", len(exact), name, strings.Join(exact, ", "))
}
