package uplink

import (
	"errors"
	"io/fs"

	"github.com/bulwarkhq/bulwark/api/onboarding"
	"github.com/bulwarkhq/bulwark/atomicfile"
)

// packageFile is what is at the place of the onboarding package.
type packageFile struct {
	missing bool
	text    []byte
	err     error
}

// ReadPackage reads the onboarding package at path.
func ReadPackage(path string) (*onboarding.Package, error) {
	data, _ := readPackage(path)
	if data.missing {
		return nil, errors.New("there is no onboarding package at " + path)
	}
	if data.err != nil {
		return nil, data.err
	}
	return onboarding.Parse(data.text)
}

// readPackage reads the package with bounds. mark changes when what is there
// does.
func readPackage(path string) (p packageFile, mark string) {
	text, err := atomicfile.Read(path, onboarding.MaxBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return packageFile{missing: true}, "missing"
	}
	if err != nil {
		return packageFile{err: err}, err.Error()
	}
	return packageFile{text: text}, "text:" + string(text)
}
