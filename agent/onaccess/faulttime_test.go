package onaccess

import (
	"os"
	"time"
)

// faultTime is how long the randomized fault tests run (BULWARK_FAULTS, a
// duration); 0 is a few seconds each.
var faultTime, _ = time.ParseDuration(os.Getenv("BULWARK_FAULTS"))
