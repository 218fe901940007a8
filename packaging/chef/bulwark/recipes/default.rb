# frozen_string_literal: true

require 'json'
require 'uri'

settings = node['bulwark']
apt = platform_family?('debian')
suse = platform_family?('suse')

if settings['repo_url']
  key = apt ? '/usr/share/keyrings/bulwark.asc' : '/etc/pki/rpm-gpg/RPM-GPG-KEY-bulwark'
  ca = apt ? '/usr/share/keyrings/bulwark-portal-ca.pem' : '/etc/pki/bulwark/portal-ca.pem'

  [key, ca].each do |path|
    directory File.dirname(path) do
      recursive true
      mode '0755'
    end
  end

  cookbook_file key do
    source settings['key_file']
    mode '0644'
  end

  cookbook_file ca do
    source settings['ca_file']
    mode '0644'
    only_if { settings['ca_file'] }
  end

  if apt
    file '/etc/apt/apt.conf.d/99bulwark' do
      content %(Acquire::https::#{URI(settings['repo_url']).host}::CaInfo "#{ca}";\n)
      mode '0644'
      only_if { settings['ca_file'] }
    end

    # The suite is the channel: one for all releases of all distributions.
    file '/etc/apt/sources.list.d/bulwark.list' do
      content "deb [signed-by=#{key}] #{settings['repo_url']}/apt #{settings['channel']} main\n"
      mode '0644'
      notifies :run, 'execute[bulwark apt-get update]', :immediately
    end

    execute 'bulwark apt-get update' do
      command 'apt-get update -q -o Dir::Etc::sourcelist=/etc/apt/sources.list.d/bulwark.list ' \
              '-o Dir::Etc::sourceparts=- -o APT::Get::List-Cleanup=0'
      action :nothing
    end
  else
    execute 'bulwark rpm --import' do
      command "rpm --import #{key}"
      not_if "rpm -q gpg-pubkey --qf '%{SUMMARY}\\n' | grep -q 'Bulwark repository'"
    end

    if suse && settings['ca_file']
      execute 'bulwark certificate name' do
        command "ln -sf portal-ca.pem /etc/pki/bulwark/$(openssl x509 -noout -hash -in #{ca}).0"
        not_if "test -e /etc/pki/bulwark/$(openssl x509 -noout -hash -in #{ca}).0"
      end
    end

    query = suse && settings['ca_file'] ? '?ssl_capath=/etc/pki/bulwark' : ''
    file "#{suse ? '/etc/zypp/repos.d' : '/etc/yum.repos.d'}/bulwark.repo" do
      content <<~REPO
        [bulwark-#{settings['channel']}]
        name=Bulwark (#{settings['channel']})
        baseurl=#{settings['repo_url']}/yum/#{settings['channel']}#{query}
        enabled=1
        gpgcheck=1
        repo_gpgcheck=1
        gpgkey=file://#{key}
        #{"sslcacert=#{ca}" if settings['ca_file'] && !suse}
      REPO
      mode '0644'
    end
  end
end

directory '/etc/opt/bulwark/managed' do
  recursive true
  mode '0755'
end

# Before the package, so that the agent starts with them. A package that is
# there is kept: it may be newer than the cookbook's.
cookbook_file '/etc/opt/bulwark/onboard.json' do
  source settings['onboarding_file']
  mode '0600'
  sensitive true
  action :create_if_missing
  only_if { settings['onboarding_file'] }
end

file '/etc/opt/bulwark/managed/managed.json' do
  content "#{JSON.pretty_generate(settings['preferences'])}\n"
  mode '0644'
  not_if { settings['preferences'].empty? }
end

package 'bulwark'

service 'bulwark' do
  action %i[enable start]
end
