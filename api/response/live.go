package response

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/bulwarkhq/bulwark/event"
)

// LiveCommand is one command of a live response session.
type LiveCommand struct {
	// Line is what was typed, for "Shell"; the other types carry parameters.
	Type string // Shell, RunScript, GetFile, PutFile
	// Shell.
	Line string `json:",omitempty"`
	// RunScript and PutFile: a file of the library.
	Name   string `json:",omitempty"`
	SHA256 string `json:",omitempty"`
	// RunScript.
	Args string `json:",omitempty"`
	// GetFile: what to fetch. PutFile: the folder, empty for the session's.
	Path string `json:",omitempty"`
	// PutFile.
	Overwrite bool `json:",omitempty"`
	Keep      bool `json:",omitempty"`
}

// String is the command as the transcript has it.
func (c LiveCommand) String() string {
	switch c.Type {
	case LiveRunScript:
		return strings.TrimSpace("run " + c.Name + " " + c.Args)
	case LiveGetFile:
		return "getfile " + c.Path
	case LivePutFile:
		return "putfile " + c.Name
	}
	return c.Line
}

// Types of LiveCommand.
const (
	LiveShell     = "Shell"
	LiveRunScript = "RunScript"
	LiveGetFile   = "GetFile"
	LivePutFile   = "PutFile"
)

// LiveParameters are those of LiveResponse: commands of a session, which are
// done in their order until one fails.
type LiveParameters struct {
	Session  string
	Commands []LiveCommand
}

// LiveOutput is what one command came to.
type LiveOutput struct {
	Command  string
	Status   string // Completed, Failed
	Output   string `json:",omitempty"`
	Error    string `json:",omitempty"`
	ExitCode *int   `json:",omitempty"`
	// Cut: the output was longer than what is kept.
	Cut bool `json:",omitempty"`
	// Folder is the session's current one after the command.
	Folder string
}

// LiveResult is the result of LiveResponse.
type LiveResult struct{ Commands []LiveOutput }

// Limits of live response.
const (
	MaxLiveCommands = 20
	MaxLiveLine     = 8 << 10
	MaxLiveOutput   = 256 << 10 // of one command, in bytes
	// MaxPutFile and MaxLibraryFile are those of the reference product for hosts
	// other than Windows.
	MaxPutFile     = 10 << 20
	MaxLibraryFile = 250 << 20
	MaxGetFile     = 3 << 30
)

// CheckLive checks commands of a session.
func CheckLive(p LiveParameters) error {
	if p.Session == "" || len(p.Session) > 64 || !event.IsHex(p.Session, len(p.Session)) {
		return errors.New("the session has no id")
	}
	if len(p.Commands) == 0 || len(p.Commands) > MaxLiveCommands {
		return fmt.Errorf("%d commands: between 1 and %d are possible", len(p.Commands), MaxLiveCommands)
	}
	files := 0
	for i, c := range p.Commands {
		var err error
		switch c.Type {
		case LiveShell:
			if strings.TrimSpace(c.Line) == "" || len(c.Line) > MaxLiveLine {
				err = errors.New("a command line of at most 8 KiB is wanted")
			}
		case LiveRunScript, LivePutFile:
			if err = CheckLibraryName(c.Name); err == nil && !event.IsHex(c.SHA256, 64) {
				err = errors.New("the SHA-256 of the library's file is missing")
			}
			if err == nil {
				err = CheckScriptArguments(c.Args)
			}
		case LiveGetFile:
			files++
			if !strings.HasPrefix(c.Path, "/") || len(c.Path) > 4096 {
				err = errors.New("an absolute path is wanted")
			}
		default:
			err = fmt.Errorf("the type %.32q is not one of Shell, RunScript, GetFile, PutFile", c.Type)
		}
		if err != nil {
			return fmt.Errorf("command %d: %w", i+1, err)
		}
	}
	if files > 1 {
		return errors.New("one file can be fetched at a time")
	}
	return nil
}

// CheckLibraryName checks the name of a file of the library, with the
// characters that the reference product allows.
func CheckLibraryName(name string) error {
	if name == "" || len(name) > 128 || strings.HasPrefix(name, ".") || strings.HasPrefix(name, "-") {
		return fmt.Errorf("%.64q is no name of a library file: 1 to 128 letters, digits and .-_, beginning with a letter or digit", name)
	}
	for _, r := range name {
		if (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_' && r != '.' {
			return fmt.Errorf("%.64q is no name of a library file: it may have letters, digits and the characters .-_ only", name)
		}
	}
	return nil
}

// CheckScriptArguments refuses what a shell would take for more than an
// argument, as the reference product does; they are passed without one anyway.
func CheckScriptArguments(args string) error {
	if len(args) > 4096 {
		return errors.New("the arguments are longer than 4096 bytes")
	}
	if i := strings.IndexAny(args, ";&|!$\n\x00"); i >= 0 {
		return fmt.Errorf("the arguments contain %q: ; & | ! $ are not allowed", args[i])
	}
	return nil
}

// DecodeLive reads and checks parameters.
func DecodeLive(raw []byte) (LiveParameters, error) {
	var p LiveParameters
	if err := json.Unmarshal(raw, &p); err != nil {
		return p, fmt.Errorf("parameters of the live response: %w", err)
	}
	return p, CheckLive(p)
}
