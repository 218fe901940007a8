package enroll

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"golang.org/x/time/rate"

	"github.com/bulwarkhq/bulwark/api/agent/v1/agentv1connect"
	"github.com/bulwarkhq/bulwark/api/onboarding"
	"github.com/bulwarkhq/bulwark/portal/pki"
)

// Limits of a token.
const (
	DefaultTokenValidity = 30 * 24 * time.Hour
	MaxTokenValidity     = 366 * 24 * time.Hour
	tokenPrefix          = "bwt_"
	maxTags              = 32
)

// Config is what a Service needs.
type Config struct {
	Store Store
	CA    *pki.Authority
	// OrgID identifies the organization; agents show it.
	OrgID string
	// PortalURL is the address that agents connect to, https://host[:port].
	PortalURL string
	// Version is the portal's version, for Ping.
	Version string
	// DefinitionsRoot returns the root metadata of the portal's definitions for
	// onboarding packages; nil where there are none.
	DefinitionsRoot func() ([]byte, error)
	Log             *slog.Logger
	// Now is the clock; time.Now when nil.
	Now func() time.Time
	// Rate limits enrollments a second over all devices; 50 when zero.
	Rate rate.Limit
}

// Service answers the EnrollmentService of the agent protocol and makes
// onboarding packages. It is safe for concurrent use.
type Service struct {
	cfg      Config
	all      *rate.Limiter
	failures *failureLimiter
}

// New returns a Service.
func New(cfg Config) *Service {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Rate == 0 {
		cfg.Rate = 50
	}
	return &Service{cfg: cfg, all: rate.NewLimiter(cfg.Rate, max(4*int(cfg.Rate), 1)), failures: newFailureLimiter(cfg.Now)}
}

// Handler returns the path prefix and the handler to mount on the portal's
// server. The server's TLS configuration must be that of Config.CA.
func (s *Service) Handler() (string, http.Handler) {
	path, h := agentv1connect.NewEnrollmentServiceHandler((*handler)(s), handlerOptions(s.cfg.Log, 64<<10)...)
	return path, withTLS(h)
}

// PackageSpec says what onboarding package to make.
type PackageSpec struct {
	Name      string
	CreatedBy string
	// Validity of the token and package; DefaultTokenValidity when zero.
	Validity time.Duration
	// MaxUses limits the number of enrollments; 0 is unlimited.
	MaxUses int64
	// Tags are set on the devices that enroll.
	Tags []Tag
}

// SpecError is returned for a PackageSpec of which nothing can be made.
type SpecError struct{ Field, Message string }

func (e *SpecError) Error() string { return "onboarding package: " + e.Message }

// NewPackage makes an enrollment token and returns it with the text of the
// onboarding package, which alone holds the secret.
func (s *Service) NewPackage(ctx context.Context, spec PackageSpec) (Token, []byte, error) {
	if spec.Validity == 0 {
		spec.Validity = DefaultTokenValidity
	}
	switch {
	case spec.Validity < time.Minute || spec.Validity > MaxTokenValidity:
		return Token{}, nil, &SpecError{"validity", fmt.Sprintf("validity %s is not between 1 minute and %d days", spec.Validity, MaxTokenValidity/(24*time.Hour))}
	case spec.MaxUses < 0:
		return Token{}, nil, &SpecError{"uses", fmt.Sprintf("number of uses %d is negative", spec.MaxUses)}
	case len(spec.Name) > 200:
		return Token{}, nil, &SpecError{"name", "the name is longer than 200 bytes"}
	case len(spec.Tags) > maxTags:
		return Token{}, nil, &SpecError{"tags", fmt.Sprintf("%d tags, the limit is %d", len(spec.Tags), maxTags)}
	}
	id, err := randomHex(8)
	if err != nil {
		return Token{}, nil, err
	}
	secret, err := newSecret()
	if err != nil {
		return Token{}, nil, err
	}
	now := s.cfg.Now().UTC()
	t := Token{
		ID: id, Name: spec.Name, Hash: HashToken(secret), CreatedBy: spec.CreatedBy, Created: now,
		Expires: now.Add(spec.Validity), MaxUses: spec.MaxUses, Tags: spec.Tags,
	}
	p := onboarding.Package{OrgID: s.cfg.OrgID, Portal: s.cfg.PortalURL, EnrollmentToken: secret, Issued: now, Expires: t.Expires}
	if s.cfg.DefinitionsRoot != nil {
		root, err := s.cfg.DefinitionsRoot()
		if err != nil {
			return Token{}, nil, fmt.Errorf("onboarding package: %w", err)
		}
		p.DefinitionsRoot = root
	}
	for _, tag := range spec.Tags {
		p.Tags = append(p.Tags, onboarding.Tag{Key: tag.Key, Value: tag.Value})
	}
	text, err := s.cfg.CA.SignOnboarding(p)
	if err != nil {
		return Token{}, nil, err
	}
	if err := s.cfg.Store.CreateToken(ctx, t); err != nil {
		return Token{}, nil, fmt.Errorf("onboarding package: storing the token: %w", err)
	}
	return t, text, nil
}

// HashToken returns what is stored of a token's secret.
func HashToken(secret string) [32]byte { return sha256.Sum256([]byte(secret)) }

func newSecret() (string, error) {
	var b [32]byte
	if _, err := rand.Read(b[:]); err != nil {
		return "", fmt.Errorf("enrollment token: %w", err)
	}
	return tokenPrefix + base64.RawURLEncoding.EncodeToString(b[:]), nil
}

func randomHex(n int) (string, error) {
	b := make([]byte, n)
	if _, err := rand.Read(b); err != nil {
		return "", fmt.Errorf("random id: %w", err)
	}
	return hex.EncodeToString(b), nil
}

// tokenError is why a token is refused.
type tokenError struct {
	reason  string
	message string
}

func (e *tokenError) Error() string { return e.message }

// checkToken finds the token of a secret and judges it.
func (s *Service) checkToken(ctx context.Context, secret string) (Token, error) {
	const howTo = "make a new onboarding package in the portal (Onboarding) and put it on the host"
	if !strings.HasPrefix(secret, tokenPrefix) || len(secret) > 200 {
		return Token{}, &tokenError{"token_unknown", "this is not an enrollment token of this portal: " + howTo}
	}
	t, err := s.cfg.Store.TokenByHash(ctx, HashToken(secret))
	if errors.Is(err, ErrNotFound) {
		return Token{}, &tokenError{"token_unknown", "the enrollment token is not known to this portal (it may have been deleted after it expired): " + howTo}
	}
	if err != nil {
		return Token{}, fmt.Errorf("looking up the enrollment token: %w", err)
	}
	when := func(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 MST") }
	switch now := s.cfg.Now(); {
	case !t.Revoked.IsZero():
		return t, &tokenError{"token_revoked", fmt.Sprintf("enrollment token %s was revoked on %s: %s", t.ID, when(t.Revoked), howTo)}
	case now.After(t.Expires):
		return t, &tokenError{"token_expired", fmt.Sprintf("enrollment token %s expired on %s: %s", t.ID, when(t.Expires), howTo)}
	case t.MaxUses > 0 && t.Uses >= t.MaxUses:
		return t, &tokenError{"token_used_up", fmt.Sprintf("enrollment token %s was for %d devices and is used up: %s", t.ID, t.MaxUses, howTo)}
	}
	return t, nil
}
