# @summary Removes the Bulwark agent.
#
# @param purge
#   Whether configuration, quarantine and logs go too.
class bulwark::remove (
  Boolean $purge = true,
) {
  # rpm knows no purge.
  $gone = ($purge and $facts['os']['family'] == 'Debian') ? {
    true    => 'purged',
    default => 'absent',
  }
  package { 'bulwark':
    ensure => $gone,
  }
  file { [
      '/etc/apt/sources.list.d/bulwark.list', '/etc/apt/apt.conf.d/99bulwark', '/usr/share/keyrings/bulwark.asc',
      '/usr/share/keyrings/bulwark-portal-ca.pem', '/etc/yum.repos.d/bulwark.repo', '/etc/zypp/repos.d/bulwark.repo',
      '/etc/pki/rpm-gpg/RPM-GPG-KEY-bulwark',
    ]:
    ensure  => absent,
    require => Package['bulwark'],
  }
  if $purge {
    file { ['/etc/opt/bulwark', '/var/opt/bulwark', '/var/log/bulwark', '/etc/pki/bulwark']:
      ensure  => absent,
      recurse => true,
      force   => true,
      backup  => false,
      require => Package['bulwark'],
    }
  }
}
