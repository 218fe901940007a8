# frozen_string_literal: true

# Address of the repository (https://portal:8443/repo), its channel, and the
# files of this cookbook with the signing key, the certificate authority of the
# address (nil when hosts trust it) and the onboarding package (nil for none).
default['bulwark']['repo_url'] = nil
default['bulwark']['channel'] = 'prod'
default['bulwark']['key_file'] = 'bulwark.asc'
default['bulwark']['ca_file'] = nil
default['bulwark']['onboarding_file'] = 'onboard.json'
# The managed profile; see docs/preferences.md.
default['bulwark']['preferences'] = {}
