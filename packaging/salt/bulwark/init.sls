{#- Settings come from the pillar "bulwark":
      repo_url:    https://portal:8443/repo
      channel:     prod
      key:         salt://bulwark/files/bulwark.asc
      ca:          salt://bulwark/files/portal-ca.pem   (when hosts do not trust it)
      onboarding:  salt://bulwark/files/onboard.json
      preferences: the managed profile, see docs/preferences.md #}
{%- set b = salt['pillar.get']('bulwark', {}) %}
{%- set channel = b.get('channel', 'prod') %}
{%- set apt = grains['os_family'] == 'Debian' %}
{%- set suse = grains['os_family'] == 'Suse' %}
{%- set key = '/usr/share/keyrings/bulwark.asc' if apt else '/etc/pki/rpm-gpg/RPM-GPG-KEY-bulwark' %}
{%- set ca = '/usr/share/keyrings/bulwark-portal-ca.pem' if apt else '/etc/pki/bulwark/portal-ca.pem' %}
{%- set entry = '/etc/apt/sources.list.d/bulwark.list' if apt else ('/etc/zypp/repos.d/bulwark.repo' if suse else '/etc/yum.repos.d/bulwark.repo') %}

{%- if b.get('repo_url') %}
bulwark_key:
  file.managed:
    - name: {{ key }}
    - source: {{ b['key'] }}
    - mode: '0644'
    - makedirs: true
{%- if b.get('ca') %}

bulwark_ca:
  file.managed:
    - name: {{ ca }}
    - source: {{ b['ca'] }}
    - mode: '0644'
    - makedirs: true
    - require_in:
      - file: bulwark_entry
{%- if apt %}

bulwark_apt_conf:
  file.managed:
    - name: /etc/apt/apt.conf.d/99bulwark
    - mode: '0644'
    - contents: |
        Acquire::https::{{ b['repo_url'].split('//')[1].split('/')[0].split(':')[0] }}::CaInfo "{{ ca }}";
    - require_in:
      - file: bulwark_entry
{%- endif %}
{%- endif %}

bulwark_entry:
  file.managed:
    - name: {{ entry }}
    - mode: '0644'
    - contents: |
{%- if apt %}
        deb [signed-by={{ key }}] {{ b['repo_url'] }}/apt {{ channel }} main
{%- else %}
        [bulwark-{{ channel }}]
        name=Bulwark ({{ channel }})
        baseurl={{ b['repo_url'] }}/yum/{{ channel }}{{ '?ssl_capath=/etc/pki/bulwark' if suse and b.get('ca') else '' }}
        enabled=1
        gpgcheck=1
        repo_gpgcheck=1
        gpgkey=file://{{ key }}
{%- if b.get('ca') and not suse %}
        sslcacert={{ ca }}
{%- endif %}
{%- endif %}
    - require:
      - file: bulwark_key

bulwark_index:
  cmd.run:
{%- if apt %}
    - name: apt-get update -q -o Dir::Etc::sourcelist={{ entry }} -o Dir::Etc::sourceparts=- -o APT::Get::List-Cleanup=0
{%- else %}
    - name: rpm --import {{ key }}{% if suse and b.get('ca') %} && ln -sf portal-ca.pem /etc/pki/bulwark/$(openssl x509 -noout -hash -in {{ ca }}).0{% endif %}
{%- endif %}
    - onchanges:
      - file: bulwark_entry
      - file: bulwark_key
    - require_in:
      - pkg: bulwark
{%- endif %}

{%- if b.get('onboarding') %}

bulwark_onboarding:
  file.managed:
    - name: /etc/opt/bulwark/onboard.json
    - source: {{ b['onboarding'] }}
    - mode: '0600'
    - makedirs: true
    - show_changes: false
    - require_in:
      - pkg: bulwark
{%- endif %}

{%- if b.get('preferences') %}

bulwark_preferences:
  file.serialize:
    - name: /etc/opt/bulwark/managed/managed.json
    - dataset: {{ b['preferences'] | json }}
    - serializer: json
    - mode: '0644'
    - makedirs: true
    - require_in:
      - pkg: bulwark
{%- endif %}

bulwark:
  pkg.installed: []
  service.running:
    - enable: true
    - require:
      - pkg: bulwark
