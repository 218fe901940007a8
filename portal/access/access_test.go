package access

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
)

func TestMay(t *testing.T) {
	restricted := NewPrincipal("user", "1", "ann", Administrator.Permissions())
	restricted.Restricted = true
	limited := NewPrincipal("user", "1", "ann", Administrator.Permissions())
	limited.Groups = []string{"g"}
	for _, x := range []struct {
		name string
		p    Principal
		want Permission
		may  bool
	}{
		{"nobody, public", Principal{}, Public, true},
		{"nobody, signed in", Principal{}, SignedIn, false},
		{"nobody with permissions", NewPrincipal("", "", "", Administrator.Permissions()), AlertRead, false},
		{"reader reads", NewPrincipal("user", "", "", Reader.Permissions()), AlertRead, true},
		{"reader writes", NewPrincipal("user", "", "", Reader.Permissions()), AlertWrite, false},
		{"writing includes reading", NewPrincipal("token", "", "", []Permission{AlertWrite}), AlertRead, true},
		{"reading does not include writing", NewPrincipal("token", "", "", []Permission{AlertRead}), AlertWrite, false},
		{"writing alerts is not reading machines", NewPrincipal("token", "", "", []Permission{AlertWrite}), MachineRead, false},
		{"must change the password", restricted, AlertRead, false},
		{"may change the password", restricted, SignedIn, true},
		{"limited to devices, isolates them", limited, MachineIsolate, true},
		{"limited to devices, reads policies", limited, PolicyRead, true},
		{"limited to devices, changes policies", limited, PolicyWrite, false},
		{"limited to devices, makes users", limited, UserManage, false},
		{"limited to devices, reads settings", limited, SettingsRead, false},
		{"a responder reads settings", NewPrincipal("user", "", "", Responder.Permissions()), SettingsRead, false},
		{"an administrator reads settings", NewPrincipal("user", "", "", Administrator.Permissions()), SettingsRead, true},
	} {
		if got := x.p.May(x.want); got != x.may {
			t.Errorf("%s: %v", x.name, got)
		}
	}
	for _, s := range Scopes() {
		if s == TokenManage || s == AuditRead {
			t.Errorf("an API token may carry %s", s)
		}
	}
}

func TestRouter(t *testing.T) {
	var who Principal
	var fail error
	denied := 0
	r := NewRouter(func(*http.Request) (Principal, error) { return who, fail }, func(w http.ResponseWriter, _ *http.Request, _ Principal, _ error) {
		denied++
		w.WriteHeader(http.StatusForbidden)
	})
	r.Handle("GET /public", Public, func(http.ResponseWriter, *http.Request) {})
	r.Handle("GET /alerts", AlertRead, func(_ http.ResponseWriter, req *http.Request) {
		if From(req.Context()).Name != "ann" {
			t.Error("the handler does not see the principal")
		}
	})
	call := func(path string) int {
		rec := httptest.NewRecorder()
		r.ServeHTTP(rec, httptest.NewRequestWithContext(t.Context(), "GET", path, nil))
		return rec.Code
	}
	for _, x := range []struct {
		p      Principal
		err    error
		path   string
		status int
	}{
		{Principal{}, ErrNoCredentials, "/public", 200},
		{Principal{}, ErrBadCredentials, "/public", 200},
		{Principal{}, errors.New("the store failed"), "/public", 403},
		{Principal{}, ErrNoCredentials, "/alerts", 403},
		{NewPrincipal("user", "", "ann", Reader.Permissions()), nil, "/alerts", 200},
		{NewPrincipal("user", "", "ann", nil), nil, "/alerts", 403},
		{NewPrincipal("user", "", "ann", Reader.Permissions()), ErrBadCredentials, "/alerts", 403},
	} {
		who, fail = x.p, x.err
		if got := call(x.path); got != x.status {
			t.Errorf("%+v %v %s: %d", x.p, x.err, x.path, got)
		}
	}
	if denied != 4 {
		t.Errorf("denied %d times", denied)
	}
}

func TestParse(t *testing.T) {
	if s, err := ParseScope(" machine.read.all "); err != nil || s != MachineRead {
		t.Errorf("%v %v", s, err)
	}
	if _, err := ParseScope("Audit.Read.All"); err == nil {
		t.Error("a permission that is no scope was accepted")
	}
	if r, err := ParseRole("Analyst"); err != nil || r != Analyst {
		t.Errorf("%v %v", r, err)
	}
	for _, r := range Roles() {
		if got, err := ParseRole(string(r)); err != nil || got != r || len(r.Permissions()) == 0 {
			t.Errorf("role %s: %v", r, err)
		}
	}
	if _, err := ParseRole("root"); err == nil {
		t.Error("an unknown role was accepted")
	}
}
