module github.com/bulwarkhq/bulwark/bench/ahocorasick

go 1.26.8

replace github.com/bulwarkhq/bulwark => ../..

require (
	github.com/BobuSumisu/aho-corasick v1.0.3
	github.com/bulwarkhq/bulwark v0.0.0
	github.com/cloudflare/ahocorasick v0.0.0-20240916140611-054963ec9396
	github.com/petar-dambovaliev/aho-corasick v0.0.0-20250424160509-463d218d4745
	golang.org/x/sys v0.50.0
)
