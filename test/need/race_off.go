//go:build !race

package need

// RaceDetector says whether the test is built with it. It reserves more memory
// than any limit, and makes sync.Pool drop some of what it is given.
const RaceDetector = false
