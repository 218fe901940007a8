package clamdb

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/big"
	"os"
	"strings"
)

// Keys are the two keys that ClamAV's databases are signed with.
type Keys struct {
	// Container signs the MD5 of a .cvd.
	Container *Key
	// Digest signs the SHA-256 of a .cdiff, and of the .info file that names the
	// members of a database with their sums.
	Digest *Key
}

// PublishedKeys are the keys of the official databases, as ClamAV publishes
// them in its sources.
func PublishedKeys() *Keys {
	n, _ := new(big.Int).SetString("14783905874077467090262228516557917570254599638376203532031989214105552847269687489771975792123442185817287694951949800908791527542017115600501303394778618535864845235700041590056318230102449612217458549016089313306591388590790796515819654102320725712300822356348724011232654837503241736177907784198700834440681124727060540035754699658105895050096576226753008596881698828185652424901921668758326578462003247906470982092298106789657211905488986281078346361469524484829559560886227198091995498440676639639830463593211386055065360288422394053998134458623712540683294034953818412458362198117811990006021989844180721010947", 10)
	return &Keys{Container: PublishedKey(), Digest: &Key{N: n, E: big.NewInt(100002053)}}
}

// ReadKeys reads the keys of an organisation that signs databases of its own:
// a file of two lines, "container MODULUS EXPONENT" and "digest MODULUS
// EXPONENT", in decimal. Empty lines and those that begin with # do not count.
func ReadKeys(path string) (*Keys, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("keys of ClamAV databases: %w", err)
	}
	if len(text) > 64<<10 {
		return nil, fmt.Errorf("keys of ClamAV databases: %s has %d bytes, which is no such file", path, len(text))
	}
	k := &Keys{}
	n := 0
	for line := range strings.Lines(string(text)) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		kind, rest, _ := strings.Cut(line, " ")
		key, err := ParseKey(rest)
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w", path, n, err)
		}
		switch kind {
		case "container":
			k.Container = key
		case "digest":
			if bits := key.N.BitLen(); bits != 8*pssBytes {
				return nil, fmt.Errorf("%s:%d: a digest key has %d bits, this one %d", path, n, 8*pssBytes, bits)
			}
			k.Digest = key
		default:
			return nil, fmt.Errorf("%s:%d: %.20q: want container or digest", path, n, kind)
		}
	}
	if k.Container == nil || k.Digest == nil {
		return nil, fmt.Errorf("%s: want one line for container and one for digest", path)
	}
	return k, nil
}

// Sizes of the probabilistic signature scheme.
const (
	pssBytes = 2048 / 8
	pssBlock = pssBytes - sha256.Size - 1
	pssSalt  = 32
)

// decode turns a signature's text into the number below the signature.
func (k *Key) decode(signature string) (*big.Int, error) {
	if len(signature) == 0 || len(signature) > headerBytes {
		return nil, fmt.Errorf("%w: no signature", ErrContainer)
	}
	c := new(big.Int)
	for i := len(signature) - 1; i >= 0; i-- {
		d := strings.IndexByte(signatureDigits, signature[i])
		if d < 0 {
			return nil, fmt.Errorf("%w: %q is no digit of a signature", ErrContainer, signature[i])
		}
		c.Lsh(c, 6).Or(c, big.NewInt(int64(d)))
	}
	if c.Cmp(k.N) >= 0 {
		return nil, fmt.Errorf("%w: the signature is not that of the key", ErrContainer)
	}
	return c.Exp(c, k.E, k.N), nil
}

// VerifyDigest checks the signature of a SHA-256 sum.
func (k *Key) VerifyDigest(sum [sha256.Size]byte, signature string) error {
	wrong := fmt.Errorf("%w: the signature is not that of the key", ErrContainer)
	m, err := k.decode(signature)
	if err != nil {
		return err
	}
	if m.BitLen() > 8*pssBytes {
		return wrong
	}
	block := m.FillBytes(make([]byte, pssBytes))
	masked, hash := block[:pssBlock], block[pssBlock:pssBytes-1]
	if block[pssBytes-1] != 0xbc {
		return wrong
	}
	data := PSSMask(hash)
	for i := range data {
		data[i] ^= masked[i]
	}
	data[0] &= 0x7f
	at := bytes.IndexByte(data, 1)
	if at < 0 || len(data)-at-1 != pssSalt {
		return wrong
	}
	if PSSHash(sum, data[at+1:]) != [sha256.Size]byte(hash) {
		return wrong
	}
	return nil
}

// PSSMask is the mask that the scheme makes from a hash; signers need it too.
func PSSMask(hash []byte) []byte {
	var out []byte
	for i := uint32(0); len(out) < pssBlock; i++ {
		sum := sha256.Sum256(binary.BigEndian.AppendUint32(bytes.Clone(hash), i))
		out = append(out, sum[:]...)
	}
	return out[:pssBlock]
}

// PSSHash is the hash that the scheme makes from a sum and a salt of 32 bytes.
func PSSHash(sum [sha256.Size]byte, salt []byte) [sha256.Size]byte {
	return sha256.Sum256(append(append(make([]byte, 8, 8+len(sum)+len(salt)), sum[:]...), salt...))
}

// EncodeSignature is the text of a number, as decode reads it.
func EncodeSignature(c *big.Int) string {
	c = new(big.Int).Set(c)
	var s strings.Builder
	for c.Sign() > 0 {
		s.WriteByte(signatureDigits[c.Bit(0)|c.Bit(1)<<1|c.Bit(2)<<2|c.Bit(3)<<3|c.Bit(4)<<4|c.Bit(5)<<5])
		c.Rsh(c, 6)
	}
	return s.String()
}
