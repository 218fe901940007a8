package portal

import "testing"

// Queries have the time that they may take, by every name of their addresses.
func TestTimeOf(t *testing.T) {
	for _, path := range []string{
		"/hunting/run", "/hunting/export", "/api/advancedqueries/run", "/api/advancedqueries/export", "/api/advancedhunting/run",
		"/api/v1.0/advancedqueries/run", "/api/v1.0/advancedqueries/export", "/api/v1.0/advancedhunting/run",
	} {
		if got := timeOf(path); got != huntTime+pageTime {
			t.Errorf("%s: %s", path, got)
		}
	}
	for _, path := range []string{"/", "/hunting", "/api/machines", "/api/v1.0/alerts"} {
		if got := timeOf(path); got != pageTime {
			t.Errorf("%s: %s", path, got)
		}
	}
}
