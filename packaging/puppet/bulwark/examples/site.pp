# A site that protects every node.
node default {
  class { 'bulwark':
    repo_url    => 'https://portal.example.org:8443/repo',
    repo_key    => file('site/bulwark.asc'),
    repo_ca     => file('site/portal-ca.pem'),
    onboarding  => 'puppet:///modules/site/onboard.json',
    preferences => {
      'antivirusEngine' => { 'enforcementLevel' => 'real_time' },
    },
  }
}
