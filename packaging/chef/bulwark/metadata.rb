# frozen_string_literal: true

name 'bulwark'
maintainer 'Bulwark authors'
license 'Apache-2.0'
description 'Installs, onboards and configures the Bulwark endpoint protection agent'
version '1.0.0'
chef_version '>= 14.0'
supports 'debian'
supports 'ubuntu'
supports 'redhat'
supports 'centos'
supports 'oracle'
supports 'suse'
