package uplink

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/bulwarkhq/bulwark/api/onboarding"
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
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return packageFile{missing: true}, "missing"
	}
	if err != nil {
		return packageFile{err: err}, err.Error()
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		err = errors.Join(err, fmt.Errorf("%s is not a regular file", path))
		return packageFile{err: err}, err.Error()
	}
	text, err := io.ReadAll(io.LimitReader(f, onboarding.MaxBytes+1))
	if err != nil {
		return packageFile{err: fmt.Errorf("%s: %w", path, err)}, err.Error()
	}
	return packageFile{text: text}, "text:" + string(text)
}
