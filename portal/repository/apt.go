package repository

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// aptArchitectures are those of the repository.
var aptArchitectures = []string{"amd64", "arm64"}

// suites are the suites of a channel: prod is found under the code names of
// the distributions and under its own, the others under their own. The
// packages of all suites are the same, so a host of a distribution that is not
// in the list takes prod and is never given another release's.
func suites(channel string) []string {
	out := []string{channel}
	if channel == "prod" {
		for _, d := range distributions {
			if d.codename != "" {
				out = append(out, d.codename)
			}
		}
	}
	return out
}

// apt writes dists/ and pool/ (the layout of Debian's repositories,
// wiki.debian.org/DebianRepository/Format).
func (t *tree) apt(context.Context) error {
	for _, channel := range Channels {
		packages := t.state.in(channel, Deb)
		for _, p := range packages {
			if err := t.link(p, "apt/pool/"+p.File); err != nil {
				return err
			}
		}
		for _, suite := range suites(channel) {
			if err := t.suite(channel, suite, packages); err != nil {
				return fmt.Errorf("suite %s: %w", suite, err)
			}
		}
	}
	return nil
}

func (t *tree) suite(channel, suite string, packages []Package) error {
	base := "apt/dists/" + suite + "/"
	sums := map[string][]byte{}
	for _, arch := range aptArchitectures {
		folder := "main/binary-" + arch + "/"
		index := t.aptIndex(arch, packages)
		zipped, err := compressed(index)
		if err != nil {
			return err
		}
		release := fmt.Appendf(nil, "Archive: %s\nComponent: main\nOrigin: Bulwark\nLabel: Bulwark\nArchitecture: %s\n", suite, arch)
		sums[folder+"Packages"], sums[folder+"Packages.gz"], sums[folder+"Release"] = index, zipped, release
		for name, data := range map[string][]byte{"Packages": index, "Packages.gz": zipped, "Release": release} {
			sum := sha256.Sum256(data)
			err = errors.Join(err, t.put(base+folder+name, data), t.put(base+folder+"by-hash/SHA256/"+hex.EncodeToString(sum[:]), data))
		}
		if err = errors.Join(err, t.keepOld(base+folder+"by-hash/SHA256")); err != nil {
			return err
		}
	}
	text := t.aptRelease(channel, suite, sums)
	inline, err := t.key.clearSigned(text)
	if err != nil {
		return err
	}
	detached, err := t.key.detached(bytes.NewReader(text), true)
	if err != nil {
		return err
	}
	return errors.Join(t.put(base+"Release", text), t.put(base+"InRelease", inline), t.put(base+"Release.gpg", detached))
}

// aptIndex is the file Packages of an architecture.
func (t *tree) aptIndex(arch string, packages []Package) []byte {
	var out bytes.Buffer
	for _, p := range packages {
		if p.Arch != arch && p.Arch != "all" {
			continue
		}
		for _, f := range t.debs[p.File] {
			fmt.Fprintf(&out, "%s: %s\n", f.name, f.value)
		}
		fmt.Fprintf(&out, "Filename: pool/%s\nSize: %d\nSHA256: %s\n", p.File, p.Size, p.SHA256)
		if p.Rollout < 100 {
			// apt of Debian 12 and Ubuntu 21.04 and later: each machine draws a number
			// from its machine-id, the package and the version.
			fmt.Fprintf(&out, "Phased-Update-Percentage: %d\n", p.Rollout)
		}
		out.WriteByte('\n')
	}
	return out.Bytes()
}

func (t *tree) aptRelease(channel, suite string, sums map[string][]byte) []byte {
	var out bytes.Buffer
	date := func(at time.Time) string { return at.UTC().Format("Mon, 02 Jan 2006 15:04:05") + " UTC" }
	fmt.Fprintf(&out, "Origin: Bulwark\nLabel: Bulwark\nSuite: %s\nCodename: %s\nDate: %s\n", suite, suite, date(t.now))
	if t.validity > 0 {
		fmt.Fprintf(&out, "Valid-Until: %s\n", date(t.now.Add(t.validity)))
	}
	fmt.Fprintf(&out, "Acquire-By-Hash: yes\nArchitectures: %s\nComponents: main\nDescription: Bulwark, channel %s\nSHA256:\n", strings.Join(aptArchitectures, " "), channel)
	names := make([]string, 0, len(sums))
	for name := range sums {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		fmt.Fprintf(&out, " %x %d %s\n", sha256.Sum256(sums[name]), len(sums[name]), name)
	}
	return out.Bytes()
}
