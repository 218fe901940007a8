// Package repository makes and publishes the signed package repositories from
// which hosts install and upgrade: one for apt and one for yum, dnf and zypper,
// with channels prod, insiders-slow and insiders-fast. What it publishes are
// plain files, which the portal serves below Path and any other web server or
// disk can carry.
//
// A data folder holds
//
//	signing-key.asc  the OpenPGP key, encrypted (see Key)
//	state.json       what is published in which channel
//	pool/            the packages, signed with the key
//	current          link to the published tree below generations/
//	generations/     published trees; a change makes a new one and swaps the link
//	lock             held while something is changed
//
// A published tree holds
//
//	keys/            the public key (bulwark.asc, bulwark.gpg), debsig-verify's policy
//	                 (debsig.pol) and the portal's certificate authority
//	config/DISTRIBUTION/VERSION/CHANNEL.{list,sources,repo}
//	apt/             dists/SUITE, pool/
//	yum/CHANNEL/     repodata/, Packages/; ring/0..9 for staged roll-outs
//	install.sh       the installer, of the parts in installer/
//	versions.json    what is published
package repository

// Path is where the portal serves the published tree.
const Path = "/repo/"
