package onaccess

import (
	"hash/maphash"
	"sync"

	"github.com/bulwarkhq/bulwark/engine/verdict"
)

// fileKey names an inode.
type fileKey struct{ dev, ino uint64 }

func (s fileState) key() fileKey { return fileKey{s.dev, s.ino} }

// stamp is the state of definitions, policy and our own invalidations that a
// verdict belongs to.
type stamp struct{ generation, epoch uint64 }

const (
	cacheWays   = 8
	cacheShards = 64
)

// cacheEntry is 64 bytes; dev 0 and ino 0 is empty.
type cacheEntry struct {
	fileKey
	ctime, size int64
	stamp       stamp
	used        uint32 // shard clock at last use
	until       uint32 // in s since Watcher.born; 0: for as long as the content stays
	infected    bool
}

// cache keeps verdicts of files by what identifies their content. It is a
// fixed table, allocated once: each inode has eight places, of which the
// longest unused is given up. It only ever forgets; a wrong answer would need
// a change of content that leaves device, inode, change time and size as they
// were, and that is excluded before an entry is made (see commit.go).
type cache struct {
	seed   uint64
	sets   uint64 // power of two
	table  []cacheEntry
	shards [cacheShards]struct {
		sync.Mutex
		clock uint32
		_     [48]byte // keep the locks on cache lines of their own
	}

	// The verdicts of files with matches are few and big.
	mu       sync.Mutex
	infected map[fileKey]*verdict.Verdict
}

const maxInfected = 1024

func newCache(entries int) *cache {
	sets := uint64(cacheShards)
	for sets*cacheWays < uint64(entries) {
		sets *= 2
	}
	return &cache{
		seed: secretSeed() | 1, sets: sets,
		table:    make([]cacheEntry, sets*cacheWays),
		infected: make(map[fileKey]*verdict.Verdict),
	}
}

// secretSeed is a number that users cannot know.
func secretSeed() uint64 {
	return maphash.Bytes(maphash.MakeSeed(), nil)
}

// set returns the places of a key and the index of their lock. The seed keeps
// users, who choose inode numbers on their own file systems, from filling one
// set on purpose.
func (c *cache) set(k fileKey) ([]cacheEntry, int) {
	h := (k.ino ^ k.dev<<32 ^ k.dev>>32) * c.seed
	h ^= h >> 32
	h *= 0x9e3779b97f4a7c15
	i := h >> 20 & (c.sets - 1)
	return c.table[i*cacheWays : (i+1)*cacheWays], int(i % cacheShards)
}

// get reports whether a verdict for this very content is known, and until when it
// is kept (0: for as long as the content stays). Times are in s since Watcher.born;
// at is now.
func (c *cache) get(s fileState, now stamp, at uint32) (known, infected bool, until uint32) {
	places, lock := c.set(s.key())
	sh := &c.shards[lock]
	sh.Lock()
	defer sh.Unlock()
	for i := range places {
		e := &places[i]
		if e.ino == s.ino && e.dev == s.dev {
			if e.ctime != s.ctime || e.size != s.size || e.stamp != now || e.until != 0 && at >= e.until {
				return false, false, 0
			}
			sh.clock++
			e.used = sh.clock
			return true, e.infected, e.until
		}
	}
	return false, false, 0
}

// put keeps a verdict, until a time in s since Watcher.born or, with 0, for as
// long as the content stays.
func (c *cache) put(s fileState, now stamp, v verdict.Verdict, until uint32) {
	if v.Infected() {
		c.mu.Lock()
		for k := range c.infected {
			if len(c.infected) < maxInfected {
				break
			}
			delete(c.infected, k)
		}
		c.infected[s.key()] = &v
		c.mu.Unlock()
	}
	places, lock := c.set(s.key())
	sh := &c.shards[lock]
	sh.Lock()
	defer sh.Unlock()
	sh.clock++
	victim := &places[0]
	for i := range places {
		e := &places[i]
		if e.fileKey == s.key() {
			victim = e
			break
		}
		// Differences, so that the clock may wrap.
		if sh.clock-e.used > sh.clock-victim.used {
			victim = e
		}
	}
	*victim = cacheEntry{fileKey: s.key(), ctime: s.ctime, size: s.size, stamp: now, used: sh.clock, until: until, infected: v.Infected()}
}

// verdict returns the matches of a file that get called infected; nil when
// they had to make room.
func (c *cache) verdict(k fileKey) *verdict.Verdict {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.infected[k]
}

// forget drops what is known about an inode.
func (c *cache) forget(k fileKey) {
	places, lock := c.set(k)
	sh := &c.shards[lock]
	sh.Lock()
	defer sh.Unlock()
	for i := range places {
		if places[i].fileKey == k {
			places[i] = cacheEntry{used: sh.clock - 1<<31}
		}
	}
}
