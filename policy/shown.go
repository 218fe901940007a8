package policy

import (
	"net/url"
	"regexp"
)

// Shown returns a value as it may be shown to everybody and written to logs: a
// password in an address is hidden.
func Shown(v any) any {
	s, ok := v.(string)
	if !ok {
		return v
	}
	return HidePasswords(s)
}

// credentials are name and password in an address, also as JSON writes them.
// Everything up to the last @ counts: a password may have one unescaped.
var credentials = regexp.MustCompile(`(:(?:\\?/){2}[^\s"/:@]*):[^\s"]*@`)

// HidePasswords hides the passwords of addresses in text such as a
// configuration file.
func HidePasswords(text string) string {
	if u, err := url.Parse(text); err == nil && u.Host != "" {
		return u.Redacted()
	}
	return credentials.ReplaceAllString(text, "$1:xxxxx@")
}
