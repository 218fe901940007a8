package indicator

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"
	"time"

	"github.com/klauspost/compress/zstd"

	api "github.com/bulwarkhq/bulwark/api/indicator"
)

// list is what the devices of a group get.
type list struct {
	version string
	packed  []byte // zstd of a JSON api.List; nil when it was let go
	made    time.Time
}

// Bounds of the lists in memory and of a part.
const (
	maxKept = 64 << 20 // bytes of all compressed lists
	maxPart = 1 << 20
)

// ErrOtherVersion means that a device should have another list by now.
var ErrOtherVersion = errors.New("the list of indicators is another one by now")

// CheckIn returns the version of the list that a device of a group should have,
// and keeps what it says it has.
func (s *Service) CheckIn(ctx context.Context, device, group, reported string, count int) (string, error) {
	l, err := s.listOf(ctx, group, false)
	if err != nil {
		return "", err
	}
	err = s.store.PutApplied(ctx, Applied{DeviceID: device, Wanted: l.version, Reported: reported, Count: count, Changed: s.now().UTC()})
	return l.version, err
}

// Part returns at most 1 MiB of the compressed list of a group, and its size.
func (s *Service) Part(ctx context.Context, group, version string, offset uint64) ([]byte, uint64, error) {
	l, err := s.listOf(ctx, group, true)
	if err != nil {
		return nil, 0, err
	}
	size := uint64(len(l.packed))
	if l.version != version || offset > size {
		return nil, 0, ErrOtherVersion
	}
	return l.packed[offset:min(size, offset+maxPart)], size, nil
}

// restFactor is how many times as long as it took to make the lists they are
// kept before they are made anew because of a change. So a program that adds
// indicators all the time to a list of 100,000 does not keep the portal busy;
// lists of ordinary size are made at once.
const restFactor = 20

// listOf returns the list of a group, with its bytes when they are wanted.
func (s *Service) listOf(ctx context.Context, group string, bytes bool) (list, error) {
	revision, err := s.store.IndicatorsRevision(ctx)
	if err != nil {
		return list{}, err
	}
	select {
	case s.building <- struct{}{}:
		defer func() { <-s.building }()
	case <-ctx.Done():
		return list{}, fmt.Errorf("waiting for the list of indicators: %w", ctx.Err())
	}
	now := s.now()
	// Who has waited may have read an older one than the lists are of.
	if revision > s.revision && !now.Before(s.rest) {
		if s.scoped, err = s.store.ScopedGroups(ctx); err != nil {
			return list{}, err
		}
		s.lists, s.revision = map[string]*list{}, revision
	}
	if !slices.Contains(s.scoped, group) {
		group = ""
	}
	if l := s.lists[group]; l != nil && (!bytes || l.packed != nil) {
		return *l, nil
	}
	start := time.Now()
	version, packed, err := s.build(ctx, group)
	if err != nil {
		return list{}, err
	}
	if took := time.Since(start) * restFactor; took > time.Second && now.Add(took).After(s.rest) {
		s.rest = now.Add(took)
	}
	l := &list{version: version, packed: packed, made: start}
	s.lists[group] = l
	s.letGo(l)
	return *l, nil
}

// letGo drops the bytes of the oldest lists while there are too many, but not
// those of one.
func (s *Service) letGo(but *list) {
	for {
		total := 0
		var oldest *list
		for _, l := range s.lists {
			total += len(l.packed)
			if l != but && l.packed != nil && (oldest == nil || l.made.Before(oldest.made)) {
				oldest = l
			}
		}
		if total <= maxKept || oldest == nil {
			return
		}
		oldest.packed = nil
	}
}

// sums counts and hashes what is written.
type sums struct {
	to   io.Writer
	hash hash.Hash
	size int
}

func (s *sums) Write(p []byte) (int, error) {
	if s.size += len(p); s.size > api.MaxBytes {
		return 0, fmt.Errorf("the list of indicators is larger than %d bytes", api.MaxBytes)
	}
	s.hash.Write(p)
	return s.to.Write(p)
}

// build makes the list of a group. Its version is a hash of what is in it: the
// same indicators have the same version. Those that have expired are left out;
// devices let the others expire by themselves.
func (s *Service) build(ctx context.Context, group string) (version string, packed []byte, err error) {
	var out bytes.Buffer
	enc, err := zstd.NewWriter(&out, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedDefault), zstd.WithWindowSize(4<<20))
	if err != nil {
		return "", nil, fmt.Errorf("compress the indicators: %w", err)
	}
	w := &sums{to: enc, hash: sha256.New()}
	now := s.now()
	_, err = io.WriteString(w, `{"indicators":[`)
	n := 0
	if err == nil {
		err = s.store.EachIndicator(ctx, group, func(i *Indicator) error {
			if !i.Expires.IsZero() && !now.Before(i.Expires) {
				return nil
			}
			data, err := json.Marshal(i.Wire())
			if err != nil {
				return err
			}
			if n++; n > 1 {
				data = append([]byte{','}, data...)
			}
			_, err = w.Write(data)
			return err
		})
	}
	if err != nil {
		return "", nil, fmt.Errorf("make the list of indicators: %w", errors.Join(err, enc.Close()))
	}
	version = hex.EncodeToString(w.hash.Sum(nil)[:16])
	_, err = fmt.Fprintf(w, `],"version":%q}`, version)
	if err = errors.Join(err, enc.Close()); err != nil {
		return "", nil, fmt.Errorf("make the list of indicators: %w", err)
	}
	return version, out.Bytes(), nil
}
