package agent

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
)

// hashFile returns the SHA-256 of f's content in hex. It reads by offset and
// leaves f's position alone.
func hashFile(ctx context.Context, f io.ReaderAt) (string, error) {
	h := sha256.New()
	buf := make([]byte, 256<<10)
	for off := int64(0); ; {
		if err := ctx.Err(); err != nil {
			return "", err
		}
		n, err := f.ReadAt(buf, off)
		h.Write(buf[:n])
		off += int64(n)
		if err == io.EOF {
			return hex.EncodeToString(h.Sum(nil)), nil
		}
		if err != nil {
			return "", err
		}
	}
}
