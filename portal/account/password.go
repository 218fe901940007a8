package account

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/crypto/argon2"
)

// HashCost is the cost of a password hash.
type HashCost struct {
	Time    uint32 // passes
	Memory  uint32 // KiB
	Threads uint8
}

// DefaultHashCost is above the floor that OWASP's password storage sheet gives
// for argon2id (19 MiB, 2 passes).
func DefaultHashCost() HashCost { return HashCost{Time: 3, Memory: 32 << 10, Threads: 1} }

// Limits of a password, in bytes.
const (
	MinPassword = 12
	MaxPassword = 256
)

// hashPassword returns the PHC string of the password.
func hashPassword(password string, c HashCost) string {
	salt := make([]byte, 16)
	rand.Read(salt) // never fails
	key := argon2.IDKey([]byte(password), salt, c.Time, c.Memory, c.Threads, 32)
	b64 := base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, c.Memory, c.Time, c.Threads,
		b64.EncodeToString(salt), b64.EncodeToString(key))
}

// errHash means that a stored hash cannot be read.
var errHash = errors.New("the stored password hash is not an argon2id string")

// parseHash reads a PHC string. Costs are bounded: a damaged or planted value
// must not be able to exhaust the portal.
func parseHash(phc string) (c HashCost, salt, key []byte, err error) {
	if len(phc) > 512 {
		return c, nil, nil, errHash
	}
	parts := strings.Split(phc, "$")
	if len(parts) != 6 || parts[0] != "" || parts[1] != "argon2id" || parts[2] != "v="+strconv.Itoa(argon2.Version) {
		return c, nil, nil, errHash
	}
	for kv := range strings.SplitSeq(parts[3], ",") {
		k, v, _ := strings.Cut(kv, "=")
		n, err := strconv.ParseUint(v, 10, 32)
		if err != nil {
			return c, nil, nil, errHash
		}
		switch k {
		case "m":
			c.Memory = uint32(n)
		case "t":
			c.Time = uint32(n)
		case "p":
			if n > 16 {
				return c, nil, nil, errHash
			}
			c.Threads = uint8(n)
		default:
			return c, nil, nil, errHash
		}
	}
	b64 := base64.RawStdEncoding
	if salt, err = b64.DecodeString(parts[4]); err != nil || len(salt) < 8 {
		return c, nil, nil, errHash
	}
	if key, err = b64.DecodeString(parts[5]); err != nil || len(key) < 16 {
		return c, nil, nil, errHash
	}
	if c.Time < 1 || c.Time > 16 || c.Memory < 8 || c.Memory > 1<<20 || c.Threads < 1 {
		return c, nil, nil, errHash
	}
	return c, salt, key, nil
}

// checkPassword reports whether the password has the hash, and the cost that
// the hash was made with.
func checkPassword(password, phc string) (bool, HashCost, error) {
	c, salt, key, err := parseHash(phc)
	if err != nil {
		return false, c, err
	}
	got := argon2.IDKey([]byte(password), salt, c.Time, c.Memory, c.Threads, uint32(len(key)))
	return subtle.ConstantTimeCompare(got, key) == 1, c, nil
}

// acceptable reports why a new password is refused, or nil.
func acceptable(password, name string) error {
	switch {
	case len(password) < MinPassword:
		return &WeakPassword{fmt.Sprintf("A password has at least %d characters.", MinPassword)}
	case len(password) > MaxPassword:
		return &WeakPassword{fmt.Sprintf("A password has at most %d bytes.", MaxPassword)}
	case strings.Contains(strings.ToLower(password), strings.ToLower(name)) && len(password) < len(name)+MinPassword:
		return &WeakPassword{"The password must not be built around the user name."}
	}
	seen := map[rune]bool{}
	for _, r := range password {
		seen[r] = true
	}
	if len(seen) < 5 {
		return &WeakPassword{"The password repeats too few characters: use at least 5 different ones."}
	}
	return nil
}

// oneTimeAlphabet has no letters that are taken for one another.
const oneTimeAlphabet = "abcdefghjkmnpqrstuvwxyz23456789"

// oneTimePassword returns 20 characters in groups of five: 99 bits.
func oneTimePassword() string {
	var b strings.Builder
	for i := range 20 {
		if i > 0 && i%5 == 0 {
			b.WriteByte('-')
		}
		b.WriteByte(oneTimeAlphabet[randomBelow(len(oneTimeAlphabet))])
	}
	return b.String()
}

// randomBelow returns a uniform number in [0, n), n <= 256.
func randomBelow(n int) int {
	limit := 256 - 256%n
	var b [1]byte
	for {
		rand.Read(b[:])
		if int(b[0]) < limit {
			return int(b[0]) % n
		}
	}
}
