# @summary Installs, onboards and configures the Bulwark agent.
#
# @param repo_url
#   Address of the package repository, for example https://portal:8443/repo;
#   undef when the host's own repositories have the package.
# @param repo_key
#   The key that signs it, armored: the content of REPO_URL/keys/bulwark.asc.
# @param repo_ca
#   Certificate authority of repo_url in PEM, when hosts do not trust it already.
# @param channel
#   prod, insiders-slow or insiders-fast.
# @param version
#   installed, latest, or a version.
# @param onboarding
#   Source of onboard.json, for example puppet:///modules/site/onboard.json.
# @param preferences
#   The managed profile; see docs/preferences.md.
# @param manage_service
#   Whether the service is kept running and enabled.
class bulwark (
  Optional[Pattern[/\A(https|http|file):\/\//]] $repo_url       = undef,
  Optional[String[1]]                           $repo_key       = undef,
  Optional[String[1]]                           $repo_ca        = undef,
  Enum['prod', 'insiders-slow', 'insiders-fast'] $channel       = 'prod',
  String[1]                                     $version        = 'installed',
  Optional[String[1]]                           $onboarding     = undef,
  Optional[Bulwark::Preferences]                $preferences    = undef,
  Boolean                                       $manage_service = true,
) {
  contain bulwark::repo

  # Before the package, so that the agent starts with them.
  file { ['/etc/opt', '/etc/opt/bulwark', '/etc/opt/bulwark/managed']:
    ensure => directory,
    owner  => 'root',
    group  => 'root',
    mode   => '0755',
  }

  if $onboarding {
    file { '/etc/opt/bulwark/onboard.json':
      ensure    => file,
      owner     => 'root',
      group     => 'root',
      mode      => '0600',
      source    => $onboarding,
      show_diff => false,
      before    => Package['bulwark'],
    }
  }

  if $preferences {
    # The running agent notices a change.
    file { '/etc/opt/bulwark/managed/managed.json':
      ensure  => file,
      owner   => 'root',
      group   => 'root',
      mode    => '0644',
      content => bulwark::to_json($preferences),
      before  => Package['bulwark'],
    }
  }

  package { 'bulwark':
    ensure  => $version,
    require => [Class['bulwark::repo'], File['/etc/opt/bulwark']],
  }

  if $manage_service {
    service { 'bulwark':
      ensure  => running,
      enable  => true,
      require => Package['bulwark'],
    }
  }
}
