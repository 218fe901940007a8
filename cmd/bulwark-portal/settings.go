package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/bulwarkhq/bulwark/portal/status"
)

// maxSettings is the largest settings file in bytes.
const maxSettings = 64 << 10

// applySettings gives options that are not on the command line their value
// from the environment or the settings file.
func applySettings(cmd *cobra.Command, lookup func(string) (string, bool)) error {
	flags := cmd.Flags()
	set := func(f *pflag.Flag, value, origin string) error {
		if err := flags.Set(f.Name, value); err != nil {
			return usage("%s: option %s cannot be %q: %w", origin, f.Name, value, err)
		}
		return flags.SetAnnotation(f.Name, originOf, []string{origin})
	}
	var err error
	flags.VisitAll(func(f *pflag.Flag) {
		env := "BULWARK_PORTAL_" + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
		if v, ok := lookup(env); ok && !f.Changed && f.Name != "help" && err == nil {
			err = set(f, v, "environment variable "+env)
		}
	})
	if err != nil {
		return err
	}
	path, err := flags.GetString("config")
	if err != nil || path == "" {
		return nil //nolint:nilerr // a command without the option takes no settings
	}
	values, err := readSettings(path)
	if err != nil {
		return err
	}
	for name, v := range values {
		f := flags.Lookup(name)
		if f == nil {
			if known(cmd.Root(), name) {
				continue // of another command
			}
			return usage("%s: there is no option %q", path, name)
		}
		if f.Changed {
			continue
		}
		if err := set(f, v, path); err != nil {
			return err
		}
	}
	return nil
}

// originOf is the annotation of an option that says where its value came from.
const originOf = "origin"

// shownOptions are the options of a command as administrators are told them.
func shownOptions(flags *pflag.FlagSet) (out []status.Option) {
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Name == "help" {
			return
		}
		o := status.Option{Name: f.Name, Value: withoutSecrets(f.Value.String()), Origin: "default", Help: f.Usage}
		switch from := f.Annotations[originOf]; {
		case len(from) > 0:
			o.Origin = from[0]
		case f.Changed:
			o.Origin = "command line"
		}
		out = append(out, o)
	})
	return out
}

// secretParameter is one of a connection string that may carry a secret. Not so the
// name of a file.
var secretParameter = regexp.MustCompile(`(?i)([?&][^=&]*(?:pass|secret|token|key)[^=&]*=)[^&]*`)

// withoutSecrets takes passwords out of connection strings: what stands before the
// last @ of an address, but for the user's name, and the values of parameters.
func withoutSecrets(value string) string {
	scheme, rest, ok := strings.Cut(value, "://")
	if !ok {
		return value
	}
	if at := strings.LastIndexByte(rest, '@'); at >= 0 {
		user, _, secret := strings.Cut(rest[:at], ":")
		if secret {
			user += ":***"
		}
		rest = user + rest[at:]
	}
	return scheme + "://" + secretParameter.ReplaceAllStringFunc(rest, func(p string) string {
		name, _, _ := strings.Cut(p, "=")
		if strings.HasSuffix(name, "file") {
			return p
		}
		return name + "=***"
	})
}

func known(cmd *cobra.Command, option string) bool {
	if cmd.Flags().Lookup(option) != nil || cmd.PersistentFlags().Lookup(option) != nil {
		return true
	}
	for _, c := range cmd.Commands() {
		if known(c, option) {
			return true
		}
	}
	return false
}

// readSettings reads a YAML file of names and plain values.
func readSettings(path string) (map[string]string, error) {
	text, err := readSmall(path, maxSettings)
	if err != nil {
		return nil, usage("settings: %w", err)
	}
	return parseSettings(path, text)
}

// readSmall reads a file of at most limit bytes. It may be a pipe: who keeps secrets
// elsewhere gives the shell's <(command).
func readSmall(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(text)) > limit {
		err = fmt.Errorf("%s: larger than %d bytes", path, limit)
	}
	return text, err
}

func parseSettings(path string, text []byte) (map[string]string, error) {
	var raw map[string]any
	if err := yaml.Unmarshal(text, &raw); err != nil {
		return nil, usage("settings %s: %w", path, err)
	}
	out := make(map[string]string, len(raw))
	for name, v := range raw {
		switch v := v.(type) {
		case string:
			out[name] = v
		case bool, int, int64, uint64, float64:
			out[name] = fmt.Sprint(v)
		default:
			return nil, usage("settings %s: the value of %q must be plain text, a number, true or false", path, name)
		}
	}
	return out, nil
}

// days is a duration option that also takes days: 12h, 30d.
type days time.Duration

// String, Set and Type implement pflag.Value.
func (d *days) String() string {
	v := time.Duration(*d)
	if v != 0 && v%(24*time.Hour) == 0 {
		return strconv.Itoa(int(v/(24*time.Hour))) + "d"
	}
	return v.String()
}

// Set reads the text of the option.
func (d *days) Set(s string) error {
	if n, ok := strings.CutSuffix(s, "d"); ok {
		v, err := strconv.Atoi(n)
		if err != nil || v < 0 || v > 36500 {
			return errors.New("use a number of days such as 30d")
		}
		*d = days(time.Duration(v) * 24 * time.Hour)
		return nil
	}
	v, err := time.ParseDuration(s)
	if err != nil || v < 0 {
		return errors.New("use a duration such as 30d or 12h")
	}
	*d = days(v)
	return nil
}

// Type names the kind of value in the help.
func (d *days) Type() string { return "duration" }

// served is what the offline commands must know of the running portal; serve
// writes it to its data folder.
type served struct {
	URL   string   `json:"url"`
	Names []string `json:"names"`
	// Postgres is set when its control data is in PostgreSQL. The connection string
	// is not kept: there may be a password in it.
	Postgres bool `json:"postgres,omitempty"`
}

func servedPath(dir string) string { return filepath.Join(dir, "portal.json") }

func writeServed(dir string, s served) error {
	text, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return fmt.Errorf("portal.json: %w", err)
	}
	tmp := servedPath(dir) + ".tmp"
	if err := os.WriteFile(tmp, append(text, '\n'), 0o600); err != nil {
		return fmt.Errorf("writing the portal's address: %w", err)
	}
	return os.Rename(tmp, servedPath(dir))
}

// readServed returns the defaults when no portal has run in the folder yet.
func readServed(dir string) (served, error) {
	s := served{URL: "https://localhost:8443", Names: []string{"localhost", "127.0.0.1"}}
	text, err := os.ReadFile(servedPath(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return s, fmt.Errorf("reading the portal's address: %w", err)
	}
	if err := json.Unmarshal(text, &s); err != nil || s.URL == "" || len(s.Names) == 0 {
		return s, fmt.Errorf("%s is damaged: start the portal once, it writes the file anew", servedPath(dir))
	}
	return s, nil
}
