package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
)

// listing is a list of the API as a command.
type listing struct {
	use, short, path string
	open             string // filter of --open; empty where there is none
	order            string
	members          []string
}

var listings = []listing{
	{"machines", "List the devices, or show one: machines get MACHINE", "/api/machines", "", "computerDnsName", []string{"id", "computerDnsName", "healthStatus", "riskScore", "openAlerts", "osDistribution", "osVersion", "agentVersion", "lastSeen", "machineTags"}},
	{"alerts", "List alerts, or show one: alerts get ID", "/api/alerts", "status ne 'Resolved'", "alertCreationTime desc", []string{"id", "alertCreationTime", "severity", "status", "computerDnsName", "title", "assignedTo"}},
	{"incidents", "List incidents, or show one: incidents get ID", "/api/incidents", "status ne 'Resolved'", "lastUpdateTime desc", []string{"incidentId", "lastUpdateTime", "severity", "status", "incidentName", "assignedTo"}},
	{"actions", "List response actions, or show one: actions get ID", "/api/machineactions", "", "creationDateTimeUtc desc", []string{"id", "creationDateTimeUtc", "type", "status", "computerDnsName", "requestor", "message"}},
	{"indicators", "List indicators, or show one: indicators get ID", "/api/indicators", "", "", []string{"id", "indicatorType", "indicatorValue", "action", "severity", "expirationTime", "title"}},
}

func (t *ctl) listCommands() []*cobra.Command {
	var out []*cobra.Command
	for _, l := range listings {
		var filter, order string
		var top int
		var open bool
		c := t.command(l.use, l.short, 0, func([]string) error {
			q := url.Values{}
			if open && filter != "" {
				filter = "(" + filter + ") and " + l.open
			} else if open {
				filter = l.open
			}
			if filter != "" {
				q.Set("$filter", filter)
			}
			if order != "" {
				q.Set("$orderby", order)
			}
			if top < 1 {
				return usage("--top must be 1 or more")
			}
			var objects []json.RawMessage
			err := t.List(t.cmd.Context(), l.path, q, top, func(o json.RawMessage) error {
				objects = append(objects, o)
				return nil
			})
			if err != nil {
				return err
			}
			return t.show(objects, l.members...)
		})
		f := c.Flags()
		f.StringVar(&filter, "filter", "", "condition in the API's form, for example \"severity eq 'High'\"")
		f.StringVar(&order, "order", l.order, "members to sort by, with asc or desc")
		f.IntVar(&top, "top", 1000, "how many at most")
		if l.open != "" {
			f.BoolVar(&open, "open", false, "only those that are not resolved")
		}
		what := "ID"
		if l.use == "machines" {
			what = "MACHINE"
		}
		c.AddCommand(t.command("get "+what, "Show one with everything that is known", 1, func(args []string) (err error) {
			id := args[0]
			if l.use == "machines" {
				if id, err = t.machine(id); err != nil {
					return err
				}
			}
			var o json.RawMessage
			if err := t.Do(t.cmd.Context(), http.MethodGet, l.path+"/"+url.PathEscape(id), nil, nil, &o); err != nil {
				return err
			}
			return t.object(o)
		}))
		switch l.use {
		case "machines":
			c.AddCommand(t.tagCommand())
		case "alerts", "incidents":
			c.AddCommand(t.updateCommand(l))
		case "actions":
			c.AddCommand(t.cancelCommand())
		}
		out = append(out, c)
	}
	return out
}

func (t *ctl) tagCommand() *cobra.Command {
	var add, remove []string
	c := t.command("tag MACHINE", "Add or remove tags of a device", 1, func(args []string) error {
		if len(add)+len(remove) == 0 {
			return usage("--add TAG or --remove TAG is needed")
		}
		id, err := t.machine(args[0])
		if err != nil {
			return err
		}
		var o json.RawMessage
		for _, change := range []struct {
			action string
			tags   []string
		}{{"Remove", remove}, {"Add", add}} {
			for _, tag := range change.tags {
				if err := t.Do(t.cmd.Context(), http.MethodPost, "/api/machines/"+id+"/tags", nil, map[string]string{"Value": tag, "Action": change.action}, &o); err != nil {
					return err
				}
			}
		}
		if err := t.Do(t.cmd.Context(), http.MethodGet, "/api/machines/"+id, nil, nil, &o); err != nil {
			return err
		}
		return t.show([]json.RawMessage{o}, "id", "computerDnsName", "machineTags")
	})
	c.Flags().StringSliceVar(&add, "add", nil, "tag to add")
	c.Flags().StringSliceVar(&remove, "remove", nil, "tag to remove")
	return c
}

