package account

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/bulwarkhq/bulwark/portal/inventory"
	"github.com/bulwarkhq/bulwark/portal/securitykey"
)

// MaxSecurityKeys bounds the keys of one user.
const MaxSecurityKeys = 10

// maxKeyName bounds the name of a key in bytes.
const maxKeyName = 64

// maxCeremonies bounds the challenges that wait for an answer.
const maxCeremonies = 10_000

// ErrNoKeys means that the portal is not set up for security keys.
var ErrNoKeys = errors.New("security keys need a portal that is reached by a host name with a dot, or localhost (--portal-url)")

// ceremony is a challenge that waits for its answer. Like tickets, ceremonies are
// kept in memory.
type ceremony struct {
	userID    string
	challenge *securitykey.Challenge
	expires   time.Time
}

// What a challenge is for.
const (
	toRegister = "register"
	toProve    = "prove"
)

// ceremonyOf names the challenge of a session or a ticket: there is one of each
// purpose, and a new one takes the place of the one before.
func ceremonyOf(purpose, secret string) [32]byte {
	return sha256.Sum256([]byte(purpose + " " + secret))
}

func (s *Service) keep(k [32]byte, c ceremony) {
	now := s.now()
	c.expires = now.Add(securitykey.Lifetime)
	s.ceremonyMu.Lock()
	defer s.ceremonyMu.Unlock()
	if len(s.ceremonies) >= maxCeremonies {
		var oldest [32]byte
		var at time.Time
		for k, c := range s.ceremonies {
			if now.After(c.expires) {
				delete(s.ceremonies, k)
			} else if at.IsZero() || c.expires.Before(at) {
				oldest, at = k, c.expires
			}
		}
		if len(s.ceremonies) >= maxCeremonies {
			delete(s.ceremonies, oldest)
		}
	}
	s.ceremonies[k] = c
}

// take returns a challenge of the user's, once.
func (s *Service) take(k [32]byte, u User) (*securitykey.Challenge, error) {
	s.ceremonyMu.Lock()
	defer s.ceremonyMu.Unlock()
	c, ok := s.ceremonies[k]
	delete(s.ceremonies, k)
	if !ok || c.userID != u.ID || s.now().After(c.expires) {
		return nil, ErrChallenge
	}
	return c.challenge, nil
}

// holder is the user as the keys know it.
func (s *Service) holder(ctx context.Context, u User) (securitykey.User, error) {
	list, err := s.store.SecurityKeys(ctx, u.ID)
	if err != nil {
		return securitykey.User{}, fmt.Errorf("security keys of %s: %w", u.Name, err)
	}
	h := securitykey.User{ID: u.ID, Name: u.Name}
	for _, k := range list {
		h.Keys = append(h.Keys, k.Key)
	}
	return h, nil
}

// SecurityKeys returns the keys of a user.
func (s *Service) SecurityKeys(ctx context.Context, u User) ([]SecurityKey, error) {
	return s.store.SecurityKeys(ctx, u.ID)
}

// KeyHost is the name under which the portal has to be reached for security keys;
// empty when it has none.
func (s *Service) KeyHost() string {
	if s.keys == nil {
		return ""
	}
	return s.keys.Host()
}

// AskTicket returns the options for navigator.credentials.get of a sign-in that
// waits for the second factor, in JSON; none when the user has no key.
func (s *Service) AskTicket(ctx context.Context, plain string) ([]byte, error) {
	u, err := s.ticketUser(ctx, plain)
	if err != nil {
		return nil, err
	}
	return s.ask(ctx, u, plain)
}

// Ask does the same for somebody who is signed in.
func (s *Service) Ask(ctx context.Context, sess Session, u User) ([]byte, error) {
	return s.ask(ctx, u, sess.CSRF)
}

func (s *Service) ask(ctx context.Context, u User, secret string) ([]byte, error) {
	if s.keys == nil {
		return nil, nil
	}
	h, err := s.holder(ctx, u)
	if err != nil || len(h.Keys) == 0 {
		return nil, err
	}
	options, challenge, err := s.keys.Ask(h)
	if err != nil {
		return nil, err
	}
	s.keep(ceremonyOf(toProve, secret), ceremony{userID: u.ID, challenge: challenge})
	return options, nil
}

