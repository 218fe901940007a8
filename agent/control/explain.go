package control

import (
	"context"
	"net/http"

	api "github.com/bulwarkhq/bulwark/api/control"
)

// Explain says what is decided about a file.
type Explain interface {
	// Explain looks at the file at r.Path (clean and absolute): NotFound when
	// there is none, InvalidArgument when it is no regular file.
	Explain(ctx context.Context, r api.ExplainRequest) (api.Explanation, error)
}

func (s *Server) explainRoutes(h Explain) {
	// The answer has bytes of the file, and the daemon may read every file.
	change(s.part("explanations", h != nil), "POST /v1/explain", func(r *http.Request, in api.ExplainRequest) (api.Explanation, error) {
		for _, p := range []*api.Path{&in.Path, &in.Process} {
			if p == &in.Process && in.Process == "" {
				continue
			}
			clean, err := cleanPath(*p)
			if err != nil {
				return api.Explanation{}, err
			}
			*p = clean
		}
		return h.Explain(r.Context(), in)
	})
}
