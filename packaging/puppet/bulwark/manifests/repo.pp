# @summary The repository of class bulwark.
# @api private
class bulwark::repo {
  if $bulwark::repo_url {
    unless $bulwark::repo_key {
      fail('bulwark: repo_key is needed with repo_url')
    }
    case $facts['os']['family'] {
      'Debian':         { contain bulwark::repo::apt }
      'RedHat', 'Suse': { contain bulwark::repo::rpm }
      default:          { fail("bulwark: the OS family ${facts['os']['family']} is not supported") }
    }
  }
}
