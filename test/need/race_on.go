//go:build race

package need

// RaceDetector: see race_off.go.
const RaceDetector = true
