// Package indicator is the list of indicators as the portal gives it to agents
// and as a host's own file has it: files, addresses and names that people want
// to be told of, to have blocked, or to be left alone.
package indicator

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"path"
	"strings"
	"time"
)

// Types of indicators, by the names of the reference product's API; the two
// without a counterpart there are our own.
const (
	FileMD5    = "FileMd5"
	FileSHA1   = "FileSha1"
	FileSHA256 = "FileSha256"
	FilePath   = "FilePath" // a path; * stands for any text without a slash
	IPAddress  = "IpAddress"
	IPNetwork  = "IpNetwork" // CIDR
	Domain     = "DomainName"
	URL        = "Url"
)

// Types returns the values of Indicator.Type.
func Types() []string {
	return []string{FileSHA256, FileSHA1, FileMD5, FilePath, IPAddress, IPNetwork, Domain, URL}
}

// Actions: what happens when the indicator is seen.
const (
	Allow     = "Allowed"
	Audit     = "Audit" // an alert, nothing is stopped
	Warn      = "Warn"  // an alert; blocks where networkProtection.enableSetWarnToBlock is on
	Block     = "Block"
	Remediate = "BlockAndRemediate" // files: quarantined, too
)

// Actions returns the values of Indicator.Action.
func Actions() []string { return []string{Allow, Audit, Warn, Block, Remediate} }

// Limits.
const (
	MaxEntries = 100_000
	MaxValue   = 2048
	MaxText    = 4000
)

// Indicator is one entry.
type Indicator struct {
	ID          string    `json:"id,omitempty"`
	Type        string    `json:"type"`
	Value       string    `json:"value"`
	Action      string    `json:"action"`
	Title       string    `json:"title,omitempty"`
	Description string    `json:"description,omitempty"`
	Severity    string    `json:"severity,omitempty"` // Informational, Low, Medium (the default), High
	Expires     time.Time `json:"expires,omitzero"`   // zero: never
	// Silent indicators do what they say without an alert.
	Silent bool `json:"silent,omitempty"`
}

// Expired reports whether the indicator is over.
func (i *Indicator) Expired(now time.Time) bool { return !i.Expires.IsZero() && !now.Before(i.Expires) }

// Normalize checks an indicator and brings it into the form in which it is
// compared. The error names the member that is wrong.
func (i *Indicator) Normalize() error {
	i.Value = strings.TrimSpace(i.Value)
	if i.Value == "" || len(i.Value) > MaxValue {
		return fmt.Errorf("value: must be between 1 and %d bytes", MaxValue)
	}
	if len(i.Title) > MaxText || len(i.Description) > MaxText {
		return fmt.Errorf("title and description: at most %d bytes", MaxText)
	}
	if err := choose(&i.Type, Types(), "type"); err != nil {
		return err
	}
	switch strings.ToLower(i.Action) { // other words of the reference product
	case "allow":
		i.Action = Allow
	case "alertandblock":
		i.Action = Block
	case "alert":
		i.Action = Audit
	}
	if err := choose(&i.Action, Actions(), "action"); err != nil {
		return err
	}
	if i.Severity == "" {
		i.Severity = "Medium"
	}
	if err := choose(&i.Severity, []string{"Informational", "Low", "Medium", "High"}, "severity"); err != nil {
		return err
	}
	if err := i.normalizeValue(); err != nil {
		return fmt.Errorf("value %.200q: %w", i.Value, err)
	}
	if i.Title == "" {
		i.Title = "Indicator " + i.Value
	}
	return nil
}

func choose(v *string, from []string, what string) error {
	for _, f := range from {
		if strings.EqualFold(*v, f) {
			*v = f
			return nil
		}
	}
	return fmt.Errorf("%s: %.64q is not one of %s", what, *v, strings.Join(from, ", "))
}

func (i *Indicator) normalizeValue() error {
	switch i.Type {
	case FileMD5, FileSHA1, FileSHA256:
		n := map[string]int{FileMD5: 32, FileSHA1: 40, FileSHA256: 64}[i.Type]
		i.Value = strings.ToLower(i.Value)
		if b, err := hex.DecodeString(i.Value); err != nil || len(b)*2 != n {
			return fmt.Errorf("a %s has %d hexadecimal digits", i.Type, n)
		}
	case FilePath:
		if !strings.HasPrefix(i.Value, "/") {
			return errors.New("a path begins with /")
		}
		if _, err := path.Match(i.Value, "/"); err != nil || strings.ContainsRune(i.Value, 0) {
			return errors.New("is no path pattern")
		}
	case IPAddress:
		a, err := netip.ParseAddr(i.Value)
		if err != nil || a.Zone() != "" {
			if _, err := netip.ParsePrefix(i.Value); err == nil {
				i.Type = IPNetwork
				return i.normalizeValue()
			}
			return errors.New("is no address")
		}
		i.Value = a.Unmap().String()
	case IPNetwork:
		p, err := netip.ParsePrefix(i.Value)
		if err != nil {
			return errors.New("is no network such as 192.0.2.0/24")
		}
		if p.Bits() == 0 || p.Addr().Is4In6() {
			return errors.New("a network of all addresses is not allowed")
		}
		i.Value = p.Masked().String()
	case Domain:
		i.Value = strings.ToLower(strings.TrimSuffix(strings.TrimPrefix(i.Value, "*."), "."))
		if !strings.Contains(i.Value, ".") || len(i.Value) > 253 || strings.ContainsAny(i.Value, " /:@?#*\\\x00") || strings.Contains(i.Value, "..") || strings.HasPrefix(i.Value, ".") {
			return errors.New("is no domain name")
		}
	case URL:
		u, err := url.Parse(i.Value)
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			return errors.New("is no address of the form http://host/path")
		}
		u.Host = strings.ToLower(u.Host)
		i.Value = u.String()
	}
	return nil
}

// List is what is delivered, and the form of a host's own file.
type List struct {
	Version    string      `json:"version,omitempty"`
	Indicators []Indicator `json:"indicators"`
}

// MaxBytes bounds a list in its JSON form.
const MaxBytes = 64 << 20

// Parse reads a list. Entries that are wrong are left out and named.
func Parse(data []byte) (List, []error, error) {
	if len(data) > MaxBytes {
		return List{}, nil, fmt.Errorf("a list of indicators has at most %d bytes, this one %d", MaxBytes, len(data))
	}
	var l List
	if err := json.Unmarshal(data, &l); err != nil {
		return List{}, nil, fmt.Errorf("list of indicators: %w", err)
	}
	if len(l.Indicators) > MaxEntries {
		return List{}, nil, fmt.Errorf("a list has at most %d indicators, this one %d", MaxEntries, len(l.Indicators))
	}
	var wrong []error
	kept := l.Indicators[:0]
	for n := range l.Indicators {
		i := l.Indicators[n]
		if err := i.Normalize(); err != nil {
			if len(wrong) < 100 {
				wrong = append(wrong, fmt.Errorf("indicator %d: %w", n+1, err))
			}
			continue
		}
		kept = append(kept, i)
	}
	l.Indicators = kept
	return l, wrong, nil
}
