package release

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
)

// A delta is a zstd stream of instructions that write the new file from its
// beginning to its end:
//
//	"BWDELTA1"
//	1 <offset> <length>   copy from the old file
//	2 <length> <bytes>    take these
//	0                     the end
//
// Numbers are unsigned varints.
const (
	deltaMagic = "BWDELTA1"
	opEnd      = 0
	opCopy     = 1
	opAdd      = 2
)

const (
	// deltaBlock is the shortest piece of the old file that is found again.
	deltaBlock = 32
	// maxWindow bounds the memory of a decompression.
	maxWindow = 64 << 20
)

// ErrDelta is wrapped by the errors about deltas that are damaged or belong to
// another file.
var ErrDelta = errors.New("not a usable delta")

// WriteDelta writes the delta that makes new from old.
func WriteDelta(w io.Writer, old, new []byte) error {
	z, err := zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.SpeedBetterCompression), zstd.WithEncoderConcurrency(1))
	if err != nil {
		return fmt.Errorf("delta: %w", err)
	}
	out := bufio.NewWriterSize(z, 64<<10)
	_, err = out.WriteString(deltaMagic)
	if err == nil {
		err = writeOps(out, old, new)
	}
	if err = errors.Join(err, out.WriteByte(opEnd), out.Flush(), z.Close()); err != nil {
		return fmt.Errorf("delta: %w", err)
	}
	return nil
}

// rolling is the hash of a window that moves by a byte at a time.
type rolling struct{ sum, drop uint64 }

const rollingBase = 0x9E3779B97F4A7C15 | 1

func newRolling(window []byte) rolling {
	r := rolling{drop: 1}
	for range len(window) - 1 {
		r.drop *= rollingBase
	}
	for _, b := range window {
		r.sum = r.sum*rollingBase + uint64(b) + 1
	}
	return r
}

func (r *rolling) move(out, in byte) {
	r.sum = (r.sum-(uint64(out)+1)*r.drop)*rollingBase + uint64(in) + 1
}

func writeOps(w *bufio.Writer, old, new []byte) error {
	index := make(map[uint64]uint32, len(old)/deltaBlock)
	for at := 0; at+deltaBlock <= len(old) && at <= 1<<32-1; at += deltaBlock {
		h := newRolling(old[at : at+deltaBlock]).sum
		if _, ok := index[h]; !ok { // the first of equal blocks
			index[h] = uint32(at)
		}
	}
	literal, at := 0, 0 // new[literal:at] is not yet written
	var h rolling
	fresh := true
	for at+deltaBlock <= len(new) {
		if fresh {
			h, fresh = newRolling(new[at:at+deltaBlock]), false
		}
		from, ok := index[h.sum]
		if o := int(from); !ok || !bytes.Equal(old[o:o+deltaBlock], new[at:at+deltaBlock]) {
			if at+deltaBlock < len(new) {
				h.move(new[at], new[at+deltaBlock])
			}
			at++
			continue
		}
		start, source := at, int(from)
		for start > literal && source > 0 && old[source-1] == new[start-1] {
			start, source = start-1, source-1
		}
		end, tail := at+deltaBlock, int(from)+deltaBlock
		for end < len(new) && tail < len(old) && old[tail] == new[end] {
			end, tail = end+1, tail+1
		}
		if err := writeAdd(w, new[literal:start]); err != nil {
			return err
		}
		if err := writeOp(w, opCopy, uint64(source), uint64(end-start)); err != nil {
			return err
		}
		literal, at, fresh = end, end, true
	}
	return writeAdd(w, new[literal:])
}

func writeAdd(w *bufio.Writer, b []byte) error {
	if len(b) == 0 {
		return nil
	}
	if err := writeOp(w, opAdd, uint64(len(b))); err != nil {
		return err
	}
	_, err := w.Write(b)
	return err
}

func writeOp(w *bufio.Writer, op byte, numbers ...uint64) error {
	b := []byte{op}
	for _, n := range numbers {
		b = binary.AppendUvarint(b, n)
	}
	_, err := w.Write(b)
	return err
}

// ApplyDelta writes the file that a delta makes from old, whose size must be
// size: it stops as soon as there would be more. What was written is to be
// checked against the hash that the file must have.
func ApplyDelta(w io.Writer, delta io.Reader, old io.ReaderAt, size int64) error {
	z, err := newZstdReader(delta)
	if err != nil {
		return err
	}
	defer z.Close()
	in := bufio.NewReaderSize(z, 64<<10)
	magic := make([]byte, len(deltaMagic))
	if _, err := io.ReadFull(in, magic); err != nil || string(magic) != deltaMagic {
		return fmt.Errorf("%w: it does not begin as one", ErrDelta)
	}
	left := size
	for {
		op, err := in.ReadByte()
		if err != nil {
			return fmt.Errorf("%w: %w", ErrDelta, cut(err))
		}
		if op == opEnd {
			if left != 0 {
				return fmt.Errorf("%w: it ends %d bytes early", ErrDelta, left)
			}
			return nil
		}
		var at uint64
		if op == opCopy {
			if at, err = binary.ReadUvarint(in); err != nil {
				return fmt.Errorf("%w: %w", ErrDelta, cut(err))
			}
		} else if op != opAdd {
			return fmt.Errorf("%w: unknown instruction %d", ErrDelta, op)
		}
		n, err := binary.ReadUvarint(in)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrDelta, cut(err))
		}
		if n == 0 || n > uint64(left) || at > 1<<62 {
			return fmt.Errorf("%w: an instruction for %d bytes where %d are left", ErrDelta, n, left)
		}
		var from io.Reader = in
		if op == opCopy {
			from = io.NewSectionReader(old, int64(at), int64(n))
		}
		if _, err := io.CopyN(w, from, int64(n)); err != nil {
			return fmt.Errorf("%w: %w", ErrDelta, cut(err))
		}
		left -= int64(n)
	}
}

func newZstdReader(r io.Reader) (*zstd.Decoder, error) {
	z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderLowmem(true))
	if err != nil {
		return nil, fmt.Errorf("zstd: %w", err)
	}
	return z, nil
}

// cut is the error of data that ends too early.
func cut(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
