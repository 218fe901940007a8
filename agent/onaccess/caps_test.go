package onaccess

import (
	"strings"
	"testing"

	"github.com/bulwarkhq/bulwark/test/need"
)

func TestProbe(t *testing.T) {
	need.Root(t)
	all := probe(nil)
	if !all.Available || !all.Leases || !all.Statx {
		t.Fatalf("as root on a present kernel: %+v", all)
	}
	none := probe([]Feature{FeaturePermission, FeatureExecEvents, FeatureFilesystemMarks, FeatureEvictable, FeatureStatx})
	if none.Permission || none.ExecEvents || none.FilesystemMarks || none.Evictable || none.Statx || !none.Available {
		t.Errorf("switched off: %+v", none)
	}
}

func TestConfigErrorsAreNamed(t *testing.T) {
	_, err := New(Config{Mode: "strict", Workers: -1})
	for _, part := range []string{"Log is required", "Scan is required", `"strict"`, "Workers -1"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("error %v does not say %s", err, part)
		}
	}
}
