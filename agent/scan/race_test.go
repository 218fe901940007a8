//go:build race

package scan

// The race detector reserves more memory than any limit of ours.
const raceEnabled = true
