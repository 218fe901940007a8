package sample

import (
	"archive/zip"
	"crypto/rand"
	"fmt"
	"hash/crc32"
	"io"
	"time"
)

// Password opens the zips, as is the custom: it keeps programs from looking
// inside and people from opening one without meaning to. It is no secret.
const Password = "infected"

// writeZip writes an archive of one file with the traditional encryption of
// APPNOTE 6.3.10, section 6.1, which every unzip program knows. content is
// called twice.
func writeZip(w io.Writer, name string, modified time.Time, content func(io.Writer) error) error {
	sum, size := crc32.NewIEEE(), counter(0)
	if err := content(io.MultiWriter(sum, &size)); err != nil {
		return err
	}
	archive := zip.NewWriter(w)
	const encrypted = 1
	out, err := archive.CreateRaw(&zip.FileHeader{
		Name: name, Method: zip.Store, Flags: encrypted, Modified: modified.UTC(), CRC32: sum.Sum32(),
		CompressedSize64: uint64(size) + headerSize, UncompressedSize64: uint64(size),
	})
	if err != nil {
		return fmt.Errorf("zip: %w", err)
	}
	c := newZipCipher(out)
	header := make([]byte, headerSize)
	rand.Read(header) // never fails
	header[headerSize-1] = byte(sum.Sum32() >> 24)
	if _, err := c.Write(header); err != nil {
		return fmt.Errorf("zip: %w", err)
	}
	if err := content(c); err != nil {
		return err
	}
	if err := archive.Close(); err != nil {
		return fmt.Errorf("zip: %w", err)
	}
	return nil
}

// headerSize is the encryption header: random bytes and one to check the
// password by.
const headerSize = 12

type counter int64

func (c *counter) Write(b []byte) (int, error) {
	*c += counter(len(b))
	return len(b), nil
}

// zipCipher encrypts what is written.
type zipCipher struct {
	w    io.Writer
	keys [3]uint32
	buf  []byte
}

func newZipCipher(w io.Writer) *zipCipher {
	c := &zipCipher{w: w, keys: [3]uint32{0x12345678, 0x23456789, 0x34567890}}
	for _, b := range []byte(Password) {
		c.update(b)
	}
	return c
}

func (c *zipCipher) update(b byte) {
	crc := func(k uint32, b byte) uint32 { return crc32.IEEETable[byte(k)^b] ^ k>>8 }
	c.keys[0] = crc(c.keys[0], b)
	c.keys[1] = (c.keys[1]+c.keys[0]&0xff)*134775813 + 1
	c.keys[2] = crc(c.keys[2], byte(c.keys[1]>>24))
}

// Write encrypts and writes.
func (c *zipCipher) Write(b []byte) (int, error) {
	c.buf = append(c.buf[:0], b...)
	for i, plain := range b {
		k := c.keys[2] | 2
		c.buf[i] ^= byte(k * (k ^ 1) >> 8)
		c.update(plain)
	}
	return c.w.Write(c.buf)
}
