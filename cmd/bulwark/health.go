package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	api "github.com/bulwarkhq/bulwark/api/control"
)

// versions is the answer of `version`: the daemon's and the program's own.
type versions struct {
	api.Version
	Client string `json:"client_version"`
}

func (a *app) versionCommand() *cobra.Command {
	return a.command("version", "Show the versions of product, engine and definitions", func(ctx context.Context) error {
		v, err := a.daemon().Version(ctx)
		running := err == nil
		if errors.Is(err, api.ErrNoDaemon) {
			// The product's version is known without the daemon too.
			fmt.Fprintln(a.stderr, visible(err.Error())+": engine and definitions are not known")
			v = api.Version{App: version, Commit: commit, Go: runtime.Version()}
		} else if err != nil {
			return err
		}
		if running && v.App != version {
			fmt.Fprintf(a.stderr, "The running daemon is version %s, this program %s: restart the service bulwark.\n", visible(v.App), version)
		}
		if a.json() {
			return a.printJSON(versions{v, version})
		}
		a.say("Product version: %s", v.App)
		if running {
			a.say("Engine version: %s", v.Engine)
			a.say("Definitions version: %s", v.Definitions)
		}
		return nil
	})
}

func (a *app) healthCommand() *cobra.Command {
	var field, details string
	var explain bool
	c := a.command("health", "Show the agent's health", func(ctx context.Context) error {
		if details != "" {
			return a.healthDetails(ctx, details, field)
		}
		a.quiet = field != ""
		h, err := a.daemon().Health(ctx)
		fields := a.healthFields(h)
		switch {
		case err != nil:
			return err
		case field != "":
			return a.healthField(fields, field)
		case explain:
			return a.explainHealth(h)
		case a.json() && a.reference():
			return a.printJSON(fieldObject(fields))
		case a.json():
			return a.printJSON(h)
		}
		for _, f := range fields {
			a.say("%s", a.fieldLine(f))
		}
		if a.terminal && !a.reference() && len(h.Issues) > 0 {
			fmt.Fprintf(a.stderr, "\n%s health --explain says what is wrong and what to do.\n", a.name)
		}
		return nil
	})
	c.Flags().StringVar(&field, "field", "", "show the value of one field")
	c.Flags().StringVar(&details, "details", "", "show the fields of a component; help lists the components")
	c.Flags().BoolVar(&explain, "explain", false, "say what is wrong and what to do about it")
	complete(c, "details", "antivirus", "definitions", "edr", "features", "scheduled_scan", "help")
	var names []string
	for _, f := range api.Fields(api.Health{Proxy: "p", CoveragePercent: new(float64), CoverageChecked: time.Unix(0, 0)}) {
		names = append(names, f.Name)
	}
	complete(c, "field", names...)
	return c
}

// ourFields are the fields of the health that the reference product has not, by
// the beginnings of their names.
var ourFields = []string{"state", "portal_", "events_", "coverage_"}

// healthFields are the fields to show: under the reference product's name only
// its own.
func (a *app) healthFields(h api.Health) []api.Field {
	fields := api.Fields(h)
	if a.reference() {
		fields = slices.DeleteFunc(fields, func(f api.Field) bool {
			return slices.ContainsFunc(ourFields, func(ours string) bool { return strings.HasPrefix(f.Name, ours) })
		})
	}
	return fields
}

// fieldObject is an object of the fields, in their order.
type fieldObject []api.Field

// MarshalJSON implements json.Marshaler.
func (o fieldObject) MarshalJSON() ([]byte, error) {
	b := []byte{'{'}
	for i, f := range o {
		value, err := json.Marshal(f.Value)
		if err != nil {
			return nil, fmt.Errorf("field %s: %w", f.Name, err)
		}
		if i > 0 {
			b = append(b, ',')
		}
		b = append(strconv.AppendQuote(b, f.Name), ':')
		b = append(b, value...)
	}
	return append(b, '}'), nil
}

func (a *app) healthField(fields []api.Field, name string) error {
	var names []string
	for _, f := range fields {
		names = append(names, f.Name)
		if f.Name != name {
			continue
		}
		if a.json() {
			return a.printJSON(f.Value)
		}
		managed := ""
		if f.Managed {
			managed = " [managed]"
		}
		a.say("%s%s", a.fieldValue(f.Value), managed)
		return nil
	}
	message := fmt.Sprintf("there is no field %q", name)
	if near := nearest(name, names); near != "" {
		message += "; did you mean " + near + "?"
	}
	return &api.Error{Code: api.NotFound, Message: message, Hint: "`" + a.name + " health` shows all fields"}
}

func (a *app) healthDetails(ctx context.Context, component, field string) error {
	d, err := a.daemon().HealthDetails(ctx, component)
	switch {
	case err != nil:
		return err
	case field != "":
		return a.healthField(d.Fields, field)
	case a.json():
		return a.printJSON(d)
	case component == "help":
		a.say("Components: %s", strings.Join(d.Components, ", "))
		return nil
	}
	for _, f := range d.Fields {
		a.say("%s", a.fieldLine(f))
	}
	return nil
}

func (a *app) explainHealth(h api.Health) error {
	if a.json() {
		return a.printJSON(h.Issues)
	}
	if len(h.Issues) == 0 {
		a.say("Everything works.")
		return nil
	}
	var entries [][]string
	for _, i := range h.Issues {
		kind := "Issue"
		if i.Warning {
			kind = "Warning"
		}
		entries = append(entries, []string{
			fmt.Sprintf("%s: %s", kind, visible(i.ID)),
			"Component: " + visible(i.Component),
			"What: " + visible(i.Message),
			"What to do: " + visible(i.Remedy),
			"Since: " + a.when(i.Since),
		})
	}
	a.blocks(entries)
	return nil
}
