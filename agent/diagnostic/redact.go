package diagnostic

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"regexp"
	"slices"
	"strings"

	"github.com/bulwarkhq/bulwark/policy"
)

// maxLine bounds a line that is looked at as a whole; a longer one is cut, for
// a secret could lie across two parts of it.
const maxLine = 64 << 10

const hidden = "xxxxx"

// secrets are what looks like a secret; the first group stays.
var secrets = []*regexp.Regexp{
	regexp.MustCompile(`(?i)((?:^|[^a-z0-9])(?:pass(?:word|wd|phrase)?|pwd|secret|token|api[-_]?key|access[-_]?key|private[-_]?key|client[-_]?secret|enrol?lment[-_]?token)\\?["']?\s*[=:]\s*\\?["']?)[^\s"'\\,;&}]+`),
	regexp.MustCompile(`(?i)(\s--?(?:pass(?:word|wd|phrase)?|pwd|secret|token|api[-_]?key)\s+)[^\s-][^\s]*`),
	regexp.MustCompile(`(?i)(authorization\\?["']?\s*[=:]\s*\\?["']?(?:basic|bearer|digest)?\s*)[A-Za-z0-9._~+/=-]{6,}`),
	regexp.MustCompile(`(?i)(bearer\s+)[A-Za-z0-9._~+/=-]{6,}`),
}

var (
	pemBegin = regexp.MustCompile(`-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----`)
	pemEnd   = regexp.MustCompile(`-----END [A-Z0-9 ]*PRIVATE KEY-----`)
	pemWhole = regexp.MustCompile(`(-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----).*?(-----END [A-Z0-9 ]*PRIVATE KEY-----|$)`)
)

// signs are in every text that has a secret: most lines of a log have none.
var signs = []string{"://", ":\\/\\/", "pass", "pwd", "secret", "token", "key", "authorization", "bearer"}

// Redact hides what looks like a secret in one line or one text.
func Redact(text string) string {
	lower := strings.ToLower(text)
	if !slices.ContainsFunc(signs, func(sign string) bool { return strings.Contains(lower, sign) }) {
		return text
	}
	text = policy.HidePasswords(text)
	text = pemWhole.ReplaceAllString(text, "${1}"+hidden+"${2}")
	for _, s := range secrets {
		text = s.ReplaceAllString(text, "${1}"+hidden)
	}
	return text
}

// redactor hands a text on line by line without secrets.
type redactor struct {
	lines *bufio.Reader
	inKey bool
	rest  bytes.Buffer
	err   error
}

func newRedactor(r io.Reader) *redactor { return &redactor{lines: bufio.NewReaderSize(r, maxLine)} }

// Read implements io.Reader.
func (r *redactor) Read(p []byte) (int, error) {
	for r.rest.Len() == 0 {
		if r.err != nil {
			return 0, r.err
		}
		r.next()
	}
	return r.rest.Read(p)
}

// next puts the next line into rest.
func (r *redactor) next() {
	line, err := r.lines.ReadSlice('\n')
	cut := errors.Is(err, bufio.ErrBufferFull)
	if err != nil && !cut {
		r.err = err
	}
	text := string(line)
	if cut {
		for cut { // to the end of the line
			_, err = r.lines.ReadSlice('\n')
			cut = errors.Is(err, bufio.ErrBufferFull)
		}
		if err != nil {
			r.err = err
		}
		text = Redact(text) + " ...\n"
	}
	switch {
	case r.inKey && !pemEnd.MatchString(text):
		return // of a private key nothing is kept
	case r.inKey:
		r.inKey = false
		text = pemEnd.FindString(text) + "\n"
	case pemBegin.MatchString(text) && !pemEnd.MatchString(text):
		r.inKey = true
		text = Redact(text) + "\n"
	default:
		text = Redact(text)
	}
	r.rest.WriteString(text)
}