// updateCommand changes an alert or incident.
func (t *ctl) updateCommand(l listing) *cobra.Command {
	fields := []struct{ flag, member, help string }{
		{"status", "status", "New, InProgress or Resolved (Active of incidents)"},
		{"assign", "assignedTo", "who works on it"},
		{"classification", "classification", "TruePositive, InformationalExpectedActivity or FalsePositive"},
		{"determination", "determination", "for example Malware, Phishing, SecurityTesting, NotMalicious"},
		{"comment", "comment", "what to note"},
	}
	values := make([]string, len(fields))
	var c *cobra.Command
	c = t.command("set ID", "Change the state, assign, classify or comment", 1, func(args []string) error {
		body := map[string]string{}
		for i, f := range fields {
			if c.Flags().Changed(f.flag) {
				body[f.member] = values[i]
			}
		}
		if len(body) == 0 {
			return usage("nothing to change: give --status, --assign, --classification, --determination or --comment")
		}
		var o json.RawMessage
		if err := t.Do(t.cmd.Context(), http.MethodPatch, l.path+"/"+url.PathEscape(args[0]), nil, body, &o); err != nil {
			return err
		}
		return t.show([]json.RawMessage{o}, l.members...)
	})
	for i, f := range fields {
		c.Flags().StringVar(&values[i], f.flag, "", f.help)
	}
	return c
}

func (t *ctl) cancelCommand() *cobra.Command {
	var comment string
	c := t.command("cancel ID", "Cancel an action that has not begun", 1, func(args []string) error {
		var o json.RawMessage
		if err := t.Do(t.cmd.Context(), http.MethodPost, "/api/machineactions/"+url.PathEscape(args[0])+"/cancel", nil, map[string]string{"Comment": comment}, &o); err != nil {
			return err
		}
		return t.show([]json.RawMessage{o}, actionMembers...)
	})
	c.Flags().StringVar(&comment, "comment", "", "why (needed)")
	return c
}

var actionMembers = []string{"id", "type", "status", "computerDnsName", "message"}

// order is a response action as a command.
type order struct {
	use, short, path string
	options          func(c *cobra.Command) func(body map[string]any)
	file             bool // the device sends one
}

func (t *ctl) orderCommands() []*cobra.Command {
	orders := []order{
		{use: "scan", short: "Scan a device", path: "runAntiVirusScan", options: func(c *cobra.Command) func(map[string]any) {
			full := c.Flags().Bool("full", false, "all files, not only the likely places")
			return func(body map[string]any) {
				if body["ScanType"] = "Quick"; *full {
					body["ScanType"] = "Full"
				}
			}
		}},
		{use: "isolate", short: "Cut a device off the network but for its portal", path: "isolate", options: func(c *cobra.Command) func(map[string]any) {
			allow := c.Flags().StringSlice("allow", nil, "addresses that stay reachable")
			return func(body map[string]any) {
				if body["IsolationType"] = "Full"; len(*allow) > 0 {
					body["Allow"] = *allow
				}
			}
		}},
		{use: "release", short: "End the isolation of a device", path: "unisolate"},
		{use: "update-definitions", short: "Let a device update its definitions", path: "updateDefinitions"},
		{use: "collect", short: "Collect an investigation package of a device", path: "collectInvestigationPackage", file: true},
		{use: "offboard", short: "Let a device leave the portal", path: "offboard"},
	}
	var out []*cobra.Command
	for _, o := range orders {
		out = append(out, t.orderCommand(o))
	}
	return out
}

func (t *ctl) orderCommand(o order) *cobra.Command {
	var comment, file string
	var wait bool
	var patience time.Duration
	fill := func(map[string]any) {}
	c := t.command(o.use+" MACHINE", o.short, 1, func(args []string) error {
		if comment == "" {
			return usage("--comment TEXT is needed: it says why in the audit log")
		}
		id, err := t.machine(args[0])
		if err != nil {
			return err
		}
		body := map[string]any{"Comment": comment}
		fill(body)
		var a json.RawMessage
		if err := t.Do(t.cmd.Context(), http.MethodPost, "/api/machines/"+id+"/"+o.path, nil, body, &a); err != nil {
			return err
		}
		if wait || file != "" {
			if a, err = t.await(a, patience); err != nil {
				return err
			}
		}
		if file != "" {
			if err := t.download(a, file); err != nil {
				return err
			}
		}
		if err := t.show([]json.RawMessage{a}, actionMembers...); err != nil {
			return err
		}
		if s := actionOf(a); wait && s.Status != "Succeeded" {
			return fmt.Errorf("the action ended as %s: %s", s.Status, printable(s.Message))
		}
		return nil
	})
	c.Flags().StringVar(&comment, "comment", "", "why, for the audit log (needed)")
	c.Flags().BoolVar(&wait, "wait", false, "wait until the device has carried it out; exit status 1 when it fails")
	c.Flags().DurationVar(&patience, "patience", time.Hour, "how long to wait at most")
	if o.options != nil {
		fill = o.options(c)
	}
	if o.file {
		c.Flags().StringVar(&file, "out", "", "wait, and write what the device sends to this file")
	}
	return c
}

