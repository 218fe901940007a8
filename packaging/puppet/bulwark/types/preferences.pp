# The parts of the managed profile (docs/preferences.md). What a part holds is
# checked by the agent, which names a wrong key and goes on with the others.
type Bulwark::Preferences = Struct[{
    Optional['antivirusEngine']   => Bulwark::Antivirus,
    Optional['cloudService']      => Hash[String, Data],
    Optional['edr']               => Hash[String, Data],
    Optional['networkProtection'] => Hash[String, Data],
    Optional['features']          => Hash[String, Data],
    Optional['scheduledScan']     => Hash[String, Data],
    Optional['exclusionSettings'] => Hash[String, Data],
}]
