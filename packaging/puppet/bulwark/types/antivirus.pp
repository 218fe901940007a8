# The part antivirusEngine of the managed profile: any key of docs/preferences.md.
type Bulwark::Antivirus = Hash[Pattern[/\A[a-z][A-Za-z]+\z/], Data]