// machineAction is what the commands must know of one.
type machineAction struct{ ID, Status, Message string }

func actionOf(o json.RawMessage) (a machineAction) {
	if json.Unmarshal(o, &a) != nil {
		return machineAction{}
	}
	return a
}

// await waits until the action has ended and tells of each change of its state,
// and of what the device says meanwhile.
func (t *ctl) await(o json.RawMessage, patience time.Duration) (json.RawMessage, error) {
	var last machineAction
	for deadline := time.Now().Add(patience); ; {
		a := actionOf(o)
		if a.ID == "" {
			return nil, errors.New("the portal's answer has no id")
		}
		if a != last {
			fmt.Fprintf(t.cmd.ErrOrStderr(), "%s  %s\n", a.Status, printable(a.Message))
			last = a
		}
		if a.Status != "Pending" && a.Status != "InProgress" {
			return o, nil
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("the action %s is %s after %s; `bulwark-portal ctl actions get %s` shows it", a.ID, a.Status, patience, a.ID)
		}
		// The portal takes a hundred requests a minute.
		select {
		case <-t.cmd.Context().Done():
			return nil, t.cmd.Context().Err()
		case <-time.After(2 * time.Second):
		}
		if err := t.Do(t.cmd.Context(), http.MethodGet, "/api/machineactions/"+url.PathEscape(a.ID), nil, nil, &o); err != nil {
			return nil, err
		}
	}
}

// download writes the file that a device sent for an action.
func (t *ctl) download(o json.RawMessage, path string) error {
	a := actionOf(o)
	if a.Status != "Succeeded" {
		return fmt.Errorf("the action ended as %s: %s", a.Status, printable(a.Message))
	}
	return writeWhole(path, func(w io.Writer) error {
		return t.Download(t.cmd.Context(), http.MethodGet, "/api/machineactions/"+url.PathEscape(a.ID)+"/package", nil, w)
	})
}

// writeWhole makes a file, which is there only when it is complete.
func writeWhole(path string, fill func(io.Writer) error) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	if err := errors.Join(fill(f), f.Close()); err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return os.Rename(f.Name(), path)
}

func (t *ctl) huntCommand() *cobra.Command {
	var parquet string
	c := t.command("hunt QUERY", "Ask the events of all devices in KQL; QUERY - reads it from standard input", 1, func(args []string) error {
		query := args[0]
		if query == "-" {
			text, err := io.ReadAll(io.LimitReader(t.cmd.InOrStdin(), 1<<20))
			if err != nil {
				return err
			}
			query = string(text)
		}
		if parquet != "" {
			return writeWhole(parquet, func(w io.Writer) error {
				return t.Download(t.cmd.Context(), http.MethodPost, "/api/advancedqueries/export", map[string]string{"Query": query, "Format": "Parquet"}, w)
			})
		}
		var res struct {
			Stats struct {
				Truncated string `json:"truncated"`
			}
			Schema  []struct{ Name string }
			Results []json.RawMessage
		}
		if err := t.Do(t.cmd.Context(), http.MethodPost, "/api/advancedqueries/run", nil, map[string]string{"Query": query}, &res); err != nil {
			return err
		}
		columns := make([]string, len(res.Schema))
		for i, s := range res.Schema {
			columns[i] = s.Name
		}
		if err := t.show(res.Results, columns...); err != nil {
			return err
		}
		if res.Stats.Truncated != "" {
			fmt.Fprintln(t.cmd.ErrOrStderr(), "not all rows:", printable(res.Stats.Truncated))
		}
		return nil
	})
	c.Flags().StringVar(&parquet, "parquet", "", "write the result to this Parquet file instead")
	return c
}

// settingsCommand tells what the portal is made of and how it fares.
func (t *ctl) settingsCommand() *cobra.Command {
	return t.command("settings", "Show what the portal runs on, how that fares, and its options, as JSON", 0, func([]string) error {
		var o json.RawMessage
		if err := t.Do(t.cmd.Context(), http.MethodGet, "/api/settings", nil, nil, &o); err != nil {
			return err
		}
		return t.object(o)
	})
}