// acceptAnswer accepts what a key answered to the challenge of the secret.
func (s *Service) acceptAnswer(ctx context.Context, u User, answer, secret string, now time.Time) (string, error) {
	if s.keys == nil {
		return "", ErrNoKeys
	}
	challenge, err := s.take(ceremonyOf(toProve, secret), u)
	if err != nil {
		return "", err
	}
	h, err := s.holder(ctx, u)
	if err != nil {
		return "", err
	}
	k, err := s.keys.Answered(h, challenge, answer)
	if err != nil {
		return "", err
	}
	err = s.store.UseSecurityKey(ctx, u.ID, k, now)
	if errors.Is(err, ErrUsed) || errors.Is(err, ErrNotFound) {
		return "", fmt.Errorf("%w: %w", securitykey.ErrRefused, err)
	}
	return "security key", err
}

// BeginKey returns the options for navigator.credentials.create, in JSON; none
// when the portal has no security keys or the user has as many as there may be.
func (s *Service) BeginKey(ctx context.Context, sess Session, u User) ([]byte, error) {
	if s.keys == nil || u.Issuer != "" {
		return nil, nil
	}
	h, err := s.holder(ctx, u)
	if err != nil || len(h.Keys) >= MaxSecurityKeys {
		return nil, err
	}
	options, challenge, err := s.keys.Register(h)
	if err != nil {
		return nil, err
	}
	s.keep(ceremonyOf(toRegister, sess.CSRF), ceremony{userID: u.ID, challenge: challenge})
	return options, nil
}

// AddKey registers a key: its name, what it answered to the challenge of BeginKey,
// the password and, if there is a second factor, a proof of it. It ends the other
// sessions of the user. The first second factor brings recovery codes, which it
// returns.
func (s *Service) AddKey(ctx context.Context, sess Session, u User, name, answer, password string, p Proof, address string) ([]string, error) {
	name = strings.TrimSpace(name)
	if name == "" || len(name) > maxKeyName || inventory.Clean(name, maxKeyName) != name {
		return nil, invalid("a security key's name is 1 to %d bytes of printable text", maxKeyName)
	}
	if s.keys == nil {
		return nil, ErrNoKeys
	}
	if err := s.confirmWith(ctx, sess, u, password, p, address); err != nil {
		return nil, err
	}
	challenge, err := s.take(ceremonyOf(toRegister, sess.CSRF), u)
	if err != nil {
		return nil, err
	}
	h, err := s.holder(ctx, u)
	if err != nil {
		return nil, err
	}
	if len(h.Keys) >= MaxSecurityKeys {
		return nil, invalid("there are %d security keys already: remove one first", MaxSecurityKeys)
	}
	k, err := s.keys.Registered(h, challenge, answer)
	if err != nil {
		return nil, err
	}
	var plain []string
	var hashes [][32]byte
	if !u.SecondFactor {
		plain, hashes = newRecoveryCodes()
	}
	now := s.now()
	err = s.store.AddSecurityKey(ctx, SecurityKey{UserID: u.ID, Name: name, Key: k, Created: now}, hashes, sess.Hash,
		Audit{Time: now, Actor: u.Name, Address: address, Action: "second-factor.add-key", Target: u.Name, Detail: name})
	if err != nil {
		return nil, fmt.Errorf("security key %q of %s: %w", name, u.Name, err)
	}
	return plain, nil
}

// RemoveKey removes a key, with the password and a proof; ErrLast when it is the
// only second factor.
func (s *Service) RemoveKey(ctx context.Context, sess Session, u User, id []byte, password string, p Proof, address string) error {
	if err := s.confirmWith(ctx, sess, u, password, p, address); err != nil {
		return err
	}
	list, err := s.store.SecurityKeys(ctx, u.ID)
	if err != nil {
		return fmt.Errorf("security keys of %s: %w", u.Name, err)
	}
	for _, k := range list {
		if string(k.ID) != string(id) {
			continue
		}
		err := s.store.RemoveSecurityKey(ctx, u.ID, id, Audit{Time: s.now(), Actor: u.Name, Address: address, Action: "second-factor.remove-key", Target: u.Name, Detail: k.Name})
		if err != nil {
			return fmt.Errorf("security key %q of %s: %w", k.Name, u.Name, err)
		}
		return nil
	}
	return ErrNotFound
}
