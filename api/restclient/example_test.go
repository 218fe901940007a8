package restclient_test

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/bulwarkhq/bulwark/api/rest"
	"github.com/bulwarkhq/bulwark/api/restclient"
)

// openAlerts prints the alerts of a device that nobody has resolved.
func openAlerts(ctx context.Context, c *restclient.ClientWithResponses, device string) error {
	filter := "status ne 'Resolved' and machineId eq " + rest.Quote(device)
	order := "alertCreationTime desc"
	alerts := restclient.Pages(5000, func(top, skip *int) ([]restclient.Alert, *string, error) {
		r, err := c.ListAlertsWithResponse(ctx, &restclient.ListAlertsParams{Filter: &filter, Orderby: &order, Top: top, Skip: skip})
		if err != nil {
			return nil, nil, err
		}
		return r.JSON200.Value, r.JSON200.OdataNextLink, nil
	})
	for a, err := range alerts {
		if refused := new(restclient.Error); errors.As(err, &refused) && refused.Status == http.StatusForbidden {
			return fmt.Errorf("the token needs the scope Alert.Read.All: %w", err)
		} else if err != nil {
			return err
		}
		fmt.Println(a.Severity, a.Title)
	}
	return nil
}

// The alerts of a device; docs/portal/rest.md shows this. The server stands in for
// the portal.
func Example() {
	portal := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if r.Header.Get("Authorization") != "Bearer bwa_good" {
			w.WriteHeader(http.StatusForbidden)
			io.WriteString(w, `{"error":{"code":"Forbidden","message":"the token lacks the scope Alert.Read.All","target":"Authorization"}}`)
			return
		}
		io.WriteString(w, `{"@odata.context":"","value":[{"id":"1","severity":"High","title":"Reverse shell"},{"id":"2","severity":"Low","title":"New cron job"}]}`)
	}))
	defer portal.Close()
	roots := x509.NewCertPool()
	roots.AddCert(portal.Certificate())

	for _, token := range []string{"bwa_good", "bwa_other"} {
		c, err := restclient.New(portal.URL, token, roots)
		if err != nil {
			fmt.Println(err)
			return
		}
		if err := openAlerts(context.Background(), c, "0123456789abcdef0123456789abcdef01234567"); err != nil {
			fmt.Println(err)
		}
	}
	// Output:
	// High Reverse shell
	// Low New cron job
	// the token needs the scope Alert.Read.All: the portal refuses it: Authorization: the token lacks the scope Alert.Read.All (Forbidden)
}

// The documentation shows the function of the example as it is.
func TestDocumentationShowsExample(t *testing.T) {
	source, err := os.ReadFile("example_test.go")
	if err != nil {
		t.Fatal(err)
	}
	_, function, _ := strings.Cut(string(source), "func openAlerts(")
	function, _, ok := strings.Cut(function, "\n}\n")
	page, err := os.ReadFile("../../docs/portal/rest.md")
	if err != nil || !ok {
		t.Fatal(err, ok)
	}
	if !strings.Contains(string(page), "```go\nfunc openAlerts("+function+"\n}\n```\n") {
		t.Error("docs/portal/rest.md does not show openAlerts of example_test.go as it is")
	}
}

func TestAnswersOfOthers(t *testing.T) {
	form := "text/html"
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", form)
		io.WriteString(w, "<html>sign in")
	}))
	defer srv.Close()
	roots := x509.NewCertPool()
	roots.AddCert(srv.Certificate())
	c, err := restclient.New(srv.URL, "t", roots)
	if err != nil {
		t.Fatal(err)
	}
	if r, err := c.ListMachinesWithResponse(t.Context(), nil); err == nil || !strings.Contains(err.Error(), `GET /api/machines: the answer is "text/html"`) {
		t.Errorf("a page: %+v, %v", r, err)
	}
	form = "application/json"
	if r, err := c.ListMachinesWithResponse(t.Context(), nil); err == nil {
		t.Errorf("a page that says it is JSON: %+v", r)
	}
	if _, err := restclient.New("http://portal", "t", nil); err == nil {
		t.Error("without TLS: no error")
	}
}
