# frozen_string_literal: true

package 'bulwark' do
  action platform_family?('debian') ? :purge : :remove
end

%w[/etc/apt/sources.list.d/bulwark.list /etc/apt/apt.conf.d/99bulwark /usr/share/keyrings/bulwark.asc
   /usr/share/keyrings/bulwark-portal-ca.pem /etc/yum.repos.d/bulwark.repo /etc/zypp/repos.d/bulwark.repo
   /etc/pki/rpm-gpg/RPM-GPG-KEY-bulwark].each do |path|
  file path do
    action :delete
  end
end

%w[/etc/opt/bulwark /var/opt/bulwark /var/log/bulwark /etc/pki/bulwark].each do |path|
  directory path do
    recursive true
    action :delete
  end
end
