# @summary The apt repository of class bulwark.
# @api private
class bulwark::repo::apt {
  $keyring = '/usr/share/keyrings/bulwark.asc'
  $list    = '/etc/apt/sources.list.d/bulwark.list'

  file { $keyring:
    ensure  => file,
    mode    => '0644',
    content => $bulwark::repo_key,
  }

  if $bulwark::repo_ca {
    $host = regsubst($bulwark::repo_url, '^https?://([^/:]+).*$', '\1')
    file { '/usr/share/keyrings/bulwark-portal-ca.pem':
      ensure  => file,
      mode    => '0644',
      content => $bulwark::repo_ca,
    }
    file { '/etc/apt/apt.conf.d/99bulwark':
      ensure  => file,
      mode    => '0644',
      content => "Acquire::https::${host}::CaInfo \"/usr/share/keyrings/bulwark-portal-ca.pem\";\n",
      before  => File[$list],
      require => File['/usr/share/keyrings/bulwark-portal-ca.pem'],
    }
  }

  # The suite is the channel: one for all releases of all distributions.
  file { $list:
    ensure  => file,
    mode    => '0644',
    content => "deb [signed-by=${keyring}] ${bulwark::repo_url}/apt ${bulwark::channel} main\n",
    require => File[$keyring],
  }

  # Only this list: others of the host may be out of order.
  exec { 'bulwark apt-get update':
    command     => "apt-get update -q -o Dir::Etc::sourcelist=${list} -o Dir::Etc::sourceparts=- -o APT::Get::List-Cleanup=0",
    path        => ['/usr/sbin', '/usr/bin', '/sbin', '/bin'],
    refreshonly => true,
    subscribe   => [File[$list], File[$keyring]],
  }
}
