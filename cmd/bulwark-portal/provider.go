package main

import (
	"bytes"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/bulwarkhq/bulwark/portal/identity"
)

// providerOptions are those of the identity provider.
type providerOptions struct {
	issuer, clientID, secretFile, scopes, name, nameClaim, roleClaim, roles, devices, ca string
	local                                                                                bool
}

func (o *providerOptions) flags(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&o.issuer, "oidc-issuer", "", "address of the OpenID Connect provider that people sign in with; empty for none")
	f.StringVar(&o.clientID, "oidc-client-id", "", "what the provider knows the portal by")
	f.StringVar(&o.secretFile, "oidc-client-secret-file", "", "file with the client secret")
	f.StringVar(&o.scopes, "oidc-scopes", "profile,email", "scopes to ask for besides openid, separated by commas")
	f.StringVar(&o.name, "oidc-name", "the identity provider", "what the button on the sign-in page calls it")
	f.StringVar(&o.nameClaim, "oidc-name-claim", "preferred_username", "claim of the user name")
	f.StringVar(&o.roleClaim, "oidc-role-claim", "groups", "claim of the groups; dots lead into claims within claims")
	f.StringVar(&o.roles, "oidc-roles", "", "roles of groups: GROUP=ROLE, separated by semicolons; the group * is everybody")
	f.StringVar(&o.devices, "oidc-device-groups", "", "device groups that groups are limited to: GROUP=DEVICE GROUP, separated by semicolons; the group * is everybody, the device group * all devices; empty: administrators limit accounts themselves")
	f.StringVar(&o.ca, "oidc-ca-file", "", "PEM file of authorities for the provider's certificate (default: those of the system)")
	f.BoolVar(&o.local, "local-accounts", true, "let accounts with passwords sign in; false leaves the identity provider only")
}

// maxSecret is the largest client secret in bytes.
const maxSecret = 4 << 10

// provider returns nil when none is configured.
func (o *providerOptions) provider(portalURL string) (*identity.Provider, error) {
	if o.issuer == "" {
		switch {
		case o.clientID != "" || o.secretFile != "" || o.roles != "" || o.devices != "":
			return nil, usage("options of the identity provider are given without --oidc-issuer")
		case !o.local:
			return nil, usage("--local-accounts=false needs an identity provider (--oidc-issuer): nobody could sign in")
		}
		return nil, nil
	}
	roles, err := identity.ParseRoles(o.roles)
	if err != nil {
		return nil, usage("--oidc-roles: %w", err)
	}
	var devices map[string][]string
	if o.devices != "" {
		if devices, err = identity.ParseDevices(o.devices); err != nil {
			return nil, usage("--oidc-device-groups: %w", err)
		}
	}
	if o.secretFile == "" {
		return nil, usage("--oidc-client-secret-file is missing")
	}
	secret, err := readSecret(o.secretFile)
	if err != nil {
		return nil, usage("--oidc-client-secret-file: %w", err)
	}
	base := strings.TrimSuffix(portalURL, "/")
	p, err := identity.New(identity.Config{
		Issuer: o.issuer, ClientID: o.clientID, Secret: secret, Redirect: base + "/sign-in/provider/callback", SignedOut: base + "/sign-in",
		Scopes: strings.Split(strings.ReplaceAll(o.scopes, " ", ""), ","), Name: o.name, NameClaim: o.nameClaim, RoleClaim: o.roleClaim, Roles: roles, Devices: devices, CA: o.ca,
	}, time.Now)
	if err != nil {
		return nil, usage("%w", err)
	}
	return p, nil
}

func readSecret(path string) (string, error) {
	text, err := readSmall(path, maxSecret)
	if err != nil {
		return "", err
	}
	if text = bytes.TrimSpace(text); len(text) == 0 {
		return "", fmt.Errorf("%s is empty: a secret has 1 to %d bytes", path, maxSecret)
	}
	return string(text), nil
}
