package response

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
)

// ReleaseLifetime is how long a release token may be valid at most: what the
// reference product grants its own.
const ReleaseLifetime = 3 * 24 * time.Hour

// release is the signed part of a token.
type release struct {
	Device  string `json:"device"`
	Order   string `json:"order"`
	Expires int64  `json:"expires"` // Unix seconds
}

// tokenPrefix begins every token; the signature covers it.
const tokenPrefix = "bulwark-release-v1."

// maxToken bounds what is looked at, in bytes.
const maxToken = 1024

var encoding = base64.RawURLEncoding

// SignRelease makes a token that releases one device from one isolation until
// it expires.
func SignRelease(key ed25519.PrivateKey, device, order string, expires time.Time) (string, error) {
	body, err := json.Marshal(release{device, order, expires.Unix()})
	if err != nil {
		return "", fmt.Errorf("release token: %w", err)
	}
	signed := tokenPrefix + encoding.EncodeToString(body)
	return signed + "." + encoding.EncodeToString(ed25519.Sign(key, []byte(signed))), nil
}

// CheckRelease checks a token against the key of the isolation.
func CheckRelease(key []byte, token, device, order string, now time.Time) error {
	token = strings.TrimSpace(token)
	if len(token) > maxToken || !strings.HasPrefix(token, tokenPrefix) {
		return errors.New("this is not a release token: copy it whole from the action's page in the portal")
	}
	dot := strings.LastIndexByte(token, '.')
	if dot <= len(tokenPrefix) {
		return errors.New("the release token is cut off: copy it whole")
	}
	signature, err := encoding.DecodeString(token[dot+1:])
	if err != nil || len(key) != ed25519.PublicKeySize || !ed25519.Verify(key, []byte(token[:dot]), signature) {
		return errors.New("the release token is not of the portal that isolated this host, or of another isolation")
	}
	body, err := encoding.DecodeString(token[len(tokenPrefix):dot])
	if err != nil {
		return errors.New("the release token cannot be read")
	}
	var r release
	if err := json.Unmarshal(body, &r); err != nil {
		return errors.New("the release token cannot be read")
	}
	switch {
	case r.Device != device:
		return errors.New("the release token is for another device")
	case r.Order != order:
		return errors.New("the release token is for an earlier isolation of this device")
	case now.Unix() >= r.Expires:
		return fmt.Errorf("the release token expired at %s", time.Unix(r.Expires, 0).UTC().Format(time.RFC3339))
	}
	return nil
}
