package account

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/bulwarkhq/bulwark/portal/inventory"
	"github.com/bulwarkhq/bulwark/portal/securitykey"
)

// MaxSecurityKeys bounds the keys of one user.
const MaxSecurityKeys = 10

// maxKeyName bounds the name of a key in bytes.
const maxKeyName = 64

// ceremony is a challenge that waits for its answer.
type ceremony struct {
	userID    string
	challenge *securitykey.Challenge
}

// What a challenge is for.
const (
	toRegister = "register"
	toProve    = "prove"
)

// ceremonyOf names the challenge of a session or a ticket: there is one of each
// purpose, and a new one takes the place of the one before.
func ceremonyOf(purpose, secret string) string { return purpose + " " + secret }

func (s *Service) begin(purpose, secret string, u User, c *securitykey.Challenge) {
	s.ceremonies.put(ceremonyOf(purpose, secret), ceremony{u.ID, c}, s.now())
}

// finish returns a challenge of the user's, once.
func (s *Service) finish(purpose, secret string, u User) (*securitykey.Challenge, error) {
	c, ok := s.ceremonies.take(ceremonyOf(purpose, secret), s.now())
	if !ok || c.userID != u.ID {
		return nil, ErrChallenge
	}
	return c.challenge, nil
}

// holderOf is the user as the keys know it.
func holderOf(u User, keys []SecurityKey) securitykey.User {
	h := securitykey.User{ID: u.ID, Name: u.Name}
	for _, k := range keys {
		h.Keys = append(h.Keys, k.Key)
	}
	return h
}

// SecurityKeys returns the keys of a user.
func (s *Service) SecurityKeys(ctx context.Context, u User) ([]SecurityKey, error) {
	keys, err := s.store.SecurityKeys(ctx, u.ID)
	if err != nil {
		return nil, fmt.Errorf("security keys of %s: %w", u.Name, err)
	}
	return keys, nil
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
	keys, err := s.SecurityKeys(ctx, u)
	if err != nil {
		return nil, err
	}
	return s.ask(u, keys, plain)
}

// Ask does the same for somebody who is signed in and has these keys.
func (s *Service) Ask(sess Session, u User, keys []SecurityKey) ([]byte, error) {
	return s.ask(u, keys, sess.CSRF)
}

func (s *Service) ask(u User, keys []SecurityKey, secret string) ([]byte, error) {
	if s.keys == nil || len(keys) == 0 {
		return nil, nil
	}
	options, challenge, err := s.keys.Ask(holderOf(u, keys))
	if err != nil {
		return nil, err
	}
	s.begin(toProve, secret, u, challenge)
	return options, nil
}

// acceptAnswer accepts what a key answered to the challenge of the secret.
func (s *Service) acceptAnswer(ctx context.Context, u User, answer, secret string, now time.Time) (string, error) {
	if s.keys == nil {
		return "", securitykey.ErrNoName
	}
	challenge, err := s.finish(toProve, secret, u)
	if err != nil {
		return "", err
	}
	keys, err := s.SecurityKeys(ctx, u)
	if err != nil {
		return "", err
	}
	k, err := s.keys.Answered(holderOf(u, keys), challenge, answer)
	if err != nil {
		return "", err
	}
	err = s.store.UseSecurityKey(ctx, u.ID, k, now)
	if errors.Is(err, ErrUsed) || errors.Is(err, ErrNotFound) {
		return "", fmt.Errorf("%w: %w", securitykey.ErrRefused, err)
	}
	return "security key", err
}

// BeginKey returns the options for navigator.credentials.create of a user who has
// these keys, in JSON; none when the portal has no security keys or the user has as
// many as there may be.
func (s *Service) BeginKey(sess Session, u User, keys []SecurityKey) ([]byte, error) {
	if s.keys == nil || u.Issuer != "" || len(keys) >= MaxSecurityKeys {
		return nil, nil
	}
	options, challenge, err := s.keys.Register(holderOf(u, keys))
	if err != nil {
		return nil, err
	}
	s.begin(toRegister, sess.CSRF, u, challenge)
	return options, nil
}

// AddKey registers a key: its name, what it answered to the challenge of BeginKey,
// the password and, if there is a second factor, a proof of it, which is spent only
// if everything else is right. It ends the other sessions of the user. The first
// second factor brings recovery codes, which it returns.
func (s *Service) AddKey(ctx context.Context, sess Session, u User, name, answer, password string, p Proof, address string) ([]string, error) {
	name = strings.TrimSpace(name)
	if name == "" || len(name) > maxKeyName || inventory.Clean(name, maxKeyName) != name {
		return nil, invalid("a security key's name is 1 to %d bytes of printable text", maxKeyName)
	}
	if s.keys == nil {
		return nil, securitykey.ErrNoName
	}
	if err := s.confirm(ctx, u, password, address); err != nil {
		return nil, err
	}
	challenge, err := s.finish(toRegister, sess.CSRF, u)
	if err != nil {
		return nil, err
	}
	keys, err := s.SecurityKeys(ctx, u)
	if err != nil {
		return nil, err
	}
	if len(keys) >= MaxSecurityKeys {
		return nil, invalid("there are %d security keys already: remove one first", MaxSecurityKeys)
	}
	k, err := s.keys.Registered(holderOf(u, keys), challenge, answer)
	if errors.Is(err, securitykey.ErrRefused) {
		return nil, s.refused(ctx, u, err, address, s.now())
	}
	if err != nil {
		return nil, err
	}
	if err := s.prove(ctx, sess, u, p, address); err != nil {
		return nil, err
	}
	plain, hashes := firstRecoveryCodes(u)
	now := s.now()
	err = s.store.AddSecurityKey(ctx, SecurityKey{UserID: u.ID, Name: name, Key: k, Created: now}, hashes, sess.Hash,
		Audit{Time: now, Actor: u.Name, Address: address, Action: "second-factor.add-key", Target: u.Name, Detail: name})
	if err != nil {
		return nil, fmt.Errorf("security key %q of %s: %w", name, u.Name, err)
	}
	return plain, nil
}

// RemoveKey removes a key, with the password and a proof, and ends the other
// sessions of the user; ErrLast when it is the only second factor.
func (s *Service) RemoveKey(ctx context.Context, sess Session, u User, id []byte, password string, p Proof, address string) error {
	if err := s.confirm(ctx, u, password, address); err != nil {
		return err
	}
	keys, err := s.SecurityKeys(ctx, u)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(keys, func(k SecurityKey) bool { return bytes.Equal(k.ID, id) })
	if i < 0 {
		return ErrNotFound
	}
	if err := s.prove(ctx, sess, u, p, address); err != nil {
		return err
	}
	err = s.store.RemoveSecurityKey(ctx, u.ID, id, sess.Hash, Audit{Time: s.now(), Actor: u.Name, Address: address, Action: "second-factor.remove-key", Target: u.Name, Detail: keys[i].Name})
	if err != nil {
		return fmt.Errorf("security key %q of %s: %w", keys[i].Name, u.Name, err)
	}
	return nil
}
