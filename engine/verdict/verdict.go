// Package verdict is the answer of the scan engine about one file. It has no
// dependencies so that everything that handles answers (the daemon, the
// command line, the portal's evidence) can import it without the engine.
package verdict

// Type says what kind of threat a signature names.
type Type string

// The threat types; the words are those of threatTypeSettings in the managed
// configuration.
const (
	Malware     Type = "malware"
	PUA         Type = "potentially_unwanted_application"
	ArchiveBomb Type = "archive_bomb"
	Test        Type = "test" // EICAR and the like: treated as malware, named as a test
)

// Limit names a bound that cut a scan short.
type Limit string

// The limits. A verdict with a limit is never "clean" without that mark.
const (
	LimitDepth Limit = "max_depth"
	LimitFiles Limit = "max_files"
	LimitBytes Limit = "max_bytes"
	LimitRatio Limit = "max_ratio"
	LimitTime  Limit = "max_time"
	LimitSize  Limit = "max_file_size"
	// LimitSteps: the condition of a rule asked for more work than one may.
	LimitSteps Limit = "max_steps"
	// Encrypted: a member could not be read without a password.
	Encrypted Limit = "encrypted"
	// Damaged: a container could not be read to its end.
	Damaged Limit = "damaged"
)

// Match is one signature that matched.
type Match struct {
	// Threat is the name to show, e.g. "Trojan:Linux/Example".
	Threat string `json:"threat"`
	Type   Type   `json:"type"`
	// Signature is the id in its source (signature or rule name), Source the
	// definitions file it came from.
	Signature string `json:"signature"`
	Source    string `json:"source"`
	// Inside is the way through containers to the object that matched, outermost
	// first and without the scanned file itself; empty when the file matched.
	Inside []string `json:"inside,omitempty"`
	// Offset of the first matched byte in that object; -1 when the match has
	// none (hash signatures).
	Offset int64 `json:"offset"`
}

// Verdict is the engine's answer about one file. The zero value with Size set
// is "clean".
type Verdict struct {
	Matches []Match `json:"matches,omitempty"`
	// Hashes of the scanned file, lower-case hex; SHA256 is always present when
	// there is a match, unless the file is larger than Limits.MaxSize; the others
	// only when computed.
	SHA256 string `json:"sha256,omitempty"`
	SHA1   string `json:"sha1,omitempty"`
	MD5    string `json:"md5,omitempty"`
	Size   int64  `json:"size"`
	// FileType is the detected format, e.g. "elf", "zip", "text".
	FileType string `json:"file_type,omitempty"`
	// Limits that cut the scan short, each once.
	Limits []Limit `json:"limits,omitempty"`
	// Objects and Bytes looked at, contents of containers included.
	Objects int   `json:"objects"`
	Bytes   int64 `json:"bytes"`
	// Engine and Definitions are the versions that answered.
	Engine      string `json:"engine,omitempty"`
	Definitions string `json:"definitions,omitempty"`
}

// Infected reports whether any signature matched.
func (v Verdict) Infected() bool { return len(v.Matches) > 0 }

// Complete reports whether everything was looked at, so that "no match" means
// clean.
func (v Verdict) Complete() bool { return len(v.Limits) == 0 }

// Primary is the match to name when there is room for one: the first malware
// or test match, else the first. It panics if there is none.
func (v Verdict) Primary() Match {
	for _, m := range v.Matches {
		if m.Type == Malware || m.Type == Test {
			return m
		}
	}
	return v.Matches[0]
}
