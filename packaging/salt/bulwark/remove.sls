bulwark:
{%- if grains['os_family'] == 'Debian' %}
  pkg.purged: []
{%- else %}
  pkg.removed: []
{%- endif %}

{%- for path in ['/etc/apt/sources.list.d/bulwark.list', '/etc/apt/apt.conf.d/99bulwark', '/usr/share/keyrings/bulwark.asc',
    '/usr/share/keyrings/bulwark-portal-ca.pem', '/etc/yum.repos.d/bulwark.repo', '/etc/zypp/repos.d/bulwark.repo',
    '/etc/pki/rpm-gpg/RPM-GPG-KEY-bulwark', '/etc/opt/bulwark', '/var/opt/bulwark', '/var/log/bulwark', '/etc/pki/bulwark'] %}

{{ path }}:
  file.absent:
    - require:
      - pkg: bulwark
{%- endfor %}
