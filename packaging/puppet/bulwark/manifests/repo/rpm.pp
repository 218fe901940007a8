# @summary The yum, dnf or zypper repository of class bulwark.
# @api private
class bulwark::repo::rpm {
  $key  = '/etc/pki/rpm-gpg/RPM-GPG-KEY-bulwark'
  $ca   = '/etc/pki/bulwark/portal-ca.pem'
  $suse = $facts['os']['family'] == 'Suse'
  $dir  = $suse ? {
    true    => '/etc/zypp/repos.d',
    default => '/etc/yum.repos.d',
  }

  file { ['/etc/pki', '/etc/pki/rpm-gpg', '/etc/pki/bulwark']:
    ensure => directory,
    mode   => '0755',
  }
  file { $key:
    ensure  => file,
    mode    => '0644',
    content => $bulwark::repo_key,
  }
  exec { 'bulwark rpm --import':
    command     => "rpm --import ${key}",
    path        => ['/usr/sbin', '/usr/bin', '/sbin', '/bin'],
    refreshonly => true,
    subscribe   => File[$key],
  }

  if $bulwark::repo_ca {
    file { $ca:
      ensure  => file,
      mode    => '0644',
      content => $bulwark::repo_ca,
    }
    if $suse {
      # zypper looks for certificates under the names that OpenSSL gives them.
      exec { 'bulwark certificate name':
        command => "ln -sf portal-ca.pem /etc/pki/bulwark/\$(openssl x509 -noout -hash -in ${ca}).0",
        unless  => "test -e /etc/pki/bulwark/\$(openssl x509 -noout -hash -in ${ca}).0",
        path    => ['/usr/sbin', '/usr/bin', '/sbin', '/bin'],
        require => File[$ca],
      }
    }
  }

  $trusted = $bulwark::repo_ca ? {
    undef   => undef,
    default => $ca,
  }
  file { "${dir}/bulwark.repo":
    ensure  => file,
    mode    => '0644',
    content => epp('bulwark/bulwark.repo.epp', {
        url     => $bulwark::repo_url,
        channel => $bulwark::channel,
        key     => $key,
        ca      => $trusted,
        suse    => $suse,
    }),
    require => Exec['bulwark rpm --import'],
  }
}
