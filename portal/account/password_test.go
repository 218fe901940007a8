package account

import (
	"strings"
	"testing"
)

func TestHash(t *testing.T) {
	cost := HashCost{Time: 1, Memory: 64, Threads: 1}
	h := hashPassword("secret", cost)
	if good, c, err := checkPassword("secret", h); !good || c != cost || err != nil {
		t.Errorf("the right password: %v %v %v", good, c, err)
	}
	if good, _, err := checkPassword("Secret", h); good || err != nil {
		t.Errorf("another password: %v %v", good, err)
	}
	if hashPassword("secret", cost) == h {
		t.Error("two hashes of one password are the same: no salt")
	}
	for _, bad := range []string{
		"", "x", "$argon2i$v=19$m=64,t=1,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNoaGFzaA", "$argon2id$v=19$m=99999999,t=1,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNoaGFzaA",
		"$argon2id$v=19$m=64,t=0,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNoaGFzaA", "$argon2id$v=19$m=64,t=1,p=0$c2FsdHNhbHQ$aGFzaGhhc2hoYXNoaGFzaA", h + "$", strings.Repeat("$", 600),
	} {
		if _, _, err := checkPassword("secret", bad); err == nil {
			t.Errorf("%.60q was read", bad)
		}
	}
}

func FuzzHash(f *testing.F) {
	f.Add(hashPassword("x", HashCost{Time: 1, Memory: 8, Threads: 1}))
	f.Add("$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNoaGFzaA")
	f.Fuzz(func(t *testing.T, s string) {
		c, salt, key, err := parseHash(s)
		if err == nil && (c.Memory > 1<<20 || c.Time > 16 || c.Threads == 0 || len(salt) == 0 || len(key) == 0) {
			t.Fatalf("%q was read as %+v", s, c)
		}
	})
}
